"""The pipeline refuses files and folders that another user could have written."""

import json
import os
import shutil
import struct
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from state import ownership
from state.files import write_atomically
from tests.support.archive import Archive

RARELY = ("--every", "1440")
OTHER_USER = 12345


def make_folder(path: Path, mode: int = 0o755) -> Path:
    path.mkdir(parents=True)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o702, 0o1777])
def test_a_folder_that_others_can_write_is_a_fault(
    tmp_path: Path, mode: int, monkeypatch: pytest.MonkeyPatch
):
    # The group of an ordinary user often has no other members.
    monkeypatch.setattr(ownership, "_is_own_group", lambda number: False)
    (fault,) = ownership.faults(make_folder(tmp_path / "a folder", mode))
    assert fault.endswith(f"chmod go-w '{tmp_path}/a folder'")


@pytest.mark.parametrize("listed", [False, True])
def test_a_folder_that_others_can_write_by_its_access_control_list_is_a_fault(
    tmp_path: Path, listed: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ownership, "_is_own_group", lambda number: True)
    folder = make_folder(tmp_path / "folder", 0o770)
    if listed:
        # Version 2 of the format: owner, other user, group, mask, all others.
        entries = [(1, 7, -1), (2, 7, OTHER_USER), (4, 5, -1), (16, 7, -1), (32, 0, -1)]
        packed = b"".join(struct.pack("<HHi", *entry) for entry in entries)
        try:
            os.setxattr(
                folder, "system.posix_acl_access", struct.pack("<I", 2) + packed
            )
        except OSError as error:
            pytest.skip(f"no access control lists here: {error.strerror}")
    assert len(list(ownership.faults(folder))) == listed


def test_a_folder_may_change_while_it_is_inspected(tmp_path: Path):
    folder = make_folder(tmp_path / "run", 0o700)
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            write_atomically(folder / "results.jsonl", "{}")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3000):
            assert list(ownership.faults_within(folder)) == []
    finally:
        ended.set()
        writer.join()


def test_a_folder_below_one_that_others_can_write_is_a_fault(tmp_path: Path):
    below = make_folder(tmp_path / "open" / "below")
    (tmp_path / "open").chmod(0o777)
    (fault,) = ownership.faults(below)
    assert f"chmod go-w {tmp_path}/open" in fault


def test_a_folder_below_one_with_the_sticky_bit_is_no_fault(tmp_path: Path):
    below = make_folder(tmp_path / "tmp" / "below")
    (tmp_path / "tmp").chmod(0o1777)
    assert not list(ownership.faults(below))


def test_the_target_of_a_link_in_the_path_is_checked(tmp_path: Path):
    below = make_folder(tmp_path / "open" / "below")
    (tmp_path / "link").symlink_to(below)
    inside = make_folder(below / "inside")
    assert not list(ownership.faults(tmp_path / "link" / "inside"))
    (tmp_path / "open").chmod(0o777)
    assert list(ownership.faults(tmp_path / "link" / "inside"))
    assert inside.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["the folder", "one above it"])
def test_a_folder_of_another_user_is_a_fault(tmp_path: Path, what: str):
    folder = make_folder(tmp_path / "above" / "folder")
    os.chown(folder if what == "the folder" else folder.parent, OTHER_USER, -1)
    (fault,) = ownership.faults(folder)
    assert f"belongs to another user ({OTHER_USER})" in fault


def _link(folder: Path) -> None:
    (folder / "planted").symlink_to("/etc/hostname")


def _second_name(folder: Path) -> None:
    (folder.parent / "elsewhere").write_text("{}")
    os.link(folder.parent / "elsewhere", folder / "planted")


def _writable(folder: Path) -> None:
    (folder / "planted").touch()
    (folder / "planted").chmod(0o666)


@pytest.mark.parametrize("plant", [_link, _second_name, _writable])
def test_an_entry_that_others_can_change_is_a_fault(
    tmp_path: Path, plant: Callable[[Path], None]
):
    folder = make_folder(tmp_path / "run")
    (folder / "run.json").touch(mode=0o600)
    assert not list(ownership.faults_within(folder))
    plant(folder)
    (fault,) = ownership.faults_within(folder)
    assert str(folder / "planted") in fault


def test_a_writable_log_in_a_private_folder_is_no_fault(tmp_path: Path):
    folder = make_folder(tmp_path / "run", 0o700)
    _writable(folder)
    assert not list(ownership.faults_within(folder))


