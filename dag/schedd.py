"""The only module that speaks to HTCondor (by its bindings, ``htcondor2``)."""

import math
import multiprocessing
import os
import pwd
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    # A machine without HTCondor: said in better words when it is spoken to.
    warnings.filterwarnings("ignore", message=".*CONDOR_CONFIG")
    import classad2
    import htcondor2

from dag.errors import SchedulerError
from dag.wording import printable

# Attributes by which jobs are found in the queue; their value is the run directory.
RUN_ATTRIBUTE = "CogPipelineRun"
NODE_ATTRIBUTE = "CogPipelineNodeOf"
# When the presigned URLs of a node's job expire, in seconds since 1970.
URLS_EXPIRE = "CogPipelineUrlsExpire"
_IDLE = 1
_REMOVED = 3
_COMPLETED = 4
_HELD = 5
# Besides its own exceptions, what the bindings are known to raise.
_REFUSALS = (
    htcondor2.HTCondorException,
    RuntimeError,
    OSError,
    LookupError,
    ValueError,
)
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
_MOST_UNREADABLE = 100
_UNREADABLE = (htcondor2.HTCondorException, ValueError, LookupError, OverflowError)
# What DAGMan notes of a node's job when it submits it, to 24 and since 25.
_NODE_IN_NOTES = re.compile(r"DAG(?: Node: |NodeName = \")(\w+)")
# https://htcondor.readthedocs.io/en/latest/classad-attributes/job-classad-attributes.html
_BY_HAND = 1
_JOB_STATUS = {1: "idle", 2: "running", 3: "being removed", 4: "completed", 5: "held"}


@dataclass(frozen=True)
class Job:
    """A job of the queue.

    Attributes:
        hold_reason: None unless it is held.
        held_by_hand: whether somebody holds it, rather than HTCondor.
    """

    cluster: int
    status: str
    owner: str
    hold_reason: str | None
    held_by_hand: bool = False


@dataclass(frozen=True, slots=True)
class WaitingJob:
    """A node's job that does not run, and what of its ad names its URLs."""

    id: str
    node: str
    input_files: str
    output_remaps: str


@dataclass(frozen=True)
class Progress:
    """How far a DAG has come, in nodes, its FINAL node included."""

    total: int
    done: int
    failed: int


@dataclass(frozen=True)
class LastWord:
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
class MachineTime:
    """What a node's job did on one machine.

    Attributes:
        succeeded: whether it ended there, and with status 0.
        slot_seconds: for which the machine was taken.
        bytes_moved: between it and the access point, S3 apart.
    """

    node: str
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


def version() -> tuple[int, int, int]:
    """The version of this access point's schedd.

    Raises:
        SchedulerError: there is no schedd, or it does not answer.
    """
    with _explained("HTCondor"):
        ad = htcondor2.Collector().locate(htcondor2.DaemonType.Schedd)
        found = re.search(r"(\d+)\.(\d+)\.(\d+)", ad["CondorVersion"])
        return tuple(int(part) for part in found.groups())


def check() -> None:
    """Raise SchedulerError unless jobs can be put into the queue."""
    with _explained("HTCondor"):
        _schedd().query("false", ["ClusterId"])


def submit(description: str) -> int:
    """Submit one job; returns its cluster."""
    with _explained("the submission"):
        return _schedd().submit(htcondor2.Submit(description)).cluster()


def submit_dag(
    dag_file: Path, attributes: dict[str, str], max_jobs: int, max_idle: int
) -> int:
    """Submit DAGMan for a DAG file; returns DAGMan's cluster.

    Args:
        attributes: to write into DAGMan's own job ad, to find it by.
        max_jobs: how many jobs of its nodes may be in the queue at once.
        max_idle: how many of them may wait there.
    """
    with _explained(f"the submission of {dag_file}"):
        options = {"MaxJobs": max_jobs, "MaxIdle": max_idle, "Force": True}
        description = htcondor2.Submit.from_dag(str(dag_file), options)
        # DAGMan resolves the names in a DAG file against its own directory.
        description["initialdir"] = str(dag_file.parent)
        description["JobBatchName"] = classad2.quote(dag_file.parent.name)
        for name, value in attributes.items():
            description[f"My.{name}"] = classad2.quote(value)
        return _schedd().submit(description).cluster()


def find(attribute: str, value: str) -> Job | None:
    """Return this user's first job in the queue whose attribute has this value.

    Other users can submit jobs with any attributes; those count for nothing.
    """
    constraint = f"{attribute} =?= {classad2.quote(value)}"
    return min(_query(constraint), key=lambda job: job.cluster, default=None)


def remove(cluster: int, why: str) -> None:
    with _explained(f"the removal of job {cluster}"):
        remove = htcondor2.JobAction.Remove
        _schedd().act(remove, f"ClusterId == {cluster}", (why, 0))


