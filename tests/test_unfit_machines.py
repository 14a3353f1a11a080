"""A node on a machine that lacks a requirement goes to another machine.

When all machines lack it, the row fails with this reason.
"""

import subprocess
from collections.abc import Iterator

import pytest

from pool.ordinary_user import command_prefix, give
from pool.personal import PersonalPool
from state.project import PROJECT
from tests.support.archive import A_JOB_A_ROW, Archive, tries, wait_for

SECOND = "second.example"
# A second startd, which advertises another machine name.
CONFIGURATION = """
STARTD_B = $(STARTD)
STARTD_B_ARGS = -f -local-name STARTD_B
STARTD_B.STARTD_NAME = second
STARTD_B.STARTD_LOG = $(LOG)/StartdLogB
STARTD_B.EXECUTE = $(LOCAL_DIR)/execute-b
STARTD_B.STARTD_ADDRESS_FILE = $(LOG)/.startd_b_address
STARTD_B.Machine = "{name}"
STARTD_B.STARTD_ATTRS = $(STARTD_ATTRS) Machine
DC_DAEMON_LIST = + STARTD_B
DAEMON_LIST = $(DAEMON_LIST), STARTD_B
"""
# This wrapper runs bin/generate_cogs.sh as on a machine without Python.
WITHOUT_PYTHON = """\
#!/bin/sh
grep -q '^Machine = "{second}"' .machine.ad && machine=second || machine=first
case $machine in {unfit}) PYTHON=/nowhere/python3; export PYTHON ;; esac
exec {script} "$@"
"""


@pytest.fixture(scope="module")
def two_machines(pool: PersonalPool) -> Iterator[PersonalPool]:
    config = pool.condor.config
    before = config.read_text()
    (pool.condor.directory / "execute-b").mkdir(mode=0o700, exist_ok=True)
    give(pool.condor.directory)
    config.write_text(before + CONFIGURATION.format(name=SECOND))
    _condor("condor_reconfig", "-daemon", "master")
    wait_for(lambda: SECOND in _machines())
    yield pool
    _condor("condor_off", "-fast", "-daemon", "startd_b")
    config.write_text(before)
    _condor("condor_reconfig", "-daemon", "master")
    wait_for(lambda: SECOND not in _machines())


def _condor(program: str, *arguments: str) -> str:
    """Run a program of HTCondor and return its output. The pool has set the PATH."""
    command = [*command_prefix(), program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _machines() -> set[str]:
    return set(_condor("condor_status", "-af", "Machine").split())


def without_python(archive: Archive, unfit: str) -> tuple[str, str]:
    """Return the options that make machines unfit: the ``first``, or ``*`` for both."""
    script = archive.directory / "node.sh"
    node = PROJECT / "bin" / "generate_cogs.sh"
    script.write_text(WITHOUT_PYTHON.format(unfit=unfit, script=node, second=SECOND))
    return "--submit-option", f"executable = {script}"


def test_a_node_goes_to_another_machine(two_machines: PersonalPool, archive: Archive):
    rows = [(f"{name}.tif", 1) for name in "abcd"]
    for name, _ in rows:
        archive.upload_raster(name, 1)
    archive.upload_manifest("batch-raw.csv", rows)

    archive.launch(
        *A_JOB_A_ROW,
        *without_python(archive, "first"),
        # The user's requirements are added to the pipeline's own.
        *("--submit-option", "requirements = TARGET.Memory > 1"),
    )

    processed, failed = archive.outcome("batch-")
    assert [row[0] for row in processed] == [name for name, _ in rows], failed
    assert "was requeued" in node_log(archive), "no job came to the unfit machine"
    assert set(tries(archive).values()) == {1}, "DAGMan spent an attempt on it"


def test_a_row_reports_that_all_machines_are_unfit(
    two_machines: PersonalPool, archive: Archive
):
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])

    archive.launch(
        *without_python(archive, "*"), "--submit-option", "elsewhere_seconds = 2"
    )

    processed, failed = archive.outcome("batch-")
    assert processed == []
    assert "this machine has no /nowhere/python3" in failed[0][2]
    assert tries(archive) == {"row1": 4}
    # In each attempt, the job also goes once to a machine where it has already run.
    starts = node_log(archive).count("Job executing on host")
    assert 8 <= starts <= 12


def node_log(archive: Archive) -> str:
    (log,) = archive.directory.glob("workflow-run-*/convert.dag.nodes.log")
    return log.read_text()
