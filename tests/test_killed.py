"""Killed after any of its steps, the pipeline is carried on by the next poll.

One run for every step of ``poll`` and of ``reconcile``, all at once: a manifest and
a launch each, killed right after that step.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bucket import S3Endpoint
from tests.support.archive import Archive, archive_for, wait_for_words
from tests.support.steps import STEPS_OF_POLL, STEPS_OF_RECONCILE, killed_after

pytestmark = pytest.mark.long


def _with_a_batch(archive: Archive, *options: str) -> None:
    archive.launch_to_poll_by_hand(*options)
    archive.upload_raster("good.tif", 1, width=64, height=64)
    archive.maps.write("bad.tif", b"no raster")
    archive.upload_manifest("batch-raw.csv", [("good.tif", 1), ("bad.tif", 1)])


def assert_as_if_nothing_had_been(archive: Archive) -> None:
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
    left = {found.key for found in archive.maps.list("batch-")}
    assert all("processed" in key or "failed" in key for key in left), left


def assert_none_left_out(steps: list[str], archives: dict[str, Archive]) -> None:
    """Whatever was done up to the last step is a step."""
    notes = (archives[steps[-1]].directory / "notes").read_text()
    for what in notes.splitlines():
        assert any(re.search(step, what) for step in steps), what


@contextmanager
def _one_for_each(
    steps: list[str], store: S3Endpoint, workplace: Path
) -> Iterator[dict[str, Archive]]:
    new = contextmanager(archive_for)
    with ExitStack() as stack:
        yield {
            step: stack.enter_context(new(store, workplace, "killed")) for step in steps
        }


@pytest.fixture(scope="module")
def archives(store, workplace) -> Iterator[dict[str, Archive]]:
    """For each step of poll, an archive whose poll was killed after it.

    All of them in one go, since their nodes have the pool to themselves no more
    than the runs of an archive have.
    """
    with _one_for_each(STEPS_OF_POLL, store, workplace) as made:
        for step, archive in made.items():
            _with_a_batch(archive)
            killed_after(step, archive, "poll", str(archive.launch_file()))
            archive.poll()
            # Those that began a new run: what was killed was not one yet.
            archive.poll()
        yield made


@pytest.mark.parametrize("step", STEPS_OF_POLL)
def test_poll_killed_after(step: str, archives: dict[str, Archive]):
    assert_as_if_nothing_had_been(archives[step])


def test_no_step_of_poll_is_left_out(archives: dict[str, Archive]):
    assert_none_left_out(STEPS_OF_POLL, archives)


@pytest.fixture(scope="module")
def ended(store, workplace) -> Iterator[dict[str, Archive]]:
    """For each step of reconcile, an archive whose run was killed after it."""
    with _one_for_each(STEPS_OF_RECONCILE, store, workplace) as made:
        for archive in made.values():
            _with_a_batch(archive)
            archive.poll()
            (run,) = archive.directory.glob("workflow-run-*")
            # So that the POST script leaves it to us.
            (run / "reconcile.sh").write_text("#!/bin/sh\nexit 1\n")
        for step, archive in made.items():
            (run,) = archive.directory.glob("workflow-run-*")
            # Many runs, all at once.
            wait_for_words(run / "convert.dag.dagman.log", "Job terminated", 300)
            final = ("--final-node-of", "convert.dag")
            killed_after(step, archive, "reconcile", str(run), *final)
            archive.poll()
        yield made


@pytest.mark.parametrize("step", STEPS_OF_RECONCILE)
def test_reconcile_killed_after(step: str, ended: dict[str, Archive]):
    assert_as_if_nothing_had_been(ended[step])


def test_no_step_of_reconcile_is_left_out(ended: dict[str, Archive]):
    assert_none_left_out(STEPS_OF_RECONCILE, ended)
