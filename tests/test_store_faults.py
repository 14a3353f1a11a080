"""Rows survive every kind of fault of the S3 server."""

import json
import re
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bucket import S3Endpoint
from ops.cost import cost
from pool import s3
from pool.personal import PersonalPool
from state.rows import solo_rows
from state.run import load_run
from tests.support.archive import A_JOB_A_ROW, Archive, archive_for, wait_for
from tests.support.faulty_s3 import Fault, FaultyS3

pytestmark = pytest.mark.long
# By default, a failed transfer waits for 15 seconds, and then for 30.
QUICKLY = (
    *("--submit-option", "hold_backoff_seconds = 1", "--retry-seconds", "1"),
    *A_JOB_A_ROW,
)
GONE = Fault(cut_after=0)
# With this fault, no node can read an image, so a test has time to act.
UNREADABLE = Fault("GET", r"\.tif", cut_after=0)


def assert_all_are_processed(archive: Archive, keys: list[str]) -> None:
    assert archive.outcome("batch-") == ([[key, "3"] for key in keys], [])


def with_images(archive: Archive, count: int) -> list[str]:
    """Upload images and a manifest of them, and return their keys."""
    keys = [f"{number}.tif" for number in range(count)]
    for key in keys:
        archive.upload_raster(key, 3)
    archive.upload_manifest("batch-raw.csv", [(key, 3) for key in keys])
    return keys


@pytest.mark.timeout(600)
def test_requests_that_fail_at_random_are_repeated(
    faulty_archive: Archive, faulty_s3_server: FaultyS3
):
    keys = with_images(faulty_archive, 4)
    faulty_s3_server.faults = [
        Fault(status=500, probability=0.15),
        Fault(status=503, probability=0.15),
        Fault(cut_after=0, probability=0.1),
        Fault(cut_after=20_000, probability=0.1),
        Fault(answer_lost=True, method="PUT|DELETE", probability=0.1),
    ]
    # Some launches fail at random, too.
    launches = (faulty_archive.run(*QUICKLY) for _ in range(20))
    assert any(
        done.returncode == 0 or "already running" in done.stderr for done in launches
    )

    # There is a poll every minute. Some polls fail at random.
    outcome = faulty_archive.outcome("batch-", seconds=500)
    assert outcome == ([[key, "3"] for key in keys], [])


def test_a_poll_works_after_one_that_found_the_server_down(
    faulty_archive: Archive, faulty_s3_server: FaultyS3
):
    faulty_archive.launch_to_poll_by_hand(*QUICKLY)
    keys = with_images(faulty_archive, 1)
    with faulty_s3_server.suffering(GONE):
        result = faulty_archive.poll()
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert faulty_s3_server.endpoint in result.stderr

    faulty_archive.poll()
    assert_all_are_processed(faulty_archive, keys)


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_nodes_wait_for_a_server_that_is_down(
    faulty_archive: Archive, faulty_s3_server: FaultyS3, method: str
):
    keys = with_images(faulty_archive, 2)
    with faulty_s3_server.suffering(Fault(method, r"\.tif", cut_after=0)):
        faulty_archive.launch(*QUICKLY)
        wait_for(lambda: faulty_s3_server.count(method, r"\.tif") >= 4)

    assert_all_are_processed(faulty_archive, keys)


def test_a_reconcile_works_after_ten_failures(
    faulty_archive: Archive, faulty_s3_server: FaultyS3
):
    keys = with_images(faulty_archive, 1)
    faulty_archive.launch_to_poll_by_hand(*QUICKLY, "--submit-option", "hold = true")
    (run,) = faulty_archive.directory.glob("workflow-run-*")
    # The reconcile lists the output bucket.
    listing = Fault("GET", rf"/{faulty_archive.cogs.name}\?", cut_after=0)
    with faulty_s3_server.suffering(listing):
        _release_all(run)
        wait_for(lambda: _attempts(run) >= 10)

    assert_all_are_processed(faulty_archive, keys)


def test_a_slow_server_only_delays_a_run(
    faulty_archive: Archive, faulty_s3_server: FaultyS3
):
    key = "slow.tif"
    faulty_archive.upload_raster(key, 3, width=100, height=80)
    faulty_archive.upload_manifest("batch-raw.csv", [(key, 3)])
    faulty_s3_server.faults = [Fault(bytes_per_second=10_000)]
    faulty_archive.launch(*QUICKLY)

    assert_all_are_processed(faulty_archive, [key])


def test_connections_that_break_leave_no_partial_image(
    faulty_archive: Archive, faulty_s3_server: FaultyS3
):
    keys = with_images(faulty_archive, 2)
    faulty_s3_server.faults = [
        Fault("GET", r"\.tif", cut_after=1000, times=3),
        Fault("PUT", r"\.(tif|jpg)", cut_after=1000, times=3),
    ]
    faulty_archive.launch(*QUICKLY)

    assert_all_are_processed(faulty_archive, keys)
    assert {item.key for item in faulty_archive.cogs.list()} == {
        *keys,
        *(key.replace("tif", "jpg") for key in keys),
    }


def test_a_bucket_that_is_deleted_fails_its_rows(
    faulty_archive: Archive, faulty_s3_server: FaultyS3
):
    with_images(faulty_archive, 2)
    with faulty_s3_server.suffering(UNREADABLE):
        faulty_archive.launch(*QUICKLY, "--submit-option", "max_holds = 0")
        faulty_archive.cogs.destroy()

    processed, failed = faulty_archive.outcome("batch-")

    assert processed == []
    assert len(failed) == 2
    assert all("given up while it was held: Transfer" in row[2] for row in failed)


