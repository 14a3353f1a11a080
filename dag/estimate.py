"""Estimate what the conversion of some images takes, before it is submitted."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, groupby

from bucket import StoredObject
from condor import eventlog
from dag import batches, render
from state.launch import Launch
from state.rows import Row, dag_node_of, load_rows_with_nodes
from state.run import Run

# Runs that say how much time an image takes: the newest ones, which had today's options
# and machines.
_MAX_RUNS = 20
_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Range:
    """A figure that is expected, and the smallest and the largest that may be."""

    low: float
    expected: float
    high: float

    def times(self, factor: float) -> "Range":
        """Return the range of a multiple of the figure."""
        return Range(self.low * factor, self.expected * factor, self.high * factor)


@dataclass(frozen=True)
class Estimate:
    """The expected cost of a conversion.

    Attributes:
        images: number of images.
        size: size of them all, in bytes.
        jobs: number of jobs that convert them.
        slots: number of jobs that the pool can run at once; 0 if it is not known.
        disk: scratch disk that the largest job requests, in bytes.
        machine_seconds: time for which slots are in use.
        elapsed_seconds: time until the last job ends, if no other job is in the pool;
            None if the number of slots is not known.
        runs: number of earlier runs that the times come from. Without any, they are a
            guess.
    """

    images: int
    size: int
    jobs: int
    slots: int
    disk: int
    machine_seconds: Range
    elapsed_seconds: Range | None
    runs: int

    def money(self, price: float) -> Range:
        """Return the price of the machine time, if an hour of a core has one."""
        return self.machine_seconds.times(price / _SECONDS_PER_HOUR)


def estimate(
    images: Iterable[StoredObject], launch: Launch, slots: int, earlier: Sequence[Run]
) -> Estimate:
    """Estimate what the conversion of images takes.

    Args:
        slots: number of jobs that can run at once; 0 if it is not known.
        earlier: runs of the same launch, the oldest first. Only those that have ended
            count.

    Raises:
        SchedulerError: the log of an earlier run cannot be read.
    """
    rows = [
        Row(line, (image.key, ""), image.key, size=image.size)
        for line, image in enumerate(images, 1)
    ]
    if launch.rows_per_job != 1:
        rows = list(batches.batch_rows(rows, launch, slots))
    jobs = [list(job) for _, job in groupby(rows, dag_node_of)]
    # The slot time of earlier runs, relative to the estimate of their work.
    known = [found for run in earlier[-_MAX_RUNS:] if (found := _ratio(run))]
    ratios = known or [1.0]
    ratio = Range(min(ratios), statistics.median(ratios), max(ratios))
    work = [sum(map(batches.seconds, job)) for job in jobs]
    at_once = min(slots, launch.max_jobs)
    # However many slots there are, the longest job takes its time.
    elapsed = max(sum(work) / at_once, max(work, default=0)) if at_once else None
    return Estimate(
        images=len(rows),
        size=sum(row.size for row in rows),
        jobs=len(jobs),
        slots=slots,
        disk=max((render.disk_for(job) * 1024 for job in jobs), default=0),
        machine_seconds=ratio.times(sum(work)),
        elapsed_seconds=None if elapsed is None else ratio.times(elapsed),
        runs=len(known),
    )


def _ratio(run: Run) -> float | None:
    """Return the slot time of a run's jobs, relative to the estimate of its work.

    None if the run has not ended, or had no jobs.
    """
    if not run.done:
        return None
    nodes: set[str] = set()
    work = 0.0
    for row, names in load_rows_with_nodes(run):
        nodes.update(names)
        work += batches.seconds(row) if names else 0
    executions = chain.from_iterable(map(eventlog.executions, run.node_logs))
    slot = sum(job.slot_seconds for job in executions if job.node in nodes)
    return slot / work if slot and work else None
