"""A hostile node affects nothing on its access point except its own row."""

import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bucket import S3Endpoint
from pool import personal
from pool.personal import PersonalPool
from tests.support import hostile_node
from tests.support.archive import (
    A_JOB_A_ROW,
    PATIENCE_SECONDS,
    Archive,
    archive_for,
    wait_for,
)
from tests.support.hostile_node import HostileJobs, planted_in

# A hostile starter sends files to the access point under these names.
ESCAPES = (
    *("../reconcile.sh", "../results/row2.json", "../../planted", "/tmp/../planted"),
    *("result.json/../../reconcile.sh", "sub/../../reconcile.sh", ".."),
)


@pytest.fixture(scope="module")
def hostile_place(workplace: Path) -> Path:
    place = workplace / f"hostile-{uuid.uuid4().hex[:8]}"
    place.mkdir()
    return place


@pytest.fixture(scope="module")
def hostile_pool(hostile_place: Path) -> Iterator[PersonalPool]:
    """Yield a pool whose configuration tests may change."""
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
    store = S3Endpoint(s3.endpoint, s3.access_key, s3.secret_key, ca_certs=s3.ca_certs)
    yield from archive_for(store, workplace, request.node.name)


@pytest.fixture(scope="module")
def jobs(hostile_pool: PersonalPool, hostile_place: Path) -> Iterator[HostileJobs]:
    with hostile_node.hostile_jobs(hostile_pool, hostile_place / "jobs") as hostile:
        yield hostile


@pytest.fixture
def orders(
    hostile_pool: PersonalPool, hostile_place: Path, jobs: HostileJobs
) -> Iterator[Path]:
    """Yield the file of orders to hostile starters, whose jobs are hostile too."""
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
    """Assert that no planted file was run or is on the access point."""
    assert jobs.count, "no job was hostile"
    wait_for((the_run(archive) / "done.json").exists)
    assert not jobs.proof.exists()
    assert planted_in(archive.directory) == []
    assert list(the_run(archive).glob("sandbox/*")) == []


def test_the_files_of_a_hostile_job_are_neither_run_nor_read(
    archive: Archive, jobs: HostileJobs
):
    # The second row fails although its neighbours leave results of success for it.
    archive.upload_raster("two-bands.tif", 2)
    for name in ("first", "last"):
        archive.upload_raster(f"{name}.tif", 1)
    rows = [("first.tif", 1), ("two-bands.tif", 3), ("last.tif", 1)]
    archive.upload_manifest("batch-raw.csv", rows)

    # Jobs run one after the other, so that the files of the first exist for a while.
    archive.launch(*A_JOB_A_ROW, "-m", "1")
    run = the_run(archive)
    wait_for(lambda: planted_in(run))
    assert {path.parts[0] for path in planted_in(run)} == {"sandbox"}
    processed, failed = archive.outcome("batch-")

    assert processed == [["first.tif", "1"], ["last.tif", "1"]]
    assert [row[0] for row in failed] == ["two-bands.tif"]
    assert "says 3 bands" in failed[0][2]
    assert_nothing_came_through(archive, jobs)


def test_no_name_and_no_link_of_a_hostile_starter_leads_elsewhere(
    archive: Archive, jobs: HostileJobs, orders: Path
):
    orders.write_text(
        "".join(f"name\tPLANTED-a.{n}\t{name}\n" for n, name in enumerate(ESCAPES))
        # HTCondor's shadow makes this link at the request of the starter, which then
        # sends a file of the same name.
        + "symlink\t../reconcile.sh\tPLANTED-link.1\n"
    )
    upload(archive, "PLANTED-a", "PLANTED-link", "other")

    archive.launch(*A_JOB_A_ROW, "--submit-option", "max_holds = 0")
    # There are four attempts, and each is held.
    processed, failed = archive.outcome("batch-", 2 * PATIENCE_SECONDS)

    assert ["other.tif", "1"] in processed
    # The outputs and results of the hostile rows may have arrived as well.
    assert len(processed + failed) == 3
    assert_nothing_came_through(archive, jobs)
    refused = (the_run(archive) / "convert.dag.nodes.log").read_text()
    for name in ESCAPES:
        assert f"illegal sandbox path: {name}" in refused
    assert re.search(
        r"writing to file \S*/PLANTED-link.1: .*Permission denied", refused
    )


