"""Start the real parts once a session: a personal HTCondor pool and an S3 server.

Each worker of pytest-xdist is a session with a pool of its own: an idle pool costs
about 1 % of a CPU, and a test may fill all slots of its pool or empty the queue.
"""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from bucket import Bucket, S3Endpoint
from condor import queue
from lab.support import postgres as postgres_server
from lab.support.postgres import Postgres
from pool import personal, s3
from pool.distribution import program_of_environment
from pool.personal import PersonalPool
from state.project import PROJECT
from tests.support import faulty_s3, rclone, seaweedfs
from tests.support.archive import TEST_RUNS, Archive, archive_for
from tests.support.faulty_s3 import FaultyS3
from tests.support.seaweedfs import SeaweedFS

# A shell starts background jobs with SIGINT ignored. The processes that tests start
# would inherit that, but they do not inherit a handler.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Fixtures that start HTCondor. Most tests use the pool of the session.
_POOLS = {"pool", "mortal", "pool_with_clock", "hostile_pool"}


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    for item in items:
        if _POOLS & set(item.fixturenames):
            item.add_marker("pool")
    # Otherwise the other workers wait for the one that runs a long file last.
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


class _OneByOne(LoadScopeScheduling):
    """Give tests to workers one by one, but files with a module fixture as a whole.

    Otherwise each worker would make that fixture. xdist's own marker for groups has no
    effect with pytest 9.2 (xdist 3.8).
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if 'scope="module"' in (PROJECT / file).read_text() else nodeid


def pytest_xdist_make_scheduler(
    config: pytest.Config, log: Producer
) -> LoadScopeScheduling:
    return _OneByOne(config, log)


@pytest.fixture(scope="session")
def workplace(request: pytest.FixtureRequest) -> Iterator[Path]:
    TEST_RUNS.mkdir(exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=TEST_RUNS, prefix="session-"))
    yield place
    if not request.session.testsfailed:
        shutil.rmtree(place)


@pytest.fixture(scope="session")
def pool(workplace: Path) -> Iterator[PersonalPool]:
    with personal.running_pool(workplace / "pool", print) as running:
        os.environ.update(running.condor.environment)
        # The bindings may have been imported before the pool existed.
        queue.htcondor2.reload_config()
        yield running


@pytest.fixture(scope="session")
def store(pool: PersonalPool) -> S3Endpoint:
    s3 = pool.s3
    return S3Endpoint(s3.endpoint, s3.access_key, s3.secret_key, ca_certs=s3.ca_certs)


@pytest.fixture(scope="session")
def weed(workplace: Path) -> Iterator[SeaweedFS]:
    """Yield a server of plain http that needs no pool, for all tests of a worker."""
    place = Path(tempfile.mkdtemp(dir=workplace, prefix="weed-"))
    keys = place / "access.key", place / "secret.key"
    for file in keys:
        file.touch(mode=0o600)
        file.write_text("only-for-these-tests\n")
    with seaweedfs.server(place, S3Endpoint("", *keys, secure=False)) as running:
        yield running


@pytest.fixture
def weed_bucket(weed: SeaweedFS) -> Bucket:
    """Return a new bucket of that server."""
    return _new_bucket(weed.store)


@pytest.fixture(params=["rclone", "SeaweedFS"])
def store_without_pool(
    request: pytest.FixtureRequest, weed: SeaweedFS, tmp_path: Path
) -> Iterator[S3Endpoint]:
    """Yield rclone's server, which ignores conditions of a write, and SeaweedFS."""
    if request.param == "SeaweedFS":
        yield weed.store
        return
    (tmp_path / "data").mkdir()
    with rclone.running(tmp_path / "data", weed.store) as running:
        yield running


@pytest.fixture
def bucket_without_pool(store_without_pool: S3Endpoint) -> Bucket:
    """Return a new bucket of each of these servers."""
    return _new_bucket(store_without_pool)


def _new_bucket(store: S3Endpoint) -> Bucket:
    bucket = Bucket(store, f"bucket-{secrets.token_hex(4)}")
    bucket.create()
    return bucket


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with postgres_server.running() as server:
        yield server


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """Return files of an access key and a secret key that no store has."""
    files = tmp_path / "access.key", tmp_path / "secret.key"
    for file in files:
        file.touch(mode=0o600)
        file.write_text("key\n")
    return files


@pytest.fixture
def plain_store(store: S3Endpoint, workplace: Path) -> Iterator[S3Endpoint]:
    """Yield the same keys at a server that speaks plain http."""
    endpoint = f"127.0.0.1:{s3.free_port()}"
    buckets = Path(tempfile.mkdtemp(dir=workplace, prefix="plain-"))
    keys = ",".join(
        key.read_text().strip() for key in (store.access_key, store.secret_key)
    )
    rclone = str(program_of_environment("rclone"))
    server = subprocess.Popen(
        [rclone, "serve", "s3", str(buckets), "--addr", endpoint],
        env=os.environ | {"RCLONE_AUTH_KEY": f'"{keys}"'},
    )
    try:
        yield S3Endpoint(endpoint, store.access_key, store.secret_key, secure=False)
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def faulty_s3_server(pool: PersonalPool) -> Iterator[FaultyS3]:
    """Yield a proxy in front of the S3 server that injects faults."""
    with faulty_s3.in_front_of(pool.s3) as proxy:
        yield proxy


@pytest.fixture
def archive(
    store: S3Endpoint, workplace: Path, request: pytest.FixtureRequest
) -> Iterator[Archive]:
    yield from archive_for(store, workplace, request.node.name)


@pytest.fixture
def plain_archive(
    plain_store: S3Endpoint, workplace: Path, request: pytest.FixtureRequest
) -> Iterator[Archive]:
    yield from archive_for(plain_store, workplace, request.node.name)


@pytest.fixture
def faulty_archive(archive: Archive, faulty_s3_server: FaultyS3) -> Archive:
    """Return an archive whose launch, but not the test, uses the proxy."""
    faulty = replace(archive.store, endpoint=faulty_s3_server.endpoint)
    return replace(archive, store=faulty)
