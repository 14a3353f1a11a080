"""A node that turns against its access point gets nothing there but its own row."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bucket import Store
from pool import personal
from pool.personal import PersonalPool
from tests import hostile_node
from tests.conftest import Archive, archive_for, wait_for
from tests.hostile_node import MARK, NAMES, HostileJobs, planted_in

# The names that a hostile starter gives to a file on its way to the access point.
ESCAPES = {
    "PLANTED-1": "../reconcile.sh",
    "PLANTED-2": "../results/row7.json",
    "PLANTED-3": "result.json/../../reconcile.sh",
    "PLANTED-4": "sub/../../reconcile.sh",
    "PLANTED-5": "/{directory}/planted",
    "PLANTED-6": "..",
}


@pytest.fixture(scope="module")
def hostile_place(workplace: Path) -> Path:
    place = workplace / f"hostile-{uuid.uuid4().hex[:8]}"
    place.mkdir()
    return place


@pytest.fixture(scope="module")
def hostile_pool(hostile_place: Path) -> Iterator[PersonalPool]:
    """A pool whose configuration tests may change."""
    with personal.running_pool(hostile_place / "pool", print) as pool:
        yield pool


@pytest.fixture
def archive(
    hostile_pool: PersonalPool,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Archive]:
    for name, value in hostile_pool.condor.environment.items():
        monkeypatch.setenv(name, value)
    s3 = hostile_pool.s3
    store = Store(s3.endpoint, s3.access_key, s3.secret_key, ca_certs=s3.ca_certs)
    yield from archive_for(store, workplace, request.node.name)


@pytest.fixture(scope="module")
def jobs(hostile_pool: PersonalPool, hostile_place: Path) -> Iterator[HostileJobs]:
    with hostile_node.hostile_jobs(hostile_pool, hostile_place / "jobs") as hostile:
        yield hostile


@pytest.fixture
def orders(
    hostile_pool: PersonalPool, hostile_place: Path, jobs: HostileJobs
) -> Iterator[Path]:
    """The file of orders to the starters, of machines whose jobs are hostile too."""
    folder = hostile_place / f"starter-{uuid.uuid4().hex[:8]}"
    with hostile_node.hostile_starter(hostile_pool, folder) as file:
        yield file


def upload(archive: Archive, *names: str) -> None:
    for name in names:
        archive.upload_raster(f"{name}.tif", 1)
    archive.upload_manifest("batch-raw.csv", [(f"{name}.tif", 1) for name in names])


def the_run(archive: Archive) -> Path:
    (run,) = archive.directory.glob("workflow-run-*")
    return run


def assert_nothing_came_through(archive: Archive, jobs: HostileJobs) -> None:
    """Nothing that was planted was run, or is anywhere on the access point."""
    assert jobs.count, "no job was hostile"
    assert not jobs.proof.exists()
    assert planted_in(archive.directory) == []
    assert list(the_run(archive).glob("sandbox/*")) == []


def test_what_a_hostile_job_leaves_is_neither_run_nor_read(
    archive: Archive, jobs: HostileJobs
):
    # The second fails, though its neighbours leave results of success for it.
    archive.upload_raster("two-bands.tif", 2)
    for name in ("first", "last"):
        archive.upload_raster(f"{name}.tif", 1)
    rows = [("first.tif", 1), ("two-bands.tif", 3), ("last.tif", 1)]
    archive.upload_manifest("batch-raw.csv", rows)

    # One after the other, so that what the first leaves is there for a while.
    archive.launch("-m", "1")
    run = the_run(archive)
    wait_for(lambda: planted_in(run))
    assert {path.parts[0] for path in planted_in(run)} == {"sandbox"}
    processed, failed = archive.outcome("batch-")

    assert processed == [["first.tif", "1"], ["last.tif", "1"]]
    assert [row[0] for row in failed] == ["two-bands.tif"]
    assert "says 3 bands" in failed[0][2]
    assert_nothing_came_through(archive, jobs)
