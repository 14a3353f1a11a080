"""What a run cost: slots' time, CPU time, bytes, and what of it was for nothing.

The time of slots and what the access point itself moved stand in HTCondor's log of
the run's jobs, which stays in the run directory however short the schedd's history
is; the rest in what the nodes told.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

from rich.filesize import decimal

from condor import eventlog
from state import results
from state.rows import load_rows_with_nodes
from state.run import Run, try_locked


@dataclass(frozen=True)
class Cost:
    """What a run cost, whether or not it has ended.

    Attributes:
        rows: of the manifest.
        rows_begun: those of them of which a job was begun, so far.
        processed: None until the run has ended; failed likewise.
        jobs: how many times a node's job was begun on a machine.
        retries: how many of them were not the first of their node.
        slot_seconds: that machines were taken for, transfers included.
        wasted_slot_seconds: those of jobs that ended in something else than success.
        conversion_seconds: of wall time that nodes took for their last tries.
        cpu_seconds: of user and system time that they took for those.
        bytes_read: of images, and what lies beside them, by all jobs that began.
        bytes_written: of COGs and JPEGs.
        access_point_bytes: that the access point sent and received itself: node
            code, logs, results.
    """

    rows: int
    rows_begun: int
    processed: int | None
    failed: int | None
    jobs: int
    retries: int
    slot_seconds: float
    wasted_slot_seconds: float
    conversion_seconds: float
    cpu_seconds: float
    bytes_read: int
    bytes_written: int
    access_point_bytes: int


def cost(run: Run) -> Cost:
    """Add up what a run cost so far.

    Raises:
        SchedulerError: its log cannot be read.
    """
    if not run.done:
        with try_locked(run.directory) as alone:
            if alone:
                results.gather(run)
    # By the nodes' names: the bytes of their images.
    sizes: Counter[str] = Counter()
    for row, names in load_rows_with_nodes(run):
        sizes.update(dict.fromkeys(names, row.size))
    outcome = json.loads(run.done_file.read_text()) if run.done else {}
    jobs, nodes = 0, set()
    slot = wasted = 0.0
    read = moved = 0
    for job in chain.from_iterable(map(eventlog.executions, run.node_logs)):
        # The FINAL node has no row and no machine.
        if job.node in sizes:
            jobs += 1
            nodes.add(job.node)
            slot += job.slot_seconds
            wasted += 0 if job.succeeded else job.slot_seconds
            read += sizes[job.node]
            moved += job.bytes_moved
    told = list(results.load(run).values())
    begun = [not nodes.isdisjoint(names) for _, names in load_rows_with_nodes(run)]
    return Cost(
        rows=len(begun),
        rows_begun=sum(begun),
        processed=outcome.get("processed"),
        failed=outcome.get("failed"),
        jobs=jobs,
        retries=jobs - len(nodes),
        slot_seconds=slot,
        wasted_slot_seconds=wasted,
        conversion_seconds=sum(result.seconds for result in told),
        cpu_seconds=sum(result.cpu_seconds for result in told),
        bytes_read=read,
        bytes_written=sum(result.cog[0] + result.jpeg[0] for result in told),
        access_point_bytes=moved,
    )


def table(cost: Cost) -> list[tuple[str, str, str]]:
    """What it is of, of the whole run, and of the average row that had a job."""

    def line(
        what: str, amount: float, written: Callable[[float], str]
    ) -> tuple[str, str, str]:
        return what, written(amount), average(amount, written)

    def average(amount: float, written: Callable[[float], str]) -> str:
        return written(amount / cost.rows_begun) if cost.rows_begun else "–"

    share = cost.wasted_slot_seconds / cost.slot_seconds if cost.slot_seconds else 0
    return [
        line("jobs begun", cost.jobs, "{:.4g}".format),
        line("of them retries", cost.retries, "{:.2g}".format),
        line("slot time", cost.slot_seconds, _duration),
        (
            "of it for nothing",
            f"{_duration(cost.wasted_slot_seconds)} ({share:.1%})",
            average(cost.wasted_slot_seconds, _duration),
        ),
        line("conversion", cost.conversion_seconds, _duration),
        line("CPU time of it", cost.cpu_seconds, _duration),
        line("images read", cost.bytes_read, _bytes),
        line("COGs and JPEGs written", cost.bytes_written, _bytes),
        line("moved by the access point", cost.access_point_bytes, _bytes),
    ]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h"


def _bytes(size: float) -> str:
    return decimal(round(size))
