"""The next command continues a run that was interrupted."""

import json
import re
import subprocess
import sys

from condor import queue
from state.project import PROJECT
from tests.support.archive import Archive, wait_for, wait_for_words


def test_a_claimed_manifest_is_submitted_by_the_next_poll(archive: Archive):
    archive.launch()
    archive.upload_raster("image.tif", 1)
    _stop_crondor(archive)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])

    broken = archive.poll(CONDOR_CONFIG="/dev/null")
    assert broken.returncode != 0
    assert "the next poll tries again" in broken.stdout
    assert "Traceback" not in broken.stderr
    keys = [item.key for item in archive.maps.list("batch-")]
    assert [key[:17] for key in keys] == ["batch-processing-"]

    archive.poll()
    assert archive.outcome("batch-") == ([["image.tif", "1"]], [])
    assert len(list(archive.directory.glob("workflow-run-*"))) == 1


def test_a_repeated_poll_submits_no_run_twice(archive: Archive):
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    archive.launch()
    (run,) = archive.directory.glob("workflow-run-*")
    # The state after a crash between the submission and its record.
    (run / "submitted.json").unlink()

    archive.poll()

    output = subprocess.run(
        ["condor_q", "-constraint", f'CogPipelineRun == "{run}"', "-af", "ClusterId"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(output.stdout.split()) == 1
    assert archive.outcome("batch-") == ([["image.tif", "1"]], [])


def test_a_dag_that_was_removed_is_reconciled(archive: Archive):
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1), ("gone.tif", 1)])
    # No machine matches the nodes, so that there is time to remove them.
    archive.launch("--submit-option", "requirements = false")
    (run,) = archive.directory.glob("workflow-run-*")
    cluster = json.loads((run / "submitted.json").read_text())["cluster"]
    subprocess.run(["condor_rm", str(cluster)], capture_output=True, check=True)

    processed, failed = archive.outcome("batch-")

    assert processed == []
    assert [row[0] for row in failed] == ["image.tif", "gone.tif"]
    assert all(row[2] for row in failed)


def test_a_dagman_that_htcondor_holds_is_released(archive: Archive):
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    # No machine matches the node yet.
    never = "requirements = WantsToRun =?= true"
    archive.launch_to_poll_by_hand("--submit-option", never)
    (run,) = archive.directory.glob("workflow-run-*")
    cluster = json.loads((run / "submitted.json").read_text())["cluster"]
    once = "(NumHolds ?: 0) == 0"
    edit = ["condor_qedit", str(cluster), "PeriodicHold", once]
    subprocess.run(edit, capture_output=True, check=True)

    def held() -> bool:
        job = queue.find(queue.RUN_ATTRIBUTE, str(run))
        return job is not None and job.hold_reason is not None

    wait_for(held)
    assert "HTCondor had held its DAGMan job" in archive.poll().stdout
    assert not held()
    subprocess.run(["condor_hold", str(cluster)], capture_output=True, check=True)
    wait_for(held)
    assert f"'release {run.name}' lets it continue" in archive.poll().stdout
    assert held()


def test_a_reconcile_that_fails_is_tried_again(archive: Archive):
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    archive.launch("--retry-seconds", "5")
    (run,) = archive.directory.glob("workflow-run-*")
    launch = run / "launch.json"
    original = launch.read_text()
    # No server listens at this endpoint, as when the store is down.
    launch.write_text(original.replace(archive.store.endpoint, "127.0.0.1:9"))
    log = run / "reconcile.log"
    wait_for_words(log, "attempt 1")
    launch.write_text(original)

    assert archive.outcome("batch-") == ([["image.tif", "1"]], [])
    assert "tried again soon" in log.read_text()
    assert "1 row processed, 0 failed" in wait_for_words(log, "processed")


def test_reconciling_twice_changes_nothing(archive: Archive):
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    archive.launch()
    outcome = archive.outcome("batch-")
    (run,) = archive.directory.glob("workflow-run-*")
    wait_for_words(run / "reconcile.log", "processed")

    done = subprocess.run(
        [sys.executable, str(PROJECT / "cog_pipeline.py"), "reconcile", str(run)],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert archive.outcome("batch-") == outcome


def test_the_outputs_of_another_run_do_not_count(archive: Archive):
    archive.upload_raster("image.tif", 1)
    archive.cogs.write("image.tif", b"from an earlier run")
    archive.cogs.write("image.jpg", b"from an earlier run")
    archive.upload_manifest("batch-raw.csv", [("image.tif", 2)])
    archive.launch()

    processed, failed = archive.outcome("batch-")

    assert processed == []
    assert "says 2 bands" in failed[0][2]


def _stop_crondor(archive: Archive) -> None:
    (log,) = archive.directory.glob("launch-*/crondor.log")
    cluster = re.search(r"\((\d+)\.", log.read_text())[1]
    subprocess.run(["condor_rm", cluster], capture_output=True, check=True)
    wait_for(
        lambda: subprocess.check_output(["condor_q", cluster, "-af", "Iwd"]) == b""
    )
