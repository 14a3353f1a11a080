"""Start a personal pool, and upload archives of one small image, to measure it with."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bucket import S3Endpoint
from condor.bindings import htcondor2
from pool import personal
from pool.personal import PersonalPool
from state.project import PROJECT
from state.run import RUN_DIRECTORY_PREFIX, Run, load_run
from tests.support import archive as archives, rasters
from tests.support.archive import Archive

_PATIENCE_SECONDS = 3600


@contextmanager
def running_pool() -> Iterator[tuple[PersonalPool, Path]]:
    """Start a pool, and yield it with a folder for the archives."""
    with (
        tempfile.TemporaryDirectory(dir=PROJECT, prefix=".scale-") as folder,
        personal.running_pool(Path(folder, "pool"), print) as pool,
    ):
        os.environ.update(pool.condor.environment)
        # The bindings were imported before there was a pool.
        htcondor2.reload_config()
        place = Path(folder, "archive")
        place.mkdir(mode=0o777)
        yield pool, place


def write_image(place: Path) -> Path:
    """Write the small image."""
    return rasters.write(place / "image.tif", 1, width=64, height=64)


def new_archive(pool: PersonalPool, directory: Path) -> Archive:
    """Return a new archive with the name of its new directory."""
    s3 = pool.s3
    store = S3Endpoint(s3.endpoint, s3.access_key, s3.secret_key, ca_certs=s3.ca_certs)
    directory.mkdir(mode=0o777)
    return archives.new_archive(store, directory.name, directory)


def upload(archive: Archive, name: str, image: Path, rows: int) -> None:
    """Upload an image under as many keys, and then their manifest."""
    keys = [f"{name}/{number:06}.tif" for number in range(rows)]
    for key in keys:
        archive.maps.upload(key, image)
    archive.upload_manifest(f"{name}-raw.csv", [(key, 1) for key in keys])


def launch(archive: Archive, *options: str) -> None:
    """Launch, which polls at once, so that the next poll is a day later."""
    archive.launch("--every", "1440", *options)


def poll(archive: Archive) -> None:
    """Poll now.

    Raises:
        subprocess.CalledProcessError: the poll failed.
    """
    archive.poll().check_returncode()


def runs(archive: Archive) -> list[Run]:
    """Return the runs of an archive, the oldest first."""
    directories = sorted(archive.directory.glob(f"{RUN_DIRECTORY_PREFIX}*"))
    return list(map(load_run, directories))


def wait_for(condition: Callable[[], object], interval: float = 0.5) -> None:
    """Wait until a condition is true, which is checked every ``interval`` seconds.

    Raises:
        TimeoutError: it does not become true within an hour.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no end within {_PATIENCE_SECONDS} s")
        time.sleep(interval)
