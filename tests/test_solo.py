"""Solo rows: if a shared job fails as a whole, each of its rows gets its own job."""

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


def test_rows_whose_job_fails_as_a_whole_are_tried_alone(archive: Archive):
    run = launch_with_nodes(archive, DIES_IF_SHARED)
    wait_for(lambda: run.solo_file.exists())
    wait_for(lambda: (run.directory / "convert.dag.metrics").exists())
    assert solo_rows(run) == {1, 2, 3, 4}
    assert [item.key for item in archive.maps.list("batch-")] == [run.processing_key]
    # DAGMan may still be in the queue for a moment.
    wait_for(lambda: archive.poll().returncode == 0 and run.cluster is not None)
    # A POST script that was stopped may outlive its DAGMan, and call this.
    late = reconcile(run, "--final-node-of", "convert.dag")
    assert (late.returncode, late.stdout) == (0, "")

    assert_all_were_processed(archive, run)
    wait_for(lambda: run.done)
    assert not list(run.logs_directory.iterdir())
    total = cost(run)
    assert (total.rows_begun, total.jobs, total.retries) == (5, 8 + 1 + 4, 6)
    events = [json.loads(line) for line in (run.directory / "log.jsonl").open()]
    # The images of this run are the same, and the log says so.
    steps = [each["event"] for each in events if each["event"] != "same-picture"]
    assert steps == ["submitted", "rows-solo", "submitted", "ended"]


@pytest.mark.parametrize(
    ("command", "step"),
    [
        ("reconcile", "file solo.json"),
        ("poll", "file retry-solo.dag"),
        ("poll", "submit"),
        ("poll", "file submitted.json"),
    ],
)
def test_a_process_is_killed_on_the_way_to_the_solo_rows(
    archive: Archive, command: str, step: str
):
    run = launch_with_nodes(archive, DIES_IF_SHARED)
    # The POST script fails, so that it leaves the work to this test.
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
    message = "is in the queue" if submitted else "has not been submitted"
    assert message in by_hand.stderr
    polled = archive.poll()
    assert polled.returncode == 0, polled.stderr

    assert_all_were_processed(archive, run)


def reconcile(run: Run, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(PROJECT / "cog_pipeline.py"), "reconcile"]
    return subprocess.run(
        [*command, str(run.directory), *options], capture_output=True, text=True
    )


def test_if_the_solo_dag_is_removed_before_it_starts_its_rows_fail(archive: Archive):
    run = launch_with_nodes(archive, DIES_IF_SHARED)
    wait_for(lambda: run.solo_file.exists())
    wait_for(lambda: (run.directory / "convert.dag.metrics").exists())
    # No job has this number, as if DAGMan was held, wrote no log, and was removed.
    removed = {"dag": "retry-solo.dag", "cluster": 2**30}
    run.submitted_file.write_text(json.dumps(removed))
    wait_for(lambda: archive.poll().returncode == 0 and run.done)

    processed, failed = archive.outcome("batch-")
    assert [row[0] for row in processed] == KEYS[4:]
    assert [row[0] for row in failed] == KEYS[:4]
    assert {file.name for file in run.logs_directory.iterdir()} == {
        *("rows1.log", "rows3.log")
    }


def test_a_run_that_a_user_removes_has_no_solo_rows(archive: Archive):
    waits = 'case "$*" in 0.tif*) kill -9 $$ ;; esac\nexec sleep 600\n'
    run = launch_with_nodes(archive, waits, KEYS[:4])
    log = run.node_log
    wait_for(log.exists)
    wait_for(lambda: log.read_text().count("Abnormal termination (signal 9)") == 4)
    subprocess.run(["condor_rm", str(run.cluster)], check=True)

    processed, failed = archive.outcome("batch-")
    assert processed == []
    assert [row[0] for row in failed] == KEYS[:4]
    assert not run.solo_file.exists()


OK = NodeResult(1, ok=True)


def failure(code: str, attempt: int | None = None) -> NodeResult:
    return NodeResult(1, ok=False, code=code, attempt=attempt)


@pytest.mark.parametrize(
    ("collateral", "result", "end"),
    [
        (True, None, NodeEnd("given up", "no such object", "held", 2)),
        (True, None, NodeEnd("given up", "", "running", 1)),
        (True, None, NodeEnd("exited", "74")),
        (True, None, NodeEnd("given up", "", "idle", 21)),
        (True, OK, NodeEnd("given up", "an output was refused", "held", 1)),
        (True, failure("unfit-machine", 1), NodeEnd("given up", "", "held", attempt=4)),
        (True, failure("killed"), NodeEnd("killed", "signal 9")),
        # The row's own image or process is the reason.
        (False, failure("no-crs", 1), NodeEnd("exited", "65")),
        (False, failure("time-limit", 4), NodeEnd("exited", "75", attempt=4)),
        # A job of its own would end in the same way.
        (False, None, NodeEnd("given up", "", "idle")),
        (False, None, NodeEnd("removed", "via condor_rm", "running", 1)),
        (False, None, NodeEnd("held", "by hand")),
        # The job succeeded, or there was none.
        (False, OK, None),
        (False, None, None),
    ],
)
def test_another_row_of_the_job_may_be_the_reason(
    collateral: bool, result: NodeResult | None, end: NodeEnd | None
):
    assert may_be_collateral(result, end) is collateral
