"""The only module that speaks to HTCondor (by its bindings, ``htcondor2``)."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

with warnings.catch_warnings():
    # A machine without HTCondor: said in better words when it is spoken to.
    warnings.filterwarnings("ignore", message=".*CONDOR_CONFIG")
    import classad2
    import htcondor2

from dag.errors import SchedulerError

# Attributes by which jobs are found in the queue; their value is the run directory.
RUN_ATTRIBUTE = "CogPipelineRun"
NODE_ATTRIBUTE = "CogPipelineNodeOf"
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
# What DAGMan notes of a node's job when it submits it, to 24 and since 25.
_NODE_IN_NOTES = re.compile(r"DAG(?: Node: |NodeName = \")(\w+)")
_JOB_STATUS = {1: "idle", 2: "running", 3: "being removed", 4: "completed", 5: "held"}


@dataclass(frozen=True)
class Job:
    """A job of the queue; ``hold_reason`` is None unless it is held."""

    cluster: int
    status: str
    owner: str
    hold_reason: str | None


@dataclass(frozen=True)
class Progress:
    """How far a DAG has come, in nodes, its FINAL node included."""

    total: int
    done: int
    failed: int


@dataclass(frozen=True)
class LastWord:
    """What the queue last said of a node that left no result."""

    event: str
    reason: str


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


def submit_dag(dag_file: Path, attributes: dict[str, str], max_jobs: int) -> int:
    """Submit DAGMan for a DAG file; returns DAGMan's cluster.

    Args:
        attributes: to write into DAGMan's own job ad, to find it by.
        max_jobs: how many jobs of its nodes may be in the queue at once.
    """
    with _explained(f"the submission of {dag_file}"):
        options = {"MaxJobs": max_jobs, "Force": True}
        description = htcondor2.Submit.from_dag(str(dag_file), options)
        # DAGMan resolves the names in a DAG file against its own directory.
        description["initialdir"] = str(dag_file.parent)
        description["JobBatchName"] = classad2.quote(dag_file.parent.name)
        for name, value in attributes.items():
            description[f"My.{name}"] = classad2.quote(value)
        return _schedd().submit(description).cluster()


def find(attribute: str, value: str) -> Job | None:
    """The first job in the queue, of any user, whose attribute has this value."""
    constraint = f"{attribute} =?= {classad2.quote(value)}"
    return min(_query(constraint), key=lambda job: job.cluster, default=None)


def remove(cluster: int, why: str) -> None:
    with _explained(f"the removal of job {cluster}"):
        remove = htcondor2.JobAction.Remove
        _schedd().act(remove, f"ClusterId == {cluster}", (why, 0))


def still_there(attribute: str, value: str) -> int:
    """How many jobs with this attribute may still do something: all but ended ones."""
    constraint = f"{attribute} =?= {classad2.quote(value)} && JobStatus != {_COMPLETED}"
    return sum(1 for _ in _query(constraint))


def progress(cluster: int) -> Progress | None:
    """How far a DAG has come, None when its DAGMan is not in the queue."""
    names = ["DAG_NodesTotal", "DAG_NodesDone", "DAG_NodesFailed"]
    with _explained("HTCondor's queue"):
        ads = _schedd().query(f"ClusterId == {cluster}", names)
    if not ads:
        return None
    return Progress(*(int(ads[0].get(name, 0)) for name in names))


def last_words(log: Path) -> dict[str, LastWord]:
    """What DAGMan's log of the nodes says, by node, of how its last job ended.

    Only nodes are there whose last job was held or removed, or ended by a
    signal or an exit status other than 0.
    """
    node_of: dict[int, str] = {}
    words: dict[str, LastWord] = {}
    if not log.exists():
        return words
    with _explained(f"the log {log}"):
        for event in htcondor2.JobEventLog(str(log)).events(stop_after=0):
            _read_event(event, node_of, words)
    return words


def _read_event(event, node_of: dict[int, str], words: dict[str, LastWord]) -> None:
    kind = htcondor2.JobEventType
    if event.type == kind.SUBMIT:
        if named := _NODE_IN_NOTES.search(str(event.get("LogNotes", ""))):
            node_of[event.cluster] = named[1]
            words.pop(named[1], None)
        return
    node = node_of.get(event.cluster)
    if node is None:
        return
    if event.type == kind.JOB_HELD:
        words[node] = LastWord("held", str(event.get("HoldReason", "")))
    elif event.type == kind.JOB_RELEASED:
        words.pop(node, None)
    elif event.type == kind.JOB_ABORTED and node not in words:
        words[node] = LastWord("removed", str(event.get("Reason", "")))
    elif event.type == kind.JOB_TERMINATED:
        if not event.get("TerminatedNormally", False):
            signal = event.get("TerminatedBySignal", "?")
            words[node] = LastWord("killed", f"signal {signal}")
        elif event.get("ReturnValue", 0) != 0:
            words[node] = LastWord("exited", f"status {event['ReturnValue']}")
        else:
            words.pop(node, None)


def _query(constraint: str) -> Iterator[Job]:
    names = ["ClusterId", "JobStatus", "Owner", "HoldReason"]
    with _explained("HTCondor's queue"):
        ads = _schedd().query(constraint, names)
    for ad in ads:
        held = ad["JobStatus"] == _HELD
        yield Job(
            cluster=int(ad["ClusterId"]),
            status=_JOB_STATUS.get(ad["JobStatus"], "there"),
            owner=str(ad["Owner"]),
            hold_reason=str(ad.get("HoldReason", "")) if held else None,
        )


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
