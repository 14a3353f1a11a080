"""Read the events of jobs from the logs that HTCondor and DAGMan write."""

import math
import multiprocessing
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from condor.bindings import htcondor2
from condor.errors import translate_errors
from state.text import one_line

# These may contain text of an execution point, of any length, and are shown to people.
_REASONS = frozenset(("HoldReason", "Reason"))
_FACTS = (
    *("LogNotes", *_REASONS),
    *("TerminatedNormally", "TerminatedBySignal", "ReturnValue"),
    *("SentBytes", "ReceivedBytes", "TimeSlotBusyUsage", "SlotName"),
    *("HoldReasonCode", "HoldReasonSubCode"),
)
_EVENTS_A_PROCESS = 10_000
_CHARACTERS_A_PROCESS = 2**25
_MAX_FACT = 4000  # characters
# The bindings need a second for each event that they cannot read.
_MAX_UNREADABLE = 100
_UNREADABLE = (htcondor2.HTCondorException, ValueError, LookupError, OverflowError)
# DAGMan's note in the event of a submission: until 24, and since 25.
_NODE_IN_NOTES = re.compile(r"DAG(?: Node: |NodeName = \")(\w+)")
_BACK_IN_QUEUE = (
    htcondor2.JobEventType.JOB_EVICTED,
    htcondor2.JobEventType.SHADOW_EXCEPTION,
    htcondor2.JobEventType.JOB_RECONNECT_FAILED,
)


# The events after which a job is not in the queue any more.
_ENDS = (
    htcondor2.JobEventType.JOB_TERMINATED,
    htcondor2.JobEventType.JOB_ABORTED,
)
_MESSAGES = {
    htcondor2.JobEventType.SUBMIT: "is submitted",
    htcondor2.JobEventType.JOB_RELEASED: "is released",
    htcondor2.JobEventType.JOB_ABORTED: "is removed",
    htcondor2.JobEventType.JOB_EVICTED: "returns to the queue",
    htcondor2.JobEventType.SHADOW_EXCEPTION: "returns to the queue after an error",
    htcondor2.JobEventType.JOB_DISCONNECTED: "has lost the connection to its machine",
    htcondor2.JobEventType.JOB_RECONNECTED: "is connected to its machine again",
    htcondor2.JobEventType.JOB_RECONNECT_FAILED: "has lost its machine",
}


class JobState(StrEnum):
    """The state of a job that has not succeeded, or how it ended."""

    IDLE = "idle"
    RUNNING = "running"
    HELD = "held"
    # Somebody removed it.
    REMOVED = "removed"
    # Its own periodic_remove expression removed it.
    GIVEN_UP = "given up"
    # A signal killed it.
    KILLED = "killed"
    # It ended with a status other than 0.
    EXITED = "exited"


