"""The clock of the access point steps back in the middle of a run."""

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

# S3 grants a clock a quarter of an hour, and refuses what is signed by another.
AHEAD, BEHIND = "+14m", "-14m"
HOUR_BACK = "-46m"


@pytest.fixture(scope="module")
def clock(workplace: Path) -> Clock:
    return clocks.make(workplace / "clock")


@pytest.fixture
def mistaken(
    clock: Clock, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PersonalPool]:
    """A pool whose daemons go by a test's clock, as what is launched on it does."""
    start = process.start

    def start_with_clock(command, environment, **named) -> None:
        start(command, environment=environment | clock.environment, **named)

    monkeypatch.setattr(condor.process, "start", start_with_clock)
    directory = Path(tempfile.mkdtemp(dir=workplace, prefix="mistaken-"))
    (directory / "s3").mkdir()
    # The server's certificate is valid from when it is made.
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
            # Or the bindings would look for this pool when it is gone.
            queue.htcondor2.reload_config()


@pytest.fixture
def archive(mistaken: PersonalPool, workplace: Path) -> Iterator[Archive]:
    server = mistaken.s3
    store = S3Endpoint(
        server.endpoint, server.access_key, server.secret_key, ca_certs=server.ca_certs
    )
    yield from archive_for(store, workplace, "clock")


def begin(archive: Archive, name: str) -> None:
    archive.upload_raster(f"{name}.tif", 1)
    archive.upload_manifest(f"{name}-raw.csv", [(f"{name}.tif", 1)])


def assert_processed(archive: Archive, name: str) -> None:
    assert archive.outcome(f"{name}-") == ([[f"{name}.tif", "1"]], [])


def told_time() -> float:
    asked = [sys.executable, "-c", "import time; print(time.time())"]
    return float(subprocess.check_output(asked, env=os.environ, text=True))


def test_runs_go_on_when_the_clock_steps_back(archive: Archive, clock: Clock):
    archive.launch()
    begin(archive, "before")
    done = archive.poll()
    assert done.returncode == 0, done.stderr
    before = told_time()

    clock.turn(BEHIND)

    assert told_time() < before
    begin(archive, "after")
    done = archive.poll()
    assert done.returncode == 0, done.stderr
    for name in ("before", "after"):
        assert_processed(archive, name)


def test_an_hour_back_is_said_and_waited_for(archive: Archive, clock: Clock):
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
