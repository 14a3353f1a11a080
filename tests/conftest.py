"""The real parts, once a session: a personal HTCondor pool and an S3 server."""

import csv
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bucket import Bucket, S3Endpoint
from condor import queue
from pool import personal, s3
from pool.distribution import program_of_environment
from pool.personal import PersonalPool
from state.project import PROJECT
from tests import faulty_s3, rasters
from tests.faulty_s3 import FaultyS3

# Whoever starts the tests in the background has Ctrl-C ignored, and what they start
# would inherit that; a handler it does not.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Not the system's temporary directory: what is kept of a failed test is to be
# found beside the code.
TEST_RUNS = PROJECT / ".test-runs"
PATIENCE_SECONDS = 150
# More than any object here has, in bytes.
ALL = 2**30


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # A long file that comes last has the other workers wait for its one.
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


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
        # The bindings may have been imported before there was a pool.
        queue.htcondor2.reload_config()
        yield running


@pytest.fixture(scope="session")
def store(pool: PersonalPool) -> S3Endpoint:
    s3 = pool.s3
    return S3Endpoint(s3.endpoint, s3.access_key, s3.secret_key, ca_certs=s3.ca_certs)


@pytest.fixture
def plain_store(store: S3Endpoint, workplace: Path) -> Iterator[S3Endpoint]:
    """The same keys at a server that speaks plain http."""
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
    """A way to the S3 server on which a test can make things go wrong."""
    with faulty_s3.in_front_of(pool.s3) as proxy:
        yield proxy


@dataclass(frozen=True)
class Archive:
    """What one test has: two buckets, a directory to launch in."""

    store: S3Endpoint
    maps: Bucket
    cogs: Bucket
    directory: Path

    def command(self, *options: str) -> list[str]:
        """A launch; ``options`` come last and override."""
        return [
            *(sys.executable, str(PROJECT / "cog_pipeline.py")),
            *("-a", str(self.store.access_key), "-s", str(self.store.secret_key)),
            *("-e", self.store.endpoint, *self._trust()),
            *("--input-bucket", self.maps.name, "--output-bucket", self.cogs.name),
            *("--every", "1", *options),
        ]

    def _trust(self) -> list[str]:
        if not self.store.secure:
            return ["--insecure-http"]
        return ["--ca-certs", str(self.store.ca_certs)]

    def run(self, *options: str, **environment: str) -> subprocess.CompletedProcess:
        """Launch and return what it said, successful or not."""
        return subprocess.run(
            self.command(*options),
            cwd=self.directory,
            env=os.environ | environment,
            capture_output=True,
            text=True,
        )

    def launch(self, *options: str) -> str:
        done = self.run(*options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def launch_to_poll_by_hand(self, *options: str) -> None:
        """Launch, and keep the crondor job from polling, at full hours say."""
        launched = self.launch("--every", "60", *options)
        cluster = re.search(r"Launched as job (\d+)", launched)[1]
        # Its periodic release leaves alone what was held by hand.
        subprocess.run(["condor_hold", cluster], check=True, capture_output=True)

    def launch_file(self) -> Path:
        (file,) = self.directory.glob("launch-*/launch.json")
        return file

    def poll(self, **environment: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(PROJECT / "cog_pipeline.py"), "poll"]
        return subprocess.run(
            [*command, str(self.launch_file())],
            cwd=self.directory,
            env=os.environ | environment,
            capture_output=True,
            text=True,
        )

    def health(self) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(PROJECT / "cog_pipeline.py"), "health"],
            cwd=self.directory,
            capture_output=True,
            text=True,
        )

    def upload_raster(self, key: str, bands: int, **how) -> Path:
        """Upload a new raster; returns the file it was uploaded from."""
        path = self.directory / f"source-{uuid.uuid4().hex}.tif"
        rasters.write(path, bands, **how)
        self.maps.upload(key, path)
        return path

    def upload_manifest(self, key: str, rows: list[tuple]) -> None:
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        self.maps.write(key, text.getvalue().encode())

    def outcome(
        self, stem: str, seconds: float = PATIENCE_SECONDS
    ) -> tuple[list[list[str]], list[list[str]]]:
        """Wait for the end of the run of ``<stem>raw.csv``.

        Returns:
            The rows of the processed and of the failed CSV.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            keys = [found.key for found in self.maps.list(stem)]
            waiting = (f"{stem}raw.csv", f"{stem}processing-")
            if keys and not any(key.startswith(waiting) for key in keys):
                return self._rows(f"{stem}processed-"), self._rows(f"{stem}failed-")
            time.sleep(0.5)
        raise AssertionError(f"no end of {stem}raw.csv; in the bucket: {keys}")

    def _rows(self, prefix: str) -> list[list[str]]:
        found = list(self.maps.list(prefix))
        assert len(found) <= 1, found
        if not found:
            return []
        return list(csv.reader(io.StringIO(self.maps.read(found[0].key, ALL).decode())))

    def fetch(self, bucket: Bucket, key: str) -> Path:
        path = self.directory / f"fetched-{uuid.uuid4().hex}{Path(key).suffix}"
        path.write_bytes(bucket.read(key, ALL))
        return path


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
    """An archive that is launched on ``faulty_s3_server``, and looked at directly."""
    faulty = replace(archive.store, endpoint=faulty_s3_server.endpoint)
    return replace(archive, store=faulty)


def archive_for(store: S3Endpoint, workplace: Path, name: str) -> Iterator[Archive]:
    """A new archive, whose jobs are removed in the end."""
    short = uuid.uuid4().hex[:8]
    directory = workplace / f"{name[:40]}-{short}"
    directory.mkdir()
    yield new_archive(store, short, directory)
    # DAGMan takes its nodes along.
    ours = f'regexp("{short}", UserLog)'
    subprocess.run(["condor_rm", "-constraint", ours], capture_output=True)


def new_archive(store: S3Endpoint, short: str, directory: Path) -> Archive:
    """An archive with new buckets, which have ``short`` in their names."""
    made = Archive(
        store,
        Bucket(store, f"maps-{short}"),
        Bucket(store, f"cogs-{short}"),
        directory,
    )
    made.maps.create()
    made.cogs.create()
    return made


def wait_for(until: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.2)


def wait_for_words(file: Path, words: str, seconds: float = PATIENCE_SECONDS) -> str:
    """Wait until words stand in a file; returns all that does."""
    wait_for(lambda: file.exists() and words in file.read_text(), seconds)
    return file.read_text()