def release(cluster: int, why: str) -> None:
    with _explained(f"the release of job {cluster}"):
        release = htcondor2.JobAction.Release
        _schedd().act(release, f"ClusterId == {cluster}", (why, 0))


def still_there(attribute: str, value: str) -> int:
    """How many jobs with this attribute may still do something: all but ended ones."""
    constraint = f"{attribute} =?= {classad2.quote(value)} && JobStatus != {_COMPLETED}"
    with _explained("HTCondor's queue"):
        return len(_own_jobs(constraint, ["ClusterId"]))


def waiting_jobs(run: str, expire_before: float) -> list[WaitingJob]:
    """Return the jobs of a run's nodes that wait with URLs that expire before then.

    Args:
        run: the run directory.
        expire_before: in seconds since 1970.
    """
    constraint = (
        f"{NODE_ATTRIBUTE} =?= {classad2.quote(run)} "
        f"&& (JobStatus == {_IDLE} || JobStatus == {_HELD}) "
        f"&& {URLS_EXPIRE} < {int(expire_before)}"
    )
    names = ["ClusterId", "ProcId", "DAGNodeName", "TransferInput"]
    with _explained("HTCondor's queue"):
        ads = _own_jobs(constraint, [*names, "TransferOutputRemaps"])
    return [
        WaitingJob(
            id=f"{ad['ClusterId']}.{ad['ProcId']}",
            node=str(ad.get("DAGNodeName", "")),
            input_files=str(ad.get("TransferInput", "")),
            output_remaps=str(ad.get("TransferOutputRemaps", "")),
        )
        for ad in ads
    ]


def renew(job: WaitingJob, urls_expire: int) -> bool:
    """Write a waiting job's changed URLs, and when they expire, into the queue.

    If it has begun to run meanwhile, it goes on with what it began with. When they
    expire is written last: what was cut off before is done again by the next poll.

    Returns:
        Whether the job is still there.
    """
    changes = {
        "TransferInput": classad2.quote(job.input_files),
        "TransferOutputRemaps": classad2.quote(job.output_remaps),
        URLS_EXPIRE: str(urls_expire),
    }
    with _explained(f"the change of job {job.id}"):
        try:
            for name, value in changes.items():
                _schedd().edit(job.id, name, value)
        except htcondor2.HTCondorException:
            cluster, _, process = job.id.partition(".")
            there = f"ClusterId == {cluster} && ProcId == {process}"
            if _own_jobs(there, ["ClusterId"]):
                raise
            return False
    return True


def progress(cluster: int) -> Progress | None:
    """How far a DAG has come, None when its DAGMan is not in the queue."""
    names = ["DAG_NodesTotal", "DAG_NodesDone", "DAG_NodesFailed"]
    with _explained("HTCondor's queue"):
        ads = _schedd().query(f"ClusterId == {cluster}", names)
    if not ads:
        return None
    return Progress(*(int(ads[0].get(name, 0)) for name in names))


def last_words(log: Path) -> dict[str, LastWord]:
    """What DAGMan's log of the nodes says, by node, of its last job.

    Those are not there whose last job ended well. An execution point can have events
    of its job written, so what a job was submitted for is read once. But it can write
    into a text that an event of another job follows, which cannot be told from a real
    one: what this says may be a reason for a failure, and never a success.
    """
    node_of: dict[int, str] = {}
    words: dict[str, LastWord] = {}
    attempts: Counter[str] = Counter()
    for event in _events(log):
        if node := _submitted_node(event):
            if event.cluster not in node_of:
                node_of[event.cluster] = node
                words[node] = LastWord("idle")
                attempts[node] += 1
        elif node := node_of.get(event.cluster):
            _read_event(event, node, words)
            if node not in words:
                # It ended well: of a million, most are to be forgotten soon.
                del node_of[event.cluster], attempts[node]
    return {node: replace(word, attempt=attempts[node]) for node, word in words.items()}


def machine_times(log: Path) -> Iterator[MachineTime]:
    """What DAGMan's log of the nodes says of the machines that their jobs had.

    A job that was never begun there, as since its input did not arrive, is not told.
    """
    kind = htcondor2.JobEventType
    ends = (kind.JOB_TERMINATED, *_BACK_IN_QUEUE, kind.JOB_HELD, kind.JOB_ABORTED)
    node_of: dict[int, str] = {}
    began: dict[int, int] = {}
    for event in _events(log):
        if node := _submitted_node(event):
            node_of.setdefault(event.cluster, node)
        elif event.type == kind.EXECUTE:
            began[event.cluster] = event.time
        elif event.type in ends and event.cluster in began:
            seconds = event.time - began.pop(event.cluster)
            ended_well = event.type == kind.JOB_TERMINATED and (
                event.facts.get("ReturnValue") == 0
            )
            sent, received = (
                int(_amount(event, name, 0)) for name in ("SentBytes", "ReceivedBytes")
            )
            yield MachineTime(
                node_of.get(event.cluster, ""),
                ended_well,
                _amount(event, "TimeSlotBusyUsage", seconds),
                sent + received,
            )


