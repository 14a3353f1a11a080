"""Say how far each run is."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import starmap

from condor import queue
from condor.queue import Job
from state.catalog import catalog_fault, load_catalog_outcome
from state.rows import count_rows
from state.run import Run
from state.waiting import waiting

# Estimates from fewer jobs than this say little.
_MIN_JOBS = 2


class State(StrEnum):
    """How far a run is."""

    # Its manifest is read and checked, or another run has some of its images.
    WAITING = "waiting"
    CONVERTING = "converting"
    HELD = "held"
    # The next poll, or DAGMan, writes the CSVs or submits rows again.
    ENDING = "ending"
    DONE = "done"


@dataclass(frozen=True)
class Status:
    """How far a run is.

    Attributes:
        run: name of its directory.
        manifest: key of its manifest.
        state: how far it is.
        began: when it began.
        jobs, jobs_done: number of its jobs, and of those that have ended; None if its
            DAG is not in the queue. Several small images share a job.
        rows: number of its rows; 0 as long as its manifest is not read.
        processed, failed: number of rows in its CSVs; None until it is done.
        remark: why it waits, is held or was stopped, or what the catalog lacks; empty
            otherwise.
    """

    run: str
    manifest: str
    state: State
    began: datetime
    jobs: int | None = None
    jobs_done: int | None = None
    rows: int = 0
    processed: int | None = None
    failed: int | None = None
    remark: str = ""

    @property
    def share(self) -> float | None:
        """The share of its jobs that ended, from 0 to 1; None if it is not known."""
        if self.state == State.DONE:
            return 1.0
        return self.jobs_done / self.jobs if self.jobs and self.jobs_done else None

    @property
    def time_left(self) -> timedelta | None:
        """An estimate, as if all jobs took the same time; None if there is none."""
        if self.state != State.CONVERTING or (self.jobs_done or 0) < _MIN_JOBS:
            return None
        share = self.share
        elapsed = datetime.now(UTC) - self.began
        return elapsed * (1 / share - 1) if share else None


@dataclass(frozen=True)
class Totals:
    """How far all runs are together.

    Attributes:
        rows: number of their rows.
        processed, failed: number of rows in the CSVs of those that are done.
        an_hour: estimate of the rows that those that convert do in an hour, as if each
            job had as many; None if there is none.
    """

    rows: int
    processed: int
    failed: int
    an_hour: float | None

    @property
    def pending(self) -> int:
        """The number of rows of runs that are not done."""
        return self.rows - self.processed - self.failed


def totals(found: Iterable[Status]) -> Totals:
    """Add up how far runs are."""
    found = list(found)
    now = datetime.now(UTC)
    speeds = [
        each.rows * each.share / ((now - each.began) / timedelta(hours=1))
        for each in found
        if each.share and each.time_left is not None
    ]
    return Totals(
        rows=sum(each.rows for each in found),
        processed=sum(each.processed or 0 for each in found),
        failed=sum(each.failed or 0 for each in found),
        an_hour=sum(speeds) if speeds else None,
    )


def statuses(runs: Iterable[Run]) -> list[Status]:
    """Return how far runs are, by one query of the queue, if one is not done.

    Raises:
        SchedulerError: HTCondor does not answer.
    """
    runs = list(runs)
    jobs = {} if all(run.done for run in runs) else queue.dagmans_of_runs()
    return [_status(run, jobs.get(str(run.directory))) for run in runs]


def _catalog_remark(run: Run) -> str:
    """Return what keeps the catalog of a run that has ended from being complete."""
    outcome = load_catalog_outcome(run)
    if outcome is None:
        return ""
    if not outcome.is_ended:
        return "its catalog is being made"
    return "; ".join(starmap(catalog_fault, outcome.failures.items()))


def _status(run: Run, job: Job | None) -> Status:
    status = Status(run.directory.name, run.manifest_key, State.WAITING, run.began)
    if run.done:
        outcome = json.loads(run.done_file.read_text())
        return replace(
            status,
            state=State.DONE,
            rows=outcome["processed"] + outcome["failed"],
            processed=outcome["processed"],
            failed=outcome["failed"],
            remark=_catalog_remark(run),
        )
    status = replace(status, rows=count_rows(run))
    if run.stopped:
        return replace(status, state=State.ENDING, remark=run.stopped)
    if not run.has_begun:
        if run.is_held:
            remark = f"'release {run.directory.name}' lets it continue"
            return replace(status, state=State.HELD, remark=remark)
        wait = waiting(run)
        why = f"{wait.key} has some of the same images" if wait else ""
        return replace(status, remark=why)
    if job is None:
        return replace(status, state=State.ENDING)
    if progress := job.progress:
        # The final node, which writes the CSVs, is no job of an image.
        jobs = max(progress.total - 1, 0)
        ended = min(progress.done + progress.failed, jobs)
        status = replace(status, jobs=jobs, jobs_done=ended)
    if job.hold_reason is not None:
        then = "the next poll releases it"
        if job.held_by_hand:
            then = f"'release {run.directory.name}' lets it continue"
        remark = f"{job.hold_reason}; {then}"
        return replace(status, state=State.HELD, remark=remark)
    return replace(status, state=State.CONVERTING)