def test_an_image_that_is_deleted_after_the_claim_fails_only_its_row(
    faulty_archive: Archive, faulty_s3_server: FaultyS3
):
    keys = with_images(faulty_archive, 5)
    with faulty_s3_server.suffering(UNREADABLE):
        faulty_archive.launch(*QUICKLY, "--rows-per-job", "2")
        faulty_archive.maps.remove(keys[1])

    (run,) = (load_run(d) for d in faulty_archive.directory.glob("workflow-run-*"))
    # The shared job has four attempts, and so has the job whose image is missing.
    wait_for(lambda: run.solo_file.exists())
    wait_for(lambda: faulty_archive.poll().returncode == 0 and run.cluster is not None)
    processed, failed = faulty_archive.outcome("batch-")

    assert [row[0] for row in processed] == [keys[0], *keys[2:]]
    ((key, _, reason),) = failed
    assert key == keys[1]
    assert reason.startswith("its job was given up while it was held")
    assert "error: 404" in reason
    assert solo_rows(run) == {1, 2}
    report = cost(run)
    # A job that does not get its images never starts. Two jobs of the first DAG
    # started, and one of the solo jobs.
    assert (report.rows_begun, report.jobs) == (4, 3)


def test_an_image_that_is_replaced_after_the_claim_is_converted_in_its_new_version(
    archive: Archive,
):
    keys = with_images(archive, 1)
    archive.launch("--submit-option", "hold = true")
    (run,) = archive.directory.glob("workflow-run-*")
    archive.upload_raster(keys[0], 3, width=70, height=50)
    _release_all(run)

    assert_all_are_processed(archive, keys)
    (result,) = [json.loads(line) for line in (run / "results.jsonl").open()]
    assert (result["width"], result["height"]) == (70, 50)


def test_a_run_with_revoked_keys_continues_with_new_keys(
    faulty_archive: Archive, faulty_s3_server: FaultyS3
):
    keys = with_images(faulty_archive, 1)
    faulty_archive.launch_to_poll_by_hand(*QUICKLY, "--submit-option", "hold = true")
    (run,) = faulty_archive.directory.glob("workflow-run-*")
    with faulty_s3_server.suffering(Fault(status=403)):
        _release_all(run)
        wait_for(lambda: faulty_s3_server.count("GET", r"\.tif") >= 2)
        refused = faulty_archive.poll()
        assert refused.returncode != 0
        assert "have no permission for this" in refused.stderr

    assert_all_are_processed(faulty_archive, keys)


@pytest.fixture
def own_store(
    pool: PersonalPool, store: S3Endpoint, workplace: Path
) -> Iterator[tuple[S3Endpoint, s3.S3Server]]:
    """Yield a server whose keys a test may change, with the pool's certificate."""
    directory = workplace / f"own-s3-{secrets.token_hex(4)}"
    directory.mkdir(mode=0o700)
    server = s3.S3Server(directory, s3.free_port())
    for name in ("server.pem", "server.key", "certificates"):
        (directory / name).symlink_to(pool.s3.directory / name)
    s3.configure(server, pool.condor.distribution.openssl)
    s3.start(server)
    try:
        yield (
            replace(
                store,
                endpoint=server.endpoint,
                access_key=server.access_key,
                secret_key=server.secret_key,
            ),
            server,
        )
    finally:
        s3.stop(server)


def test_a_run_uses_keys_that_are_rotated_while_it_runs(
    own_store: tuple[S3Endpoint, s3.S3Server], workplace: Path
):
    store, server = own_store
    (archive,) = archive_for(store, workplace, "rotated")
    keys = with_images(archive, 2)
    archive.launch_to_poll_by_hand(*QUICKLY, "--submit-option", "hold = true")
    (run,) = archive.directory.glob("workflow-run-*")
    for key in (server.access_key, server.secret_key):
        key.write_text(secrets.token_hex(20) + "\n")
    s3.stop(server)
    s3.start(server)
    _wait_until_held(run)
    # Where HTCondor cannot sign, the next poll signs the URLs with the new keys.
    assert archive.poll().returncode == 0
    _release_all(run)

    archive = replace(archive, maps=type(archive.maps)(store, archive.maps.name))
    assert_all_are_processed(archive, keys)


def _attempts(run: Path) -> int:
    log = run / "reconcile.log"
    return len(re.findall(r"attempt \d+:", log.read_text())) if log.exists() else 0


def _wait_until_held(run: Path) -> None:
    """Wait until all nodes of a run are held."""
    held = f"{_nodes_of(run)} && JobStatus == 5"
    ask = ["condor_q", "-constraint", held, "-af", "ClusterId"]
    rows = (run / "convert.dag").read_text().count("\nJOB ")

    def number() -> int:
        listing = subprocess.run(ask, capture_output=True, text=True)
        return len(listing.stdout.split())

    wait_for(lambda: number() == rows)


def _release_all(run: Path) -> None:
    """Release the nodes of a run once all of them are held."""
    _wait_until_held(run)
    release = ["condor_release", "-constraint", _nodes_of(run)]
    subprocess.run(release, check=True, capture_output=True)


def _nodes_of(run: Path) -> str:
    return f'CogPipelineNodeOf == "{run}"'
