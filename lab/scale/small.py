"""A personal pool, and archives of one small image, to measure the pool with."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bucket import Bucket, S3Endpoint
from condor import queue
from pool import personal
from pool.personal import PersonalPool
from state.project import PROJECT
from state.run import RUN_DIRECTORY_PREFIX, Run, load_run
from tests.support import rasters

_PATIENCE_SECONDS = 3600


@contextmanager
def pool() -> Iterator[tuple[PersonalPool, Path]]:
    """A pool that runs, and a folder for what is measured on it."""
    with (
        tempfile.TemporaryDirectory(dir=PROJECT, prefix=".scale-") as folder,
        personal.running_pool(Path(folder, "pool"), print) as running,
    ):
        os.environ.update(running.condor.environment)
        # The bindings were imported before there was a pool.
        queue.htcondor2.reload_config()
        place = Path(folder, "archive")
        place.mkdir(mode=0o777)
        yield running, place


def image(place: Path) -> Path:
    return rasters.write(place / "image.tif", 1, width=64, height=64)


@dataclass(frozen=True)
class Archive:
    """Two buckets, and a directory to launch in."""

    store: S3Endpoint
    maps: Bucket
    cogs: Bucket
    directory: Path

    def upload(self, name: str, image: Path, rows: int) -> None:
        """Upload an image so many times, and then their manifest."""
        keys = [f"{name}/{number:06}.tif" for number in range(rows)]
        for key in keys:
            self.maps.upload(key, image)
        manifest = "".join(f"{key},1\n" for key in keys)
        self.maps.write(f"{name}-raw.csv", manifest.encode())

    def poll_first(self, *options: str) -> None:
        """Launch, which polls; later polls are those that are called for."""
        store = self.store
        keys = ("-a", str(store.access_key), "-s", str(store.secret_key))
        _run(
            self.directory,
            *(*keys, "-e", store.endpoint, "--ca-certs", str(store.ca_certs)),
            *("--input-bucket", self.maps.name, "--output-bucket", self.cogs.name),
            *("--every", "1440", *options),
        )

    def poll(self) -> None:
        (file,) = self.directory.glob("launch-*/launch.json")
        _run(self.directory, "poll", str(file))

    def runs(self) -> list[Run]:
        """Its runs, the oldest first."""
        found = sorted(self.directory.glob(f"{RUN_DIRECTORY_PREFIX}*"))
        return list(map(load_run, found))


def archive(pool: PersonalPool, directory: Path) -> Archive:
    """A new archive, named for its directory."""
    s3 = pool.s3
    store = S3Endpoint(s3.endpoint, s3.access_key, s3.secret_key, ca_certs=s3.ca_certs)
    made = Archive(
        store,
        Bucket(store, f"{directory.name}-maps"),
        Bucket(store, f"{directory.name}-cogs"),
        directory,
    )
    directory.mkdir(mode=0o777)
    made.maps.create()
    made.cogs.create()
    return made


def _run(directory: Path, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, str(PROJECT / "cog_pipeline.py"), *arguments],
        cwd=directory,
        check=True,
        capture_output=True,
    )


def wait_for(until: Callable[[], object]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not until():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no end within {_PATIENCE_SECONDS} s")
        time.sleep(0.5)
