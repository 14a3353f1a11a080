"""The clock of the access point steps back while a run is in progress."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bucket import S3Endpoint
from condor import queue
from pool import condor, personal, process, s3
from pool.distribution import find_or_fetch
from pool.personal import PersonalPool
from tests.support import clock as clocks
from tests.support.archive import Archive, archive_for
from tests.support.clock import Clock

# S3 refuses a signature whose time is off by more than 15 minutes.
AHEAD, BEHIND = "+14m", "-14m"
HOUR_BACK = "-46m"


@pytest.fixture(scope="module")
def clock(workplace: Path) -> Clock:
    if "POOL_SUITE" in os.environ:
        pytest.skip("HTCondor of another Debian cannot load this one's libfaketime")
    return clocks.make(workplace / "clock")


@pytest.fixture
def pool_with_clock(
    clock: Clock, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PersonalPool]:
    """Yield a pool whose daemons and launches use a test's clock."""
    start = process.start

    def start_with_clock(command, environment, **named) -> subprocess.Popen:
        return start(command, environment=environment | clock.environment, **named)

    monkeypatch.setattr(condor.process, "start", start_with_clock)
    directory = Path(tempfile.mkdtemp(dir=workplace, prefix="mistaken-"))
    (directory / "s3").mkdir()
    # The server's certificate is valid from the time of its creation.
    with monkeypatch.context() as earlier:
        for name, value in clock.environment.items():
            earlier.setenv(name, value)
        clock.turn("-2h")
        s3.configure(s3.S3Server(directory / "s3", 0), find_or_fetch(print).openssl)
    clock.turn(AHEAD)
    with personal.running_pool(directory, print) as pool:
        with monkeypatch.context() as meanwhile:
            for name, value in (pool.condor.environment | clock.environment).items():
                meanwhile.setenv(name, value)
            queue.htcondor2.reload_config()
            yield pool
        clock.turn("+0")
        if "CONDOR_CONFIG" in os.environ:
            # Otherwise the bindings would look for this pool after its end.
            queue.htcondor2.reload_config()


@pytest.fixture
def archive(pool_with_clock: PersonalPool, workplace: Path) -> Iterator[Archive]:
    server = pool_with_clock.s3
    store = S3Endpoint(
        server.endpoint, server.access_key, server.secret_key, ca_certs=server.ca_certs
    )
    yield from archive_for(store, workplace, "clock")


def begin(archive: Archive, name: str) -> None:
    archive.upload_raster(f"{name}.tif", 1)
    archive.upload_manifest(f"{name}-raw.csv", [(f"{name}.tif", 1)])


def assert_processed(archive: Archive, name: str) -> None:
    assert archive.outcome(f"{name}-") == ([[f"{name}.tif", "1"]], [])


def time_of_subprocess() -> float:
    command = [sys.executable, "-c", "import time; print(time.time())"]
    return float(subprocess.check_output(command, env=os.environ, text=True))


def test_runs_continue_when_the_clock_steps_back(archive: Archive, clock: Clock):
    archive.launch()
    begin(archive, "before")
    done = archive.poll()
    assert done.returncode == 0, done.stderr
    before = time_of_subprocess()

    clock.turn(BEHIND)

    assert time_of_subprocess() < before
    begin(archive, "after")
    done = archive.poll()
    assert done.returncode == 0, done.stderr
    for name in ("before", "after"):
        assert_processed(archive, name)


def test_a_clock_that_is_an_hour_behind_is_reported_until_it_is_right(
    archive: Archive, clock: Clock
):
    archive.launch()
    begin(archive, "before")
    done = archive.poll()
    assert done.returncode == 0, done.stderr
    begin(archive, "after")

    clock.turn(HOUR_BACK)
    for name in ("stopped", "still-stopped"):
        begin(archive, name)
        done = archive.poll()
        assert done.returncode != 0
        assert "clock is 46 minutes behind the store's: set it" in done.stderr
    clock.turn(AHEAD)

    for name in ("before", "after", "stopped", "still-stopped"):
        done = archive.poll()
        assert done.returncode == 0, done.stderr
        assert_processed(archive, name)
