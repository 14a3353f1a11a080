"""The journal records events for people and for programs."""

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


def test_the_reference_documents_every_event():
    reference = (PROJECT / "docs/reference.md").read_text()
    table = reference.partition("| event | in the logs of |")[2].partition("\n\n")[0]
    documented = set(re.findall(r"^\| `([\w-]+)`", table, re.MULTILINE))
    folders = ("catalog", "cli", "dag", "ops", "post", "state")
    files = [file for folder in folders for file in PROJECT.glob(f"{folder}/*.py")]
    code = "".join(f.read_text() for f in [PROJECT / "cog_pipeline.py", *files])
    assert (
        set(re.findall(r"(?:\.say|\.line|\bEvent)\(\s*\"([\w-]+)\"", code))
        == documented
    )


def test_a_successful_run_records_its_submission_and_its_end(archive: Archive):
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    archive.launch(*RARELY)
    assert archive.outcome("batch-") == ([["image.tif", "1"]], [])

    (run,) = archive.directory.glob("workflow-run-*")
    wait_for(lambda: len(events(run / "log.jsonl")) == 2)
    records = events(run / "log.jsonl")
    assert [line["event"] for line in records] == ["submitted", "ended"]
    for line in records:
        assert {"time", "level", "message"} < line.keys()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00", line["time"])
        assert line["run"] == run.name
        assert line["manifest"] == "batch-raw.csv"
    assert (records[1]["processed"], records[1]["failed"]) == (1, 0)
    (result,) = events(run / "results.jsonl")
    assert (result["run"], result["line"], result["attempt"]) == (run.name, 1, 1)
    launched = [line["event"] for line in events(launch_log(archive))]
    # Not every version of HTCondor can sign the URLs of this store.
    assert launched in (
        ["launched", "submitted"],
        ["launched", "presigned-urls", "submitted"],
    )


def test_failed_rows_are_recorded_with_their_attempts(archive: Archive):
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("gone.tif", 1), ("image.tif", 1)])
    # This Python has no packages; one on another machine might have them.
    python = archive.directory / "bare-python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    environment = f"PYTHON={python} COG_PIPELINE_RETRY=$(RETRY)"
    archive.launch(
        *(*RARELY, "--submit-option", f'environment = "{environment}"'),
        # The pool has no other machine to try.
        *("--submit-option", "elsewhere_seconds = 1"),
    )
    assert archive.outcome("batch-")[0] == []

    (run,) = archive.directory.glob("workflow-run-*")
    records = events(run / "log.jsonl")
    failed = [line for line in records if line["event"] == "row-failed"]
    assert [line["line"] for line in failed] == [1, 2]
    assert failed[0]["code"] == "not-found"
    assert "attempt" not in failed[0]
    assert failed[1]["attempt"] == 4
    assert "lacks a package" in failed[1]["message"]
    (result,) = events(run / "results.jsonl")
    assert (result["line"], result["attempt"]) == (2, 4)
    assert result["code"] == failed[1]["code"]


def test_a_poll_without_new_manifests_writes_only_its_heartbeat(archive: Archive):
    archive.launch(*RARELY)
    before = contents(launch_log(archive).parent)
    assert archive.poll().returncode == 0
    after = contents(launch_log(archive).parent)
    assert {name for name in after if after[name] != before.get(name)} == {"heartbeat"}


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.iterdir() if path.is_file())
    return {file.name: file.read_bytes() for file in files}


def test_an_error_is_recorded_in_the_log(faulty_archive: Archive, faulty_s3_server):
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


def test_a_broken_run_does_not_delay_other_runs(archive: Archive):
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
        (record,) = [line for line in events(log) if line["event"] == "internal-error"]
        assert "JSONDecodeError" in record["traceback"]
        assert record["run"] == run.name


def test_the_log_of_a_launch_is_rotated(archive: Archive):
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
    records = events(run / "log.jsonl")
    failed = [line["line"] for line in records if line["event"] == "row-failed"]
    assert failed == list(range(1, 5001))
    (more,) = [line for line in records if line["event"] == "more-rows-failed"]
    assert more["rows"] == 1000
    assert "failed.csv has all" in more["message"]
    assert len(archive.outcome("batch-")[1]) == 6000


def test_a_long_traceback_is_shortened(tmp_path: Path):
    log = tmp_path / "log.jsonl"
    try:
        raise ValueError("?" * 10**6) from KeyError("x" * 10**6)
    except ValueError as error:
        Journal(len, (log,)).internal_error(error)
    (record,) = events(log)
    assert len(record["traceback"]) < 20_000
    assert "test_journal.py" in record["traceback"]


def test_a_log_that_cannot_be_written_is_only_reported(tmp_path: Path):
    messages = []
    journal = Journal(messages.append, (tmp_path / "absent" / "log.jsonl",))
    journal.say("launched", "all is well")
    assert messages[0] == "all is well"
    assert "cannot be written: No such file" in messages[1]


def test_signatures_and_control_characters_are_removed(tmp_path: Path):
    messages = []
    journal = Journal(messages.append, (tmp_path / "log.jsonl",))
    url = "https://s3.example.org/maps/a.tif?X-Amz-Credential=us&X-Amz-Signature=5ec7e7"
    journal.say("failed", f"{url} was refused\x1b[2J\u202e\ud800", manifest="a\x1b[2J")
    try:
        raise ValueError(url)
    except ValueError as error:
        messages.append(journal.internal_error(error))

    written = (tmp_path / "log.jsonl").read_text()
    for text in (*messages, written):
        assert "5ec7e7" not in text
        assert not {"\x1b", "\u202e", "\ud800"} & set(text)
    assert "https://s3.example.org/maps/a.tif" in messages[0]
    assert "ValueError" in written
    assert json.loads(written.splitlines()[0])["manifest"] == "a\x1b[2J"


def test_a_poll_prints_the_messages_that_it_records(archive: Archive):
    archive.upload_manifest("batch-raw.csv", [("gone.tif", 1)])
    output = archive.launch(*RARELY)
    messages = [line["message"] for line in events(launch_log(archive))]
    assert messages == output.splitlines()[: len(messages)]
    (run,) = archive.directory.glob("workflow-run-*")
    command = [sys.executable, str(PROJECT / "cog_pipeline.py"), "reconcile", str(run)]
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.stdout == events(run / "log.jsonl")[-1]["message"] + "\n"
