"""An archive of maps to launch on: two buckets and a directory."""

import csv
import io
import os
import re
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bucket import Bucket, S3Endpoint
from state.project import PROJECT
from tests.support import rasters

# Not in the system's temporary directory: you find the files of a failed test beside
# the code.
TEST_RUNS = PROJECT / ".test-runs"
PATIENCE_SECONDS = 150
# More bytes than any object here has.
ALL = 2**30
# By default, small images share a job.
A_JOB_A_ROW = ("--rows-per-job", "1")


@dataclass(frozen=True)
class Archive:
    """Two buckets and a directory to launch in, for one test."""

    store: S3Endpoint
    maps: Bucket
    cogs: Bucket
    directory: Path

    def command(self, *options: str) -> list[str]:
        """Return the command of a launch; ``options`` come last and override."""
        return [
            *(sys.executable, str(PROJECT / "cog_pipeline.py"), *self.store_options()),
            *("--input-bucket", self.maps.name, "--output-bucket", self.cogs.name),
            *("--every", "1", *options),
        ]

    def store_options(self) -> list[str]:
        """Return the options that name the store."""
        return [
            *("-a", str(self.store.access_key), "-s", str(self.store.secret_key)),
            *("-e", self.store.endpoint, *self._trust()),
        ]

    def _trust(self) -> list[str]:
        if not self.store.secure:
            return ["--insecure-http"]
        return ["--ca-certs", str(self.store.ca_certs)]

    def run(self, *options: str, **environment: str) -> subprocess.CompletedProcess:
        """Launch, and return the completed process, successful or not."""
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
        """Launch, and keep the crondor job from polling."""
        launched = self.launch("--every", "60", *options)
        cluster = re.search(r"Launched as job (\d+)", launched)[1]
        # Its periodic release does not release a job that a user held.
        subprocess.run(["condor_hold", cluster], check=True, capture_output=True)

    def launch_file(self) -> Path:
        (file,) = self.directory.glob("launch-*/launch.json")
        return file

    def poll(self, **environment: str) -> subprocess.CompletedProcess:
        return self.call("poll", str(self.launch_file()), **environment)

    def health(self) -> subprocess.CompletedProcess:
        return self.call("health")

    def call(
        self, *words: str, text: str = "", **environment: str
    ) -> subprocess.CompletedProcess:
        """Run a command where the launch is; ``text`` is its standard input."""
        return subprocess.run(
            [sys.executable, str(PROJECT / "cog_pipeline.py"), *words],
            cwd=self.directory,
            env=os.environ | environment,
            input=text,
            capture_output=True,
            text=True,
        )

    def upload_raster(self, key: str, bands: int, **how) -> Path:
        """Upload a new raster, and return the local file."""
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
        (found,) = self.maps.list(prefix)
        return list(csv.reader(io.StringIO(self.maps.read(found.key, ALL).decode())))

    def fetch(self, bucket: Bucket, key: str) -> Path:
        path = self.directory / f"fetched-{uuid.uuid4().hex}{Path(key).suffix}"
        path.write_bytes(bucket.read(key, ALL))
        return path


def archive_for(store: S3Endpoint, workplace: Path, name: str) -> Iterator[Archive]:
    """Yield a new archive, and remove its jobs in the end."""
    short = uuid.uuid4().hex[:8]
    directory = workplace / f"{name[:40]}-{short}"
    directory.mkdir()
    yield new_archive(store, short, directory)
    # DAGMan removes its nodes.
    ours = f'regexp("{short}", UserLog)'
    subprocess.run(["condor_rm", "-constraint", ours], capture_output=True)


def new_archive(store: S3Endpoint, short: str, directory: Path) -> Archive:
    """Return an archive with new buckets, which have ``short`` in their names."""
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
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.2)


def wait_for_dagman(run: Path) -> None:
    """Wait until the DAGMan of a run has begun.

    If it is removed before that, it starts no FINAL node, and only a poll ends the run.
    """
    wait_for((run / "convert.dag.nodes.log").exists)


def wait_for_words(file: Path, words: str, seconds: float = PATIENCE_SECONDS) -> str:
    """Wait until a file contains words, and return its content."""
    wait_for(lambda: file.exists() and words in file.read_text(), seconds)
    return file.read_text()


def tries(archive: Archive) -> Counter[str]:
    """Return how many jobs each node has had."""
    (log,) = archive.directory.glob("workflow-run-*/convert.dag.nodes.log")
    named = re.findall(r'DAG(?: Node: |NodeName = ")(row\d+)', log.read_text())
    return Counter(named)
