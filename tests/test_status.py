"""The command status shows how far runs are, from the queue to the two CSVs."""

import csv
import io
import json
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ops.status import State, Status, totals
from tests.support.archive import Archive, wait_for


def shown(archive: Archive) -> dict:
    done = archive.call("status", "--json")
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)
    return run


def test_a_run_is_shown_from_its_jobs_to_its_csvs(archive: Archive):
    assert archive.call("status").stdout.count("0 runs, 0 done.\n") == 1
    for name in "ab":
        archive.upload_raster(f"{name}.tif", 1)
    rows = [("a.tif", 1), ("b.tif", 1), ("missing.tif", 1)]
    archive.launch_to_poll_by_hand(
        *("--rows-per-job", "1", "--node-submit-option", "hold = true")
    )
    archive.upload_manifest("batch-raw.csv", rows)
    assert archive.poll().returncode == 0
    wait_for(lambda: shown(archive)["jobs"] == 2)

    (directory,) = archive.directory.glob("workflow-run-*")
    run = shown(archive)
    assert run["run"] == directory.name
    assert run["manifest"] == "batch-raw.csv"
    assert (run["state"], run["jobs_done"]) == ("converting", 0)
    assert run["processed"] is None
    assert archive.call("hold", directory.name).returncode == 0
    assert shown(archive)["state"] == "held"
    text = archive.call("status")
    assert "is held: " in text.stdout
    assert "1 run, 0 done. 0 of 3 rows processed, 0 failed, 3 pending" in text.stdout
    assert max(map(len, text.stdout.splitlines())) <= 100

    assert archive.call("release", directory.name).returncode == 0
    nodes = f'CogPipelineNodeOf == "{directory}"'
    release = ["condor_release", "-constraint", nodes]
    wait_for(lambda: subprocess.run(release, capture_output=True).returncode == 0)
    watched = archive.call("status", "--watch")
    assert watched.returncode == 0, watched.stderr
    assert "1 run, 1 done. 2 of 3 rows processed, 1 failed, 0 pending" in watched.stdout
    (line,) = csv.DictReader(io.StringIO(archive.call("status", "--csv").stdout))
    assert (line["state"], line["rows"], line["failed"]) == ("done", "3", "1")
    run = shown(archive)
    assert (run["state"], run["processed"], run["failed"]) == ("done", 2, 1)
    assert run["remark"] == ""

    # A directory that cannot be read hides no other run.
    broken = archive.directory / "workflow-run-20200101T000000Z"
    broken.mkdir(mode=0o700)
    (broken / "run.json").write_text("{")
    assert shown(archive)["run"] == directory.name
    assert f"Warning: {broken.name} is left out" in archive.call("status").stderr
    assert archive.call("status", broken.name).returncode == 1


def test_the_time_left_follows_from_the_jobs_that_ended():
    began = datetime.now(UTC) - timedelta(minutes=10)
    run = Status("run", "raw.csv", State.CONVERTING, began, jobs=100, jobs_done=25)
    assert run.share == 0.25
    assert abs(run.time_left - timedelta(minutes=30)) < timedelta(seconds=5)
    run = replace(run, rows=400)
    done = replace(run, state=State.DONE, rows=7, processed=5, failed=2)
    together = totals([run, done])
    assert (together.rows, together.processed, together.pending) == (407, 5, 400)
    assert abs(together.an_hour - 600) < 5  # a quarter of 400 rows in ten minutes
    assert totals([done]).an_hour is None
    too_few = Status("run", "raw.csv", State.CONVERTING, began, jobs=100, jobs_done=1)
    assert too_few.time_left is None
    assert Status("run", "raw.csv", State.WAITING, began).time_left is None
