"""Hold, release and stop runs and launches, so that no row is lost."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from condor import queue
from post.reconcile import NodesStillThere, reconcile
from state.errors import PipelineError
from state.journal import Event, Journal
from state.launch import Launch
from state.run import (
    Run,
    all_runs,
    locked,
    record_hold,
    record_stop,
    settings_of,
)
from state.text import counted

_HELD = "the operator holds the run"
_RELEASED = "the operator releases the run"
_STOPPED = "the operator stopped the run"
_LAUNCH_STOPPED = "the operator stopped the launch"
# Machines may take minutes to end a job. The next poll does what is left.
_SECONDS_TO_LEAVE = 20
# DAGMan ends only after it has submitted what it just submits.
_SECONDS_TO_SUBMIT = 2


@dataclass(frozen=True)
class Answer:
    """The result of a request.

    Attributes:
        message: sentence for people.
        event: what happened; None if nothing had to be done.
    """

    message: str
    event: Event | None = None


def hold(run: Run) -> Answer:
    """Hold a run: none of its jobs runs or starts until it is released.

    Raises:
        PipelineError: HTCondor does not answer, or the run was moved.
    """
    name = run.directory.name
    if why_not := _has_ended(run):
        return Answer(why_not)
    was_held = run.is_held
    record_hold(run)
    jobs = queue.hold_run(str(run.directory), _HELD)
    with _no_poll(run):
        # A poll may just have submitted DAGMan, and DAGMan jobs.
        jobs += queue.hold_run(str(run.directory), _HELD)
        more = jobs
        while more:
            time.sleep(_SECONDS_TO_SUBMIT)
            more = queue.hold_run(str(run.directory), _HELD)
            jobs += more
    if was_held and not jobs:
        return Answer(f"{name} is held already: 'release {name}' lets it continue")
    held = f"{name} is held, with {counted(jobs, 'job')}"
    message = f"{held}: 'release {name}' lets it continue"
    return Answer(message, Event("held", message, facts={"jobs": jobs}))


def release(run: Run) -> Answer:
    """Let a run that a person holds continue.

    Raises:
        PipelineError: HTCondor does not answer, or the run was moved.
    """
    name = run.directory.name
    if why_not := _has_ended(run):
        return Answer(why_not)
    was_held = run.is_held
    run.held_file.unlink(missing_ok=True)
    jobs = queue.release_run(str(run.directory), _RELEASED)
    if not (was_held or jobs):
        return Answer(f"{name} is not held")
    waits = "" if jobs else ": the next poll continues it"
    message = f"{name} is released, with {counted(jobs, 'job')}{waits}"
    return Answer(message, Event("released", message, facts={"jobs": jobs}))


def stop(run: Run, journal: Journal) -> Answer:
    """Stop a run: rows that are not done fail, with the reason that it was stopped.

    Args:
        journal: that of the run.

    Raises:
        BucketError, PipelineError: HTCondor or the store does not answer, and the next
            poll ends the run; or the run was moved.
    """
    name = run.directory.name
    if run.done:
        return Answer(f"{name} has ended: there is nothing to stop")
    _check_place(run)
    is_first = not run.stopped
    if is_first:
        # Before the removal, so that polls and the FINAL node know the reason.
        record_stop(run, _STOPPED)
    message = f"{name} stops: its two CSVs follow when its jobs have left the queue"
    if not _remove_dagman(run):
        # No DAGMan runs that would write the CSVs.
        with _no_poll(run):
            if not _remove_dagman(run):
                _end(run, journal)
                then = "and has its two CSVs"
                if not run.done:
                    then = "the next poll ends it, or 'stop' if you call it again"
                message = f"{name} is stopped, {then}"
    return Answer(message, Event("stopped", message)) if is_first else Answer(message)


def _remove_dagman(run: Run) -> bool:
    """Remove DAGMan from the queue; return whether it will end the run itself.

    A DAGMan that does not run when it is removed starts no FINAL node.
    """
    job = queue.find(queue.RUN_ATTRIBUTE, str(run.directory))
    if job:
        queue.remove(job.cluster, _STOPPED)
    return job is not None and not job.waits


def _end(run: Run, journal: Journal) -> None:
    """Write the CSVs of a run that has no DAGMan, unless only a poll can do so."""
    if run.rows_file.exists() and _left_queue(run):
        with suppress(NodesStillThere):
            reconcile(run, settings_of(run), journal)


def stop_launch(launch: Launch) -> Answer:
    """Stop the polls of a launch. Its runs go on.

    Raises:
        SchedulerError: HTCondor does not answer.
    """
    what = f"the launch for {launch.input_bucket} {launch.pattern}"
    job = queue.crondor_job(launch)
    if job is None:
        return Answer(f"{what} has no job that polls: there is nothing to stop")
    queue.remove(job.cluster, _LAUNCH_STOPPED)
    message = f"{what} is stopped: job {job.cluster} no longer polls"
    return Answer(message, Event("launch-stopped", message, facts={"job": job.cluster}))


def runs_that_last(launch: Launch) -> list[Run]:
    """Return the runs of a launch that have not ended."""
    return [run for run in all_runs(launch)[0] if not run.done]


def _check_place(run: Run) -> None:
    """Raise PipelineError for a run whose jobs may know it under another directory."""
    if run.moved_from:
        raise PipelineError(
            f"{run.directory} was moved from {run.moved_from}: do this after the next "
            "poll, which records the move"
        )


def _has_ended(run: Run) -> str:
    """Return why a run can be neither held nor released; empty if it can."""
    _check_place(run)
    name = run.directory.name
    if run.done:
        return f"{name} has ended: it has no jobs"
    return f"{name} was stopped: it cannot continue" if run.stopped else ""


@contextmanager
def _no_poll(run: Run) -> Iterator[None]:
    """Wait for a poll of the launch to end, and keep others from beginning."""
    if not run.home.is_dir():
        yield
        return
    with locked(run.home):
        yield


def _left_queue(run: Run) -> bool:
    """Wait a little for the jobs of a run to leave the queue; return if they did."""
    place = str(run.directory)
    deadline = time.monotonic() + _SECONDS_TO_LEAVE
    while any(
        queue.still_there(name, place)
        for name in (queue.RUN_ATTRIBUTE, queue.NODE_ATTRIBUTE)
    ):
        if time.monotonic() > deadline:
            return False
        time.sleep(1)
    return True
