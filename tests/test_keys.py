"""A key file holds one key. What else a file holds is printed and logged nowhere."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bucket import Bucket, BucketError, S3Endpoint
from dag import proof
from tests.support.archive import Archive
from tests.support.faulty_s3 import Fault, FaultyS3

HIDDEN = "s3cr3t/Key"
FORMATS = {
    "credentials": "[default]\n"
    "aws_access_key_id = AKIAXXXX\n"
    f"aws_secret_access_key = {HIDDEN}\n",
    "windows": f"[default]\r\naws_secret_access_key={HIDDEN}\r\n",
    "csv": f"Access key ID,Secret access key\nAKIAXXXX,{HIDDEN}\n",
    "csv-line": f"AKIAXXXX,{HIDDEN}",
    "json": f'{{"AccessKeyId":"AKIAXXXX","SecretAccessKey":"{HIDDEN}"}}',
    "shell": f"export AWS_SECRET_ACCESS_KEY='{HIDDEN}'",
    "setting": f"aws_secret_access_key={HIDDEN}",
    "two-words": f"AKIAXXXX {HIDDEN}",
    "two-lines": f"AKIAXXXX\n{HIDDEN}\n",
    "umlaut": f"{HIDDEN}ü",
    "byte-order-mark": f"\ufeff{HIDDEN}",
    "nul": f"AKIAXXXX\0{HIDDEN}",
    "escape": f"AKIAXXXX\x1b[2J{HIDDEN}",
    "latin-1": b"AKIAXXXX\xfc" + HIDDEN.encode(),
}


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "written.key"
    file.touch(mode=0o600)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


@pytest.mark.parametrize("text", FORMATS.values(), ids=FORMATS)
def test_another_format_is_refused_and_not_quoted(
    tmp_path: Path, store: S3Endpoint, text: str | bytes
):
    other = replace(store, access_key=written(tmp_path, text))
    with pytest.raises(BucketError, match="one key and nothing else") as refusal:
        Bucket(other, "maps")
    assert HIDDEN not in str(refusal.value)


MANY_WORDS = sorted(FORMATS.keys() - {"csv-line", "json", "setting"})


@pytest.mark.parametrize("format_name", MANY_WORDS)
def test_the_secret_key_and_the_token_are_one_word(
    tmp_path: Path, store: S3Endpoint, format_name: str
):
    file = written(tmp_path, FORMATS[format_name])
    for other in (replace(store, secret_key=file), replace(store, session_token=file)):
        with pytest.raises(BucketError, match="one key and nothing else") as refusal:
            Bucket(other, "maps")
        assert HIDDEN not in str(refusal.value)
    with pytest.raises(BucketError, match="one key and nothing else"):
        proof.of(replace(store, secret_key=file), "fact")


@pytest.fixture
def everything_written(archive: Archive) -> Iterator[list[str]]:
    """Yield a list; in the end, nothing in it and in the launch's files is secret."""
    outputs: list[str] = []
    yield outputs
    for file in archive.directory.rglob("*"):
        if file.is_file() and file.suffix != ".key":
            assert HIDDEN.encode() not in file.read_bytes(), file
    assert HIDDEN not in "".join(outputs)


def record(outputs: list[str], done: subprocess.CompletedProcess) -> None:
    outputs += [done.stdout, done.stderr]


@pytest.mark.parametrize("option", ["-a", "-s", "--session-token"])
def test_a_launch_says_what_a_key_file_must_hold(
    archive: Archive, everything_written: list[str], option: str
):
    file = written(archive.directory, FORMATS["credentials"])
    done = archive.run(option, str(file))
    record(everything_written, done)
    assert done.returncode == 1
    assert "one key and nothing else" in done.stderr
    assert str(file) in " ".join(done.stderr.split())


def test_a_poll_says_so_too_when_a_file_was_replaced(
    archive: Archive, everything_written: list[str]
):
    key = written(archive.directory, archive.store.access_key.read_bytes())
    archive.launch_to_poll_by_hand("-a", str(key))
    key.write_text(FORMATS["credentials"])
    done = archive.poll()
    record(everything_written, done)
    assert done.returncode == 1
    assert "one key and nothing else" in done.stderr
    assert "internal error" not in done.stderr


def test_a_key_that_a_server_quotes_is_not_printed(
    faulty_archive: Archive,
    faulty_s3_server: FaultyS3,
    everything_written: list[str],
):
    # The format of s3fs; some stores have a colon in their access keys.
    key = written(faulty_archive.directory, f"AKIAXXXX:{HIDDEN}")
    quoted = f"<Error><Code>BadKey</Code><Message>{key.read_text()}</Message></Error>"
    with faulty_s3_server.suffering(Fault(status=400, body=quoted.encode())):
        done = faulty_archive.run("-a", str(key))
    record(everything_written, done)
    assert done.returncode == 1
    assert "BadKey" in done.stderr
