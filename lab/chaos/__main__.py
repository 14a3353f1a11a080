"""Upload manifests for a while, throw faults meanwhile, and check the promise."""

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bucket import Bucket, S3Endpoint
from lab.chaos.archive import People, Verdict, judge
from lab.chaos.faults import FAULTS, NothingToHit, Target, came_through
from pool import personal
from state.project import PROJECT
from state.rows import load_rows_with_nodes
from state.run import Run, load_run
from tests.support import faulty_s3
from tests.support.archive import TEST_RUNS

# All that waits is to be done so long after the last fault.
PATIENCE_SECONDS = 900
# Patterns that differ, so that two launches share one queue and one bucket; and in one
# of them, several rows share a job.
LAUNCHES = (("-p", "b*raw.csv"), ("-p", "*raw.csv", "--rows-per-job", "3"))
PIPELINE = [sys.executable, str(PROJECT / "cog_pipeline.py")]

# Of HTCondor's event log: its head, and the events that end an execution
# (evicted, terminated, shadow exception, aborted, held, reconnection failed).
_EVENT = re.compile(r"(\d{3}) \((\d+)\.\d+\.\d+\) (\S+ \S+) ")
_NODE = re.compile(r"DAG(?: Node: |NodeName = \")(\w+)")
_EXECUTING = "001"
_ENDS = ("004", "005", "007", "009", "012", "024")

console = Console(highlight=False)


def main() -> int:
    arguments = argparse.ArgumentParser(prog="chaos", description=__doc__)
    arguments.add_argument("--minutes", type=float, default=20)
    arguments.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = arguments.parse_args()
    random.seed(options.seed)
    console.print(f"Chaos for {options.minutes:g} minutes, seed {options.seed}.")
    TEST_RUNS.mkdir(exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=TEST_RUNS, prefix="chaos-"))
    try:
        with (
            personal.running_pool(place / "pool", console.print) as pool,
            faulty_s3.in_front_of(pool.s3) as proxy,
        ):
            os.environ.update(pool.condor.environment)
            people, target = _open(place, pool, proxy)
            thrown = _rage(people, target, options.minutes * 60)
            _settle(people, target)
            verdict = judge(people)
            broken = [
                *verdict.broken,
                *(f"by two nodes at once: {t}" for t in _converted_at_once(target)),
                *came_through(target),
            ]
            apart = sum(1 for run in _runs(target) if run.solo_file.exists())
    except KeyboardInterrupt:
        console.print("Stopped.")
        shutil.rmtree(place, ignore_errors=True)
        return 130
    _report(people, thrown, verdict, broken, apart)
    if broken:
        console.print(f"What is left of it lies in {place}.", soft_wrap=True)
        return 1
    shutil.rmtree(place)
    return 0


def _open(place: Path, pool, proxy) -> tuple[People, Target]:
    """The archive's buckets, and two launches that look for the same manifests."""
    keys = pool.s3
    direct = S3Endpoint(
        keys.endpoint, keys.access_key, keys.secret_key, ca_certs=keys.ca_certs
    )
    people = People(Bucket(direct, "maps"), Bucket(direct, "cogs"), place)
    people.maps.create()
    people.cogs.create()
    launches = []
    for options in LAUNCHES:
        launch = place / f"launch-{len(launches)}"
        launch.mkdir()
        launches.append(launch)
        subprocess.run(
            [
                *(*PIPELINE, "-a", str(keys.access_key), "-s", str(keys.secret_key)),
                *("-e", proxy.endpoint, "--ca-certs", str(keys.ca_certs)),
                *("--input-bucket", "maps", "--output-bucket", "cogs"),
                *(*options, "--every", "1", "--retry-seconds", "5"),
                *("--submit-option", "hold_backoff_seconds = 2"),
                *("--submit-option", "job_lease_duration = 20"),
            ],
            cwd=launch,
            check=True,
        )
    return people, Target(pool, proxy, tuple(launches))


