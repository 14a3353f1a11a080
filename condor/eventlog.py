"""The events of jobs, as HTCondor and DAGMan write them into logs."""

import math
import multiprocessing
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from condor.bindings import htcondor2
from condor.errors import translate_errors
from state.text import one_line

_FACTS = (
    *("LogNotes", "HoldReason", "Reason"),
    *("TerminatedNormally", "TerminatedBySignal", "ReturnValue"),
    *("SentBytes", "ReceivedBytes", "TimeSlotBusyUsage"),
)
_EVENTS_A_PROCESS = 10_000
_CHARACTERS_A_PROCESS = 2**25
# What an execution point says may stand in an event, as long as it likes.
_LONGEST_FACT = 4000
# The bindings take a second for each that they cannot read.
_MAX_UNREADABLE = 100
_UNREADABLE = (htcondor2.HTCondorException, ValueError, LookupError, OverflowError)
# What DAGMan notes of a node's job when it submits it, to 24 and since 25.
_NODE_IN_NOTES = re.compile(r"DAG(?: Node: |NodeName = \")(\w+)")
_BACK_IN_QUEUE = (
    htcondor2.JobEventType.JOB_EVICTED,
    htcondor2.JobEventType.SHADOW_EXCEPTION,
    htcondor2.JobEventType.JOB_RECONNECT_FAILED,
)


@dataclass(frozen=True)
class NodeEnd:
    """What HTCondor last said of a node: where its last job stands, or how it ended.

    Attributes:
        event: ``idle``, ``running`` or ``held``; ``removed`` by somebody; ``given
            up`` by its own bounds; ``killed`` by a signal; ``exited`` with a status
            other than 0.
        reason: why it was held, removed or killed; the exit status.
        before: the event before it was removed or given up.
        starts: how many times it was begun.
        attempt: how many jobs the node has had.
    """

    event: str
    reason: str = ""
    before: str = ""
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
class _Event:
    """What is needed of an event in a log; ``time`` in seconds since 1970."""

    type: int
    cluster: int
    time: float
    facts: dict[str, Any]


def node_ends(log: Path) -> dict[str, NodeEnd]:
    """What DAGMan's log of the nodes says, by node, of its last job.

    Those are not there whose last job ended well. An execution point can have events
    of its job written, so what a job was submitted for is read once. But it can write
    into a text that an event of another job follows, which cannot be told from a real
    one: what this says may be a reason for a failure, and never a success.
    """
    dag_node_of: dict[int, str] = {}
    words: dict[str, NodeEnd] = {}
    attempts: Counter[str] = Counter()
    for event in _events(log):
        if node := _submitted_node(event):
            if event.cluster not in dag_node_of:
                dag_node_of[event.cluster] = node
                words[node] = NodeEnd("idle")
                attempts[node] += 1
        elif node := dag_node_of.get(event.cluster):
            _read_event(event, node, words)
            if node not in words:
                # It ended well: of a million, most are to be forgotten soon.
                del dag_node_of[event.cluster], attempts[node]
    return {node: replace(word, attempt=attempts[node]) for node, word in words.items()}


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
    """Return why a job was removed, as its own log says; None if it was not."""
    reason = None
    for event in _events(log):
        if event.type == htcondor2.JobEventType.JOB_ABORTED:
            reason = str(event.facts.get("Reason", ""))
    return reason


def _amount(event: _Event, name: str, default: float) -> float:
    """Return a number of an event; the default where it has none, or an odd one."""
    value = event.facts.get(name)
    if isinstance(value, int | float) and math.isfinite(value) and value >= 0:
        return float(value)
    return default


def _events(log: Path) -> Iterator[_Event]:
    """The events of a log so far; none where there is no log yet.

    The bindings (23.10 at least) never give back what an event takes, 3 KB, and a
    large run has millions: but for the first, processes of their own read some each.

    A job can have a text written that is no UTF-8, by the name of a file, and an
    execution point any text. An event that cannot be read is left out; after many of
    them, the rest of the log is as well. So nobody keeps a run from ending.
    """
    if not log.exists():
        return
    with translate_errors(f"the log {log}"):
        part = _read_some(htcondor2.JobEventLog(str(log)))
        yield from part.events
        if part.ended:
            return
        unreadable = part.unreadable
        processes = multiprocessing.get_context("forkserver")
        with processes.Pool(1, maxtasksperchild=1) as reader:
            while not part.ended and unreadable < _MAX_UNREADABLE:
                part = reader.apply(_read_some, (part.rest,))
                unreadable += part.unreadable
                yield from part.events


@dataclass(frozen=True, slots=True)
class _Part:
    """Some events of a log.

    Attributes:
        unreadable: how many others could not be read.
        ended: whether there are no more.
        rest: the log from there on.
    """

    events: list[_Event]
    unreadable: int
    ended: bool
    rest: htcondor2.JobEventLog


def _read_some(log: htcondor2.JobEventLog) -> _Part:
    """Return as many events of a log as one process should read."""
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
    facts = {name: event[name] for name in _FACTS if name in event}
    return _Event(
        event.type,
        event.cluster,
        datetime.fromisoformat(event["EventTime"]).timestamp(),
        {
            name: fact[:_LONGEST_FACT] if isinstance(fact, str) else fact
            for name, fact in facts.items()
        },
    )


def _submitted_node(event: _Event) -> str | None:
    """The node whose job was submitted, None of any other event."""
    if event.type != htcondor2.JobEventType.SUBMIT:
        return None
    named = _NODE_IN_NOTES.search(str(event.facts.get("LogNotes", "")))
    return named[1] if named else None


def _read_event(event: _Event, node: str, words: dict[str, NodeEnd]) -> None:
    kind = htcondor2.JobEventType
    last = words.get(node, NodeEnd("idle"))
    if event.type == kind.EXECUTE:
        words[node] = NodeEnd("running", starts=last.starts + 1)
    elif event.type == kind.JOB_HELD:
        # Part of it may be what a node says, of any length.
        reason = one_line(str(event.facts.get("HoldReason", "")))
        words[node] = NodeEnd("held", reason, starts=last.starts)
    elif event.type in (kind.JOB_RELEASED, *_BACK_IN_QUEUE):
        words[node] = NodeEnd("idle", starts=last.starts)
    elif event.type == kind.JOB_ABORTED:
        words[node] = _removed(last, str(event.facts.get("Reason", "")))
    elif event.type == kind.JOB_TERMINATED:
        if not event.facts.get("TerminatedNormally", False):
            signal = event.facts.get("TerminatedBySignal", "?")
            words[node] = NodeEnd("killed", f"signal {signal}")
        elif event.facts.get("ReturnValue", 0) != 0:
            words[node] = NodeEnd("exited", str(event.facts["ReturnValue"]))
        else:
            words.pop(node, None)


def _removed(last: NodeEnd, reason: str) -> NodeEnd:
    if "PeriodicRemove" not in reason:
        return NodeEnd("removed", reason, last.event, last.starts)
    why_held = last.reason if last.event == "held" else ""
    return NodeEnd("given up", why_held, last.event, last.starts)
