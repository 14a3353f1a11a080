"""Report whether a launch works, for people and for monitoring systems.

The states and their numbers are those of monitoring plugins:
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
from state import postponed
from state.catalog import catalog_fault, load_catalog_outcome
from state.disk import room_on
from state.errors import OthersCanChange, PipelineError
from state.files import check_nobody_else_writes
from state.launch import UNREADABLE, Launch, load_launch
from state.run import Run, all_runs
from state.text import duration, one_line
from state.waiting import MAX_WAIT, waiting

_PERIODS_WITHOUT_A_POLL = 3
_POLLS_WITHOUT_A_RUN = 3
_SECONDS_WITHOUT_PROGRESS = 24 * 60 * 60
_LONG_WAIT = timedelta(days=1)
# Free disk below which health warns, and below which it is critical, in bytes. A share
# of the disk would say little: 5 % of an archive's disk are terabytes. A run of a
# million rows takes 4 GB.
_LOW_DISK = 5 * 10**9
_MIN_DISK = 10**9


class State(IntEnum):
    """How serious a finding is; the value is the exit code."""

    OK = 0
    # A run does not continue, or soon nothing will.
    WARNING = 1
    # Nothing of this launch continues.
    CRITICAL = 2
    # The state could not be determined.
    UNKNOWN = 3


# The least serious state first.
_BY_WEIGHT = (State.OK, State.WARNING, State.UNKNOWN, State.CRITICAL)


class Event(StrEnum):
    """The stable name of a kind of finding, for programs."""

    NO_POLL = "no-poll"
    CLOCK = "clock"
    NO_HTCONDOR = "no-htcondor"
    NO_CRONDOR_JOB = "no-crondor-job"
    CRONDOR_JOB_HELD = "crondor-job-held"
    CRONDOR_JOB_MOVED = "crondor-job-moved"
    DAGMAN_HELD = "dagman-held"
    RUN_STANDS_STILL = "run-stands-still"
    RUN_WAITS = "run-waits"
    MANIFEST_WAITS = "manifest-waits"
    CATALOG_FAILED = "catalog-failed"
    RUNS_UNREADABLE = "runs-unreadable"
    OTHERS_CAN_CHANGE = "others-can-change"
    DISK_FULL = "disk-full"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Finding:
    """One problem of a launch.

    Attributes:
        state: how serious it is.
        event: what it is about.
        message: a sentence for people that says what to do.
    """

    state: State
    event: Event
    message: str


@dataclass(frozen=True)
class Health:
    """The health of a launch.

    Attributes:
        name: the input bucket and the pattern of manifests; the name of ``file`` if
            they cannot be read.
        file: the launch's ``launch.json``.
        findings: the problems that were found.
        last_poll: when a poll last succeeded; None if none has.
        runs_alive: number of its runs that have not ended.
        free_bytes: free bytes on the disk with the run directories.
    """

    name: str
    file: Path
    findings: tuple[Finding, ...]
    last_poll: datetime | None = None
    runs_alive: int | None = None
    free_bytes: int | None = None

    @property
    def state(self) -> State:
        """The most serious state of its findings."""
        return worst(finding.state for finding in self.findings)


def worst(states: Iterable[State]) -> State:
    """Return the most serious of these states; OK if there is none.

    >>> worst([State.UNKNOWN, State.CRITICAL, State.OK]).name
    'CRITICAL'
    """
    return max(states, key=_BY_WEIGHT.index, default=State.OK)


def examine(launch_file: Path) -> Health:
    """Return the health of the launch that a ``launch.json`` describes."""
    try:
        return _examine(launch_file, load_launch(launch_file))
    except OthersCanChange as error:
        # Polls refuse to continue.
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
        *_postponed(launch),
        *(finding for run in alive for finding in _run(run)),
        *_catalog([run for run in known if run.done]),
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
    """Return the health of a launch for programs.

    Sizes are in bytes, times in UTC and ISO 8601.
    """
    polled = health.last_poll
    return asdict(health) | {
        "file": str(health.file),
        "state": health.state.name,
        "last_poll": polled and polled.isoformat(timespec="seconds"),
        "findings": [asdict(f) | {"state": f.state.name} for f in health.findings],
    }


def sentence(health: Health) -> str:
    """Return the health of a launch as one line, for people and monitoring systems."""
    parts = [one_line(finding.message) for finding in health.findings]
    if health.runs_alive is not None and health.free_bytes is not None:
        polled = "no poll yet"
        if health.last_poll:
            age = time.time() - health.last_poll.timestamp()
            polled = f"last poll {duration(age)} ago"
        plural = "" if health.runs_alive == 1 else "s"
        parts += [
            f"{polled}, {health.runs_alive} run{plural} alive, "
            f"{health.free_bytes / 1e9:.0f} GB free"
        ]
    line = f"{health.state.name} {one_line(health.name)}: {'; '.join(parts)}"
    # Monitoring systems read what follows a bar as figures.
    return line.replace("|", "/")


def _modified(path: Path) -> float:
    """Return when a file was modified, in seconds since 1970; 0 if there is none."""
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
            f"no poll has succeeded for {duration(age)}, though one is due every "
            f"{duration(launch.every * 60)}: {launch.home}/poll.out and poll.err "
            "say why",
        )
    elif age < -allowed:
        yield Finding(
            State.CRITICAL,
            Event.CLOCK,
            f"the last poll was {duration(-age)} in the future: is this machine's "
            "clock right? The next successful poll fixes it",
        )


def _unreadable(errors: list[PipelineError]) -> Iterator[Finding]:
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        yield Finding(
            State.WARNING,
            Event.RUNS_UNREADABLE,
            f"run directories that cannot be read, so that their runs do not continue: "
            f"{len(errors)}, {errors[0]}{more}",
        )


def _postponed(launch: Launch) -> Iterator[Finding]:
    try:
        manifests = postponed.load(launch)
    except UNREADABLE as error:
        sentence = f"a record in {launch.home} cannot be read: {error!r}"
        yield Finding(State.WARNING, Event.UNREADABLE, sentence)
        return
    for key, manifest in manifests.items():
        if manifest.polls > _POLLS_WITHOUT_A_RUN:
            yield Finding(
                State.WARNING,
                Event.MANIFEST_WAITS,
                f"{manifest.polls} polls have started no run for {one_line(key)}: "
                f"{one_line(manifest.why)}",
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
    elif not Path(crondor.directory).exists():
        yield Finding(
            State.CRITICAL,
            Event.CRONDOR_JOB_MOVED,
            f"the job that polls for manifests knows only {crondor.directory}, from "
            f"where {launch.directory} was moved: move it back, or 'condor_rm "
            f"{crondor.cluster}' and launch again in {launch.directory}",
        )
    elif crondor.hold_reason is not None:
        yield Finding(
            State.CRITICAL,
            Event.CRONDOR_JOB_HELD,
            crondor.hold_message("the job that polls for manifests"),
        )
    for run, job in jobs:
        if job and job.hold_reason is not None:
            yield Finding(
                State.WARNING,
                Event.DAGMAN_HELD,
                job.hold_message(
                    f"the DAGMan of {run.directory.name}",
                    f"release {run.directory.name}",
                ),
            )


def _run(run: Run) -> list[Finding]:
    try:
        return [*_progress(run), *_waits(run)]
    except UNREADABLE as error:
        # As after a disk fault. The other runs are still examined.
        sentence = f"a record of {run.directory.name} cannot be read: {error!r}"
        return [Finding(State.WARNING, Event.RUNS_UNREADABLE, sentence)]


def _progress(run: Run) -> Iterator[Finding]:
    # Each step of the run, and each attempt at reconciling, writes a file, which
    # changes the directory's own time.
    places = (run.directory, run.results_directory, run.node_log)
    age = time.time() - max(_modified(place) for place in places)
    if age > _SECONDS_WITHOUT_PROGRESS:
        yield Finding(
            State.WARNING,
            Event.RUN_STANDS_STILL,
            f"{run.directory.name} has not moved for {duration(age)}: 'condor_q "
            "-dag -nobatch', or else poll.out, shows what it waits for",
        )


def _waits(run: Run) -> Iterator[Finding]:
    wait = None if run.has_begun else waiting(run)
    if wait and wait.duration > _LONG_WAIT:
        yield Finding(
            State.WARNING,
            Event.RUN_WAITS,
            f"{run.directory.name} has waited for {duration(wait.duration)} for "
            f"{wait.key}, which has some of the same images, to end: if that manifest "
            "is from an access point that is gone, remove it from the bucket; no run "
            f"waits for longer than {duration(MAX_WAIT)}",
        )


def _catalog(ended: list[Run]) -> Iterator[Finding]:
    """Yield the products of the catalog that could not be made, once each."""
    failures: dict[str, tuple[str, Run]] = {}
    for run in ended:
        try:
            outcome = load_catalog_outcome(run)
        except UNREADABLE as error:
            sentence = f"a record of {run.directory.name} cannot be read: {error!r}"
            yield Finding(State.WARNING, Event.UNREADABLE, sentence)
            continue
        for product, why in outcome.failures.items() if outcome else ():
            failures[product] = why, run
    for product, (why, run) in failures.items():
        yield Finding(
            State.WARNING,
            Event.CATALOG_FAILED,
            f"{catalog_fault(product, why)} (for example in {run.directory.name})",
        )


def _disk(directory: Path) -> Iterator[Finding]:
    room = room_on(directory)
    too_few_files = room.files is not None
    if room.bytes < _LOW_DISK or too_few_files:
        is_critical = room.bytes < _MIN_DISK or too_few_files
        yield Finding(
            State.CRITICAL if is_critical else State.WARNING,
            Event.DISK_FULL,
            f"the disk of {directory} has room for {room} more: make room, for "
            "example with 'clean --delete'. Do not remove a run directory without a "
            "done.json: its run would be lost",
        )
