"""What HTCondor and transfers take of a node beyond its conversion.

    python -m scale.overhead [NODES]

DAGs of as many nodes run one after the other on the same personal pool: a manifest's,
of small images, and a bare one of ``/bin/true``, before and after. Compared are the
time that slots are taken for and the CPU seconds of all processes of the pool; what
the conversions take is measured by hand and taken off. Once more the manifest's rows
share jobs.
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
from pool.personal import PersonalPool
from state.project import PROJECT

_BY_HAND = 11
# For the daemons to be done with what has left the queue.
_CALM_SECONDS = 3
BOUND = 1.3
ROWS_PER_JOB = 10

_BARE = """\
SUBMIT-DESCRIPTION bare {
    executable = /bin/true
    should_transfer_files = YES
    request_memory = 1024
    request_disk = 1024
}
"""


@dataclass(frozen=True)
class Used:
    """What a node, or a row, took on the average.

    Attributes:
        cpu: seconds of CPU time, of all processes.
        seconds: by the clock.
    """

    cpu: float
    seconds: float


@dataclass(frozen=True)
class Overhead:
    """What was compared.

    Attributes:
        bare: a node that does nothing.
        node: one of ours, its conversion included.
        shared: a row of ours, where ROWS_PER_JOB share a job.
        conversion: that alone, by hand.
        slots: how many nodes run at once.
    """

    nodes: int
    bare: Used
    node: Used
    shared: Used
    conversion: Used
    slots: int

    @property
    def ratio(self) -> float:
        """Of the time that a slot is taken for, beyond the conversion."""
        beyond = self.node.seconds * self.slots - self.conversion.seconds
        return beyond / (self.bare.seconds * self.slots)

    @property
    def cpu_ratio(self) -> float:
        return (self.node.cpu - self.conversion.cpu) / self.bare.cpu


def main(nodes: int) -> int:
    page = PROJECT / "docs" / "scale.md"
    with small.pool() as (pool, place):
        measured = measure(pool, place, nodes)
    text = _text(measured)
    page.write_text(pages.insert(page.read_text(), "overhead", text))
    print(text)
    return 0 if max(measured.ratio, measured.cpu_ratio) <= BOUND else 1


def _text(measured: Overhead) -> str:
    def line(what: str, used: Used) -> tuple[str, str, str]:
        return what, f"{used.cpu:.3f}", f"{used.seconds:.2f}"

    def against_bound(ratio: float) -> str:
        met = "met" if ratio <= BOUND else "**not met**"
        return f"{ratio:.2f}, at most {BOUND}: {met}"

    lines = pages.table(
        (
            f"{measured.nodes} nodes, {measured.slots} at once",
            "CPU s each",
            "s each, by the clock",
        ),
        (
            line("of `/bin/true`", measured.bare),
            line("of a manifest", measured.node),
            line("a conversion by hand", measured.conversion),
            (
                "beyond it, times that of `/bin/true`",
                against_bound(measured.cpu_ratio),
                against_bound(measured.ratio),
            ),
            line(f"a row, with `--rows-per-job {ROWS_PER_JOB}`", measured.shared),
        ),
    )
    return "\n".join([*lines, "", *pages.machine("rclone serve s3")]) + "\n"


def measure(pool: PersonalPool, place: Path, nodes: int) -> Overhead:
    """Run the DAGs, the bare one before and after; the pool has no other jobs."""
    image = small.image(place)
    conversion = _median([_by_hand(image, place) for _ in range(_BY_HAND)])
    before = _bare(pool, place / "before", nodes)
    node = _manifest(pool, place / "alone", image, nodes, 1)
    shared = _manifest(pool, place / "shared", image, nodes, ROWS_PER_JOB)
    after = _bare(pool, place / "after", nodes)
    slots = psutil.cpu_count()
    return Overhead(nodes, _median([before, after]), node, shared, conversion, slots)


def _median(used: list[Used]) -> Used:
    return Used(
        statistics.median(each.cpu for each in used),
        statistics.median(each.seconds for each in used),
    )


def _used(pool: PersonalPool, nodes: int, work: Callable[[], None]) -> Used:
    """What the pool used for some work, and how long that took, by node."""
    cpu, began = _cpu(pool), time.monotonic()
    work()
    seconds = time.monotonic() - began
    time.sleep(_CALM_SECONDS)
    return Used((_cpu(pool) - cpu) / nodes, seconds / nodes)


def _cpu(pool: PersonalPool) -> float:
    """CPU seconds of the pool's processes, and of those that have ended."""
    master = psutil.Process(int(pool.condor.pidfile.read_text()))
    all_of_it = (master, *master.children(recursive=True))
    return sum(sum(process.cpu_times()[:4]) for process in all_of_it)


def _by_hand(image: Path, place: Path) -> Used:
    """One conversion, as HTCondor starts it."""
    script = PROJECT / "bin" / "generate_cogs.sh"
    with tempfile.TemporaryDirectory(dir=place) as sandbox:
        shutil.copy(image, sandbox)
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(
            [str(script), image.name, "1"],
            cwd=sandbox,
            env=os.environ | {"PYTHON": sys.executable},
            check=True,
        )
        after, seconds = (
            resource.getrusage(resource.RUSAGE_CHILDREN),
            time.monotonic() - began,
        )
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Used(cpu, seconds)


def _bare(pool: PersonalPool, place: Path, nodes: int) -> Used:
    place.mkdir()
    jobs = "".join(f"JOB node{number} bare\n" for number in range(nodes))
    file = place / "bare.dag"
    file.write_text(_BARE + jobs)
    queue.submit_dag(file, {"Bare": str(place)}, nodes, nodes)
    return _used(
        pool,
        nodes,
        lambda: small.wait_for(lambda: not queue.find("Bare", str(place))),
    )


def _manifest(
    pool: PersonalPool, place: Path, image: Path, rows: int, rows_per_job: int
) -> Used:
    archive = small.archive(pool, place)
    archive.upload("batch", image, rows)
    archive.poll_first("--rows-per-job", str(rows_per_job))
    (run,) = archive.runs()
    return _used(pool, rows, lambda: small.wait_for(lambda: run.done))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 200))
