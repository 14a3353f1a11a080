"""Every command ends with a sentence and a documented exit code."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from ops.health import Event, State
from state.exits import Exit
from state.project import PROJECT
from tests.support.archive import (
    Archive,
    wait_for,
    wait_for_dagman,
    wait_for_words,
)
from tests.support.command_line import assert_wrong, invoke
from tests.support.faulty_s3 import Fault, FaultyS3

REFERENCE = (PROJECT / "docs/reference.md").read_text()


def documented(heading: str) -> dict[str, int]:
    """Return the names and codes in the table under a heading of the reference."""
    section = REFERENCE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", section, re.MULTILINE)
    return {name: int(code) for code, name in rows}


def test_the_codes_are_those_of_the_reference():
    assert documented("Exit codes") == {code.name: code.value for code in Exit}
    assert documented("Health") == {state.name: state.value for state in State}


def test_the_events_of_health_are_those_of_the_reference():
    section = REFERENCE.partition("\n## Health\n")[2].partition("\n## ")[0]
    table = section.partition("| event |")[2]
    documented_events = {
        event
        for line in re.findall(r"^\| (`.+?) \| \w", table, re.MULTILINE)
        for event in re.findall(r"`([\w-]+)`", line)
    }
    assert documented_events == {event.value for event in Event}


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(PROJECT / "cog_pipeline.py"), *arguments]


def interrupt(
    archive: Archive,
    server: FaultyS3,
    method: str,
    path: str,
    arguments: list[str] | None = None,
) -> subprocess.CompletedProcess:
    """Stop a command with Ctrl-C while it waits for the answer to a request."""
    # The answer is so slow that it never arrives.
    stalled = Fault(method=method, path=path, bytes_per_second=0.1)
    before = server.count(method, path)
    with server.suffering(stalled):
        launch = subprocess.Popen(
            arguments or archive.command("--every", "1440"),
            cwd=archive.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: server.count(method, path) > before)
        launch.send_signal(signal.SIGINT)
        out, err = launch.communicate(timeout=60)
    return subprocess.CompletedProcess(launch.args, launch.returncode, out, err)


def jobs_of(archive: Archive) -> list[str]:
    queue = subprocess.run(
        ["condor_q", "-af", "ClusterId", "CogPipeline"],
        capture_output=True,
        text=True,
        check=True,
    )
    jobs = [line.split() for line in queue.stdout.splitlines()]
    return [cluster for cluster, *name in jobs if archive.maps.name in str(name)]


def test_ctrl_c_before_anything_was_submitted(
    faulty_archive: Archive, faulty_s3_server: FaultyS3
):
    done = interrupt(faulty_archive, faulty_s3_server, "GET", "list-type")
    assert done.returncode == Exit.INTERRUPTED
    assert done.stderr == "Error: stopped by Ctrl-C: nothing was submitted\n"
    assert jobs_of(faulty_archive) == []


def test_ctrl_c_during_the_first_poll(
    faulty_archive: Archive, faulty_s3_server: FaultyS3
):
    faulty_archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    done = interrupt(faulty_archive, faulty_s3_server, "GET", "batch-raw.csv")
    (job,) = jobs_of(faulty_archive)
    assert done.returncode == Exit.INTERRUPTED
    assert f"Launched as job {job}" in done.stdout
    assert f"job {job} continues to poll" in done.stderr
    assert "Traceback" not in done.stderr

    again = interrupt(faulty_archive, faulty_s3_server, "GET", "list-type")
    assert again.returncode == Exit.INTERRUPTED
    assert f"job {job} is in the queue" in again.stderr


def assert_internal_error(
    done: subprocess.CompletedProcess, code: int, message: str
) -> str:
    """Return the traceback, from the file that a message names."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    file = re.search(r"The last line of (/\S+) has the traceback", message)[1]
    return json.loads(Path(file).read_text().splitlines()[-1])["traceback"]


