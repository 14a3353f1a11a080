"""The keys of AWS's tools work for all commands, and a launch keeps them."""

import json
import stat
from pathlib import Path

import pytest

from s3 import credentials
from s3.errors import BucketError
from tests.support.archive import Archive
from tests.support.command_line import assert_wrong, invoke

VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of profiles that counts; no variable has keys."""
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    for name in (*VARIABLES, "AWS_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    return file


def write(file: Path, profile: str, access_key: str, secret_key: str, more: str = ""):
    file.touch(mode=0o600)
    with file.open("a") as opened:
        opened.write(
            f"[{profile}]\naws_access_key_id = {access_key}\n"
            f"aws_secret_access_key = {secret_key}\n{more}\n"
        )


def without_keys(archive: Archive) -> list[str]:
    """Return the options of the store and the buckets, without the keys."""
    return [
        *("-e", archive.store.endpoint, "--ca-certs", str(archive.store.ca_certs)),
        *("--input-bucket", archive.maps.name),
    ]


def test_a_launch_keeps_the_keys_of_a_profile(archive: Archive, profiles: Path):
    files = archive.store.access_key, archive.store.secret_key
    access, secret = (file.read_text().strip() for file in files)
    write(profiles, "default", "nobody", "wrong")
    write(profiles, "atlas", access, secret)
    options = without_keys(archive)

    wrong = archive.call("list", *options)
    assert wrong.returncode == 1
    assert "check the key files" in wrong.stderr
    for how in (
        {"AWS_PROFILE": "atlas"},
        dict(zip(VARIABLES, (access, secret), strict=False)),
    ):
        listed = archive.call("list", *options, **how)
        assert listed.stdout == "0 rasters, 0 B\n", listed.stderr
    archive.upload_raster("a.tif", 3)
    made = archive.call(
        *("manifest", *options, "--aws-profile", "atlas", "--upload", "atlas-raw.csv")
    )
    assert made.returncode == 0, made.stderr

    launched = archive.call(
        *("launch", *options, "--aws-profile", "atlas", "--every", "1"),
        *("--output-bucket", archive.cogs.name),
    )
    assert launched.returncode == 0, launched.stderr
    home = archive.launch_file().parent
    for name, key in (("access.key", access), ("secret.key", secret)):
        assert (home / name).read_text().strip() == key
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600
    saved = json.loads(archive.launch_file().read_text())["store"]
    assert saved["secret_key"] == str(home / "secret.key")
    # From now on, the profile is not needed.
    profiles.unlink()
    processed, failed = archive.outcome("atlas-")
    assert (len(processed), failed) == (1, [])
    assert secret not in launched.stdout + launched.stderr


def test_init_writes_the_keys_of_variables_into_files(archive: Archive, profiles: Path):
    files = archive.store.access_key, archive.store.secret_key
    keys = {
        name: file.read_text().strip()
        for name, file in zip(VARIABLES[:2], files, strict=True)
    }
    output = ("--output-bucket", archive.cogs.name)
    done = archive.call("init", *without_keys(archive), *output, **keys)
    assert done.returncode == 0, done.stderr
    for name, key in zip(("access.key", "secret.key"), keys.values(), strict=True):
        assert (archive.directory / name).read_text().strip() == key
    assert archive.call("list").stdout == "0 rasters, 0 B\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-a", "x", "-s", "y", "--aws-profile", "atlas"], "not both"),
        (["--aws-profile", "atlas"], "missing: -e"),
        (["--session-token", "x", "--aws-profile", "atlas"], "needs -a and -s"),
    ],
)
def test_wrong_combinations_are_refused(words: list[str], sentence: str, profiles):
    write(profiles, "atlas", "a", "b")
    assert_wrong(invoke("list", "--input-bucket", "maps", *words), sentence)


def test_keys_that_cannot_be_used_are_refused(
    profiles: Path, monkeypatch: pytest.MonkeyPatch
):
    assert credentials.of_environment() is None
    write(profiles, "brief", "a", "hidden", "aws_session_token = t")
    write(profiles, "per cent", "a", "hid%den")
    for profile, sentence in (
        ("brief", "they have a session token"),
        ("nobody", "does not have both"),
        ("per cent", "cannot be read"),
    ):
        with pytest.raises(BucketError, match=sentence) as raised:
            credentials.of_profile(profile)
        assert "hid" not in str(raised.value)
    assert raised.value.__suppress_context__
    profiles.chmod(0o644)
    with pytest.raises(BucketError, match="chmod 600"):
        credentials.of_profile("brief")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    with pytest.raises(BucketError, match="set both"):
        credentials.of_environment()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    assert "hidden" not in repr(credentials.of_environment())
    monkeypatch.setenv("AWS_SESSION_TOKEN", "t")
    with pytest.raises(BucketError, match="use permanent keys"):
        credentials.of_environment()


def test_files_of_keys_that_are_borrowed_end_with_the_command(
    archive: Archive, profiles: Path, tmp_path: Path
):
    write(profiles, "atlas", "nobody", "wrong")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    options = (*without_keys(archive), "--aws-profile", "atlas")
    done = archive.call("list", *options, TMPDIR=str(temporary))
    assert done.returncode == 1
    assert list(temporary.iterdir()) == []
