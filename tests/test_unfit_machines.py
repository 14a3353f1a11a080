"""Machines that lack what a node needs: it goes elsewhere, and says so in the end."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pool.ordinary_user import command_prefix
from pool.personal import PersonalPool
from tests.conftest import PROJECT, Archive, wait_for
from tests.test_job_faults import tries

SECOND = "second.example"
# Another startd, which says it is another machine.
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
# Put before bin/generate_cogs.sh, so that its machine has no Python.
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
    config.write_text(before + CONFIGURATION.format(name=SECOND))
    _condor(pool, "condor_reconfig", "-daemon", "master")
    wait_for(lambda: SECOND in _machines(pool))
    yield pool
    _condor(pool, "condor_off", "-fast", "-daemon", "startd_b")
    config.write_text(before)
    _condor(pool, "condor_reconfig", "-daemon", "master")
    wait_for(lambda: SECOND not in _machines(pool))


def _condor(pool: PersonalPool, program: str, *arguments: str) -> str:
    command = [str(pool.condor.distribution.bin / program), *arguments]
    if not Path(command[0]).exists():
        command[0] = str(pool.condor.distribution.sbin / program)
    return subprocess.run(
        [*command_prefix(), *command], capture_output=True, text=True, check=True
    ).stdout


def _machines(pool: PersonalPool) -> set[str]:
    return set(_condor(pool, "condor_status", "-af", "Machine").split())


def without_python(archive: Archive, unfit: str) -> tuple[str, str]:
    """What makes machines unfit: the ``first``, the ``second`` or both, ``*``."""
    script = archive.directory / "node.sh"
    node = PROJECT / "bin" / "generate_cogs.sh"
    script.write_text(WITHOUT_PYTHON.format(unfit=unfit, script=node, second=SECOND))
    return "--submit-option", f"executable = {script}"


@pytest.mark.parametrize("unfit", ["first", "second"])
def test_a_node_goes_to_another_machine(
    two_machines: PersonalPool, archive: Archive, unfit: str
):
    rows = [(f"{name}.tif", 1) for name in "abcd"]
    for name, _ in rows:
        archive.upload_raster(name, 1)
    archive.upload_manifest("batch-raw.csv", rows)

    archive.launch(
        *without_python(archive, unfit),
        # What a person requires does not take its place.
        *("--submit-option", "requirements = TARGET.Memory > 1"),
    )

    processed, failed = archive.outcome("batch-")
    assert [row[0] for row in processed] == [name for name, _ in rows], failed
    assert "was requeued" in node_log(archive), "none came to the unfit machine"
    assert set(tries(archive).values()) == {1}, "none of DAGMan's tries is spent on it"


def test_where_all_machines_are_unfit_the_row_says_so(
    two_machines: PersonalPool, archive: Archive
):
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    began = time.monotonic()

    archive.launch(
        *without_python(archive, "*"), "--submit-option", "elsewhere_seconds = 2"
    )

    processed, failed = archive.outcome("batch-")
    assert processed == []
    assert "this machine has no /nowhere/python3" in failed[0][2]
    assert time.monotonic() - began < 120
    assert tries(archive) == {"row1": 4}
    # In each of them once again to a machine that it had been to.
    starts = node_log(archive).count("Job executing on host")
    assert 8 <= starts <= 12


def node_log(archive: Archive) -> str:
    (log,) = archive.directory.glob("workflow-run-*/convert.dag.nodes.log")
    return log.read_text()