@dataclass(frozen=True)
class NodeEnd:
    """The state of a node's last job, or how it ended.

    Attributes:
        event: the state of the job.
        reason: why it was held, removed or killed; or its exit status.
        before: the state before it was removed or given up.
        starts: the number of times that the job started.
        attempt: the number of jobs that the node has had.
    """

    event: JobState
    reason: str = ""
    before: JobState | None = None
    starts: int = 0
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Execution:
    """The time of a node's job on one machine.

    Attributes:
        node: name of the DAG node, empty if the log does not have it.
        cluster: number of the job.
        began: start, in seconds since 1970.
        ended: end, in seconds since 1970.
        succeeded: whether the job ended there with status 0.
        slot_seconds: time for which the machine was taken, in seconds.
        bytes_moved: bytes between the machine and the access point, without S3.
    """

    node: str
    cluster: int
    began: float
    ended: float
    succeeded: bool
    slot_seconds: float
    bytes_moved: int


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened to a job, as a person reads it.

    Attributes:
        time: in seconds since 1970.
        job: its number, as cluster.
        node: the name of its DAG node; empty if the log does not have it.
        attempt: which try of the node it is, from 1; None if the log has no node.
        name: HTCondor's name of the event, such as ``JOB_HELD``.
        message: what happened; it may have text of an execution point.
        ended: whether the job has ended.
    """

    time: float
    job: int
    node: str
    attempt: int | None
    name: str
    message: str
    ended: bool = False


@dataclass(frozen=True, slots=True)
class _Event:
    """The fields of an event that are used; ``time`` in seconds since 1970."""

    type: int
    cluster: int
    time: float
    facts: dict[str, Any]


def node_ends(log: Path) -> dict[str, NodeEnd]:
    """Return how the last job of each node ended, from DAGMan's log of the nodes.

    Nodes whose last job succeeded are left out.

    An execution point can cause events of its job, so only the first event says which
    node a job is for. It can also write a text that contains an event of another job,
    which looks like a real one. So a result of this function may be the reason for a
    failure, but never proves a success.
    """
    dag_node_of: dict[int, str] = {}
    ends: dict[str, NodeEnd] = {}
    attempts: Counter[str] = Counter()
    for event in _events(log):
        if node := _submitted_node(event):
            if event.cluster not in dag_node_of:
                dag_node_of[event.cluster] = node
                ends[node] = NodeEnd(JobState.IDLE)
                attempts[node] += 1
        elif node := dag_node_of.get(event.cluster):
            _read_event(event, node, ends)
            if node not in ends:
                # It succeeded. Of a million nodes, most do: they take no memory.
                del dag_node_of[event.cluster], attempts[node]
    return {node: replace(end, attempt=attempts[node]) for node, end in ends.items()}


def executions(log: Path) -> Iterator[Execution]:
    """Yield the executions of the nodes' jobs from DAGMan's log of the nodes.

    A job that never began on a machine, for instance because its input did not
    arrive, has none there.
    """
    kind = htcondor2.JobEventType
    ends = (kind.JOB_TERMINATED, *_BACK_IN_QUEUE, kind.JOB_HELD, kind.JOB_ABORTED)
    dag_node_of: dict[int, str] = {}
    start_of: dict[int, float] = {}
    for event in _events(log):
        if node := _submitted_node(event):
            dag_node_of.setdefault(event.cluster, node)
        elif event.type == kind.EXECUTE:
            start_of[event.cluster] = event.time
        elif event.type in ends and event.cluster in start_of:
            began = start_of.pop(event.cluster)
            ended_well = event.type == kind.JOB_TERMINATED and (
                event.facts.get("ReturnValue") == 0
            )
            sent, received = (
                int(_amount(event, name, 0)) for name in ("SentBytes", "ReceivedBytes")
            )
            yield Execution(
                dag_node_of.get(event.cluster, ""),
                event.cluster,
                began,
                event.time,
                ended_well,
                _amount(event, "TimeSlotBusyUsage", event.time - began),
                sent + received,
            )


def abort_reason(log: Path) -> str | None:
    """Return why a job was removed, from its own log; None if it was not."""
    reason = None
    for event in _events(log):
        if event.type == htcondor2.JobEventType.JOB_ABORTED:
            reason = str(event.facts.get("Reason", ""))
    return reason


def _amount(event: _Event, name: str, default: float) -> float:
    """Return a number of an event; the default if it has no valid one."""
    value = event.facts.get(name)
    if isinstance(value, int | float) and math.isfinite(value) and value >= 0:
        return float(value)
    return default


class JobHistory:
    """The events of the jobs of a log, also those that come later."""

    def __init__(self, log: Path) -> None:
        self._log = _Log(log)
        self._dag_node_of: dict[int, str] = {}
        self._attempts: Counter[str] = Counter()

    def new(self) -> Iterator[JobEvent]:
        """Yield the events that were not yielded before.

        As for ``node_ends``, an execution point can cause any of them.
        """
        for event in self._log.new():
            submitted = _submitted_node(event)
            if submitted and event.cluster not in self._dag_node_of:
                self._dag_node_of[event.cluster] = submitted
                self._attempts[submitted] += 1
            node = self._dag_node_of.get(event.cluster, "")
            if message := _message(event):
                yield JobEvent(
                    event.time,
                    event.cluster,
                    node,
                    self._attempts[node] if node else None,
                    htcondor2.JobEventType(event.type).name,
                    message,
                    event.type in _ENDS,
                )
            if node and event.type in _ENDS:
                del self._dag_node_of[event.cluster]
                if event.facts.get("ReturnValue") == 0:
                    # Most nodes succeed. They are forgotten: there may be a million.
                    del self._attempts[node]


def _message(event: _Event) -> str:
    """Return what happened to a job; empty for an event that tells people nothing."""
    kind = htcondor2.JobEventType
    facts = event.facts
    if event.type == kind.EXECUTE:
        machine = one_line(str(facts.get("SlotName", "")))
        return f"starts on {machine}" if machine else "starts"
    if event.type == kind.JOB_HELD:
        code = f"{facts.get('HoldReasonCode', 0)}.{facts.get('HoldReasonSubCode', 0)}"
        return f"is held, code {code}: {facts.get('HoldReason', '')}"
    if event.type == kind.JOB_TERMINATED:
        if facts.get("TerminatedNormally", False):
            return f"ends with status {facts.get('ReturnValue')}"
        return f"is killed by signal {facts.get('TerminatedBySignal', '?')}"
    words = _MESSAGES.get(event.type)
    reason = facts.get("Reason", "")
    return f"{words}: {reason}" if words and reason else words or ""


def _events(log: Path) -> Iterator[_Event]:
    """Yield the events of a log so far; none if there is no log yet."""
    return _Log(log).new()


class _Log:
    """A log, and how far it has been read.

    The bindings (at least 23.10) leak 3 KB with each event, and a large run has
    millions of events. So this process reads only the first events, and other processes
    read some of the others each.

    A job can cause text that is not UTF-8, by the name of a file, and an execution
    point can cause any text. An event that cannot be read is left out. After many such
    events, the rest of the log is left out too. So nobody can keep a run from ending.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._rest: htcondor2.JobEventLog | None = None
        self._read = self._unreadable = 0

    def new(self) -> Iterator[_Event]:
        """Yield the events that were not yielded before."""
        if not self._file.exists():
            return
        with translate_errors(f"the log {self._file}"):
            rest = self._rest or htcondor2.JobEventLog(str(self._file))
            if self._read < _EVENTS_A_PROCESS:
                part = self._count(_read_some(rest))
                yield from part.events
                if part.ended:
                    return
            processes = multiprocessing.get_context("forkserver")
            with processes.Pool(1, maxtasksperchild=1) as reader:
                ended = False
                while not ended and self._unreadable < _MAX_UNREADABLE:
                    part = self._count(reader.apply(_read_some, (self._rest or rest,)))
                    yield from part.events
                    ended = part.ended

    def _count(self, part: "_Part") -> "_Part":
        self._rest = part.rest
        self._read += len(part.events)
        self._unreadable += part.unreadable
        return part


