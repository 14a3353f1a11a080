"""What happened can be read by people and by programs."""

import json
import re
import subprocess
import sys
from pathlib import Path

from state.journal import Journal
from state.project import PROJECT
from tests.support.archive import Archive, wait_for
from tests.support.faulty_s3 import Fault

RARELY = ("--every", "1440")


def events(log: Path) -> list[dict]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def launch_log(archive: Archive) -> Path:
    (home,) = archive.directory.glob("launch-*")
    return home / "log.jsonl"


def test_the_events_are_those_of_the_reference():
    reference = (PROJECT / "docs/reference.md").read_text()
    table = reference.partition("| event | in the logs of |")[2].partition("\n\n")[0]
    documented = set(re.findall(r"^\| `([\w-]+)`", table, re.MULTILINE))
    folders = ("cli", "dag", "ops", "post", "state")
    files = [file for folder in folders for file in PROJECT.glob(f"{folder}/*.py")]
    code = "".join(f.read_text() for f in [PROJECT / "cog_pipeline.py", *files])
    assert (
        set(re.findall(r"(?:\.say|\.line|\bEvent)\(\s*\"([\w-]+)\"", code))
        == documented
    )


def test_a_run_that_went_well(archive: Archive):
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    archive.launch(*RARELY)
    assert archive.outcome("batch-") == ([["image.tif", "1"]], [])

    (run,) = archive.directory.glob("workflow-run-*")
    wait_for(lambda: len(events(run / "log.jsonl")) == 2)
    told = events(run / "log.jsonl")
    assert [line["event"] for line in told] == ["submitted", "ended"]
    for line in told:
        assert {"time", "level", "message"} < line.keys()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00", line["time"])
        assert line["run"] == run.name
        assert line["manifest"] == "batch-raw.csv"
    assert (told[1]["processed"], told[1]["failed"]) == (1, 0)
    (result,) = events(run / "results.jsonl")
    assert (result["run"], result["line"], result["attempt"]) == (run.name, 1, 1)
    launched = events(launch_log(archive))
    assert [line["event"] for line in launched] == ["launched", "submitted"]


def test_rows_that_fail_are_told_with_their_attempts(archive: Archive):
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("gone.tif", 1), ("image.tif", 1)])
    # A Python without packages, which another machine may have.
    python = archive.directory / "bare-python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    environment = f"PYTHON={python} COG_PIPELINE_RETRY=$(RETRY)"
    archive.launch(
        *(*RARELY, "--submit-option", f'environment = "{environment}"'),
        # There is no other machine to try meanwhile.
        *("--submit-option", "elsewhere_seconds = 1"),
    )
    assert archive.outcome("batch-")[0] == []

    (run,) = archive.directory.glob("workflow-run-*")
    told = events(run / "log.jsonl")
    failed = [line for line in told if line["event"] == "row-failed"]
    assert [line["line"] for line in failed] == [1, 2]
    assert failed[0]["code"] == "not-found"
    assert "attempt" not in failed[0]
    assert failed[1]["attempt"] == 4
    assert "lacks a package" in failed[1]["message"]
    (result,) = events(run / "results.jsonl")
    assert (result["line"], result["attempt"]) == (2, 4)
    assert result["code"] == failed[1]["code"]


def test_a_poll_that_finds_nothing_writes_nothing_but_its_heartbeat(archive: Archive):
    archive.launch(*RARELY)
    before = contents(launch_log(archive).parent)
    assert archive.poll().returncode == 0
    after = contents(launch_log(archive).parent)
    assert {name for name in after if after[name] != before.get(name)} == {"heartbeat"}


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_what_went_wrong_stays_in_the_log(faulty_archive: Archive, faulty_s3_server):
    faulty_archive.launch(*RARELY)
    faulty_archive.upload_manifest("batch-raw.csv", [("gone.tif", 1)])
    with faulty_s3_server.suffering(Fault(method="GET", path="raw.csv$", status=403)):
        done = faulty_archive.poll()
    assert done.returncode == 1
    log = launch_log(faulty_archive)
    assert events(log)[-1]["event"] == "failed"
    assert events(log)[-1]["level"] == "error"
    assert events(log)[-1]["message"] in done.stdout
    assert str(log) in done.stderr


