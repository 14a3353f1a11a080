"""The main job on a pool of several hosts, which share nothing; see tests/hosts."""

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
from tests.support.archive import Archive, new_archive, wait_for

# Most of it is waiting, for cron's minute and for machines to be given up for lost.
pytestmark = [pytest.mark.long, pytest.mark.pool, pytest.mark.timeout(600)]
# Ways of nodes to their Python: what the launch is told, and whether nodes then run
# on a machine that has none.
HOST = (("--submit-option", "requirements = HasNodePython"), False)
PACKED = (("--node-environment", "packed"), True)
GO = "srv/go"
# Comes before bin/generate_cogs.sh: nodes of some images end when the test wants it,
# on each host by itself.
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
    # She has no home to keep a packed node in.
    cache = f"XDG_CACHE_HOME={archive.directory}"
    command = ("env", cache, *archive.command(*options))
    host.run(*command, user="alice", directory=archive.directory)


def log_of_nodes(archive: Archive) -> str:
    logs = archive.directory.glob("workflow-run-*/convert.dag.nodes.log")
    return "".join(log.read_text() for log in logs)


def ran_on(archive: Archive, machine: Machine) -> int:
    """How many times a node was begun on a machine."""
    began = rf"SlotName: slot\S+@{machine.host.name}\b"
    return len(re.findall(began, log_of_nodes(archive)))


def space_left(machine: Machine) -> int:
    """KiB that jobs find."""
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
        # What crondor finds was not there when the launch looked.
        launch(pool, archive, *options)
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
        made = {found.key for found in archive.cogs.list()}
        assert made == {*good, *(key.replace(".tif", ".jpg") for key in good)}
        for key, source in sources.items():
            cog = archive.fetch(archive.cogs, key)
            compare.assert_valid(cog)
            compare.assert_same_pixels(source, cog)
        *with_python, without = pool.execution_points
        assert all(ran_on(archive, machine) for machine in with_python)
        assert bool(ran_on(archive, without)) == anywhere
        for machine in pool.execution_points:
            assert machine.host.run("hostname").strip() == machine.host.name
            for of_others in (PROJECT, pool.directory):
                machine.host.run("test", "!", "-e", str(of_others))


def test_rows_outlive_machines_cut_off_without_power_and_full(workplace: Path):
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
        # Both nodes of the machine that is full; nobody hears of the other four.
        wait_for(lambda: log_of_nodes(archive).count("(return value 74)") == 2)
        # The other two stay as they are: all is left to this one.
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
    """Fill a machine's disk, also with what is freed on it from now on."""
    filling = f"while :; do cat /dev/zero >>{EXECUTE}/full; sleep 0.1; done"
    log = machine.host.disk / "var" / "log" / "filling"
    machine.host.start("sh", "-c", filling, user="root", log=log)
    wait_for(lambda: space_left(machine) == 0)
