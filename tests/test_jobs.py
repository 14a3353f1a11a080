"""The command jobs shows where the jobs of runs are, and why some are held."""

import csv
import io
import json
import subprocess

from condor.holds import BY_USER, explain
from state.run import load_run
from tests.support.archive import A_JOB_A_ROW, Archive, wait_for


def jobs(archive: Archive, *words: str) -> dict[str, dict]:
    """Return the jobs by their image; that of DAGMan has none."""
    done = archive.call("jobs", "--json", *words)
    assert done.returncode == 0, done.stderr
    return {job["image"]: job for job in json.loads(done.stdout)}


def test_jobs_are_shown_where_they_are_and_why_they_are_held(archive: Archive):
    assert archive.call("jobs").stdout == "0 jobs of 0 runs.\n"
    for name in ("first", "gone", "later"):
        archive.upload_raster(f"{name}.tif", 1)
    # Otherwise HTCondor would soon give up the job whose image is gone.
    patient = ("--node-submit-option", "periodic_remove = false")
    held = ("--node-submit-option", "hold = true")
    archive.launch_to_poll_by_hand(*A_JOB_A_ROW, *held, *patient)
    rows = [("first.tif", 1), ("absent.tif", 1), ("gone.tif", 1), ("later.tif", 1)]
    archive.upload_manifest("batch-raw.csv", rows)
    assert archive.poll().returncode == 0
    archive.maps.remove("gone.tif")
    (directory,) = archive.directory.glob("workflow-run-*")
    wait_for(lambda: len(jobs(archive)) == 4)

    found = jobs(archive, directory.name)
    assert found[""]["node"] == ""
    assert found[""]["state"] == "running"
    assert found["later.tif"]["state"] == "held"
    assert found["later.tif"]["hold_code"] == 15
    assert found["later.tif"]["machine"] == ""
    assert found["later.tif"]["attempt"] == 1
    assert found["later.tif"]["node"] == "row4"
    shown = archive.call("jobs").stdout
    assert "3 jobs held, code 15.0: It was submitted on hold" in shown
    assert shown.endswith("3 jobs of 1 run: 3 held.\n")

    # The image of this job is gone: HTCondor starts it, and holds it with a reason.
    job = found["gone.tif"]["job"]
    subprocess.run(["condor_release", job], check=True, capture_output=True)
    wait_for(lambda: jobs(archive)["gone.tif"]["hold_code"] == 13)
    gone = jobs(archive)["gone.tif"]
    assert gone["starts"] == 1
    assert "@" in gone["machine"]
    assert gone["meaning"] == "Its image is no longer in the input bucket."
    shown = archive.call("jobs").stdout
    assert "error: 404" in shown
    assert "X-Amz" not in shown
    (line,) = [line for line in shown.splitlines() if line.endswith("  gone.tif")]
    assert line.split()[:2] == [job, "held"]
    assert "try 1" in line
    table = csv.DictReader(io.StringIO(archive.call("jobs", "--csv").stdout))
    by_image = {row["image"]: row for row in table}
    assert by_image.keys() == {"", "first.tif", "gone.tif", "later.tif"}
    assert by_image["gone.tif"]["hold_code"] == "13"
    assert by_image["gone.tif"]["run"] == directory.name

    dagman = str(load_run(directory).cluster)
    subprocess.run(["condor_hold", dagman], check=True, capture_output=True)
    shown = archive.call("jobs").stdout
    assert f"  {dagman}.0  held" in shown
    assert "(DAGMan)" in shown
    assert f"code {BY_USER}.0: A person holds it." in shown

    subprocess.run(["condor_rm", dagman], check=True, capture_output=True)
    wait_for(lambda: jobs(archive) == {})
    assert archive.poll().returncode == 0
    archive.outcome("batch-")
    assert archive.call("jobs").stdout == "0 jobs of 0 runs.\n"


def test_a_job_waits_for_a_machine(archive: Archive):
    for name in ("=a\x1b[31m", "b"):
        archive.upload_raster(f"{name}.tif", 1)
    archive.launch_to_poll_by_hand(
        *("--rows-per-job", "2", "--submit-option", "requirements = false")
    )
    rows = [("=a\x1b[31m.tif", 1), ("b.tif", 1)]
    archive.upload_manifest("batch-raw.csv", rows)
    assert archive.poll().returncode == 0
    wait_for(lambda: len(jobs(archive)) == 2)

    shown = archive.call("jobs").stdout
    assert "  1 job waits for a machine, for up to " in shown
    assert "'condor_q -better-analyze " in shown
    assert shown.endswith("1 job of 1 run: 1 idle.\n")
    (job,) = [job for job in jobs(archive).values() if job["node"]]
    assert job["images"] == 2
    listed = archive.call("jobs", "--csv").stdout
    assert "\x1b" not in listed
    assert "the text was: =a" in listed


def test_every_hold_has_an_explanation_and_a_remedy():
    full = "Failure writing output to file"
    assert explain(13, full).meaning == "The disk of the machine is full."
    assert "output bucket" in explain(12, "URL returned error: 403").remedy
    for code in range(60):
        for reason in ("", "error: 403", "error: 404", full):
            explanation = explain(code, reason)
            assert explanation.meaning.endswith(".")
            assert explanation.remedy.endswith(".")
