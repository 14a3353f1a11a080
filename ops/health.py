"""Whether a launch does what it is to do, for those who watch many services.

States and their numbers are those of monitoring plugins.
https://www.monitoring-plugins.org/doc/guidelines.html
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any

from condor import queue
from condor.errors import SchedulerError
from condor.queue import crondor_job
from state.disk import room_on
from state.errors import OthersCanChange, PipelineError
from state.files import check_nobody_else_writes
from state.launch import UNREADABLE, Launch, load_launch
from state.run import Run, all_runs
from state.text import one_line
from state.waiting import MAX_WAIT, waiting

_PERIODS_WITHOUT_A_POLL = 3
_SECONDS_WITHOUT_A_MOVE = 24 * 60 * 60
_LONG_WAIT = timedelta(days=1)
# Of what is free to an ordinary user. Shares of the disk would say little: 5 % of
# the disk of an archive are terabytes. A run of a million rows takes 1 GB.
_LITTLE_DISK = 5 * 10**9
_LEAST_DISK = 10**9


class State(IntEnum):
    """How bad it is; the value is the exit code."""

    OK = 0
    # A run stands still, or soon everything will.
    WARNING = 1
    # Nothing of this launch goes on.
    CRITICAL = 2
    # It could not be found out.
    UNKNOWN = 3


# From what is fine to what wants a person first.
_BY_WEIGHT = (State.OK, State.WARNING, State.UNKNOWN, State.CRITICAL)


class Event(StrEnum):
    """What a finding is about: its name for programs, which stays."""

    NO_POLL = "no-poll"
    CLOCK = "clock"
    NO_HTCONDOR = "no-htcondor"
    NO_CRONDOR_JOB = "no-crondor-job"
    CRONDOR_JOB_HELD = "crondor-job-held"
    DAGMAN_HELD = "dagman-held"
    RUN_STANDS_STILL = "run-stands-still"
    RUN_WAITS = "run-waits"
    RUNS_UNREADABLE = "runs-unreadable"
    OTHERS_CAN_CHANGE = "others-can-change"
    DISK_FULL = "disk-full"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        message: a sentence for people that says what to do.
    """

    state: State
    event: Event
    message: str


@dataclass(frozen=True)
class Health:
    """How a launch is.

    Attributes:
        name: the bucket and the pattern of its manifests, where they can be read.
        file: its launch.json.
        last_poll: when a poll last succeeded, None when none ever did.
        runs_alive: how many of its runs have no outcome yet.
        free_bytes: of the disk where it was launched.
    """

    name: str
    file: Path
    findings: tuple[Finding, ...]
    last_poll: datetime | None = None
    runs_alive: int | None = None
    free_bytes: int | None = None

    @property
    def state(self) -> State:
        return worst(finding.state for finding in self.findings)


def worst(states: Iterable[State]) -> State:
    return max(states, key=_BY_WEIGHT.index, default=State.OK)


def examine(launch_file: Path) -> Health:
    """How the launch of a ``launch.json`` is."""
    try:
        return _examine(launch_file, load_launch(launch_file))
    except OthersCanChange as error:
        # Polls refuse to go on.
        finding = Finding(State.CRITICAL, Event.OTHERS_CAN_CHANGE, str(error))
        return Health(str(launch_file), launch_file, (finding,))
    except (PipelineError, OSError) as error:
        finding = Finding(State.UNKNOWN, Event.UNREADABLE, str(error))
        return Health(str(launch_file), launch_file, (finding,))


def _examine(file: Path, launch: Launch) -> Health:
    check_nobody_else_writes(launch.directory)
    known, unreadable = all_runs(launch)
    alive = [run for run in known if not run.done]
    findings = (
        *_polls(launch),
        *_queue(launch, alive),
        *_unreadable(unreadable),
        *(finding for run in alive for finding in _run(run)),
        *_disk(launch.directory),
    )
    polled = _modified(launch.heartbeat_file)
    return Health(
        name=f"{launch.input_bucket} {launch.pattern}",
        file=file,
        findings=findings,
        last_poll=datetime.fromtimestamp(polled, UTC) if polled else None,
        runs_alive=len(alive),
        free_bytes=room_on(launch.directory).bytes,
    )


def as_json(health: Health) -> dict[str, Any]:
    """The same for programs; sizes in bytes, times in UTC as ISO 8601."""
    polled = health.last_poll
    return asdict(health) | {
        "file": str(health.file),
        "state": health.state.name,
        "last_poll": polled and polled.isoformat(timespec="seconds"),
        "findings": [asdict(f) | {"state": f.state.name} for f in health.findings],
    }


