"""Upload manifests, inject faults meanwhile, and check the promise for each row."""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bucket import Bucket, S3Endpoint
from condor import eventlog
from lab.chaos.archive import Uploaders, Verdict, check_promise
from lab.chaos.catalog import PRODUCTS, check_catalog
from lab.chaos.faults import FAULTS, NoTarget, Target, hostile_node_breaches
from pool import personal
from pool.personal import PersonalPool
from state.catalog import is_pending
from state.project import PROJECT
from state.rows import load_rows_with_nodes
from state.run import Run, load_run, settings_of
from tests.support import faulty_s3
from tests.support.archive import TEST_RUNS
from tests.support.faulty_s3 import FaultyS3

# After the last fault, all manifests must be done within this time.
PATIENCE_SECONDS = 900
# The patterns differ, so that two launches share one queue and one bucket. In the
# second launch, several rows share a job.
LAUNCHES = (("-p", "b*raw.csv"), ("-p", "*raw.csv", "--rows-per-job", "3"))
PIPELINE = [sys.executable, str(PROJECT / "cog_pipeline.py")]

console = Console(highlight=False)


@dataclass(frozen=True)
class Span:
    """The time in which a job had an image, in seconds since 1970."""

    job: str
    began: float
    ended: float

    def overlaps(self, other: "Span") -> bool:
        """Return whether another job had the image at the same time."""
        return (
            self.job != other.job
            and self.began < other.ended
            and other.began < self.ended
        )


def main() -> int:
    # A shell makes a background process ignore Ctrl-C, and so would all processes
    # that it starts.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
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
            uploaders, target = _set_up(place, pool, proxy)
            fault_counts = _inject_faults(uploaders, target, options.minutes * 60)
            _settle(uploaders, target)
            verdict = check_promise(uploaders)
            breaches = [
                *verdict.breaches,
                *check_catalog(uploaders.cogs, _runs(target)),
                *(f"two nodes at once had {pair}" for pair in _overlaps(target)),
                *hostile_node_breaches(target),
            ]
            solo_runs = sum(1 for run in _runs(target) if run.solo_file.exists())
    except KeyboardInterrupt:
        console.print("Stopped.")
        shutil.rmtree(place, ignore_errors=True)
        return 130
    _report(uploaders, fault_counts, verdict, breaches, solo_runs)
    if breaches:
        console.print(f"All files are kept in {place}.", soft_wrap=True)
        return 1
    shutil.rmtree(place)
    return 0


def _set_up(
    place: Path, pool: PersonalPool, proxy: FaultyS3
) -> tuple[Uploaders, Target]:
    """Make the archive's buckets, and two launches that process the same manifests."""
    keys = pool.s3
    direct = S3Endpoint(
        keys.endpoint, keys.access_key, keys.secret_key, ca_certs=keys.ca_certs
    )
    uploaders = Uploaders(Bucket(direct, "maps"), Bucket(direct, "cogs"), place)
    uploaders.maps.create()
    uploaders.cogs.create()
    launches: list[Path] = []
    for options in LAUNCHES:
        launch = place / f"launch-{len(launches)}"
        launch.mkdir()
        launches.append(launch)
        subprocess.run(
            [
                *(*PIPELINE, "-a", str(keys.access_key), "-s", str(keys.secret_key)),
                *("-e", proxy.endpoint, "--ca-certs", str(keys.ca_certs)),
                *("--input-bucket", "maps", "--output-bucket", "cogs"),
                *("--catalog", PRODUCTS),
                *(*options, "--every", "1", "--retry-seconds", "5"),
                *("--submit-option", "hold_backoff_seconds = 2"),
                *("--submit-option", "job_lease_duration = 20"),
            ],
            cwd=launch,
            check=True,
        )
    return uploaders, Target(pool, proxy, tuple(launches))


def _inject_faults(
    uploaders: Uploaders, target: Target, seconds: float
) -> Counter[str]:
    """Upload and inject faults for so long; return the number of each fault."""
    end = time.monotonic() + seconds
    counts: Counter[str] = Counter()
    with ThreadPoolExecutor(2) as threads, _progress() as progress:
        tasks = [
            threads.submit(_upload_until, uploaders, end),
            threads.submit(_poll_until, target, end),
        ]
        bar = progress.add_task("chaos", total=seconds, fault="")
        while time.monotonic() < end:
            # No fault comes much more often than another.
            min_count = min(counts[name] for name in FAULTS)
            name = random.choice([n for n in FAULTS if counts[n] <= min_count + 1])
            left = end - time.monotonic()
            progress.update(bar, completed=seconds - left, fault=name)
            try:
                FAULTS[name](target)
            except NoTarget:
                time.sleep(0.5)
                continue
            counts[name] += 1
            time.sleep(random.uniform(0, 4))
        for task in tasks:
            task.result()
    return counts