def test_one_run_that_is_broken_does_not_keep_others_waiting(archive: Archive):
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    archive.launch(*RARELY, "--submit-option", "requirements = false")
    (run,) = archive.directory.glob("workflow-run-*")
    (run / "submitted.json").write_text("neither JSON")
    archive.upload_manifest("other-raw.csv", [("gone.tif", 1)])

    done = archive.poll()

    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert archive.outcome("other-")[1][0][0] == "gone.tif"
    for log in (launch_log(archive), run / "log.jsonl"):
        (told,) = [line for line in events(log) if line["event"] == "internal-error"]
        assert "JSONDecodeError" in told["traceback"]
        assert told["run"] == run.name


def test_the_log_of_a_launch_does_not_grow_for_ever(archive: Archive):
    archive.launch(*RARELY)
    log = launch_log(archive)
    with log.open("a") as file:
        file.write("{}\n" * 4 * 10**6)
    archive.upload_manifest("batch-raw.csv", [("gone.tif", 1)])
    assert archive.poll().returncode == 0
    assert [line["event"] for line in events(log)] == ["nothing-to-convert", "ended"]
    assert log.with_name("log.1.jsonl").stat().st_size > 10**7


def test_many_failed_rows_do_not_fill_the_log(archive: Archive):
    archive.launch(*RARELY)
    archive.maps.write("batch-raw.csv", b"x\n" * 6000)
    assert archive.poll().returncode == 0
    (run,) = archive.directory.glob("workflow-run-*")
    told = events(run / "log.jsonl")
    failed = [line["line"] for line in told if line["event"] == "row-failed"]
    assert failed == list(range(1, 5001))
    (more,) = [line for line in told if line["event"] == "more-rows-failed"]
    assert more["rows"] == 1000
    assert "failed.csv has all" in more["message"]
    assert len(archive.outcome("batch-")[1]) == 6000


def test_a_traceback_is_no_longer_than_a_log_can_hold(tmp_path: Path):
    log = tmp_path / "log.jsonl"
    try:
        raise ValueError("?" * 10**6) from KeyError("x" * 10**6)
    except ValueError as error:
        Journal(len, (log,)).internal_error(error)
    (told,) = events(log)
    assert len(told["traceback"]) < 20_000
    assert "test_journal.py" in told["traceback"]


def test_a_log_that_cannot_be_written_is_told_of_and_no_more(tmp_path: Path):
    told = []
    journal = Journal(told.append, (tmp_path / "absent" / "log.jsonl",))
    journal.say("launched", "all is well")
    assert told[0] == "all is well"
    assert "cannot be written: No such file" in told[1]


def test_no_signature_and_no_control_character_is_said(tmp_path: Path):
    told = []
    journal = Journal(told.append, (tmp_path / "log.jsonl",))
    url = "https://s3.example.org/maps/a.tif?X-Amz-Credential=us&X-Amz-Signature=5ec7e7"
    journal.say("failed", f"{url} was refused\x1b[2J\u202e\ud800", manifest="a\x1b[2J")
    try:
        raise ValueError(url)
    except ValueError as error:
        told.append(journal.internal_error(error))

    written = (tmp_path / "log.jsonl").read_text()
    for text in (*told, written):
        assert "5ec7e7" not in text
        assert not {"\x1b", "\u202e", "\ud800"} & set(text)
    assert "https://s3.example.org/maps/a.tif" in told[0]
    assert "ValueError" in written
    assert json.loads(written.splitlines()[0])["manifest"] == "a\x1b[2J"


def test_what_a_poll_prints_is_what_happened(archive: Archive):
    archive.upload_manifest("batch-raw.csv", [("gone.tif", 1)])
    said = archive.launch(*RARELY)
    messages = [line["message"] for line in events(launch_log(archive))]
    assert messages == said.splitlines()[: len(messages)]
    (run,) = archive.directory.glob("workflow-run-*")
    command = [sys.executable, str(PROJECT / "cog_pipeline.py"), "reconcile", str(run)]
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.stdout == events(run / "log.jsonl")[-1]["message"] + "\n"
