"""Measure one run step by step, from the manifest to its CSVs."""

import csv
import io
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bucket import Bucket
from condor import queue
from lab.scale import generate
from lab.scale.fill import fill
from lab.scale.generate import Fate
from lab.scale.measure import Cost, cost, peak_memory
from state.launch import Launch, save_launch
from state.project import PROJECT
from state.run import Run, all_runs
from tests.support.seaweedfs import SeaweedFS

# The folder of the manifests, separate from the images.
MANIFESTS = "manifests/"
PATTERN = f"{MANIFESTS}*raw.csv"
_PATIENCE_SECONDS = 3600
# No object here is larger, in bytes.
_MAX_BYTES = 2**30
_PID = re.compile(r"\*\* PID = (\d+)")
_SUBMITTED = re.compile(r"Just submitted \d+ job")


class WrongOutcome(Exception):
    """The run had a wrong outcome, so that its cost means nothing."""


@dataclass(frozen=True)
class RunCost:
    """The cost of a run.

    Attributes:
        filling: speed at which the buckets were filled, in objects per second.
        poll: cost of the poll that starts the run.
        gathering: cost of the poll when 90 % of the nodes have ended.
        status: cost of ``status`` after that, which ``status --watch`` repeats.
        dagman: largest resident memory of DAGMan after it read its DAG, in MiB.
        dag: size of the DAG file, in bytes.
        validate: cost of ``validate --quick`` after the run.
        objects: number of objects that poll and reconcile must list.
        files: number of files in the run directory at the end, without the logs of
            failed nodes.
    """

    rows: int
    filling: float
    poll: Cost
    gathering: Cost
    status: Cost
    reconcile: Cost
    validate: Cost
    dagman: float
    dag: int
    objects: int
    files: int

    @property
    def requests(self) -> int:
        return (self.poll.requests + self.reconcile.requests).total()


def measure(
    server: SeaweedFS, place: Path, rows: int, signing: str = "auto"
) -> RunCost:
    """Run a manifest of so many rows without its nodes, in the new folder ``place``.

    The environment must have the variables of a personal pool. DAGMan reads the DAG
    and submits jobs that no machine takes. Then this function writes the files of the
    nodes, runs a poll when most of them are there, and stops DAGMan.

    Args:
        signing: who signs transfers, one of ``SIGNINGS``.

    Raises:
        WrongOutcome: the CSVs are not those that the manifest should give.
    """
    maps, cogs = (Bucket(server.store, f"{name}-{rows}") for name in ("maps", "cogs"))
    maps.create()
    cogs.create()
    launch = new_launch(
        server, place, maps.name, cogs.name, pattern=PATTERN, signing=signing
    )
    began = time.monotonic()
    inputs = fill(server, maps.name, generate.inputs(rows))
    filling = time.monotonic() - began
    _upload_manifest(maps, place, rows)
    poll = cost_of_poll(launch, server)
    (run,), _ = all_runs(launch)
    # Reconcile gathers the results of the last tenth.
    ungathered = rows // 10
    dagman = _memory_of_dagman(run)
    generate.end_nodes(run, generate.row_numbers(rows)[:-ungathered])
    gathering = cost_of_poll(launch, server)
    status = cost(_command("status", run.directory), place, server)
    generate.end_nodes(run, generate.row_numbers(rows)[-ungathered:])
    _stop_dagman(run)
    generate.log_nodes(run, rows)
    began = time.monotonic()
    outputs = fill(server, cogs.name, generate.outputs(rows))
    filling += time.monotonic() - began
    reconcile = cost(_command("reconcile", run.directory), place, server)
    _check(maps, run, rows)
    validate = cost([*_command("validate", run.directory), "--quick"], place, server)
    files = [path for path in run.directory.rglob("*") if path.is_file()]
    return RunCost(
        rows,
        (inputs + outputs) / filling,
        poll,
        gathering,
        status,
        reconcile,
        validate,
        dagman,
        run.dag_file.stat().st_size,
        inputs + outputs,
        sum(path.parent != run.logs_directory for path in files),
    )


def new_launch(
    server: SeaweedFS,
    place: Path,
    maps: str,
    cogs: str,
    pattern: str,
    signing: str = "auto",
) -> Launch:
    """Make a launch in the new folder ``place``, without the job that polls."""
    place.mkdir()
    launch = Launch(
        directory=place,
        store=server.store,
        input_bucket=maps,
        output_bucket=cogs,
        max_jobs=10,
        # With the most nodes for these rows.
        rows_per_job=1,
        submit_options=("requirements = false",),
        pattern=pattern,
        signing=signing,
    )
    launch.home.mkdir(mode=0o700)
    save_launch(launch, launch.file)
    return launch


def cost_of_poll(launch: Launch, server: SeaweedFS) -> Cost:
    """Return the cost of a poll of a launch."""
    return cost(_command("poll", launch.file), launch.directory, server)


def _command(name: str, argument: Path) -> list[str]:
    return [sys.executable, str(PROJECT / "cog_pipeline.py"), name, str(argument)]


def _upload_manifest(maps: Bucket, place: Path, rows: int) -> None:
    file = place / "manifest.csv"
    generate.write_manifest(file, maps.name, rows)
    maps.upload(f"{MANIFESTS}archive-raw.csv", file, "text/csv")


def _memory_of_dagman(run: Run) -> float:
    """Wait until DAGMan has submitted jobs, and return its peak memory in MiB."""

    def log() -> str:
        return run.dagman_log.read_text() if run.dagman_log.exists() else ""

    def has_submitted() -> bool:
        if not queue.find(queue.RUN_ATTRIBUTE, str(run.directory)):
            raise WrongOutcome(f"DAGMan ended before its first job:\n{log()[-2000:]}")
        return _SUBMITTED.search(log()) is not None

    _wait_for(has_submitted, "DAGMan's first job")
    return peak_memory(int(_PID.findall(log())[0]))


def _stop_dagman(run: Run) -> None:
    """End DAGMan and its jobs without its FINAL node, which would reconcile."""
    # A DAGMan that is held does not run, so that it does nothing when it is removed.
    if run.cluster is None:
        raise WrongOutcome(f"{run.directory.name} was not submitted")
    hold = ["condor_hold", str(run.cluster)]
    subprocess.run(hold, check=True, capture_output=True)
    queue.remove(run.cluster, "its nodes count as ended")

    def is_gone(attribute: str) -> bool:
        return not queue.find(attribute, str(run.directory))

    for attribute in (queue.RUN_ATTRIBUTE, queue.NODE_ATTRIBUTE):
        _wait_for(partial(is_gone, attribute), "the end of DAGMan and its jobs")


def _wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise WrongOutcome(f"{what} did not come within {_PATIENCE_SECONDS} s")
        time.sleep(0.5)


def _check(maps: Bucket, run: Run, rows: int) -> None:
    """Raise WrongOutcome unless each row is in the right CSV, with its reason."""
    fates: Counter[Fate | str] = Counter()
    fates[Fate.PROCESSED] = sum(1 for _ in _rows(maps, run.processed_key))
    for row in _rows(maps, run.failed_key):
        reason = row[2]
        matches = [fate for fate in Fate if fate.value and fate.value in reason]
        fates[matches[0] if matches else reason] += 1
    expected = Counter(generate.expected_fates(rows))
    if fates != expected:
        raise WrongOutcome(f"of {rows} rows, {fates} instead of {expected}")


def _rows(maps: Bucket, key: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(maps.read(key, _MAX_BYTES).decode()))