def _upload_until(uploaders: Uploaders, end: float) -> None:
    while time.monotonic() < end:
        uploaders.upload_manifest()
        if random.random() < 0.4:
            uploaders.upload_hostile_object()
        time.sleep(random.uniform(2, 25))


def _poll_until(target: Target, end: float) -> None:
    """Poll more often than crondor does, so that runs start sooner and meet faults."""
    while time.monotonic() < end:
        _poll(random.choice(target.launches))
        time.sleep(random.uniform(0, 10))


def _poll(launch: Path) -> None:
    (file,) = launch.glob("launch-*/launch.json")
    subprocess.run([*PIPELINE, "poll", str(file)], capture_output=True, timeout=600)


def _settle(uploaders: Uploaders, target: Target) -> None:
    """Wait without faults until CSVs have replaced every manifest.

    Then wait until the catalog has all of their images.
    """
    personal.start(target.pool.condor.directory.parent, lambda _: None)
    deadline = time.monotonic() + PATIENCE_SECONDS
    with console.status("no more faults: waiting for the manifests") as status:
        while (keys := uploaders.open_manifests()) and time.monotonic() < deadline:
            status.update(f"no more faults: {len(keys)} manifests are left")
            for launch in target.launches:
                _poll(launch)
            time.sleep(2)
        status.update("no more faults: waiting for the catalog")
        while any(map(_is_pending, _runs(target))) and time.monotonic() < deadline:
            for launch in target.launches:
                _poll(launch)


def _is_pending(run: Run) -> bool:
    return is_pending(run, settings_of(run))


def _overlaps(target: Target) -> list[str]:
    """Return the images that two nodes had at once, according to HTCondor's logs."""
    spans_of: dict[str, list[Span]] = {}
    for run in _runs(target):
        for image, span in _spans(run):
            spans_of.setdefault(image, []).append(span)
    return [
        f"{image}: {one} and {other}"
        for image, spans in spans_of.items()
        for one, other in combinations(spans, 2)
        if one.overlaps(other)
    ]


def _runs(target: Target) -> Iterator[Run]:
    for launch in target.launches:
        for file in launch.glob("workflow-run-*/run.json"):
            yield load_run(file.parent)


def _spans(run: Run) -> Iterator[tuple[str, Span]]:
    """Yield each image of a run with the time in which a job had it."""
    logs = [log for log in run.node_logs if log.exists()]
    if not logs:
        return
    images: dict[str, list[str]] = {}
    for row, names in load_rows_with_nodes(run):
        for name in names:
            images.setdefault(name, []).append(row.key)
    for log in logs:
        for execution in eventlog.executions(log):
            job = f"{run.directory.name}, job {execution.cluster}"
            for image in images[execution.node]:
                yield image, Span(job, execution.began, execution.ended)


def _report(
    uploaders: Uploaders,
    fault_counts: Counter[str],
    verdict: Verdict,
    breaches: list[str],
    solo_runs: int,
) -> None:
    table = Table("fault", "times", title="Faults")
    for name in FAULTS:
        table.add_row(name, str(fault_counts[name]))
    console.print(table)
    console.print(
        f"{len(uploaders.uploads)} manifests with {verdict.rows} rows: "
        f"{verdict.processed} processed, {verdict.failed} failed. "
        f"{len(verdict.excused_reasons)} of the failed rows failed because of a fault, "
        f"not because of their image. {solo_runs} runs tried rows that had shared a "
        "job again, each in a job of its own."
    )
    for reason, count in Counter(verdict.excused_reasons).most_common(10):
        console.print(f"  {count} × {reason}", markup=False)
    for breach in breaches:
        console.print(f"BROKEN: {breach}", markup=False, style="red")
    if not breaches:
        console.print("The promise was kept for every row.", style="green")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[fault]}"),
        console=console,
    )


if __name__ == "__main__":
    sys.exit(main())