def removal(attribute: str, value: str, log: Path) -> str | None:
    """Why a job was removed or is being removed; None when it was not.

    Args:
        log: of the job's own events, which tells it when it has left the queue.
    """
    constraint = f"{attribute} =?= {classad2.quote(value)} && JobStatus == {_REMOVED}"
    with _explained("HTCondor's queue"):
        for ad in _own_jobs(constraint, ["RemoveReason"]):
            return str(ad.get("RemoveReason", ""))
    reason = None
    for event in _events(log):
        if event.type == htcondor2.JobEventType.JOB_ABORTED:
            reason = str(event.facts.get("Reason", ""))
    return reason


_BACK_IN_QUEUE = (
    htcondor2.JobEventType.JOB_EVICTED,
    htcondor2.JobEventType.SHADOW_EXCEPTION,
    htcondor2.JobEventType.JOB_RECONNECT_FAILED,
)


def _amount(event: _Event, name: str, default: float) -> float:
    """Return a number of an event; the default where it has none, or an odd one."""
    value = event.facts.get(name)
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return float(value if is_number and value >= 0 else default)


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
    with _explained(f"the log {log}"):
        part = _read_some(htcondor2.JobEventLog(str(log)))
        yield from part.events
        if part.ended:
            return
        unreadable = part.unreadable
        processes = multiprocessing.get_context("forkserver")
        with processes.Pool(1, maxtasksperchild=1) as reader:
            while not part.ended and unreadable < _MOST_UNREADABLE:
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
        and unreadable < _MOST_UNREADABLE
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


def _read_event(event: _Event, node: str, words: dict[str, LastWord]) -> None:
    kind = htcondor2.JobEventType
    last = words.get(node, LastWord("idle"))
    if event.type == kind.EXECUTE:
        words[node] = LastWord("running", starts=last.starts + 1)
    elif event.type == kind.JOB_HELD:
        # Part of it may be what a node says, of any length.
        reason = printable(str(event.facts.get("HoldReason", "")))
        words[node] = LastWord("held", reason, starts=last.starts)
    elif event.type in (kind.JOB_RELEASED, *_BACK_IN_QUEUE):
        words[node] = LastWord("idle", starts=last.starts)
    elif event.type == kind.JOB_ABORTED:
        words[node] = _removed(last, str(event.facts.get("Reason", "")))
    elif event.type == kind.JOB_TERMINATED:
        if not event.facts.get("TerminatedNormally", False):
            signal = event.facts.get("TerminatedBySignal", "?")
            words[node] = LastWord("killed", f"signal {signal}")
        elif event.facts.get("ReturnValue", 0) != 0:
            words[node] = LastWord("exited", str(event.facts["ReturnValue"]))
        else:
            words.pop(node, None)


def _removed(last: LastWord, reason: str) -> LastWord:
    if "PeriodicRemove" not in reason:
        return LastWord("removed", reason, last.event, last.starts)
    why_held = last.reason if last.event == "held" else ""
    return LastWord("given up", why_held, last.event, last.starts)


def _query(constraint: str) -> Iterator[Job]:
    names = ["ClusterId", "JobStatus", "Owner", "HoldReason", "HoldReasonCode"]
    with _explained("HTCondor's queue"):
        ads = _own_jobs(constraint, names)
    for ad in ads:
        held = ad["JobStatus"] == _HELD
        yield Job(
            cluster=int(ad["ClusterId"]),
            status=_JOB_STATUS.get(ad["JobStatus"], "there"),
            owner=str(ad["Owner"]),
            hold_reason=str(ad.get("HoldReason", "")) if held else None,
            held_by_hand=held and ad.get("HoldReasonCode") == _BY_HAND,
        )


def _own_jobs(constraint: str, names: list[str]) -> list[classad2.ClassAd]:
    """Return the ads of this user's jobs."""
    # HTCondor runs no jobs of root's: in a personal pool that root started, they are
    # nobody's. Its own option for "my jobs" shows all jobs to what DAGMan starts.
    name = pwd.getpwuid(os.geteuid()).pw_name if os.geteuid() else "nobody"
    mine = f"Owner == {classad2.quote(name)}"
    return _schedd().query(f"{mine} && ({constraint})", names)


def _schedd() -> htcondor2.Schedd:
    return htcondor2.Schedd()


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except _REFUSALS as error:
        raise SchedulerError(
            f"{what}: {error}. Is this an access point, and does 'condor_q' answer? "
            f"(These are HTCondor's bindings {_bindings_version()}; an access point "
            "that refuses them wants bindings of its own version.)"
        ) from error


def _bindings_version() -> str:
    found = re.search(r"\d+\.\d+\.\d+", htcondor2.version())
    return found[0] if found else htcondor2.version()
