"""Measure what HTCondor and transfers add to a conversion: ``make overhead``.

    python -m lab.scale.overhead [NODES]

DAGs run one after the other on one personal pool: a bare DAG of ``/bin/true``, the DAG
of a manifest of as many small images with a node each, the same with the nodes that a
launch makes by default, and the bare DAG again. The program compares the time for which
slots are taken, and the CPU time of all processes of the pool. It measures a conversion
without HTCondor and subtracts its cost.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from condor import queue
from lab.scale import page as pages, small
from lab.support.markdown import insert, table
from pool.personal import PersonalPool
from state.project import PROJECT

_CONVERSIONS = 11
# After this time, the daemons have finished their work for jobs that left the queue.
_SETTLE_SECONDS = 3
MAX_RATIO = 1.3
MAX_CPU = 0.1  # seconds a row

_BARE = """\
SUBMIT-DESCRIPTION bare {
    executable = /bin/true
    should_transfer_files = YES
    request_memory = 1024
    request_disk = 1024
}
"""


@dataclass(frozen=True)
class Usage:
    """The average usage of a node or a row.

    Attributes:
        cpu: CPU time of all processes, in seconds.
        seconds: elapsed time.
    """

    cpu: float
    seconds: float


@dataclass(frozen=True)
class Overhead:
    """The measured usages.

    Attributes:
        nodes: number of nodes of each DAG.
        bare: usage of a node that does nothing.
        node: usage of a node of the manifest, its conversion included.
        default: usage of a row where small images share a job, as by default.
        conversion: usage of a conversion without HTCondor.
        slots: number of nodes that run at once.
    """

    nodes: int
    bare: Usage
    node: Usage
    default: Usage
    conversion: Usage
    slots: int

    @property
    def ratio(self) -> float:
        """Return the slot time beyond the conversion, relative to a bare node."""
        overhead = self.node.seconds * self.slots - self.conversion.seconds
        return overhead / (self.bare.seconds * self.slots)

    @property
    def cpu_ratio(self) -> float:
        """Return the CPU time beyond the conversion, relative to a bare node."""
        return (self.node.cpu - self.conversion.cpu) / self.bare.cpu


def main(nodes: int) -> int:
    page = PROJECT / "docs" / "scale.md"
    with small.running_pool() as (pool, place):
        overhead = measure(pool, place, nodes)
    text = _text(overhead)
    page.write_text(insert(page.read_text(), "overhead", text))
    print(text)
    is_met = overhead.ratio <= MAX_RATIO and overhead.default.cpu <= MAX_CPU
    return 0 if is_met else 1


def _text(overhead: Overhead) -> str:
    def line(name: str, usage: Usage) -> tuple[str, str, str]:
        return name, f"{usage.cpu:.3f}", f"{usage.seconds:.2f}"

    def compare(value: float, bound: float) -> str:
        result = "met" if value <= bound else "**not met**"
        return f"{value:.2f}, at most {bound}: {result}"

    lines = table(
        (
            f"{overhead.nodes} nodes, {overhead.slots} at once",
            "CPU s each",
            "s each, elapsed",
        ),
        (
            line("node of `/bin/true`", overhead.bare),
            line("node of a manifest", overhead.node),
            line("conversion without HTCondor", overhead.conversion),
            (
                "overhead, relative to `/bin/true`",
                f"{overhead.cpu_ratio:.2f}",
                compare(overhead.ratio, MAX_RATIO),
            ),
            (
                "row, by default",
                compare(overhead.default.cpu, MAX_CPU),
                f"{overhead.default.seconds:.2f}",
            ),
        ),
    )
    return "\n".join([*lines, "", *pages.machine("rclone serve s3")]) + "\n"


def measure(pool: PersonalPool, place: Path, nodes: int) -> Overhead:
    """Run all DAGs; the pool must have no other jobs."""
    image = small.write_image(place)
    conversion = _median([_convert(image, place) for _ in range(_CONVERSIONS)])
    before = _run_bare(pool, place / "before", nodes)
    node = _run_manifest(pool, place / "alone", image, nodes, "1")
    default = _run_manifest(pool, place / "default", image, nodes, "auto")
    after = _run_bare(pool, place / "after", nodes)
    slots = psutil.cpu_count()
    return Overhead(nodes, _median([before, after]), node, default, conversion, slots)


def _median(usages: list[Usage]) -> Usage:
    return Usage(
        statistics.median(usage.cpu for usage in usages),
        statistics.median(usage.seconds for usage in usages),
    )


def _measure_pool(pool: PersonalPool, nodes: int, wait: Callable[[], None]) -> Usage:
    """Return the pool's usage per node until ``wait`` returns."""
    cpu, began = _cpu(pool), time.monotonic()
    wait()
    seconds = time.monotonic() - began
    time.sleep(_SETTLE_SECONDS)
    return Usage((_cpu(pool) - cpu) / nodes, seconds / nodes)


def _cpu(pool: PersonalPool) -> float:
    """Return the CPU seconds of the pool's processes, ended ones included."""
    master = psutil.Process(int(pool.condor.pidfile.read_text()))
    processes = (master, *master.children(recursive=True))
    # User and system time of each process and of its children that have ended.
    return sum(sum(process.cpu_times()[:4]) for process in processes)


def _convert(image: Path, place: Path) -> Usage:
    """Run one conversion with the command that HTCondor starts."""
    script = PROJECT / "bin" / "generate_cogs.sh"
    with tempfile.TemporaryDirectory(dir=place) as sandbox:
        shutil.copy(image, sandbox)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.monotonic()
        subprocess.run(
            [str(script), image.name, "1"],
            cwd=sandbox,
            env=os.environ | {"PYTHON": sys.executable},
            check=True,
        )
        seconds = time.monotonic() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Usage(cpu, seconds)


def _run_bare(pool: PersonalPool, place: Path, nodes: int) -> Usage:
    place.mkdir()
    jobs = "".join(f"JOB node{number} bare\n" for number in range(nodes))
    file = place / "bare.dag"
    file.write_text(_BARE + jobs)
    queue.submit_dag(file, {"Bare": str(place)}, {}, nodes, nodes)
    return _measure_pool(
        pool,
        nodes,
        lambda: small.wait_for(lambda: not queue.find("Bare", str(place))),
    )


def _run_manifest(
    pool: PersonalPool, place: Path, image: Path, rows: int, rows_per_job: str
) -> Usage:
    archive = small.new_archive(pool, place)
    small.upload(archive, "batch", image, rows)
    small.launch(archive, "--rows-per-job", rows_per_job)
    (run,) = small.runs(archive)
    return _measure_pool(pool, rows, lambda: small.wait_for(lambda: run.done))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 200))
