"""What a run cost is told while it lasts and after its end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from condor import eventlog
from ops.cost import cost
from state.project import PROJECT
from state.run import Run, load_run
from tests.support.archive import Archive, wait_for

# Its first try takes two seconds of a machine for nothing.
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
    """A run whose first node was tried twice, and whose last one waits for ``go``."""
    node = archive.directory / "node.sh"
    script = PROJECT / "bin" / "generate_cogs.sh"
    node.write_text(NODE.format(directory=archive.directory, script=script))
    for name in ("retry", "wait"):
        archive.upload_raster(f"{name}.tif", 1)
    names = ("retry.tif", "missing.tif", "wait.tif")
    archive.upload_manifest("batch-raw.csv", [(name, 1) for name in names])
    archive.launch("--submit-option", f"executable = {node}")
    (directory,) = archive.directory.glob("workflow-run-*")
    begun = load_run(directory)
    wait_for(lambda: archive.cogs.exists("retry.jpg"))
    wait_for(begun.node_log.exists)
    wait_for(lambda: begun.node_log.read_text().count("Job executing on host") == 3)
    return begun


def test_a_run_says_what_it_cost(
    archive: Archive, run: Run, monkeypatch: pytest.MonkeyPatch
):
    # A poll that finds the results gathers them: the rest is told by the log.
    archive.poll()
    told = cost(run)
    assert (told.rows, told.processed, told.failed) == (3, None, None)

    (archive.directory / "go").touch()
    processed, _ = archive.outcome("batch-")
    assert len(processed) == 2
    wait_for(lambda: run.done)

    told = cost(run)
    assert (told.rows, told.processed, told.failed) == (3, 2, 1)
    assert (told.jobs, told.retries) == (3, 1)
    assert told.wasted_slot_seconds >= 2
    assert told.slot_seconds > told.wasted_slot_seconds
    images = {name: archive.maps.stat(name).size for name in ("retry.tif", "wait.tif")}
    assert told.bytes_read == 2 * images["retry.tif"] + images["wait.tif"]
    written = [found.size for found in archive.cogs.list()]
    assert len(written) == 4
    assert told.bytes_written == sum(written)
    assert told.cpu_seconds > 0
    assert 0 < told.conversion_seconds < told.slot_seconds
    assert told.access_point_bytes > 0
    # The log of a large run is read by several processes, one after the other.
    for most in (1, 2, 7):
        monkeypatch.setattr(eventlog, "_EVENTS_A_PROCESS", most)
        assert cost(run) == told
    assert _printed(run.directory, "--json") == json.dumps(vars(told), indent=2) + "\n"
    assert "3 rows, 2 processed, 1 failed" in _printed(run.directory)
    assert "of them retries" in _printed(run.directory)


def _printed(directory: Path, *options: str) -> str:
    return subprocess.run(
        [sys.executable, "cog_pipeline.py", "cost", str(directory), *options],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
