"""Keys and signatures stay where they belong, and only the owner can read files."""

import os
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from pool.personal import PersonalPool
from state.project import PROJECT
from tests.support.archive import A_JOB_A_ROW, Archive, wait_for

SIGNATURE = b"X-Amz-Signature"
# HTCondor chooses the modes of these files; no other user can enter the directory.
BY_HTCONDOR = {
    *("convert.dag.dagman.out", "convert.dag.dagman.log", "convert.dag.nodes.log"),
    *("convert.dag.metrics", "convert.dag.rescue001", "convert.dag.lock"),
    "reconcile.log",
}
# The spy goes right before this line of the node's script. It records everything
# that a process on the machine can see: files, environment and command lines.
BEFORE = "python=${PYTHON"
SPY = """\
cp -a . {seen}/sandbox
env >{seen}/environment
for process in /proc/[0-9]*; do
    tr '\\0' ' ' <$process/cmdline 2>/dev/null && echo
done >{seen}/commands
"""


@pytest.mark.parametrize("signing", ["auto", "presigned"])
def test_no_file_or_process_has_the_keys(
    archive: Archive, pool: PersonalPool, signing: str
):
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
    # One job at a time, since the spy writes to one directory.
    archive.launch(
        *("--signing", signing, "--max-jobs", "1", *A_JOB_A_ROW),
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
    files_with_signature = _files_with(SIGNATURE, [archive.directory])
    if condor_signs:
        assert files_with_signature == []
        # The daemons' logs and histories do not keep the URLs that the shadow signed.
        maps = f"/{archive.maps.name}/".encode()
        for file in _files_with(SIGNATURE, [pool.condor.directory]):
            content = file.read_bytes().splitlines()
            assert not any(maps in line and SIGNATURE in line for line in content), file
    else:
        # Signatures are in these files by design; no other user can read them.
        allowed = {run / "convert.dag", archive.directory / "ads"}
        assert {
            file for file in files_with_signature if seen not in file.parents
        } <= allowed
        assert stat.S_IMODE((run / "convert.dag").stat().st_mode) == 0o600


def test_only_the_owner_can_read_a_run(archive: Archive):
    archive.upload_raster("good.tif", 1)
    archive.maps.write("bad.tif", b"no raster")
    archive.upload_manifest("batch-raw.csv", [("good.tif", 1), ("bad.tif", 1)])
    original = os.umask(0)
    try:
        archive.launch()
    finally:
        os.umask(original)
    archive.outcome("batch-")
    (run,) = archive.directory.glob("workflow-run-*")
    (home,) = archive.directory.glob("launch-*")
    wait_for((run / "done.json").exists)
    # The crondor job writes this file, not the launch.
    wait_for((home / "poll.out").exists)

    for place in (run, home):
        for path in (place, *place.rglob("*")):
            mode = stat.S_IMODE(path.lstat().st_mode)
            allowed = 0o700 if path.is_dir() or path.suffix == ".sh" else 0o600
            if path.name in BY_HTCONDOR:
                allowed = 0o644
            assert mode & ~allowed == 0, f"{oct(mode)} {path.relative_to(place)}"


def _ads(archive: Archive) -> bytes:
    """Return the ads of all jobs of a test, from the queue and from the history."""
    constraint = f'regexp("{archive.maps.name.removeprefix("maps-")}", Iwd)'
    commands = (
        ["condor_q", "-l", "-constraint", constraint],
        ["condor_history", "-l", "-constraint", constraint],
    )
    outputs = [
        subprocess.run(command, capture_output=True, check=True).stdout
        for command in commands
    ]
    assert b"ClusterId" in outputs[1]
    return b"".join(outputs)


def _files_with(word: bytes, places: Iterable[Path]) -> list[Path]:
    files = []
    for place in places:
        for path in place.rglob("*"):
            # The daemons have named pipes, and remove files during this walk.
            if not path.is_symlink() and path.is_file() and word in path.read_bytes():
                files.append(path)
    return files