def test_a_folder_in_place_of_a_file_harms_only_its_row(
    archive: Archive, jobs: HostileJobs, orders: Path
):
    orders.write_text(
        "folder\tPLANTED-result.1\tresult.json\nfolder\tPLANTED-log.1\t_condor_stdout\n"
    )
    upload(archive, "PLANTED-result", "PLANTED-log", "other")

    archive.launch(*A_JOB_A_ROW)
    processed, failed = archive.outcome("batch-")

    assert [row[0] for row in processed] == ["PLANTED-log.tif", "other.tif"]
    assert "node sent cannot be used: it is not a regular file" in failed[0][2]
    assert_nothing_came_through(archive, jobs)


def test_a_run_ends_despite_a_file_whose_name_is_not_text(
    archive: Archive, jobs: HostileJobs
):
    upload(archive, "PLANTED-unreadable", "other")

    archive.launch(
        *A_JOB_A_ROW,
        *("--submit-option", "max_holds = 0"),
        *("--submit-option", "max_starts = 1"),
    )
    processed, failed = archive.outcome("batch-")

    assert ["other.tif", "1"] in processed
    assert len(processed + failed) == 2
    log = (the_run(archive) / "convert.dag.nodes.log").read_bytes()
    assert b"/\xff: (errno 13)" in log
    assert_nothing_came_through(archive, jobs)


# A starter sends these attributes in an event that holds the job, or at its end.
AS_BY_HAND = """\
tell\t284\tHoldReasonCode = 1
tell\t284\tExecuteHost = "via condor_hold"
tell\t284\tErrorMsg = "via condor_hold (by user operator)"
"""
AS_SUBMITTED = "tell\t284\tHoldReasonCode = 15\n"
HARMLESS = """\
tell\t284\tEventTypeNumber = 8
tell\t284\tMyType = "GenericEvent"
tell\t284\tInfo = "nothing"
"""
HELD_WITHOUT_A_REASON = HARMLESS + "exit\t112\n"
BACK_INTO_THE_QUEUE = HARMLESS + "exit\t107\n"


@pytest.mark.parametrize(
    "event",
    [AS_BY_HAND, AS_SUBMITTED, HELD_WITHOUT_A_REASON],
    ids=["as by hand", "as submitted", "without a reason"],
)
def test_a_hostile_starter_cannot_hold_a_job_forever(
    archive: Archive, jobs: HostileJobs, orders: Path, event: str
):
    orders.write_text("event\tPLANTED-held.tif\n" + event)
    upload(archive, "PLANTED-held", "other")

    archive.launch(
        *A_JOB_A_ROW,
        *("--submit-option", "hold_backoff_seconds = 1"),
        *("--submit-option", "max_holds = 1"),
        *("--submit-option", "max_starts = 1"),
    )
    # Each of four attempts is held twice, and the pool checks every few seconds.
    processed, failed = archive.outcome("batch-", 400)

    assert ["other.tif", "1"] in processed
    assert len(processed + failed) == 2
    assert_nothing_came_through(archive, jobs)


def test_a_hostile_starter_cannot_make_a_job_request_too_much_memory(
    archive: Archive, orders: Path
):
    memory = "".join(f"tell\t{call}\tMemoryUsage = 1000000000\n" for call in (-81, -65))
    orders.write_text("event\tPLANTED-memory.tif\n" + BACK_INTO_THE_QUEUE + memory)
    upload(archive, "PLANTED-memory")

    archive.launch()

    def requests() -> list[str]:
        command = ["condor_q", "-all", "-af", "MemoryUsage", "RequestMemory"]
        lines = subprocess.run(command, capture_output=True, text=True).stdout.split(
            "\n"
        )
        return [line for line in lines if line.startswith("1000000000 ")]

    wait_for(requests)
    assert requests() == [f"1000000000 {8 * 1024}"]


def test_a_hostile_starter_cannot_fill_the_disk_of_the_access_point(
    archive: Archive, jobs: HostileJobs, orders: Path
):
    # The starter knows the limit but sends more nevertheless.
    orders.write_text("whole\n")
    upload(archive, "PLANTED-large", "other")

    archive.launch(*A_JOB_A_ROW, "--submit-option", "max_holds = 0")
    # There are four attempts, and each is held.
    processed, failed = archive.outcome("batch-", 2 * PATIENCE_SECONDS)

    assert ["other.tif", "1"] in processed
    assert len(processed + failed) == 2
    stopped = (the_run(archive) / "convert.dag.nodes.log").read_text()
    assert "max total download bytes exceeded" in stopped
    assert_nothing_came_through(archive, jobs)
