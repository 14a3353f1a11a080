"""Rows whose shared job fails as a whole are tried again, each in a job of its own."""

import json
import subprocess
import sys

import pytest

from condor.eventlog import NodeEnd
from ops.cost import cost
from post.reasons import may_be_collateral
from state.project import PROJECT
from state.results import NodeResult
from state.rows import solo_rows
from state.run import Run
from tests.support.archive import Archive, wait_for
from tests.support.shared_jobs import (
    DIES_IF_SHARED,
    KEYS,
    assert_all_were_processed,
    launch_with_nodes,
)
from tests.support.steps import killed_after

pytestmark = pytest.mark.long


def ended(run: Run) -> bool:
    log = run.dagman_job_log
    return log.exists() and "Job terminated" in log.read_text()


def test_rows_whose_job_fails_as_a_whole_are_tried_apart(archive: Archive):
    run = launch_with_nodes(archive, DIES_IF_SHARED)
    wait_for(lambda: run.solo_file.exists())
    wait_for(lambda: (run.directory / "convert.dag.metrics").exists())
    assert solo_rows(run) == {1, 2, 3, 4}
    assert [each.key for each in archive.maps.list("batch-")] == [run.processing_key]
    # DAGMan may be in the queue for a moment yet.
    wait_for(lambda: archive.poll().returncode == 0 and run.cluster is not None)
    # As from a POST script that was stopped, and outlived its DAGMan.
    late = reconcile(run, "--final-node-of", "convert.dag")
    assert (late.returncode, late.stdout) == (0, "")

    assert_all_were_processed(archive, run)
    wait_for(lambda: run.done)
    assert not list(run.logs_directory.iterdir())
    told = cost(run)
    assert (told.rows_begun, told.jobs, told.retries) == (5, 8 + 1 + 4, 6)
    events = [json.loads(line) for line in (run.directory / "log.jsonl").open()]
    assert [each["event"] for each in events] == [
        *("submitted", "rows-solo", "submitted", "ended")
    ]


@pytest.mark.parametrize(
    ("command", "step"),
    [
        ("reconcile", "file solo.json"),
        ("poll", "file retry-solo.dag"),
        ("poll", "submit"),
        ("poll", "file submitted.json"),
    ],
)
def test_killed_on_the_way_to_that(archive: Archive, command: str, step: str):
    run = launch_with_nodes(archive, DIES_IF_SHARED)
    # So that the POST script leaves it to us.
    (run.directory / "reconcile.sh").write_text("#!/bin/sh\nexit 1\n")
    wait_for(lambda: ended(run))
    if command == "reconcile":
        final = ("--final-node-of", "convert.dag")
        killed_after(step, archive, command, str(run.directory), *final)
    else:
        archive.poll()
        assert run.solo_file.exists()
        killed_after(step, archive, command, str(archive.launch_file()))
    by_hand = reconcile(run)
    assert by_hand.returncode == 1
    submitted = command == "poll" and step != "file retry-solo.dag"
    why = "is in the queue" if submitted else "has not been submitted"
    assert why in by_hand.stderr
    polled = archive.poll()
    assert polled.returncode == 0, polled.stderr

    assert_all_were_processed(archive, run)


def reconcile(run: Run, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(PROJECT / "cog_pipeline.py"), "reconcile"]
    return subprocess.run(
        [*command, str(run.directory), *options], capture_output=True, text=True
    )


def test_a_second_dag_that_is_removed_before_it_starts(archive: Archive):
    run = launch_with_nodes(archive, DIES_IF_SHARED)
    wait_for(lambda: run.solo_file.exists())
    wait_for(lambda: (run.directory / "convert.dag.metrics").exists())
    # Of a DAGMan that was held, say, and so left no log; no job has this number.
    removed = {"dag": "retry-solo.dag", "cluster": 2**30}
    run.submitted_file.write_text(json.dumps(removed))
    wait_for(lambda: archive.poll().returncode == 0 and run.done)

    processed, failed = archive.outcome("batch-")
    assert [row[0] for row in processed] == KEYS[4:]
    assert [row[0] for row in failed] == KEYS[:4]
    assert {file.name for file in run.logs_directory.iterdir()} == {
        *("rows1.log", "rows3.log")
    }


def test_a_run_that_somebody_removes_stays_removed(archive: Archive):
    waits = 'case "$*" in 0.tif*) kill -9 $$ ;; esac\nexec sleep 600\n'
    run = launch_with_nodes(archive, waits, KEYS[:4])
    log = run.node_log
    wait_for(log.exists)
    wait_for(lambda: log.read_text().count("with signal 9") == 4)
    subprocess.run(["condor_rm", str(run.cluster)], check=True)

    processed, failed = archive.outcome("batch-")
    assert processed == []
    assert [row[0] for row in failed] == KEYS[:4]
    assert not run.solo_file.exists()


OK = NodeResult(1, ok=True)


def told(code: str, attempt: int | None = None) -> NodeResult:
    return NodeResult(1, ok=False, code=code, attempt=attempt)


@pytest.mark.parametrize(
    ("maybe", "result", "last"),
    [
        (True, None, NodeEnd("given up", "no such object", "held", 2)),
        (True, None, NodeEnd("given up", "", "running", 1)),
        (True, None, NodeEnd("exited", "74")),
        (True, None, NodeEnd("given up", "", "idle", 21)),
        (True, OK, NodeEnd("given up", "an output was refused", "held", 1)),
        (True, told("unfit-machine", 1), NodeEnd("given up", "", "held", attempt=4)),
        (True, told("killed"), NodeEnd("killed", "signal 9")),
        # Its image is the reason, or its own process.
        (False, told("no-crs", 1), NodeEnd("exited", "65")),
        (False, told("time-limit", 4), NodeEnd("exited", "75", attempt=4)),
        # Alone it would fare no better.
        (False, None, NodeEnd("given up", "", "idle")),
        (False, None, NodeEnd("removed", "via condor_rm", "running", 1)),
        (False, None, NodeEnd("held", "by hand")),
        # Its job ended well, or was never there.
        (False, OK, None),
        (False, None, None),
    ],
)
def test_whose_neighbour_may_be_the_reason(
    maybe: bool, result: NodeResult | None, last: NodeEnd | None
):
    assert may_be_collateral(result, last) is maybe
