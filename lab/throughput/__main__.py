"""Compare whole runs with the script that a user would write: ``make throughput``.

    python -m lab.throughput [--runs N] [--launch-option OPTION]…

Both sides read and write the same S3 server and may use all processors. This project
is measured from the launch until both CSVs are there, the script from its start to its
end. HTCondor and the S3 server run all the time.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
from rich.console import Console
from rich.progress import track

from condor import eventlog
from lab.bench import images
from lab.scale import small
from lab.scale.page import machine
from lab.support.markdown import insert, table
from pool.distribution import program_of_environment
from pool.ordinary_user import command_prefix
from pool.personal import PersonalPool
from state.project import PROJECT
from state.run import Run
from tests.support.archive import Archive

PAGE = PROJECT / "docs" / "benchmarks.md"
_PEER = PROJECT / "lab" / "throughput" / "peer.sh"
_BANDS = 3
# Enough images for measuring waits.
_FEW = {512: 20}
# The defaults of HTCondor 25, in seconds.
_USUAL_INTERVALS = """
NEGOTIATOR_INTERVAL = 60
NEGOTIATOR_MIN_INTERVAL = 5
NEGOTIATOR_CYCLE_DELAY = 20
SCHEDD_INTERVAL = 300
SCHEDD_MIN_INTERVAL = 5
PERIODIC_EXPR_INTERVAL = 60
DAGMAN_USER_LOG_SCAN_INTERVAL = 5
"""
# After this time, the daemons have finished their work for jobs that left the queue.
_SETTLE_SECONDS = 3

_T = TypeVar("_T")

console = Console(highlight=False)


@dataclass(frozen=True)
class Mix:
    """Images that are converted together.

    Attributes:
        counts: number of images of each side in pixels.
        max_wall, max_cpu: the goals, relative to the script.
    """

    name: str
    counts: dict[int, int]
    max_wall: float
    max_cpu: float


MIXES = (
    Mix("60 of 512², 20 of 2048², 3 of 6144²", {512: 60, 2048: 20, 6144: 3}, 0.5, 0.25),
    Mix("200 of 512²", {512: 200}, 0.5, 0.3),
    Mix("12 of 6144²", {6144: 12}, 0.45, 0.3),
)


@dataclass(frozen=True)
class Cost:
    """The cost of a run.

    Attributes:
        wall: elapsed seconds.
        cpu: CPU seconds of the whole machine.
    """

    wall: float
    cpu: float


@dataclass(frozen=True)
class Waits:
    """The time of a run in which none of its jobs has a slot, in seconds.

    Attributes:
        before: from the launch until the first job has a slot.
        after: from the end of the last job until both CSVs are in the bucket.
    """

    before: float
    after: float


@dataclass(frozen=True)
class Pair:
    """The costs of one run of both sides, one after the other."""

    pipeline: Cost
    script: Cost
    waits: Waits


def main() -> int:
    parser = argparse.ArgumentParser(prog="make throughput", description=__doc__)
    parser.add_argument(
        "--runs", type=int, default=3, help="runs of each side; their median counts"
    )
    parser.add_argument(
        "--launch-option", action="append", default=[], help="for every launch"
    )
    arguments = parser.parse_args()
    if not shutil.which("gdal_translate"):
        console.print("The script needs GDAL: run 'apt-get install gdal-bin' first.")
        return 1
    pairs: dict[str, list[Pair]] = {mix.name: [] for mix in MIXES}
    usual: list[Waits] = []
    with small.running_pool() as (pool, place):
        sides = sorted({side for mix in MIXES for side in mix.counts})
        sources = {
            side: images.write(place / f"{side}.tif", side, _BANDS) for side in sides
        }
        for number in track(range(arguments.runs), "measuring", console=console):
            for order, mix in enumerate(MIXES):
                folder = place / f"{number}-{order}"
                measured = _measure(pool, folder, mix, sources, arguments.launch_option)
                pairs[mix.name].append(measured)
                console.print(f"{mix.name}: {measured}")
        _use_usual_intervals(pool)
        for number in range(arguments.runs):
            archive = _archive(pool, place / f"usual-{number}", _FEW, sources)
            usual.append(_run_pipeline(archive, arguments.launch_option))
            console.print(f"usual intervals: {usual[-1]}")
    text = _text(pairs, usual, arguments.runs)
    PAGE.write_text(insert(PAGE.read_text(), "throughput", text))
    console.print(text, markup=False)
    return 0


def _measure(
    pool: PersonalPool,
    place: Path,
    mix: Mix,
    sources: dict[int, Path],
    options: Iterable[str],
) -> Pair:
    archive = _archive(pool, place, mix.counts, sources)
    keys = list(_keys(mix.counts))
    script, _ = _cost(lambda: _run_script(pool, archive, keys))
    _expect(archive, keys)
    for written in list(archive.cogs.list()):
        archive.cogs.remove(written.key)
    pipeline, waits = _cost(lambda: _run_pipeline(archive, options))
    _expect(archive, keys)
    shutil.rmtree(pool.s3.buckets / archive.maps.name)
    shutil.rmtree(pool.s3.buckets / archive.cogs.name)
    return Pair(pipeline, script, waits)


def _use_usual_intervals(pool: PersonalPool) -> None:
    """Give the pool the intervals that HTCondor has by default."""
    with pool.condor.config.open("a") as config:
        config.write(_USUAL_INTERVALS)
    for daemon in ("negotiator", "schedd"):
        command = ["condor_reconfig", "-daemon", daemon]
        subprocess.run([*command_prefix(), *command], check=True, capture_output=True)


def _keys(counts: Mapping[int, int]) -> dict[str, int]:
    """Return the keys of images, with the side of each."""
    return {
        f"{side}/{number:04}.tif": side
        for side, count in counts.items()
        for number in range(count)
    }


def _archive(
    pool: PersonalPool, place: Path, counts: Mapping[int, int], sources: dict[int, Path]
) -> Archive:
    """Return a new archive with images and, for polls, their manifest."""
    archive = small.new_archive(pool, place)
    for key, side in _keys(counts).items():
        archive.maps.upload(key, sources[side])
    archive.upload_manifest("batch-raw.csv", [(key, _BANDS) for key in _keys(counts)])
    return archive


def _run_pipeline(archive: Archive, options: Iterable[str]) -> Waits:
    began = time.time()
    small.launch(archive, *options)
    (run,) = small.runs(archive)
    small.wait_for(lambda: run.done, 0.1)
    return _waits(run, began)


def _waits(run: Run, began: float) -> Waits:
    jobs = [
        job
        for log in run.node_logs
        for job in eventlog.executions(log)
        if job.node.startswith("row")
    ]
    return Waits(
        min(job.ended - job.slot_seconds for job in jobs) - began,
        run.done_file.stat().st_mtime - max(job.ended for job in jobs),
    )


def _run_script(pool: PersonalPool, archive: Archive, keys: Iterable[str]) -> None:
    rclone = program_of_environment("rclone")
    path = f"{rclone.parent}{os.pathsep}{os.environ['PATH']}"
    buckets = (f"pool:{archive.maps.name}", f"pool:{archive.cogs.name}")
    subprocess.run(
        [str(_PEER), *buckets],
        input="".join(f"{key}\n" for key in keys),
        env=os.environ
        | pool.s3.client_environment
        | {"PATH": path, "RCLONE_CONFIG": os.devnull},
        text=True,
        check=True,
    )


def _expect(archive: Archive, keys: Iterable[str]) -> None:
    """Raise RuntimeError unless the output bucket has a COG and a JPEG of each key."""
    expected = {key for image in keys for key in (image, f"{image[:-4]}.jpg")}
    written = {output.key for output in archive.cogs.list()}
    if missing := expected - written:
        raise RuntimeError(f"{len(missing)} outputs are missing, e.g. {min(missing)}")


def _cost(run: Callable[[], _T]) -> tuple[Cost, _T]:
    """Return the cost of a run, with what the daemons do after it, and its result."""
    time.sleep(_SETTLE_SECONDS)
    before, began = _machine_cpu(), time.monotonic()
    result = run()
    wall = time.monotonic() - began
    time.sleep(_SETTLE_SECONDS)
    return Cost(wall, _machine_cpu() - before), result


def _machine_cpu() -> float:
    """Return the CPU seconds that all processes of the machine took since it started.

    Those of the kernel for them count too.
    """
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq


def _text(pairs: dict[str, list[Pair]], usual: list[Waits], runs: int) -> str:
    def figures(mix: Mix) -> tuple[str, ...]:
        measured = pairs[mix.name]
        wall = _median(pair.pipeline.wall / pair.script.wall for pair in measured)
        cpu = _median(pair.pipeline.cpu / pair.script.cpu for pair in measured)
        return (
            mix.name,
            f"{_median(pair.script.wall for pair in measured):.0f}",
            f"{_median(pair.pipeline.wall for pair in measured):.0f}",
            _compared(wall, mix.max_wall),
            f"{_median(pair.script.cpu for pair in measured):.0f}",
            f"{_median(pair.pipeline.cpu for pair in measured):.0f}",
            _compared(cpu, mix.max_cpu),
        )

    lines = table(
        (
            "images, three bands",
            "script, s",
            "cog_pipeline, s",
            "×",
            "script, CPU s",
            "cog_pipeline, CPU s",
            "×",
        ),
        map(figures, MIXES),
    )
    medians = (
        "Each figure is from one run."
        if runs == 1
        else f"Each figure is the median of {runs} runs of each side, which alternate."
    )
    counts = (
        f"{medians}\nIn these parts of the time of cog_pipeline, no job has a slot:"
    )
    own = [pair.waits for measured in pairs.values() for pair in measured]
    waits = table(
        (
            "intervals of HTCondor",
            "from the launch to the first job, s",
            "from the last job to both CSVs, s",
        ),
        (
            (
                name,
                f"{_median(each.before for each in measured):.0f}",
                f"{_median(each.after for each in measured):.0f}",
            )
            for name, measured in (
                ("those of the personal pool", own),
                ("the default ones", usual),
            )
        ),
    )
    server = machine("rclone serve s3")
    return "\n".join([*lines, "", counts, "", *waits, "", *server]) + "\n"


def _compared(ratio: float, goal: float) -> str:
    missed = "" if ratio <= goal else ", missed"
    return f"{ratio:.2f} (goal {goal:.2f}{missed})"


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


if __name__ == "__main__":
    sys.exit(main())
