"""The command init asks, checks each answer at the store, and writes the file."""

import json
import stat
import tomllib
from pathlib import Path

import pytest

from pool import s3
from tests.support.archive import Archive
from tests.support.command_line import assert_wrong, invoke
from tests.support.terminal import terminal


def text_of(key: Path) -> str:
    return key.read_text().strip()


def mode_of(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def answers(archive: Archive) -> list[str]:
    """Return options that answer all questions."""
    buckets = ("--input-bucket", archive.maps.name, "--output-bucket")
    return [*archive.store_options(), *buckets, archive.cogs.name]


def test_wrong_answers_are_asked_again(archive: Archive):
    store, folder = archive.store, archive.directory
    access, secret = text_of(store.access_key), text_of(store.secret_key)
    nobody = f"127.0.0.1:{s3.free_port()}"
    with terminal(folder, "init", TERM="dumb") as screen:
        screen.answer("S3 server", nobody)
        screen.wait_for("refused")
        screen.answer("S3 server", f"http://{store.endpoint}")
        screen.wait_for("does not begin with https://")
        screen.answer("S3 server", f"https://{store.endpoint}/")
        screen.wait_for("CERTIFICATE_VERIFY_FAILED")
        screen.answer("S3 server", "")
        screen.answer("File of the authority", str(store.ca_certs))
        screen.answer("Region", "")
        screen.answer("Access key", "~/no.key")
        screen.wait_for("there is no file ~/no.key")
        screen.answer("Region", "")
        screen.answer("Access key", access)
        screen.answer("Secret key", "not-the-secret")
        screen.wait_for("check the key files")
        screen.answer("Region", "")
        screen.answer("Access key [the same]", "")
        screen.answer("Secret key (hidden) [the same]", secret)
        screen.answer("Input bucket", "nowhere")
        screen.answer("Folder of the images", "")
        screen.wait_for("there is no such bucket")
        screen.answer("Input bucket", archive.maps.name)
        screen.answer("Folder of the images", "/scans")
        screen.wait_for("use 'scans/'")
        screen.answer("Input bucket", "")
        screen.answer("Folder of the images", "scans")
        screen.answer("Output bucket", archive.maps.name)
        screen.answer("Prefix", "scans/")
        screen.wait_for("COGs need a prefix of their own")
        screen.answer("Output bucket", archive.cogs.name)
        screen.answer("Prefix", "/2025/")
        screen.wait_for("use '2025/'")
        screen.answer("Output bucket", "")
        screen.answer("Prefix", "2025/")
        screen.wait_for("launch\n")
        assert screen.end() == 0, screen.shown
    assert secret not in screen.shown
    assert "not-the-secret" not in screen.shown

    file = folder / "cog_pipeline.toml"
    assert tomllib.loads(file.read_text()) == {
        "s3-endpoint": store.endpoint,
        "ca-certs": str(store.ca_certs),
        "access-key": "access.key",
        "secret-key": "secret.key",
        "input-bucket": archive.maps.name,
        "input-prefix": "scans/",
        "output-bucket": archive.cogs.name,
        "output-prefix": "2025/",
    }
    assert text_of(folder / "access.key") == access
    assert text_of(folder / "secret.key") == secret
    for name in ("cog_pipeline.toml", "access.key", "secret.key"):
        assert mode_of(folder / name) == 0o600
    # The tests of permissions left nothing.
    assert [*archive.maps.list(), *archive.cogs.list()] == []

    archive.upload_raster("scans/a.tif", 3)
    made = archive.call("manifest", "--upload", "first-raw.csv")
    assert made.returncode == 0, made.stderr
    launched = archive.call("launch", "--every", "1", "--retry-seconds", "1")
    assert launched.returncode == 0, launched.stderr
    processed, failed = archive.outcome("first-")
    assert [row[0] for row in processed] == [f"{archive.maps.name}/scans/a.tif"]
    assert failed == []
    assert archive.cogs.exists("2025/a.tif")


def test_the_file_of_a_key_may_be_named_from_the_home_directory(archive: Archive):
    folder, store = archive.directory, archive.store
    for name, key in (("a.key", store.access_key), ("s.key", store.secret_key)):
        (folder / name).write_bytes(key.read_bytes())
        (folder / name).chmod(0o600)
    options = answers(archive)
    for option in ("-a", "-s"):
        position = options.index(option)
        del options[position : position + 2]
    with terminal(folder, "init", *options, HOME=str(folder)) as screen:
        screen.answer("Region", "")
        screen.answer("Access key", "~/a.key")
        screen.answer("Secret key", "~/s.key")
        screen.answer("Folder of the images", "")
        screen.answer("Prefix", "")
        assert screen.end() == 0, screen.shown
    values = tomllib.loads((folder / "cog_pipeline.toml").read_text())
    assert (values["access-key"], values["secret-key"]) == ("a.key", "s.key")


def test_a_file_is_replaced_only_if_somebody_says_so(archive: Archive):
    folder, file = archive.directory, archive.directory / "cog_pipeline.toml"
    former = "input-bucket = 'former'\nsubmit-option = ['+Project = \"maps\"']\n"
    file.write_text(former)
    refused = archive.call("init", *answers(archive))
    assert refused.returncode == 1
    assert "use --force" in refused.stderr
    with terminal(folder, "init", *answers(archive)) as screen:
        screen.answer("Replace it?", "n")
        assert screen.end() == 1
    assert file.read_text() == former
    with terminal(folder, "init", *answers(archive)) as screen:
        screen.answer("Replace it?", "y")
        screen.answer("Region", "")
        screen.answer("Folder of the images", "")
        screen.wait_for("Prefix of output keys")
        assert screen.interrupt() == 130
    assert file.read_text() == former

    done = archive.call("init", "--force", "--json", *answers(archive))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["file"] == str(file)
    values = tomllib.loads(file.read_text())
    assert values["input-bucket"] == archive.maps.name
    assert values["access-key"] == str(archive.store.access_key)
    assert values["submit-option"] == ['+Project = "maps"']
    assert "output-prefix" not in values
    assert not (folder / "access.key").exists()
    # The values of the file are defaults.
    with terminal(folder, "init", "--force") as screen:
        for question in ("S3 server", "Region", "Access key", "Secret key"):
            screen.answer(question, "")
        screen.answer(f"Input bucket [{archive.maps.name}]", "")
        screen.answer("Folder of the images", "")
        screen.answer(f"Output bucket [{archive.cogs.name}]", "")
        screen.answer("Prefix", "")
        assert screen.end() == 0, screen.shown
    assert tomllib.loads(file.read_text()) == values


def test_without_a_terminal_a_missing_answer_is_an_error_that_names_the_option(
    archive: Archive,
):
    options = answers(archive)
    for name in ("-e", "-a", "-s", "--input-bucket", "--output-bucket"):
        place = options.index(name)
        done = archive.call("init", *options[:place], *options[place + 2 :])
        assert done.returncode == 2
        long_names = {"-e": "s3-endpoint", "-a": "access-key", "-s": "secret-key"}
        assert f"missing: --{long_names.get(name, name[2:])};" in done.stderr
    wrong = archive.call("init", *options, "--input-bucket", "nowhere")
    assert wrong.returncode == 1
    assert "there is no such bucket" in wrong.stderr
    assert not (archive.directory / "cog_pipeline.toml").exists()


@pytest.mark.parametrize(
    "endpoint", ["https://s3.example.org/maps", "s3.example.org/a/", "https://"]
)
def test_an_endpoint_with_a_path_is_refused(
    endpoint: str, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    access, secret = keys
    monkeypatch.chdir(access.parent)
    result = invoke(
        *("init", "-e", endpoint, "-a", str(access), "-s", str(secret)),
        *("--input-bucket", "maps", "--output-bucket", "cogs"),
    )
    assert_wrong(result, "must be a server without a path")