@dataclass(frozen=True, slots=True)
class _Part:
    """Some events of a log.

    Attributes:
        unreadable: the number of events that could not be read.
        ended: whether the log has no more events.
        rest: the log after these events.
    """

    events: list[_Event]
    unreadable: int
    ended: bool
    rest: htcondor2.JobEventLog


def _read_some(log: htcondor2.JobEventLog) -> _Part:
    """Read as many events of a log as one process should read."""
    log.events(stop_after=0)
    events: list[_Event] = []
    unreadable = characters = 0
    while (
        len(events) < _EVENTS_A_PROCESS
        and characters < _CHARACTERS_A_PROCESS
        and unreadable < _MAX_UNREADABLE
    ):
        try:
            event = next(log)
            characters += len(str(event))
            events.append(_event(event))
        except StopIteration:
            return _Part(events, unreadable, True, log)
        except _UNREADABLE:
            unreadable += 1
    return _Part(events, unreadable, False, log)


def _event(event: htcondor2.JobEvent) -> _Event:
    return _Event(
        event.type,
        event.cluster,
        datetime.fromisoformat(event["EventTime"]).timestamp(),
        {name: _fact(name, event[name]) for name in _FACTS if name in event},
    )


def _fact(name: str, value: object) -> object:
    """Return a value of an event, bounded; a reason becomes one printable line."""
    if name in _REASONS:
        return one_line(str(value))
    return value[:_MAX_FACT] if isinstance(value, str) else value


def _submitted_node(event: _Event) -> str | None:
    """Return the node whose job was submitted; None for any other event."""
    if event.type != htcondor2.JobEventType.SUBMIT:
        return None
    named = _NODE_IN_NOTES.search(str(event.facts.get("LogNotes", "")))
    return named[1] if named else None


def _read_event(event: _Event, node: str, ends: dict[str, NodeEnd]) -> None:
    """Update the end of a node after an event of its job."""
    kind = htcondor2.JobEventType
    last = ends.get(node, NodeEnd(JobState.IDLE))
    if event.type == kind.EXECUTE:
        ends[node] = NodeEnd(JobState.RUNNING, starts=last.starts + 1)
    elif event.type == kind.JOB_HELD:
        reason = event.facts.get("HoldReason", "")
        ends[node] = NodeEnd(JobState.HELD, reason, starts=last.starts)
    elif event.type in (kind.JOB_RELEASED, *_BACK_IN_QUEUE):
        ends[node] = NodeEnd(JobState.IDLE, starts=last.starts)
    elif event.type == kind.JOB_ABORTED:
        ends[node] = _removed(last, event.facts.get("Reason", ""))
    elif event.type == kind.JOB_TERMINATED:
        if not event.facts.get("TerminatedNormally", False):
            signal = event.facts.get("TerminatedBySignal", "?")
            ends[node] = NodeEnd(JobState.KILLED, f"signal {signal}")
        elif event.facts.get("ReturnValue", 0) != 0:
            ends[node] = NodeEnd(JobState.EXITED, str(event.facts["ReturnValue"]))
        else:
            ends.pop(node, None)


def _removed(last: NodeEnd, reason: str) -> NodeEnd:
    if "PeriodicRemove" not in reason:
        return NodeEnd(JobState.REMOVED, reason, last.event, last.starts)
    hold_reason = last.reason if last.event == JobState.HELD else ""
    return NodeEnd(JobState.GIVEN_UP, hold_reason, last.event, last.starts)