def assert_refused(done: subprocess.CompletedProcess, *words: str) -> None:
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    assert all(word in output for word in words), output
    assert "Traceback" not in output


@pytest.mark.parametrize("which", [".", "..", "home"])
def test_a_launch_where_others_can_write_is_refused(archive: Archive, which: str):
    inner = make_folder(archive.directory / "above" / "launched")
    inner_archive = replace(archive, directory=inner)
    open_to_all = {".": inner, "..": inner.parent}.get(which)
    if open_to_all is None:
        # Another user can predict the name of a launch's folder.
        inner_archive.launch(*RARELY)
        open_to_all = inner_archive.launch_file().parent
        for entry in open_to_all.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        subprocess.run(["condor_rm", "-all"], check=True, capture_output=True)
    open_to_all.chmod(0o777)
    assert_refused(inner_archive.run(*RARELY), f"chmod go-w {open_to_all}")
    open_to_all.chmod(0o755)
    assert inner_archive.run(*RARELY).returncode == 0


def planted_run(archive: Archive, endpoint: str) -> Path:
    """Create a run as another user would, with another endpoint, and return it."""
    home = archive.launch_file().parent
    run = make_folder(archive.directory / "workflow-run-20200101T000000Z", 0o700)
    settings = json.loads(archive.launch_file().read_text())
    settings["store"]["endpoint"] = endpoint
    settings["store"]["access_key"] = settings["store"]["secret_key"]
    (run / "launch.json").write_text(json.dumps(settings))
    fields = {
        "directory": str(run),
        "launch": home.name,
        "manifest_key": "x-raw.csv",
        "etag": "0",
        "modified": "2020-01-01T00:00:00+00:00",
        "timestamp": "20200101T000000Z",
        "token": "0",
    }
    (run / "run.json").write_text(json.dumps(fields))
    (run / "manifest.csv").write_text("a.tif,1\n")
    return run


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_run_of_another_user_is_not_continued(archive: Archive):
    archive.launch_to_poll_by_hand()
    run = planted_run(archive, "127.0.0.1:1")
    os.chown(run, OTHER_USER, -1)
    done = archive.poll()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "belongs to another user" in done.stdout
    assert not (run / "log.jsonl").exists()


def test_the_keys_of_a_launch_go_only_to_its_own_endpoint(
    archive: Archive, tmp_path: Path
):
    archive.launch_to_poll_by_hand()
    run = planted_run(archive, "127.0.0.1:1")
    done = archive.poll()
    assert_refused(done, "has another endpoint, bucket or pattern")
    settings = json.loads((run / "launch.json").read_text())
    settings["store"]["endpoint"] = archive.store.endpoint
    (run / "launch.json").write_text(json.dumps(settings))
    # The store would refuse the keys that the planted run names.
    done = archive.poll()
    assert done.returncode == 0, done.stdout + done.stderr
    assert not run.exists()


def test_a_poll_in_a_folder_that_others_can_write_is_refused(archive: Archive):
    archive.launch_to_poll_by_hand()
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    archive.directory.chmod(0o777)
    assert_refused(archive.poll(), f"chmod go-w {archive.directory}")
    health = archive.health()
    assert health.returncode == 2
    assert f"chmod go-w {archive.directory}" in health.stdout
    assert not list(archive.directory.glob("workflow-run-*"))
    archive.directory.chmod(0o755)
    assert archive.poll().returncode == 0
    processed, failed = archive.outcome("batch-")
    assert processed
    assert not failed


UNREADABLE = {
    "cut off": "{",
    "a list": "[]",
    "an empty file": "",
    "binary": "\0\ud800",
    "nested deeply": "[" * 100_000,
    "a number as folder": '{"directory": 7, "launch": "x"}',
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_run_does_not_delay_other_runs(archive: Archive, content: str):
    archive.launch(*RARELY)
    run = make_folder(archive.directory / "workflow-run-20200101T000000Z", 0o700)
    (run / "run.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    # Its manifest is still in the bucket.
    archive.maps.write("old-processing-20200101T000000Z.csv", b"missing.tif,1\n")
    archive.upload_manifest("batch-raw.csv", [("missing.tif", 1)])
    done = archive.poll()
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{run}/run.json cannot be read" in done.stdout
    assert "internal error" not in done.stdout
    processed, failed = archive.outcome("batch-")
    assert not processed
    assert len(failed) == 1
    health = archive.health()
    assert health.returncode == 1, health.stdout
    assert "so that their runs do not continue: 1, " in health.stdout