def sentence(health: Health) -> str:
    """A line for a person, and for what shows the first line of a plugin."""
    parts = [one_line(finding.message) for finding in health.findings]
    if health.runs_alive is not None and health.free_bytes is not None:
        polled = "no poll yet"
        if health.last_poll:
            age = time.time() - health.last_poll.timestamp()
            polled = f"last poll {_duration(age)} ago"
        plural = "" if health.runs_alive == 1 else "s"
        parts += [
            f"{polled}, {health.runs_alive} run{plural} alive, "
            f"{health.free_bytes / 1e9:.0f} GB free"
        ]
    line = f"{health.state.name} {one_line(health.name)}: {'; '.join(parts)}"
    # After a bar, monitoring reads figures.
    return line.replace("|", "/")


def _modified(path: Path) -> float:
    """When it was last modified, in seconds since 1970; 0 when it is not there."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0


def _polls(launch: Launch) -> Iterator[Finding]:
    # A launch writes its file, and then has three periods for its first poll.
    since = max(_modified(launch.heartbeat_file), _modified(launch.file))
    age = time.time() - since
    allowed = _PERIODS_WITHOUT_A_POLL * launch.every * 60
    if age > allowed:
        yield Finding(
            State.CRITICAL,
            Event.NO_POLL,
            f"no poll has succeeded for {_duration(age)}, though one is due every "
            f"{_duration(launch.every * 60)}: {launch.home}/poll.out and poll.err "
            "say why",
        )
    elif age < -allowed:
        yield Finding(
            State.CRITICAL,
            Event.CLOCK,
            f"the last poll was {_duration(-age)} in the future: is this machine's "
            "clock right? The next successful poll fixes it",
        )


def _unreadable(errors: list[PipelineError]) -> Iterator[Finding]:
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        yield Finding(
            State.WARNING,
            Event.RUNS_UNREADABLE,
            f"run directories that cannot be read and go no further: {len(errors)}, "
            f"{errors[0]}{more}",
        )


def _queue(launch: Launch, alive: list[Run]) -> Iterator[Finding]:
    try:
        crondor = crondor_job(launch)
        jobs = [
            (run, queue.find(queue.RUN_ATTRIBUTE, str(run.directory))) for run in alive
        ]
    except SchedulerError as error:
        yield Finding(State.CRITICAL, Event.NO_HTCONDOR, str(error))
        return
    if crondor is None:
        yield Finding(
            State.CRITICAL,
            Event.NO_CRONDOR_JOB,
            "the job that polls for manifests is not in the queue: launch again in "
            f"{launch.directory}",
        )
    elif crondor.hold_reason is not None:
        yield Finding(
            State.CRITICAL,
            Event.CRONDOR_JOB_HELD,
            f"the job that polls for manifests is held: {crondor.hold_reason}; "
            f"'condor_release {crondor.cluster}' lets it go on",
        )
    for run, job in jobs:
        if job and job.hold_reason is not None:
            yield Finding(
                State.WARNING,
                Event.DAGMAN_HELD,
                f"the DAGMan of {run.directory.name} is held: {job.hold_reason}; "
                f"'condor_release {job.cluster}' lets it go on",
            )


def _run(run: Run) -> list[Finding]:
    try:
        return [*_moves(run), *_waits(run)]
    except UNREADABLE as error:
        # As after a disk fault. It hides nothing of the other runs.
        sentence = f"a record of {run.directory.name} cannot be read: {error!r}"
        return [Finding(State.WARNING, Event.RUNS_UNREADABLE, sentence)]


def _moves(run: Run) -> Iterator[Finding]:
    # The directory's own time tells of the files that the steps leave, and of
    # attempts at reconciling.
    places = (run.directory, run.results_directory, run.node_log)
    age = time.time() - max(_modified(place) for place in places)
    if age > _SECONDS_WITHOUT_A_MOVE:
        yield Finding(
            State.WARNING,
            Event.RUN_STANDS_STILL,
            f"{run.directory.name} has not moved for {_duration(age)}: 'condor_q "
            "-dag -nobatch', or else poll.out, shows what it waits for",
        )


def _waits(run: Run) -> Iterator[Finding]:
    wait = None if run.has_begun else waiting(run)
    if wait and wait.duration > _LONG_WAIT:
        yield Finding(
            State.WARNING,
            Event.RUN_WAITS,
            f"{run.directory.name} has waited for {_duration(_seconds(wait.duration))} "
            f"for {wait.key} to end, which has some of its images: if that is of an "
            "access point that is gone, remove it from the bucket; nobody waits for "
            f"longer than {_duration(_seconds(MAX_WAIT))}",
        )


def _seconds(length: timedelta) -> float:
    return length / timedelta(seconds=1)


def _disk(directory: Path) -> Iterator[Finding]:
    room = room_on(directory)
    few_files = room.files is not None
    if room.bytes < _LITTLE_DISK or few_files:
        bad = room.bytes < _LEAST_DISK or few_files
        yield Finding(
            State.CRITICAL if bad else State.WARNING,
            Event.DISK_FULL,
            f"the disk of {directory} has room for {room} more: remove the "
            "directories of runs that are done (they have a done.json)",
        )


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
