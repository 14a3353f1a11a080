"""A full disk of the access point is reported, and work continues afterwards."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from condor import queue
from state.project import PROJECT
from tests.support.archive import PATIENCE_SECONDS, Archive, wait_for

PAGE = 4096  # bytes
SIZE = 256 * PAGE


@dataclass(frozen=True)
class Disk:
    """A small disk with a file that occupies a part of it."""

    directory: Path

    @property
    def free(self) -> int:
        status = os.statvfs(self.directory)
        return status.f_bavail * status.f_frsize

    def leave(self, pages: int) -> None:
        """Fill the disk except for this number of pages."""
        fill = self.directory / "fill"
        before = fill.stat().st_size if fill.exists() else 0
        with fill.open("ab") as file:
            os.truncate(fill, 0)
            os.posix_fallocate(file.fileno(), 0, self.free - pages * PAGE)
        assert fill.stat().st_size != before or self.free == pages * PAGE

    def empty(self) -> None:
        (self.directory / "fill").unlink()


@pytest.fixture
def disk(archive: Archive) -> Iterator[Disk]:
    directory = archive.directory / "disk"
    directory.mkdir()
    mount = [
        "mount",
        "-t",
        "tmpfs",
        "-o",
        f"size={SIZE},mode=755",
        "small",
        str(directory),
    ]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk, which HTCondor also sees")
    yield Disk(directory)
    # Lazily, since DAGMan may still use the disk.
    subprocess.run(["umount", "-l", str(directory)], check=True)


@pytest.fixture
def small(archive: Archive, disk: Disk) -> Archive:
    """Return an archive whose launch directory is on the small disk."""
    return replace(archive, directory=disk.directory)


def assert_disk_full_is_reported(done: subprocess.CompletedProcess) -> None:
    assert done.returncode not in (0, 70), done.stdout + done.stderr
    assert "No space left on device" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_poll_continues_after_the_disk_was_full_at_any_stage(
    archive: Archive, small: Archive, disk: Disk
):
    small.launch_to_poll_by_hand("--disk-floor", "0")
    archive.upload_raster("image.tif", 1)
    # The manifest is larger than a page, as are the file of the rows and the DAG.
    missing = [(f"missing-{number:04}.tif", 1) for number in range(400)]
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1), *missing])
    stages = set()
    for pages in range(SIZE // PAGE):
        disk.leave(pages)
        done = small.poll()
        stages.add(tuple(sorted(p.name for p in small.directory.glob("workflow-*/*"))))
        if done.returncode == 0:
            break
        assert_disk_full_is_reported(done)
        keys = [item.key for item in archive.maps.list("batch-")]
        assert any("raw.csv" in key or "processing" in key for key in keys)
    disk.empty()

    # The stages are the download, the run directory, the check of the rows, the DAG
    # and the submission.
    assert len(stages) >= 5
    processed, failed = archive.outcome("batch-")
    assert processed == [["image.tif", "1"]]
    assert [row[0] for row in failed] == [key for key, _ in missing]
    assert len(list(small.directory.glob("workflow-run-*"))) == 1


@pytest.mark.timeout(600)
def test_a_reconcile_continues_when_the_disk_has_room_again(
    archive: Archive, small: Archive, disk: Disk
):
    node = archive.directory / "node.sh"
    script = PROJECT / "bin" / "generate_cogs.sh"
    go = archive.directory / "go"
    node.write_text(
        f'#!/bin/sh\nwhile [ ! -e "{go}" ]; do sleep 0.2; done\nexec {script} "$@"\n'
    )
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1), ("missing.tif", 1)])
    small.launch(
        "--disk-floor",
        "0",
        "--submit-option",
        f"executable = {node}",
        "--retry-seconds",
        "2",
    )
    (run,) = small.directory.glob("workflow-run-*")
    go.touch()
    result = run / "results" / "row1.json"
    wait_for(lambda: result.exists() and result.stat().st_size > 0)
    # An event that HTCondor cannot write is lost, and DAGMan would wait for it.
    log = run / "convert.dag.nodes.log"
    wait_for(lambda: "Job terminated" in log.read_text())

    def stopped() -> bool:
        job = queue.find(queue.RUN_ATTRIBUTE, str(run))
        return job is None or job.status != "running"

    disk.leave(0)
    # Neither the POST script nor DAGMan can write. DAGMan ends and HTCondor starts it
    # again as long as the disk is full.
    wait_for(stopped)
    assert_disk_full_is_reported(small.poll())
    assert not (run / "done.json").exists()
    disk.empty()

    def ended() -> bool:
        # pytest shows this output if the wait times out.
        print(small.poll().stdout)
        return (run / "done.json").exists()

    # Since 25.10, HTCondor starts DAGMan again only after five minutes.
    wait_for(ended, 300 + PATIENCE_SECONDS)
    processed, failed = archive.outcome("batch-")
    assert processed == [["image.tif", "1"]]
    assert [row[0] for row in failed] == ["missing.tif"]
