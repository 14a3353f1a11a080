"""Keys and signatures stay where they must be, and files are their owner's alone."""

import os
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from pool.personal import PersonalPool
from state.project import PROJECT
from tests.support.archive import Archive, wait_for

SIGNATURE = b"X-Amz-Signature"
# What HTCondor makes with modes of its own; nobody else gets into the directory.
BY_HTCONDOR = {
    *("convert.dag.dagman.out", "convert.dag.dagman.log", "convert.dag.nodes.log"),
    *("convert.dag.metrics", "convert.dag.rescue001", "convert.dag.lock"),
    "reconcile.log",
}
# What stands right before the node's Python: it keeps all that this could see.
BEFORE = "python=${PYTHON"
SPY = """\
cp -a . {seen}/sandbox
env >{seen}/environment
for process in /proc/[0-9]*; do
    tr '\\0' ' ' <$process/cmdline 2>/dev/null && echo
done >{seen}/commands
"""


@pytest.mark.parametrize("signing", ["auto", "presigned"])
def test_nothing_tells_the_keys(archive: Archive, pool: PersonalPool, signing: str):
    seen = archive.directory / "seen"
    seen.mkdir()
    spy = archive.directory / "spy.sh"
    script = (PROJECT / "bin" / "generate_cogs.sh").read_text()
    assert script.count(BEFORE) == 1
    spy.write_text(script.replace(BEFORE, SPY.format(seen=seen) + BEFORE))
    spy.chmod(0o755)
    archive.upload_raster("image.tif", 1)
    archive.maps.write("bad.tif", b"no raster")
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1), ("bad.tif", 1)])
    # One at a time, since both are spied on in one place.
    archive.launch(
        *("--signing", signing, "--max-jobs", "1"),
        *("--submit-option", f"executable = {spy}"),
    )
    processed, failed = archive.outcome("batch-")
    assert (len(processed), len(failed)) == (1, 1)
    (run,) = archive.directory.glob("workflow-run-*")
    wait_for((run / "done.json").exists)
    (archive.directory / "ads").write_bytes(_ads(archive))

    secret = archive.store.secret_key.read_bytes().strip()
    places = [archive.directory, pool.condor.directory]
    assert _files_with(secret, places) == []
    assert (seen / "commands").stat().st_size > 1000
    assert (seen / "sandbox" / "condor_exec.exe").exists() or (
        seen / "sandbox" / ".job.ad"
    ).exists()
    from condor import queue

    condor_signs = signing == "auto" and queue.version() < (25, 10, 0)
    told = _files_with(SIGNATURE, [archive.directory])
    if condor_signs:
        assert told == []
        # Nor do the daemons' own logs and histories keep what the shadow signed.
        maps = f"/{archive.maps.name}/".encode()
        for file in _files_with(SIGNATURE, [pool.condor.directory]):
            content = file.read_bytes().splitlines()
            assert not any(maps in line and SIGNATURE in line for line in content), file
    else:
        # By design, and then in what nobody else can read.
        allowed = {run / "convert.dag", archive.directory / "ads"}
        assert {file for file in told if seen not in file.parents} <= allowed
        assert stat.S_IMODE((run / "convert.dag").stat().st_mode) == 0o600


def test_a_run_is_its_owners_alone(archive: Archive):
    archive.upload_raster("good.tif", 1)
    archive.maps.write("bad.tif", b"no raster")
    archive.upload_manifest("batch-raw.csv", [("good.tif", 1), ("bad.tif", 1)])
    kept = os.umask(0)
    try:
        archive.launch()
    finally:
        os.umask(kept)
    archive.outcome("batch-")
    (run,) = archive.directory.glob("workflow-run-*")
    (home,) = archive.directory.glob("launch-*")
    wait_for((run / "done.json").exists)
    # Crondor's, not the launch's.
    wait_for((home / "poll.out").exists)

    for place in (run, home):
        for path in (place, *place.rglob("*")):
            mode = stat.S_IMODE(path.lstat().st_mode)
            allowed = 0o700 if path.is_dir() or path.suffix == ".sh" else 0o600
            if path.name in BY_HTCONDOR:
                allowed = 0o644
            assert mode & ~allowed == 0, f"{oct(mode)} {path.relative_to(place)}"


def _ads(archive: Archive) -> bytes:
    """All that HTCondor tells of the jobs of a test."""
    ours = f'regexp("{archive.maps.name.removeprefix("maps-")}", Iwd)'
    commands = (
        ["condor_q", "-l", "-constraint", ours],
        ["condor_history", "-l", "-constraint", ours],
    )
    found = [subprocess.run(each, capture_output=True, check=True) for each in commands]
    assert b"ClusterId" in found[1].stdout
    return b"".join(each.stdout for each in found)


def _files_with(word: bytes, places: Iterable[Path]) -> list[Path]:
    found = []
    for place in places:
        for path in place.rglob("*"):
            # The daemons have named pipes, and remove files while we look.
            if not path.is_symlink() and path.is_file() and word in path.read_bytes():
                found.append(path)
    return found
