"""The run order decides which run's nodes start first."""

import re
from pathlib import Path

import pytest

from state.project import PROJECT
from tests.support.archive import A_JOB_A_ROW, Archive, wait_for

# Nodes wait on their machines until the test has both runs in the queue. Each takes
# two seconds, so that DAGMan always has idle nodes in the queue.
NODE = """\
#!/bin/sh
while [ ! -e "{directory}/go" ]; do sleep 0.2; done
sleep 2
exec {script} "$@"
"""


def start_times(run: Path) -> list[str]:
    """Return the start times of a run's jobs, as strings that sort by time."""
    log = (run / "convert.dag.nodes.log").read_text()
    return re.findall(r"^001 \S+ (\S+ \S+) Job executing", log, re.MULTILINE)


@pytest.mark.parametrize("order", ["fair", "fifo"])
def test_nodes_start_in_the_run_order(
    archive: Archive, order: str, monkeypatch: pytest.MonkeyPatch
):
    # The older run must have nodes left to submit when the younger run starts.
    monkeypatch.setenv("_CONDOR_DAGMAN_MAX_SUBMITS_PER_INTERVAL", "6")
    node = archive.directory / "node.sh"
    script = PROJECT / "bin" / "generate_cogs.sh"
    node.write_text(NODE.format(directory=archive.directory, script=script))
    older, younger = (
        [f"{name}-{n}.tif" for n in range(count)]
        for name, count in (("older", 18), ("younger", 3))
    )
    for key in (*older, *younger):
        archive.upload_raster(key, 1, width=64, height=64)
    archive.upload_manifest("older-raw.csv", [(key, 1) for key in older])
    archive.launch_to_poll_by_hand(
        *A_JOB_A_ROW,
        *("--run-order", order, "--max-idle", "6"),
        *("--submit-option", f"executable = {node}"),
    )
    (first,) = archive.directory.glob("workflow-run-*")
    log = first / "convert.dag.nodes.log"
    wait_for(lambda: log.exists() and log.read_text().count("Job submitted") == 12)
    archive.upload_manifest("younger-raw.csv", [(key, 1) for key in younger])
    archive.poll()
    _, second = sorted(archive.directory.glob("workflow-run-*"))
    log = second / "convert.dag.nodes.log"
    wait_for(lambda: log.exists() and log.read_text().count("Job submitted") == 3)
    (archive.directory / "go").touch()

    for stem, keys in (("older-", older), ("younger-", younger)):
        processed, _ = archive.outcome(stem)
        assert [row[0] for row in processed] == keys
    later = [time for time in start_times(first) if time > start_times(second)[0]]
    if order == "fair":
        assert later
    else:
        # Jobs that are matched in one cycle start in any order.
        assert len(later) <= 1
