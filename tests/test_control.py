"""The commands hold, release and stop lose no row."""

import json
import subprocess
import time
from pathlib import Path

from condor import queue
from state.project import PROJECT
from state.run import load_run
from tests.support.archive import (
    A_JOB_A_ROW,
    Archive,
    wait_for,
    wait_for_dagman,
)

# These images are converted only once the file "go" is there.
NODE = """\
#!/bin/sh
case $1 in
wait*) while ! [ -e "{directory}/go" ]; do sleep 0.2; done ;;
esac
exec {script} "$@"
"""


def launch(archive: Archive, *options: str) -> None:
    node = archive.directory / "node.sh"
    script = PROJECT / "bin" / "generate_cogs.sh"
    node.write_text(NODE.format(directory=archive.directory, script=script))
    archive.launch_to_poll_by_hand(
        *("--submit-option", f"executable = {node}", "--retry-seconds", "1"),
        *(*A_JOB_A_ROW, *options),
    )


def begin_run(archive: Archive, stem: str, *names: str) -> Path:
    before = set(archive.directory.glob("workflow-run-*"))
    archive.upload_manifest(f"{stem}-raw.csv", [(f"{name}.tif", 1) for name in names])
    assert archive.poll().returncode == 0
    (directory,) = set(archive.directory.glob("workflow-run-*")) - before
    return directory


def jobs(archive: Archive) -> dict[str, dict]:
    """Return the jobs by their image; that of DAGMan has none."""
    listed = json.loads(archive.call("jobs", "--json").stdout)
    return {job["image"]: job for job in listed}