def _rage(people: People, target: Target, seconds: float) -> Counter[str]:
    """Upload and throw faults for so long; returns which were thrown how often."""
    end = time.monotonic() + seconds
    thrown: Counter[str] = Counter()
    with ThreadPoolExecutor(2) as threads, _progress() as progress:
        others = [
            threads.submit(_upload_until, people, end),
            threads.submit(_poll_until, target, end),
        ]
        task = progress.add_task("chaos", total=seconds, what="")
        while time.monotonic() < end:
            # Each of them once before any of them often.
            fewest = min(thrown[name] for name in FAULTS)
            name = random.choice([n for n in FAULTS if thrown[n] <= fewest + 1])
            left = end - time.monotonic()
            progress.update(task, completed=seconds - left, what=name)
            try:
                FAULTS[name](target)
            except NothingToHit:
                time.sleep(0.5)
                continue
            thrown[name] += 1
            time.sleep(random.uniform(0, 4))
        for other in others:
            other.result()
    return thrown


def _upload_until(people: People, end: float) -> None:
    while time.monotonic() < end:
        people.upload_something()
        if random.random() < 0.4:
            people.plant_something()
        time.sleep(random.uniform(2, 25))


def _poll_until(target: Target, end: float) -> None:
    """Besides those of crondor, so that runs begin sooner and meet more faults."""
    while time.monotonic() < end:
        _poll(random.choice(target.launches))
        time.sleep(random.uniform(0, 10))


def _poll(launch: Path) -> None:
    (file,) = launch.glob("launch-*/launch.json")
    subprocess.run([*PIPELINE, "poll", str(file)], capture_output=True, timeout=600)


def _settle(people: People, target: Target) -> None:
    """Without faults: wait until every manifest has been replaced by its CSVs."""
    personal.start(target.pool.condor.directory.parent, lambda _: None)
    deadline = time.monotonic() + PATIENCE_SECONDS
    with console.status("no more faults: waiting for what is left") as status:
        while (left := people.waiting()) and time.monotonic() < deadline:
            status.update(f"no more faults: {len(left)} manifests are left")
            for launch in target.launches:
                _poll(launch)
            time.sleep(2)


def _converted_at_once(target: Target) -> list[str]:
    """The images that two nodes had at once, by what HTCondor's logs tell."""
    spans: dict[str, list[tuple[str, str, str]]] = {}
    for run in _runs(target):
        for image, span in _spans(run):
            spans.setdefault(image, []).append(span)
    twice = []
    for image, found in spans.items():
        for one, other in combinations(found, 2):
            same_job = one[2] == other[2]
            if not same_job and one[0] < other[1] and other[0] < one[1]:
                twice.append(f"{image}: {one} and {other}")
    return twice


def _runs(target: Target) -> Iterator[Run]:
    for launch in target.launches:
        for file in launch.glob("workflow-run-*/run.json"):
            yield load_run(file.parent)


def _spans(run: Run) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """From when to when which job of a run had which image, to the second."""
    logs = [log for log in run.node_logs if log.exists()]
    if not logs:
        return
    images: dict[str, list[str]] = {}
    for row, names in load_rows_with_nodes(run):
        for name in names:
            images.setdefault(name, []).append(row.key)
    dag_node_of: dict[str, str] = {}
    begun: dict[str, str] = {}
    told = "".join(log.read_text(errors="replace") for log in logs)
    for event in told.split("\n...\n"):
        head = _EVENT.match(event.lstrip())
        if head is None:
            continue
        kind, cluster, moment = head.groups()
        if named := _NODE.search(event):
            dag_node_of[cluster] = named[1]
        if kind == _EXECUTING:
            begun[cluster] = moment
        elif kind in _ENDS and cluster in begun:
            span = (begun.pop(cluster), moment, f"{run.directory.name}, job {cluster}")
            for image in images[dag_node_of[cluster]]:
                yield image, span


def _report(
    people: People,
    thrown: Counter[str],
    verdict: Verdict,
    broken: list[str],
    apart: int,
) -> None:
    table = Table("fault", "thrown", title="Faults")
    for name in FAULTS:
        table.add_row(name, str(thrown[name]))
    console.print(table)
    manifests = len(people.uploads)
    console.print(
        f"{manifests} manifests with {verdict.rows} rows: {verdict.processed} "
        f"processed, {verdict.failed} failed, {len(verdict.excused)} of these for a "
        "fault rather than for their image. In "
        f"{apart} runs, rows were tried again apart from those they shared a job with."
    )
    for reason, count in Counter(verdict.excused).most_common(10):
        console.print(f"  {count} × {reason}", markup=False)
    for breach in broken:
        console.print(f"BROKEN: {breach}", markup=False, style="red")
    if not broken:
        console.print("The promise was kept for every row.", style="green")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[what]}"),
        console=console,
    )


if __name__ == "__main__":
    sys.exit(main())
