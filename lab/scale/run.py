"""One run of so many rows, from the manifest to its CSVs, measured step by step."""

import csv
import io
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bucket import Bucket
from condor import queue
from lab.scale import generate
from lab.scale.fill import fill
from lab.scale.generate import Fate
from lab.scale.measure import Cost, cost, most_memory
from state.launch import Launch, save_launch
from state.project import PROJECT
from state.run import Run, all_runs
from tests.support.seaweedfs import SeaweedFS

# The folder of manifests, apart from the images.
MANIFESTS = "manifests/"
PATTERN = f"{MANIFESTS}*raw.csv"
_PATIENCE_SECONDS = 3600
# More than any object here has, in bytes.
_MOST = 2**30
_PID = re.compile(r"\*\* PID = (\d+)")
_SUBMITTED = re.compile(r"Just submitted \d+ job")


class Wrong(Exception):
    """What was measured did not do what it should have: its cost means nothing."""


@dataclass(frozen=True)
class Measured:
    """What a run of so many rows cost.

    Attributes:
        gathering: of a poll when nine tenths of the nodes have ended.
        filling: objects a second that were put into the buckets.
        dagman: MiB, the most that DAGMan had resident when it had read its DAG.
        dag: bytes of the DAG file.
        objects: that poll and reconcile have to learn of.
        files: in the run directory when all is done, but for the logs of nodes
            that failed.
    """

    rows: int
    filling: float
    poll: Cost
    gathering: Cost
    reconcile: Cost
    dagman: float
    dag: int
    objects: int
    files: int

    @property
    def requests(self) -> int:
        return (self.poll.requests + self.reconcile.requests).total()


def measure(
    server: SeaweedFS, place: Path, rows: int, signing: str = "auto"
) -> Measured:
    """Run a manifest of so many rows, but for the nodes, in a new folder.

    A personal pool is to be known by the environment. DAGMan reads the DAG and
    submits jobs that no machine takes; then what the nodes would have left is
    written, with a poll when most have ended, and DAGMan is stopped.

    Args:
        signing: who signs transfers, one of ``SIGNINGS``.

    Raises:
        Wrong: the outcome is not what the manifest's rows make it.
    """
    maps, cogs = (Bucket(server.store, f"{name}-{rows}") for name in ("maps", "cogs"))
    maps.create()
    cogs.create()
    launched = launch(
        server, place, maps.name, cogs.name, pattern=PATTERN, signing=signing
    )
    began = time.monotonic()
    there = fill(server, maps.name, generate.inputs(rows))
    filling = time.monotonic() - began
    _upload_manifest(maps, place, rows)
    poll = cost(_command("poll", launched.file), place, server)
    (run,), _ = all_runs(launched)
    # Since the last poll, a tenth of all have ended.
    ungathered = rows // 10
    dagman = _memory_of_dagman(run)
    generate.end_nodes(run, generate.all_rows(rows)[:-ungathered])
    gathering = cost(_command("poll", launched.file), place, server)
    generate.end_nodes(run, generate.all_rows(rows)[-ungathered:])
    _stop_dagman(run)
    generate.log_nodes(run, rows)
    began = time.monotonic()
    made = fill(server, cogs.name, generate.outputs(rows))
    filling += time.monotonic() - began
    reconcile = cost(_command("reconcile", run.directory), place, server)
    _check(maps, run, rows)
    files = [path for path in run.directory.rglob("*") if path.is_file()]
    return Measured(
        rows,
        (there + made) / filling,
        poll,
        gathering,
        reconcile,
        dagman,
        run.dag_file.stat().st_size,
        there + made,
        sum(path.parent != run.logs_directory for path in files),
    )


def launch(
    server: SeaweedFS, place: Path, maps: str, cogs: str, **settings: str
) -> Launch:
    """A launch in a new folder, but for the crondor job, which would poll as well."""
    place.mkdir()
    launch = Launch(
        directory=place,
        store=server.store,
        input_bucket=maps,
        output_bucket=cogs,
        max_jobs=10,
        submit_options=("requirements = false",),
        **settings,
    )
    launch.home.mkdir(mode=0o700)
    save_launch(launch, launch.file)
    return launch


def poll_of(launch: Launch, server: SeaweedFS) -> Cost:
    return cost(_command("poll", launch.file), launch.directory, server)


def _command(name: str, argument: Path) -> list[str]:
    return [sys.executable, str(PROJECT / "cog_pipeline.py"), name, str(argument)]


def _upload_manifest(maps: Bucket, place: Path, rows: int) -> None:
    file = place / "manifest.csv"
    generate.write_manifest(file, maps.name, rows)
    maps.upload(f"{MANIFESTS}archive-raw.csv", file, "text/csv")


def _memory_of_dagman(run: Run) -> float:
    """Wait until DAGMan has submitted jobs, then look at its memory."""

    def said() -> str:
        return run.dagman_log.read_text() if run.dagman_log.exists() else ""

    def has_submitted() -> bool:
        if not queue.find(queue.RUN_ATTRIBUTE, str(run.directory)):
            raise Wrong(f"DAGMan ended before it submitted anything:\n{said()[-2000:]}")
        return _SUBMITTED.search(said()) is not None

    _wait_for(has_submitted, "DAGMan's first job")
    return most_memory(int(_PID.search(said())[1]))


def _stop_dagman(run: Run) -> None:
    """End DAGMan and its jobs without its FINAL node, which would reconcile."""
    # A DAGMan that is held does not run, and so does nothing when it is removed.
    hold = ["condor_hold", str(run.cluster)]
    subprocess.run(hold, check=True, capture_output=True)
    queue.remove(run.cluster, "its nodes are taken to have ended")
    for attribute in (queue.RUN_ATTRIBUTE, queue.NODE_ATTRIBUTE):
        _wait_for(
            lambda name=attribute: not queue.find(name, str(run.directory)),
            "the end of DAGMan and its jobs",
        )


def _wait_for(until: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not until():
        if time.monotonic() > deadline:
            raise Wrong(f"{what} did not come within {_PATIENCE_SECONDS} s")
        time.sleep(0.5)


def _check(maps: Bucket, run: Run, rows: int) -> None:
    """Raise Wrong unless each row is where it should be, with its reason."""
    found = Counter({Fate.PROCESSED: sum(1 for _ in _rows(maps, run.processed_key))})
    for row in _rows(maps, run.failed_key):
        (fate,) = [f for f in Fate if f.value and f.value in row[2]] or [row[2]]
        found[fate] += 1
    if found != Counter(generate.expected(rows)):
        raise Wrong(f"of {rows} rows, {found} instead of {generate.expected(rows)}")


def _rows(maps: Bucket, key: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(maps.read(key, _MOST).decode()))
