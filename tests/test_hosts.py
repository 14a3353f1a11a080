"""The main job on a pool of several hosts that share nothing; see tests/hosts."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from state.project import PROJECT
from tests.hosts import hosts
from tests.hosts.pool import (
    BY_ITS_NAME,
    EXECUTE,
    NO_PYTHON,
    ON_THE_PATH,
    HostPool,
    Machine,
    Software,
    running_pool,
)
from tests.support import compare
from tests.support.archive import A_JOB_A_ROW, Archive, new_archive, wait_for

# These tests mostly wait: for the next minute of the crondor job, and until HTCondor
# gives up a lost machine.
pytestmark = [pytest.mark.long, pytest.mark.pool, pytest.mark.timeout(600)]
# How a node gets its Python: the options of the launch, and whether nodes can then
# also run on a machine without Python.
HOST = (("--submit-option", "requirements = HasNodePython"), False)
PACKED = (("--node-environment", "packed"), True)
GO = "srv/go"
# This script is put before bin/generate_cogs.sh. With it, the nodes of some images
# wait until the test writes a file on their host.
WAIT = f"""\
#!/bin/sh
case $1 in
wait*) while [ ! -e /{GO} ]; do sleep 0.2; done ;;
esac
"""


@contextmanager
def archive_on_hosts(
    workplace: Path, name: str, software: Sequence[Software]
) -> Iterator[tuple[HostPool, Archive]]:
    if reason := hosts.why_not():
        pytest.skip(reason)
    with running_pool(workplace / name, software) as pool:
        directory = hosts.folder(pool.directory / "launched", "alice")
        yield pool, new_archive(pool.store, name, directory)


def launch(pool: HostPool, archive: Archive, *options: str) -> None:
    """Launch as alice, on the access point."""
    host = pool.access_point.host
    # alice has no home directory in which a packed node could be cached.
    cache = f"XDG_CACHE_HOME={archive.directory}"
    command = ("env", cache, *archive.command(*options))
    host.run(*command, user="alice", directory=archive.directory)


def log_of_nodes(archive: Archive) -> str:
    logs = archive.directory.glob("workflow-run-*/convert.dag.nodes.log")
    return "".join(log.read_text() for log in logs)


def ran_on(archive: Archive, machine: Machine) -> int:
    """Return how often a node was started on a machine."""
    start = rf"SlotName: slot\S+@{machine.host.name}\b"
    return len(re.findall(start, log_of_nodes(archive)))


def space_left(machine: Machine) -> int:
    """Return the free disk space for jobs in KiB."""
    return int(machine.host.run("df", "--output=avail", EXECUTE).split()[-1])


@pytest.mark.parametrize(
    ("options", "anywhere"), [HOST, PACKED], ids=["host", "packed"]
)
def test_the_main_job_on_hosts_that_share_nothing(
    workplace: Path, options: tuple[str, ...], anywhere: bool
):
    name = "packed" if anywhere else "by-host"
    software = (ON_THE_PATH, BY_ITS_NAME, NO_PYTHON)
    with archive_on_hosts(workplace, name, software) as (pool, archive):
        # The launch finds no manifest, so the crondor job must find it.
        launch(pool, archive, *A_JOB_A_ROW, *options)
        good = [f"scenes/{number}.tif" for number in range(12)]
        sources = {key: archive.upload_raster(key, 3) for key in good}
        half = sources[good[0]].read_bytes()
        archive.maps.write("scenes/damaged.tif", half[: len(half) // 2])
        bad = ["scenes/damaged.tif", "scenes/missing.tif"]
        archive.upload_manifest("batch-raw.csv", [(key, 3) for key in (*good, *bad)])

        processed, failed = archive.outcome("batch-")

        assert processed == [[key, "3"] for key in good]
        assert [row[0] for row in failed] == bad
        assert "it is damaged" in failed[0][2]
        assert "not in the bucket" in failed[1][2]
        outputs = {found.key for found in archive.cogs.list()}
        assert outputs == {*good, *(key.replace(".tif", ".jpg") for key in good)}
        for key, source in sources.items():
            cog = archive.fetch(archive.cogs, key)
            compare.assert_valid(cog)
            compare.assert_same_pixels(source, cog)
        *with_python, without = pool.execution_points
        assert all(ran_on(archive, machine) for machine in with_python)
        assert bool(ran_on(archive, without)) == anywhere
        for machine in pool.execution_points:
            assert machine.host.run("hostname").strip() == machine.host.name
            for outside in (PROJECT, pool.directory):
                machine.host.run("test", "!", "-e", str(outside))


def test_rows_survive_machines_that_are_cut_off_or_without_power_or_full(
    workplace: Path,
):
    small = Software(ON_THE_PATH.python, ON_THE_PATH.variables, disk=256)
    with archive_on_hosts(workplace, "faults", [small] * 3) as (pool, archive):
        good = [f"{name}-{n}.tif" for name in ("wait", "later") for n in range(6)]
        for key in good:
            archive.upload_raster(key, 1)
        archive.maps.write("damaged.tif", b"II*\0 no raster")
        archive.upload_manifest(
            "batch-raw.csv", [(key, 1) for key in (*good, "damaged.tif")]
        )
        node = archive.directory / "node.sh"
        hosts.file(node, WAIT + (PROJECT / "bin" / "generate_cogs.sh").read_text())
        launch(
            pool,
            archive,
            *A_JOB_A_ROW,
            *("--submit-option", f"executable = {node}"),
            *("--submit-option", "job_lease_duration = 20"),
            *("--submit-option", "request_disk = 20000 * $(retry_factor)"),
        )
        wait_for(lambda: [ran_on(archive, e) for e in pool.execution_points] == [2] * 3)

        cut_off, powered_off, full = pool.execution_points
        pool.switch.pull(cut_off.number)
        pool.power_off(powered_off)
        fill(full)
        for machine in pool.execution_points:
            hosts.file(machine.host.disk / GO)
        # Both nodes on the full machine fail; nothing is known of the other four.
        wait_for(lambda: log_of_nodes(archive).count("(return value 74)") == 2)
        # The other two machines stay as they are, so this one does all the work.
        pool.switch_on(powered_off)

        processed, failed = archive.outcome("batch-")

        assert [row[0] for row in processed] == good, failed
        assert [row[0] for row in failed] == ["damaged.tif"]
        for machine in (cut_off, powered_off):
            lost = rf"Can not reconnect to slot\S+@{machine.host.name}"
            assert len(re.findall(lost, log_of_nodes(archive))) == 2
        assert "No space left" in log_of_nodes(archive)
        assert space_left(full) == 0


def fill(machine: Machine) -> None:
    """Fill the disk of a machine, and fill again any space that becomes free."""
    filling = f"while :; do cat /dev/zero >>{EXECUTE}/full; sleep 0.1; done"
    log = machine.host.disk / "var" / "log" / "filling"
    machine.host.start("sh", "-c", filling, user="root", log=log)
    wait_for(lambda: space_left(machine) == 0)
