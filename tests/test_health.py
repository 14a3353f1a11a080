"""The health command reports the state of a launch to monitoring."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from state.project import PROJECT
from tests.support.archive import Archive, wait_for, wait_for_words
from tests.support.faulty_s3 import Fault

HOUR = 60 * 60
# The crondor job polls so rarely that it does not poll during a test.
RARELY = ("--every", "1440")


def health(archive: Archive, *arguments: str, **environment: str):
    return subprocess.run(
        [sys.executable, str(PROJECT / "cog_pipeline.py"), "health", *arguments],
        cwd=archive.directory,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


def assert_state(done: subprocess.CompletedProcess, state: str, *words: str) -> None:
    states = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
    assert done.stdout.startswith(state), done.stdout + done.stderr
    assert done.returncode == states.index(state)
    for word in words:
        assert word in done.stdout
    assert len(done.stdout.splitlines()) == 1


def home(archive: Archive) -> Path:
    (folder,) = archive.directory.glob("launch-*")
    return folder


def set_age(path: Path, hours: float) -> None:
    then = time.time() - hours * HOUR
    os.utime(path, (then, then))


def cluster_of(launch_output: str) -> str:
    return re.search(r"job (\d+)", launch_output)[1]


def condor(*command: str) -> None:
    subprocess.run(command, capture_output=True, check=True)


def test_a_healthy_launch(archive: Archive):
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    archive.launch(*RARELY, "--submit-option", "requirements = false")

    assert_state(
        health(archive), "OK", f"{archive.maps.name} *raw.csv: last poll", "1 run alive"
    )
    (report,) = json.loads(health(archive, "--json").stdout)
    assert report["state"] == "OK"
    assert report["findings"] == []
    assert report["runs_alive"] == 1
    assert report["free_bytes"] > 0
    assert report["last_poll"].endswith("+00:00")


def test_no_poll_within_three_periods(archive: Archive):
    archive.launch(*RARELY)
    set_age(home(archive) / "heartbeat", 3 * 24 - 1)
    set_age(home(archive) / "launch.json", 30 * 24)
    assert_state(health(archive), "OK", "last poll 3 days ago")

    set_age(home(archive) / "heartbeat", 3 * 24 + 1)
    assert_state(health(archive), "CRITICAL", "no poll has succeeded for 3 days")

    assert archive.poll().returncode == 0
    assert_state(health(archive), "OK")


def test_a_new_launch_has_three_periods_for_its_first_poll(archive: Archive):
    archive.launch(*RARELY)
    (home(archive) / "heartbeat").unlink()
    assert_state(health(archive), "OK", "no poll yet")
    set_age(home(archive) / "launch.json", 3 * 24 + 1)
    assert_state(health(archive), "CRITICAL", "no poll has succeeded")


def test_a_failed_poll_does_not_count(faulty_archive: Archive, faulty_s3_server):
    faulty_archive.launch(*RARELY)
    heartbeat = (home(faulty_archive) / "heartbeat").read_text()
    faulty_archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    for path in ("list-type", "batch-raw.csv$"):
        with faulty_s3_server.suffering(Fault(path=path, status=403)):
            assert faulty_archive.poll().returncode == 1
        assert (home(faulty_archive) / "heartbeat").read_text() == heartbeat
    assert faulty_archive.poll().returncode == 0
    assert (home(faulty_archive) / "heartbeat").read_text() > heartbeat


def test_a_heartbeat_in_the_future_is_critical(archive: Archive):
    archive.launch(*RARELY)
    set_age(home(archive) / "heartbeat", -365 * 24)
    assert_state(health(archive), "CRITICAL", "in the future")


def test_a_held_and_a_missing_crondor_job(archive: Archive):
    job = cluster_of(archive.launch(*RARELY))
    condor("condor_hold", job)
    assert_state(health(archive), "CRITICAL", "held", f"condor_release {job}")

    condor("condor_rm", job)
    wait_for(lambda: "not in the queue: launch again" in health(archive).stdout)
    assert_state(health(archive), "CRITICAL")


def test_a_run_without_progress(archive: Archive):
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    archive.launch(*RARELY, "--submit-option", "requirements = false")
    (run,) = archive.directory.glob("workflow-run-*")
    log = run / "convert.dag.nodes.log"
    wait_for_words(log, "submitted from host")
    for place in (run, run / "results", log):
        set_age(place, 23)
    assert_state(health(archive), "OK")
    for place in (run, run / "results", log):
        set_age(place, 25)
    assert_state(health(archive), "WARNING", f"{run.name} has not moved for 25 h")

    job = str(json.loads((run / "submitted.json").read_text())["cluster"])
    condor("condor_hold", job)
    assert_state(health(archive), "WARNING", "DAGMan", f"release {run.name}")


@pytest.mark.parametrize("record", ["submitted.json", "waiting.json"])
@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"key": 7, "since": 7}'],
    ids=["empty", "a list", "numbers"],
)
def test_an_unreadable_record_is_reported(archive: Archive, record: str, content: str):
    archive.upload_manifest("batch-raw.csv", [("missing.tif", 1)])
    archive.launch(*RARELY)
    (run,) = archive.directory.glob("workflow-run-*")
    (run / "done.json").unlink()
    (run / record).write_text(content)
    assert_state(health(archive), "WARNING", f"a record of {run.name} cannot be read")


@pytest.mark.parametrize(
    ("megabytes", "state"), [(8, "CRITICAL"), (2_000, "WARNING"), (6_000, "OK")]
)
def test_the_disk_fills_up(archive: Archive, megabytes: int, state: str):
    archive.launch(*RARELY)
    result = on_a_disk_of(archive, f"size={megabytes}m")
    assert_state(result, state, *(["has room for"] if state != "OK" else []))


def test_the_disk_runs_out_of_inodes(archive: Archive):
    archive.launch(*RARELY)
    result = on_a_disk_of(archive, "size=6000m,nr_inodes=9000")
    assert_state(result, "CRITICAL", "files more")


def on_a_disk_of(archive: Archive, size: str) -> subprocess.CompletedProcess:
    """Return the health of a launch whose directory is a small disk."""
    if os.geteuid():
        pytest.skip("where another user may mount a disk, / belongs to nobody")
    script = f"""
        cp -a {home(archive).name} ../{home(archive).name}.copy &&
        mount -t tmpfs -o {size},mode=755 tmpfs "$PWD" && cd "$PWD" &&
        mv ../{home(archive).name}.copy {home(archive).name} &&
        exec {sys.executable} {PROJECT}/cog_pipeline.py health"""
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=archive.directory,
        capture_output=True,
        text=True,
    )


def test_an_htcondor_that_does_not_answer_is_critical(archive: Archive):
    archive.launch(*RARELY)
    result = health(archive, CONDOR_CONFIG="/dev/null")
    assert_state(result, "CRITICAL", "condor_q")


def test_an_unreadable_launch_is_unknown(archive: Archive):
    assert_state(health(archive), "UNKNOWN", "there is no launch in")
    broken = archive.directory / "launch.json"
    broken.write_text("{")
    assert_state(health(archive, str(broken)), "UNKNOWN", "launch again")
    assert_state(health(archive, "absent.json"), "UNKNOWN", "absent.json")
    assert health(archive, "--unknown").returncode == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all directories")
def test_a_launch_of_another_user_is_unknown(archive: Archive):
    archive.launch(*RARELY)
    folder = home(archive)
    folder.chmod(0)
    assert_state(health(archive), "UNKNOWN", "use the account that launched")
    refused = archive.call("status")
    folder.chmod(0o700)
    assert refused.returncode == 1
    assert "use the account that launched" in refused.stderr


def test_each_launch_has_a_line_and_the_worst_state_decides(archive: Archive):
    archive.launch(*RARELY)
    condor("condor_rm", cluster_of(archive.launch(*RARELY, "-p", "b|c*raw.csv")))
    wait_for(lambda: health(archive).returncode != 0)
    done = health(archive)
    assert sorted(states_of(done)) == ["CRITICAL", "OK"]
    assert done.returncode == 2
    # Monitoring reads text after a bar as performance data.
    assert "|" not in done.stdout

    files = [str(file) for file in archive.directory.glob("launch-*/*.json")]
    done = health(archive, "absent.json", *files)
    assert sorted(states_of(done)) == ["CRITICAL", "OK", "UNKNOWN"]
    assert done.returncode == 2


def states_of(done: subprocess.CompletedProcess) -> list[str]:
    return [line.split()[0] for line in done.stdout.splitlines()]
