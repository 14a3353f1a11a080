"""The cost command reports on a run while it runs and after its end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from condor import eventlog
from ops.cost import cost
from state.project import PROJECT
from state.run import Run, load_run
from tests.support.archive import A_JOB_A_ROW, Archive, wait_for

# The first attempt of `retry` occupies a slot for two seconds and fails.
NODE = """\
#!/bin/sh
case $1 in
retry*) [ "$COG_PIPELINE_RETRY" != 0 ] || (sleep 2; exit 1) || exit 1 ;;
wait*) while [ ! -e "{directory}/go" ]; do sleep 0.2; done ;;
esac
exec {script} "$@"
"""


@pytest.fixture
def run(archive: Archive) -> Run:
    """Return a run whose first node ran twice and whose last node waits for ``go``."""
    node = archive.directory / "node.sh"
    script = PROJECT / "bin" / "generate_cogs.sh"
    node.write_text(NODE.format(directory=archive.directory, script=script))
    for name in ("retry", "wait"):
        archive.upload_raster(f"{name}.tif", 1)
    names = ("retry.tif", "missing.tif", "wait.tif")
    archive.upload_manifest("batch-raw.csv", [(name, 1) for name in names])
    options = (*A_JOB_A_ROW, "--submit-option", f"executable = {node}")
    archive.launch(*options)
    (directory,) = archive.directory.glob("workflow-run-*")
    run = load_run(directory)
    wait_for(lambda: archive.cogs.exists("retry.jpg"))
    wait_for(run.node_log.exists)
    wait_for(lambda: run.node_log.read_text().count("Job executing on host") == 3)
    return run


def test_the_cost_of_a_run_is_reported_during_the_run_and_after_it(
    archive: Archive, run: Run, monkeypatch: pytest.MonkeyPatch
):
    # Without gathered results, the report comes from the node log alone.
    archive.poll()
    report = cost(run)
    assert (report.rows, report.processed, report.failed) == (3, None, None)

    (archive.directory / "go").touch()
    processed, _ = archive.outcome("batch-")
    assert len(processed) == 2
    wait_for(lambda: run.done)

    report = cost(run)
    assert (report.rows, report.processed, report.failed) == (3, 2, 1)
    assert (report.jobs, report.retries) == (3, 1)
    assert report.wasted_slot_seconds >= 2
    assert report.slot_seconds > report.wasted_slot_seconds
    images = {name: archive.maps.stat(name).size for name in ("retry.tif", "wait.tif")}
    assert report.bytes_read == 2 * images["retry.tif"] + images["wait.tif"]
    written = [item.size for item in archive.cogs.list()]
    assert len(written) == 4
    assert report.bytes_written == sum(written)
    assert report.cpu_seconds > 0
    assert 0 < report.conversion_seconds < report.slot_seconds
    assert report.access_point_bytes > 0
    # Several processes read the log of a large run, each a range of its events.
    for max_events in (1, 2, 7):
        monkeypatch.setattr(eventlog, "_EVENTS_A_PROCESS", max_events)
        assert cost(run) == report
    assert (
        _cost_output(run.directory, "--json")
        == json.dumps(vars(report), indent=2) + "\n"
    )
    assert "3 rows, 2 processed, 1 failed" in _cost_output(run.directory)
    assert "of them retries" in _cost_output(run.directory)
    assert "money" not in _cost_output(run.directory)
    priced = ("--price-per-core-hour", "3600")
    assert "money" in _cost_output(run.directory, *priced)
    money = json.loads(_cost_output(run.directory, *priced, "--json"))["money"]
    assert money == pytest.approx(report.slot_seconds)

    run.rows_file.unlink()
    too_early = archive.call("cost", run.directory.name)
    assert too_early.returncode == 1
    assert "its manifest was not read yet" in too_early.stderr


def _cost_output(directory: Path, *options: str) -> str:
    return subprocess.run(
        [sys.executable, "cog_pipeline.py", "cost", str(directory), *options],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
