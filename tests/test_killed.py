"""The next poll continues a run after a command was killed after any of its steps.

Each step of ``poll`` and of ``reconcile`` has its own launch and manifest. The command
is killed right after that step. All these runs are in the queue at the same time.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bucket import S3Endpoint
from tests.support.archive import A_JOB_A_ROW, Archive, archive_for, wait_for_words
from tests.support.steps import STEPS_OF_POLL, STEPS_OF_RECONCILE, killed_after

# Its fixtures launch and poll for each step.
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def _launch_with_a_batch(archive: Archive, *options: str) -> None:
    archive.launch_to_poll_by_hand(*A_JOB_A_ROW, *options)
    archive.upload_raster("good.tif", 1, width=64, height=64)
    archive.maps.write("bad.tif", b"no raster")
    archive.upload_manifest("batch-raw.csv", [("good.tif", 1), ("bad.tif", 1)])


def assert_outcome_is_as_without_a_kill(archive: Archive) -> None:
    processed, failed = archive.outcome("batch-")
    assert processed == [["good.tif", "1"]]
    assert [row[0] for row in failed] == ["bad.tif"]
    assert "cannot read it as a GeoTIFF" in failed[0][2]
    # No image was converted twice.
    logs = archive.directory.glob("workflow-run-*/convert.dag.nodes.log")
    submitted = "".join(log.read_text() for log in logs)
    assert len(re.findall("Job submitted from host", submitted)) == 3, (
        "two rows and the FINAL node"
    )
    left = {item.key for item in archive.maps.list("batch-")}
    assert all("processed" in key or "failed" in key for key in left), left


def assert_every_note_is_a_step(steps: list[str], archives: dict[str, Archive]) -> None:
    """Assert that every action up to the last step is one of the steps."""
    notes = (archives[steps[-1]].directory / "notes").read_text()
    for note in notes.splitlines():
        assert any(re.search(step, note) for step in steps), note


@contextmanager
def _archive_by_step(
    steps: list[str], store: S3Endpoint, workplace: Path
) -> Iterator[dict[str, Archive]]:
    new = contextmanager(archive_for)
    with ExitStack() as stack:
        yield {
            step: stack.enter_context(new(store, workplace, "killed")) for step in steps
        }


@pytest.fixture(scope="module")
def archives(store, workplace) -> Iterator[dict[str, Archive]]:
    """Yield, for each step of poll, an archive whose poll was killed after that step.

    All archives are polled first, so that their nodes share the pool.
    """
    with _archive_by_step(STEPS_OF_POLL, store, workplace) as archives:
        for step, archive in archives.items():
            _launch_with_a_batch(archive)
            killed_after(step, archive, "poll", str(archive.launch_file()))
            archive.poll()
            # This poll starts a run where the kill left none to continue.
            archive.poll()
        yield archives


@pytest.mark.parametrize("step", STEPS_OF_POLL)
def test_poll_killed_after(step: str, archives: dict[str, Archive]):
    assert_outcome_is_as_without_a_kill(archives[step])


def test_no_step_of_poll_is_left_out(archives: dict[str, Archive]):
    assert_every_note_is_a_step(STEPS_OF_POLL, archives)


@pytest.fixture(scope="module")
def reconciled_archives(store, workplace) -> Iterator[dict[str, Archive]]:
    """Yield, for each step of reconcile, an archive where it was killed after it."""
    with _archive_by_step(STEPS_OF_RECONCILE, store, workplace) as archives:
        for archive in archives.values():
            _launch_with_a_batch(archive)
            archive.poll()
            (run,) = archive.directory.glob("workflow-run-*")
            # The POST script must leave the reconcile to this test.
            (run / "reconcile.sh").write_text("#!/bin/sh\nexit 1\n")
        for step, archive in archives.items():
            (run,) = archive.directory.glob("workflow-run-*")
            # Many runs share the pool, so that this takes long.
            wait_for_words(run / "convert.dag.dagman.log", "Job terminated", 300)
            final = ("--final-node-of", "convert.dag")
            killed_after(step, archive, "reconcile", str(run), *final)
            archive.poll()
        yield archives


@pytest.mark.parametrize("step", STEPS_OF_RECONCILE)
def test_reconcile_killed_after(step: str, reconciled_archives: dict[str, Archive]):
    assert_outcome_is_as_without_a_kill(reconciled_archives[step])


def test_no_step_of_reconcile_is_left_out(reconciled_archives: dict[str, Archive]):
    assert_every_note_is_a_step(STEPS_OF_RECONCILE, reconciled_archives)
