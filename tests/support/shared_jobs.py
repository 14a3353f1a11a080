"""Runs whose rows share jobs, and nodes that make such jobs fail as a whole."""

from state.run import Run, load_run
from tests.support.archive import Archive
from tests.support.node import SCRIPT

KEYS = [f"{number}.tif" for number in range(5)]
# Four of the five rows share jobs; none of these jobs leaves a result.
DIES_IF_SHARED = f'case "$*" in *--next*) kill -9 $$ ;; esac\nexec {SCRIPT} "$@"\n'


def launch_with_nodes(archive: Archive, script: str, keys: list[str] = KEYS) -> Run:
    """Start a run of these images whose nodes are a script, and return it."""
    node = archive.directory / "node.sh"
    node.write_text("#!/bin/sh\n" + script)
    for key in keys:
        archive.upload_raster(key, 1, width=64, height=64)
    archive.upload_manifest("batch-raw.csv", [(key, 1) for key in keys])
    archive.launch_to_poll_by_hand(
        *("--rows-per-job", "2"),
        *("--submit-option", f"executable = {node}"),
    )
    (run,) = archive.directory.glob("workflow-run-*")
    return load_run(run)


def assert_all_were_processed(archive: Archive, run: Run) -> None:
    assert archive.outcome("batch-") == ([[key, "1"] for key in KEYS], [])
    # Two nodes of two rows, each tried four times, and the node of the fifth row.
    counts = [log.read_text().count("Job submitted from") for log in run.node_logs]
    final = 1
    assert counts == [2 * 4 + 1 + final, 4 + final]