def said(archive: Archive, *words: str) -> str:
    done = archive.call(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def state(archive: Archive, directory: Path) -> str:
    (run,) = json.loads(said(archive, "status", directory.name, "--json"))
    return run["state"]


def test_a_held_run_waits_and_loses_no_row(archive: Archive):
    for name in ("gone", "wait"):
        archive.upload_raster(f"{name}.tif", 1)
    launch(archive)
    directory = begin_run(archive, "batch", "gone", "wait")
    gone = archive.fetch(archive.maps, "gone.tif")
    archive.maps.remove("gone.tif")
    wait_for(lambda: "gone.tif" in jobs(archive))
    wait_for(lambda: jobs(archive)["gone.tif"]["state"] == "held")
    wait_for(lambda: jobs(archive)["wait.tif"]["state"] == "running")

    # HTCondor holds one job, and would release it again.
    held = said(archive, "hold", directory.name)
    assert f"{directory.name} is held, with 3 jobs: 'release " in held
    codes = {image: job["hold_code"] for image, job in jobs(archive).items()}
    assert codes == {"": 1, "gone.tif": 1, "wait.tif": 1}
    assert state(archive, directory) == "held"
    assert "is held already" in said(archive, "hold", directory.name)
    assert f"'release {directory.name}' lets it continue" in archive.poll().stdout
    assert {job["state"] for job in jobs(archive).values()} == {"held"}

    archive.maps.upload("gone.tif", gone)
    (archive.directory / "go").touch()
    released = said(archive, "release", directory.name)
    assert released == f"{directory.name} is released, with 3 jobs\n"
    assert "is not held" in said(archive, "release", directory.name)
    processed, failed = archive.outcome("batch-")
    assert [row[0] for row in processed] == ["gone.tif", "wait.tif"]
    assert failed == []
    wait_for(lambda: load_run(directory).done)
    for command in ("hold", "release", "stop"):
        assert "has ended: " in said(archive, command, directory.name)
    log = [json.loads(line) for line in (directory / "log.jsonl").open()]
    assert [line["jobs"] for line in log if line["event"] == "held"] == [3]


def test_the_rows_of_a_stopped_run_fail_with_that_reason(archive: Archive):
    for name in ("done", "wait-1", "wait-2"):
        archive.upload_raster(f"{name}.tif", 1)
    launch(archive, "-m", "1")
    directory = begin_run(archive, "batch", "done", "wait-1", "wait-2")
    wait_for(lambda: archive.cogs.exists("done.jpg"))
    wait_for(lambda: jobs(archive).get("wait-1.tif", {}).get("state") == "running")

    (archive.directory / "no-run").mkdir()
    stopped = archive.call("stop", "no-run", directory.name)
    assert stopped.returncode == 1
    assert "no-run: " in stopped.stderr
    assert f"{directory.name} stops: " in stopped.stdout
    # DAGMan ends the run, without a poll.
    wait_for(lambda: load_run(directory).done)
    processed, failed = archive.outcome("batch-")
    assert [row[0] for row in processed] == ["done.tif"]
    assert [row[0] for row in failed] == ["wait-1.tif", "wait-2.tif"]
    stopped = "the operator stopped the run"
    assert failed[0][2] == f"its job was removed from the queue: {stopped}"
    assert failed[1][2].endswith(f"before this row's turn: {stopped}")
    assert state(archive, directory) == "done"
    assert "with 2 rows; the next poll" in said(archive, "retry", directory.name)


def test_runs_without_a_dagman_that_runs_are_held_and_stopped(archive: Archive):
    archive.upload_raster("image.tif", 1)
    # The hold of a person is none of the holds after which a job is given up.
    launch(
        archive,
        *("--submit-option", "requirements = false"),
        *("--submit-option", "max_holds = 0"),
    )
    first = begin_run(archive, "first", "image")
    wait_for(lambda: "image.tif" in jobs(archive))
    # It waits for the first one to end.
    second = begin_run(archive, "second", "image")
    third = begin_run(archive, "third", "image")

    assert f"{first.name} is held, with 2 jobs" in said(archive, "hold", first.name)
    assert f"{second.name} is held, with 0 jobs" in said(archive, "hold", second.name)
    assert state(archive, second) == "held"
    assert f"{second.name} is held; 'release" in archive.poll().stdout
    assert "the next poll continues it" in said(archive, "release", second.name)
    assert state(archive, second) == "waiting"

    ended = said(archive, "stop", second.name)
    assert ended.endswith(f"{second.name} is stopped, and has its two CSVs\n")
    assert archive.outcome("second-")[1][0][2].endswith("the operator stopped the run")
    # A crash came before anything else; the next poll stops the run.
    (third / "stopped.json").write_text('{"reason": "a test stopped the run"}')
    assert "cannot continue" in said(archive, "release", third.name)
    assert state(archive, third) == "ending"
    assert archive.poll().returncode == 0
    assert "a test stopped the run" in archive.outcome("third-")[1][0][2]

    time.sleep(6)  # HTCondor looks every five seconds whether to give jobs up
    codes = {image: job["hold_code"] for image, job in jobs(archive).items()}
    assert codes == {"": 1, "image.tif": 1}
    assert archive.call("stop").returncode == 2
    assert archive.call("stop", first.name, "--all").returncode == 2
    on = said(archive, "stop", "--launch")
    assert "no longer polls" in on
    assert "1 run goes on: " in on
    assert state(archive, first) == "held"
    everything = said(archive, "stop", "--all")
    assert "has no job that polls: there is nothing to stop" in everything
    assert f"{first.name} is stopped, and has its two CSVs" in everything
    assert len(archive.outcome("first-")[1]) == 1
    assert said(archive, "stop", "--all").count("\n") == 1


def test_a_run_is_stopped_before_its_dagman_starts(archive: Archive):
    archive.upload_raster("image.tif", 1)
    launch(archive, "--submit-option", "requirements = false")
    directory = begin_run(archive, "batch", "image")
    wait_for(lambda: "image.tif" in jobs(archive))
    # Put DAGMan back where it was before it started.
    dagman = str(load_run(directory).cluster)
    for command in (
        ["condor_hold", dagman],
        ["condor_qedit", dagman, "Requirements", "false"],
        ["condor_release", dagman],
    ):
        subprocess.run(command, check=True, capture_output=True)
    wait_for(lambda: jobs(archive)[""]["state"] == "idle")

    ended = said(archive, "stop", "--all")
    assert f"{directory.name} is stopped, and has its two CSVs" in ended
    assert archive.outcome("batch-")[1][0][2].endswith("the operator stopped the run")


def test_what_a_poll_did_not_remove_is_removed_by_the_next_one(archive: Archive):
    archive.upload_raster("image.tif", 1)
    launch(archive, "--submit-option", "requirements = false")
    directory = begin_run(archive, "batch", "image")
    wait_for_dagman(directory)
    unreachable = archive.call("stop", directory.name, CONDOR_CONFIG="/dev/null")
    assert unreachable.returncode == 1
    assert queue.find(queue.RUN_ATTRIBUTE, str(directory))
    assert archive.poll().returncode == 0
    wait_for(lambda: load_run(directory).done)
    assert archive.outcome("batch-")[1][0][2].endswith("the operator stopped the run")