def test_an_internal_error_of_reconcile(archive: Archive):
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    archive.launch("--every", "1440", "--submit-option", "requirements = false")
    (run,) = archive.directory.glob("workflow-run-*")
    (run / "rows.jsonl").write_text("neither JSON")
    reconcile = command("reconcile", str(run))
    refused = subprocess.run(reconcile, capture_output=True, text=True)
    assert refused.returncode == Exit.REFUSED
    assert "its DAG is in the queue" in refused.stderr
    wait_for_dagman(run)
    cluster = json.loads((run / "submitted.json").read_text())["cluster"]
    subprocess.run(["condor_rm", str(cluster)], capture_output=True, check=True)
    wait_for_words(run / "reconcile.log", "internal error")
    done = subprocess.run(
        [*reconcile, "--final-node-of", "convert.dag"], capture_output=True, text=True
    )
    assert str(run / "log.jsonl") in done.stderr
    traceback = assert_internal_error(done, Exit.INTERNAL_ERROR, done.stderr)
    assert "JSONDecodeError" in traceback


def test_an_internal_error_before_there_is_a_log(archive: Archive):
    archive.launch("--every", "1440")
    (home,) = archive.directory.glob("launch-*")
    subprocess.run(["condor_rm", *jobs_of(archive)], capture_output=True, check=True)
    wait_for(lambda: not jobs_of(archive))
    home.rename(archive.directory / "former")
    home.write_text("a file in place of a directory")
    done = archive.run(TMPDIR=str(archive.directory))
    assert str(archive.directory) in done.stderr
    assert "FileExistsError" in assert_internal_error(
        done, Exit.INTERNAL_ERROR, done.stderr
    )


def test_an_internal_error_of_health_is_unknown(archive: Archive):
    archive.launch("--every", "1440")
    (file,) = archive.directory.glob("launch-*/launch.json")
    file.write_text(file.read_text().replace("1440", '"never"'))
    done = subprocess.run(
        command("health"),
        cwd=archive.directory,
        env=os.environ | {"TMPDIR": str(archive.directory)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("UNKNOWN")
    assert "TypeError" in assert_internal_error(done, State.UNKNOWN, done.stdout)


def test_ctrl_c_during_a_poll(faulty_archive: Archive, faulty_s3_server: FaultyS3):
    faulty_archive.launch("--every", "1440")
    (file,) = faulty_archive.directory.glob("launch-*/launch.json")
    done = interrupt(
        faulty_archive, faulty_s3_server, "GET", "list-type", command("poll", str(file))
    )
    assert done.returncode == Exit.INTERRUPTED
    assert "stopped by Ctrl-C" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_does_not_belong_to_a_launch_is_refused(tmp_path: Path):
    other = tmp_path / "other.json"
    other.write_text("{}")
    polled = invoke("poll", str(other))
    assert polled.exit_code == Exit.REFUSED
    assert "name the one in its launch-… directory" in polled.stderr
    ended = invoke("reconcile", str(tmp_path))
    assert ended.exit_code == Exit.REFUSED
    assert "name a directory workflow-run-…" in ended.stderr
    assert_wrong(invoke("poll", str(tmp_path / "absent.json")), "does not exist")


def test_a_wrong_command_line_of_health_is_unknown():
    result = invoke("health", "--jsn")
    assert result.exit_code == State.UNKNOWN
    assert "No such option '--jsn'" in result.stderr


def test_a_poll_that_finds_nothing_says_so(archive: Archive):
    archive.launch("--every", "1440")
    done = archive.poll()
    assert done.returncode == Exit.DONE
    assert f"polled {archive.maps.name}, runs started: 0" in done.stdout


def test_reconcile_that_cannot_write_is_tried_again_for_an_hour(archive: Archive):
    archive.upload_manifest("batch-raw.csv", [("gone.tif", 1)])
    archive.launch("--every", "1440")
    (run,) = archive.directory.glob("workflow-run-*")
    for file in ("done.json", "outcome.json", "failed.csv"):
        (run / file).unlink()
    # The file system refuses the file, as on a full disk.
    (run / "failed.csv").mkdir()

    first = subprocess.run(
        command("reconcile", str(run)), capture_output=True, text=True
    )
    assert first.returncode == Exit.TRY_AGAIN
    assert "attempt 1: " in first.stdout
    assert "tried again soon" in first.stdout

    (run / "attempts").write_text("59")
    last = subprocess.run(
        command("reconcile", str(run)), capture_output=True, text=True
    )
    assert last.returncode == Exit.REFUSED
    assert "the next poll tries again" in last.stdout

    (run / "failed.csv").rmdir()
    assert archive.poll().returncode == Exit.DONE
    assert archive.outcome("batch-")[1][0][0] == "gone.tif"
