"""Runs of earlier and later versions continue.

Before version 0.1, some files and fields had other names. A later version may add
fields to any record.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from state.launch import load_launch
from state.multipart import recorded
from state.project import PROJECT
from state.rows import load_header, load_rows, solo_rows
from state.run import Run, all_runs, load_run
from state.waiting import waiting
from tests.support.archive import Archive, wait_for
from tests.support.shared_jobs import (
    DIES_IF_SHARED,
    KEYS,
    assert_all_were_processed,
    launch_with_nodes,
)


def rewrite(file: Path, change) -> None:
    """Change each record of a JSON Lines file, or the one record of a JSON file."""
    text = file.read_text()
    parts = text.splitlines() if file.suffix == ".jsonl" else [text]
    changed = [json.dumps(change(json.loads(part))) for part in parts]
    file.write_text("".join(line + "\n" for line in changed))


def with_former_fields(record: dict) -> dict:
    """Return a record in the form that it had before version 0.1."""
    former = {"max_jobs": "max_running", "run_order": "order", "max_put": "largest_put"}
    record.pop("version", None)
    record = {former.get(name, name): value for name, value in record.items()}
    if "order" in record:
        record["order"] = {"fair": "shared", "fifo": "oldest-first"}[record["order"]]
    return record


def with_former_rows(record: dict) -> list | dict | None:
    """Return a line of rows.jsonl in the form that it had before version 0.1."""
    if "header" in record:
        return record["header"]
    record["number"] = record.pop("line")
    record.pop("code", None)
    return record


def with_former_result(record: dict) -> dict:
    """Return a line of results.jsonl in the form that it had before version 0.1."""
    if "line" in record:
        record["row"] = record.pop("line")
    record.pop("version", None)
    return record


def with_later_fields(record: dict) -> dict:
    return record | {"version": 1000, "of_a_later_version": ["anything"]}


def give_former_names(archive: Archive, run: Run) -> tuple[Path, Run]:
    """Rename files and fields to their former names.

    Returns:
        The settings file of the launch, and the run.
    """
    (home,) = archive.directory.glob("launch-*")
    former = home.rename(home.with_name("pipeline" + home.name.removeprefix("launch")))
    for folder in (former, run.directory):
        file = (folder / "launch.json").rename(folder / "pipeline.json")
        rewrite(file, with_former_fields)
    rewrite(
        run.directory / "run.json",
        lambda record: with_former_fields(record) | {"launch": former.name},
    )
    rewrite(run.rows_file, with_former_rows)
    if run.results_file.exists():
        rewrite(run.results_file, with_former_result)
    if run.solo_file.exists():
        run.solo_file.rename(run.directory / "apart.json")
    return former / "pipeline.json", load_run(run.directory)


def poll(launch_file: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(PROJECT / "cog_pipeline.py"), "poll"]
    done = subprocess.run([*command, launch_file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.long
def test_a_run_with_the_former_names_continues(archive: Archive):
    run = launch_with_nodes(archive, DIES_IF_SHARED)
    wait_for(lambda: run.solo_file.exists())
    wait_for(lambda: (run.directory / "convert.dag.metrics").exists())
    launch_file, run = give_former_names(archive, run)

    assert load_launch(launch_file).file == launch_file
    assert all_runs(load_launch(launch_file)) == ([run], [])
    # DAGMan may still be in the queue for a moment.
    wait_for(lambda: poll(launch_file) and run.cluster is not None)
    assert run.dag_file.name == "apart.dag"
    assert run.dag_file.exists()
    assert_all_were_processed(archive, run)
    wait_for(lambda: run.done)
    assert not (run.directory / "solo.json").exists()
    assert not list(archive.directory.glob("launch-*"))


@pytest.mark.long
def test_a_run_of_a_later_version_continues(archive: Archive):
    run = launch_with_nodes(archive, DIES_IF_SHARED)
    wait_for(lambda: run.solo_file.exists())
    wait_for(lambda: (run.directory / "convert.dag.metrics").exists())
    for file in (
        *(archive.launch_file(), run.launch_file, run.directory / "run.json"),
        *(run.submitted_file, run.rows_file, run.results_file),
    ):
        rewrite(file, with_later_fields)
    # An unreadable run does not stop the others.
    broken = archive.directory / "workflow-run-20200101T000000Z"
    broken.mkdir(mode=0o700)
    (broken / "run.json").write_text("[]")

    wait_for(lambda: archive.poll() and run.cluster is not None)
    assert_all_were_processed(archive, run)
    assert [row[0] for row in archive.outcome("batch-")[0]] == KEYS


@pytest.fixture
def small_run(tmp_path: Path) -> Run:
    run = Run(
        directory=tmp_path / "workflow-run-20261120T193637Z",
        launch="launch-maps-1",
        manifest_key="batch-raw.csv",
        etag="e",
        modified="2026-11-20T19:36:37+00:00",
        timestamp="20261120T193637Z",
        token="t",  # noqa: S106
    )
    run.directory.mkdir(mode=0o700)
    return run


def test_small_records_of_other_versions_are_read(small_run: Run):
    small_run.rows_file.write_text(
        '["image", "bands"]\n{"number": 2, "fields": ["a"]}\n'
    )
    assert load_header(small_run) == ("image", "bands")
    assert [row.line for row in load_rows(small_run)] == [2]
    small_run.rows_file.write_text(
        '{"header": null, "version": 9, "x": 1}\n{"line": 1}\n'
    )
    assert load_header(small_run) is None

    small_run.uploads_file.write_text(
        '{"row": 1, "key": "a.tif", "id": "i"}\n'
        '{"version": 9, "line": 2, "key": "b.tif", "id": "j", "new": 1}\n'
        '{"version": 9, "line": 3, "key": "c.tif", '
    )
    assert {line: upload.id for line, upload in recorded(small_run).items()} == {
        1: "i",
        2: "j",
    }

    small_run.waiting_file.write_text(
        '{"version": 9, "key": "k", "etag": "e", "since": "2026-11-20", "new": 1}'
    )
    assert waiting(small_run).key == "k"
    (small_run.directory / "apart.json").write_text("[1, 2]")
    assert solo_rows(small_run) == {1, 2}
    assert small_run.dag_file.name == "apart.dag"
