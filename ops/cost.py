"""Add up what a run cost: slot time, CPU time, bytes, and how much of it was wasted.

Slot time and the bytes that the access point moved are in HTCondor's log of the run's
jobs. The log stays in the run directory, while the schedd's history forgets jobs. The
other figures are in the nodes' results.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

from rich.filesize import decimal

from condor import eventlog
from state import results
from state.errors import PipelineError
from state.rows import load_rows_with_nodes
from state.run import Run, try_locked
from state.text import duration


@dataclass(frozen=True)
class Cost:
    """Cost of a run so far.

    Attributes:
        rows: number of rows of the manifest.
        rows_begun: number of rows for which a job was started.
        processed: number of rows that were processed; None until the run has ended.
        failed: number of rows that failed; None until the run has ended.
        jobs: number of times that a node's job was started on a machine.
        retries: number of those that were not the first of their node.
        slot_seconds: time for which slots were in use, transfers included, in seconds.
        wasted_slot_seconds: the part of it for jobs that did not succeed, in seconds.
        conversion_seconds: wall time of the nodes' last tries, in seconds.
        cpu_seconds: user and system time of the nodes' last tries, in seconds.
        bytes_read: size of the images and sidecar files that all started jobs read.
        bytes_written: size of the COGs and JPEGs.
        access_point_bytes: bytes that the access point itself sent and received, for
            node code, logs and results.
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

    def money(self, price: float) -> float:
        """Return the price of the slot time, if an hour of a core has one."""
        return self.slot_seconds / 3600 * price


def cost(run: Run) -> Cost:
    """Add up what a run cost so far.

    Raises:
        PipelineError: its manifest was not read yet.
        SchedulerError: the log of its jobs cannot be read.
    """
    if not run.rows_file.exists():
        raise PipelineError(
            f"{run.directory.name} has cost nothing yet: its manifest was not read yet"
        )
    if not run.done:
        with try_locked(run.directory) as is_locked:
            if is_locked:
                results.gather(run)
    # Bytes that each node reads, by name of the node.
    sizes: Counter[str] = Counter()
    for row, names in load_rows_with_nodes(run):
        sizes.update(dict.fromkeys(names, row.size))
    outcome = json.loads(run.done_file.read_text()) if run.done else {}
    jobs = 0
    nodes: set[str] = set()
    slot = wasted = 0.0
    read = moved = 0
    for job in chain.from_iterable(map(eventlog.executions, run.node_logs)):
        # The FINAL node has no row and runs on no execution point.
        if job.node in sizes:
            jobs += 1
            nodes.add(job.node)
            slot += job.slot_seconds
            wasted += 0 if job.succeeded else job.slot_seconds
            read += sizes[job.node]
            moved += job.bytes_moved
    node_results = list(results.load(run).values())
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
        conversion_seconds=sum(result.seconds for result in node_results),
        cpu_seconds=sum(result.cpu_seconds for result in node_results),
        bytes_read=read,
        bytes_written=sum(result.cog[0] + result.jpeg[0] for result in node_results),
        access_point_bytes=moved,
    )


def table(cost: Cost, price: float | None) -> list[tuple[str, str, str]]:
    """Return lines for a table: a name, the run's figure, the average row's figure.

    The average is over the rows that had a job.

    Args:
        price: what an hour of a core costs; None if that is not known.
    """

    def line(
        name: str, amount: float, text: Callable[[float], str]
    ) -> tuple[str, str, str]:
        return name, text(amount), average(amount, text)

    def average(amount: float, text: Callable[[float], str]) -> str:
        return text(amount / cost.rows_begun) if cost.rows_begun else "–"

    share = cost.wasted_slot_seconds / cost.slot_seconds if cost.slot_seconds else 0
    money = "{:,.3g}".format
    priced = [] if price is None else [line("money", cost.money(price), money)]
    return [
        line("jobs started", cost.jobs, "{:.4g}".format),
        line("of them retries", cost.retries, "{:.2g}".format),
        line("slot time", cost.slot_seconds, _time),
        (
            "of it wasted",
            f"{_time(cost.wasted_slot_seconds)} ({share:.1%})",
            average(cost.wasted_slot_seconds, _time),
        ),
        line("conversion", cost.conversion_seconds, _time),
        line("CPU time of it", cost.cpu_seconds, _time),
        line("images read", cost.bytes_read, _bytes),
        line("COGs and JPEGs written", cost.bytes_written, _bytes),
        line("moved by the access point", cost.access_point_bytes, _bytes),
        *priced,
    ]


def _time(seconds: float) -> str:
    # Machine time is counted in hours, as HTCondor and budgets do.
    return duration(seconds, digits=1, days=False)


def _bytes(size: float) -> str:
    return decimal(round(size))
