"""Submit jobs to HTCondor's queue, find them, and change them.

Only this module talks to HTCondor's daemons, with the bindings ``htcondor2``.
"""

import os
import pwd
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from condor.bindings import classad2, htcondor2
from condor.errors import (
    JobRefused,
    SchedulerError,
    translate_errors,
    translate_refusals,
)
from condor.holds import BY_USER, SUBMITTED_ON_HOLD
from state.launch import Launch

# These attributes find jobs in the queue. Their value is the run directory.
RUN_ATTRIBUTE = "CogPipelineRun"
NODE_ATTRIBUTE = "CogPipelineNodeOf"
# The value of this one is the name that launches of the same manifests share.
LAUNCH_ATTRIBUTE = "CogPipeline"
CATALOG_ATTRIBUTE = "CogPipelineCatalog"
# When the presigned URLs of a node's job expire, in seconds since 1970.
URLS_EXPIRE = "CogPipelineUrlsExpire"
_NO_PLACE_FOR_LOGS = "/tmp"  # noqa: S108, DAGMan's rule
_Status = htcondor2.JobStatus
_STATUS_NAMES = {
    _Status.IDLE: "idle",
    _Status.RUNNING: "running",
    _Status.REMOVED: "being removed",
    _Status.COMPLETED: "completed",
    _Status.HELD: "held",
    _Status.TRANSFERRING_OUTPUT: "running",
    _Status.SUSPENDED: "suspended",
}
# The attributes of a job ad that must be numbers, and those that must be conditions.
_REQUESTS = ("RequestCpus", "RequestMemory", "RequestDisk", "RequestGPUs")
_CONDITIONS = (
    *("Requirements", "Rank", "PeriodicHold", "PeriodicRelease", "PeriodicRemove"),
    *("OnExitHold", "OnExitRemove"),
)
# A job that was tried is removed immediately. If this process ends before that,
# HTCondor removes the job itself. It has no log, because HTCondor writes there later
# that the job was removed, and makes the directory again that its caller has removed.
_TRIAL = {
    "hold": "true",
    "log": "",
    "periodic_remove": "($(periodic_remove:false)) || time() - QDate > 300",
}
# The description of a node writes the number of its try, from 0.
_RETRY = re.compile(r"\bCOG_PIPELINE_RETRY=(\d{1,3})\b", re.ASCII)
_FACTS_OF_JOBS = (
    *("ClusterId", "ProcId", "JobStatus", "EnteredCurrentStatus", "DAGNodeName"),
    *("RemoteHost", "LastRemoteHost", "Environment", "NumShadowStarts", "NumHolds"),
    *("HoldReason", "HoldReasonCode", "HoldReasonSubCode"),
    *(RUN_ATTRIBUTE, NODE_ATTRIBUTE),
)


_OF_A_DAG = ("DAG_NodesTotal", "DAG_NodesDone", "DAG_NodesFailed")
_OF_A_JOB = (
    *("ClusterId", "JobStatus", "Owner", "HoldReason", "HoldReasonCode", "Iwd"),
    *_OF_A_DAG,
)


@dataclass(frozen=True)
class Progress:
    """The progress of a DAG, in nodes; its FINAL node is included."""

    total: int
    done: int
    failed: int


@dataclass(frozen=True)
class Job:
    """A job of the queue.

    Attributes:
        hold_reason: None unless it is held.
        held_by_hand: whether a person holds it, and not HTCondor.
        directory: its initial working directory.
        progress: the progress of its DAG; None unless it is a DAGMan that has begun.
    """

    cluster: int
    status: str
    owner: str
    hold_reason: str | None
    held_by_hand: bool = False
    directory: str = ""
    progress: Progress | None = None

    @property
    def waits(self) -> bool:
        """Whether it is in the queue but does not run: it is idle or held."""
        return self.status in ("idle", "held")

    def hold_message(self, name: str, command: str = "") -> str:
        """Return a sentence that says why the job is held, and how to release it.

        Args:
            command: the command that releases it; by default that of HTCondor.
        """
        release = command or f"condor_release {self.cluster}"
        return f"{name} is held: {self.hold_reason}; '{release}' lets it continue"


@dataclass(frozen=True, slots=True)
class WaitingJob:
    """A node's job that does not run, and the attributes that contain its URLs."""

    id: str
    node: str
    input_files: str
    output_remaps: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a job is held.

    Attributes:
        code, subcode: HTCondor's numbers.
        reason: HTCondor's sentence, which an execution point may have written.
    """

    code: int
    subcode: int
    reason: str


@dataclass(frozen=True, slots=True)
class RunJob:
    """A job of a run, with what an operator asks about it.

    Attributes:
        id: cluster and process, such as ``17.0``.
        run: the run directory.
        node: the name of its DAG node; empty for DAGMan itself.
        state: ``idle``, ``running``, ``held`` and so on.
        since: when it entered this state, in seconds since 1970.
        machine: where it runs or last ran; empty if it has not started.
        attempt: which try of the node it is, from 1; None if that is not known.
        starts: how often it was started on a machine.
        holds: how often it was held.
        hold: why it is held; None if it is not.
    """

    id: str
    run: str
    node: str
    state: str
    since: int
    machine: str
    attempt: int | None
    starts: int
    holds: int
    hold: Hold | None


def version() -> tuple[int, int, int]:
    """Return the version of this access point's schedd.

    Raises:
        SchedulerError: there is no schedd, or it does not answer.
    """
    with translate_errors("HTCondor"):
        ad = htcondor2.Collector().locate(htcondor2.DaemonType.Schedd)
        # As in "$CondorVersion: 23.9.6 2024-08-08 …".
        match = re.findall(r"(\d+)\.(\d+)\.(\d+)", ad["CondorVersion"])[0]
        major, minor, patch = map(int, match)
        return major, minor, patch


def slots() -> int:
    """Return the number of jobs of one processor that the pool can run at once.

    Machines that are busy count; those that a pool would start on demand do not. The
    number is 0 if it is not known: the collector does not answer, or names no machine.
    """
    # A partitionable slot has the processors of the dynamic slots that it was split in.
    names = ["PartitionableSlot", "TotalSlotCpus"]
    try:
        with translate_errors("HTCondor's collector"):
            ads = htcondor2.Collector().query(
                htcondor2.AdType.Startd, "DynamicSlot =!= true", names
            )
    except SchedulerError:
        return 0
    return sum(
        int(ad.get("TotalSlotCpus", 1)) if ad.get("PartitionableSlot") else 1
        for ad in ads
    )


def check() -> None:
    """Raise SchedulerError unless jobs can be put into the queue."""
    with translate_errors("HTCondor"):
        _schedd().query("false", ["ClusterId"])


def dagman_accepts(directory: Path) -> bool:
    """Return whether DAGMan writes the log of its nodes into a directory.

    If DAGMAN_USE_STRICT is above 0, which is the default, DAGMan exits if the path of
    this log begins with ``/tmp`` (HTCondor's source, dagman_main.cpp).
    """
    strictness = int(htcondor2.param.get("DAGMAN_USE_STRICT", 1))
    return strictness <= 0 or not str(directory).startswith(_NO_PLACE_FOR_LOGS)


def submit(description: str) -> int:
    """Submit one job, and return its cluster.

    Raises:
        JobRefused: HTCondor does not accept the job.
        SchedulerError: it does not accept one at the moment.
    """
    with translate_refusals("the job"):
        return _schedd().submit(htcondor2.Submit(description)).cluster()


def submit_dag(
    dag_file: Path,
    attributes: Mapping[str, str],
    commands: Mapping[str, str],
    max_jobs: int,
    max_idle: int,
) -> int:
    """Submit DAGMan for a DAG file, and return DAGMan's cluster.

    Args:
        attributes: attributes of DAGMan's own job, which find it in the queue.
        commands: other submit commands of that job.
        max_jobs: the maximum number of its nodes' jobs in the queue at once.
        max_idle: the maximum number of them that wait there.

    Raises:
        JobRefused: HTCondor does not accept the job.
        SchedulerError: it does not accept one at the moment.
    """
    with translate_refusals(f"the DAGMan job of {dag_file}"):
        description = _dagman(dag_file, commands, max_jobs, max_idle)
        for name, value in attributes.items():
            description[f"My.{name}"] = classad2.quote(value)
        return _schedd().submit(description).cluster()


def _dagman(
    dag_file: Path, commands: Mapping[str, str], max_jobs: int, max_idle: int
) -> htcondor2.Submit:
    options = {"MaxJobs": max_jobs, "MaxIdle": max_idle, "Force": True}
    description = htcondor2.Submit.from_dag(str(dag_file), options)
    # DAGMan resolves the names in a DAG file against its own directory.
    description["initialdir"] = str(dag_file.parent)
    description["JobBatchName"] = classad2.quote(dag_file.parent.name)
    for name, value in commands.items():
        description[name] = value
    return description


def try_dag(dag_file: Path, commands: Mapping[str, str]) -> None:
    """Submit DAGMan on hold, and remove it again.

    Raises:
        JobRefused, SchedulerError: as ``submit_dag``.
    """
    with translate_refusals("the DAGMan job of a run"):
        _try(_dagman(dag_file, commands, max_jobs=1, max_idle=1))


def try_node(description: str, macros: Mapping[str, str]) -> None:
    """Submit a node's job on hold, and remove it again; evaluate its expressions.

    Args:
        macros: what DAGMan would replace in the description.

    Raises:
        JobRefused: HTCondor does not accept the job, or an expression has no value
            that HTCondor can use.
        SchedulerError: it does not accept one at the moment.
    """
    what = "the job of a node"
    with translate_refusals(what):
        submitted = htcondor2.Submit(description)
        for name, value in macros.items():
            submitted[name] = value
        ad = _try(submitted)
    for name in (*_REQUESTS, *_CONDITIONS):
        if name in ad and (fault := _fault(name, ad.eval(name))):
            expression = textwrap.shorten(str(ad.lookup(name)), 200, placeholder=" …")
            raise JobRefused(what, f"{name} is {fault}: {expression}")


def _try(description: htcondor2.Submit) -> classad2.ClassAd:
    """Submit a job on hold, remove it again, and return its ad."""
    for name, value in _TRIAL.items():
        description[name] = value
    result = _schedd().submit(description)
    remove(result.cluster(), "it was a trial of whether HTCondor accepts the job")
    return result.clusterad()


def _fault(name: str, value: object) -> str | None:
    """Return what is wrong with the value of an attribute; None if it can be used."""
    if isinstance(value, classad2.Value):
        # A condition may depend on the machine, which is not known here.
        is_usable = value is classad2.Value.Undefined and name in _CONDITIONS
        return None if is_usable else value.name.lower()
    return None if isinstance(value, int | float) else f"no number, but {value!r}"


def find(attribute: str, value: str) -> Job | None:
    """Return this user's first job in the queue whose attribute has this value.

    Jobs of other users are ignored, because they can have any attributes.
    """
    constraint = _is(attribute, value)
    return min(_query(constraint), key=lambda job: job.cluster, default=None)


def dagmans_of_runs() -> dict[str, Job]:
    """Return this user's DAGMan jobs by their run directory: the first of each."""
    found: dict[str, Job] = {}
    with translate_errors("HTCondor's queue"):
        ads = _own_jobs(f"{RUN_ATTRIBUTE} =!= undefined", [*_OF_A_JOB, RUN_ATTRIBUTE])
    for ad in sorted(ads, key=lambda ad: int(ad["ClusterId"])):
        found.setdefault(str(ad[RUN_ATTRIBUTE]), _job(ad))
    return found


def crondor_job(launch: Launch) -> Job | None:
    """Return the job that polls for a launch of the same name, if the queue has one."""
    jobs = (find(LAUNCH_ATTRIBUTE, name) for name in launch.names)
    return next((job for job in jobs if job), None)


def remove(cluster: int, why: str) -> None:
    """Remove a job from the queue."""
    with translate_errors(f"the removal of job {cluster}"):
        remove = htcondor2.JobAction.Remove
        _schedd().act(remove, f"ClusterId == {cluster}", (why, 0))


def release(cluster: int, why: str) -> None:
    """Release a job that is held."""
    with translate_errors(f"the release of job {cluster}"):
        release = htcondor2.JobAction.Release
        _schedd().act(release, f"ClusterId == {cluster}", (why, 0))


def hold_run(run: str, why: str) -> int:
    """Hold the DAGMan of a run and the jobs of its nodes, until they are released.

    HTCondor releases jobs that it holds itself. From now on, a person holds these.

    Returns:
        The number of jobs that no person held before.
    """
    by_htcondor = (
        f"{_jobs_of(run)} && JobStatus == {_Status.HELD:d} && "
        f"HoldReasonCode =!= {BY_USER} && HoldReasonCode =!= {SUBMITTED_ON_HOLD}"
    )
    ended = f"{{ {_Status.HELD:d}, {_Status.REMOVED:d}, {_Status.COMPLETED:d} }}"
    with translate_errors(f"the hold of the jobs of {run}"):
        hold = htcondor2.JobAction.Hold
        active = f"{_jobs_of(run)} && !member(JobStatus, {ended})"
        held = int(_schedd().act(hold, active, (why, 0))["TotalSuccess"])
        if others := len(_schedd().query(by_htcondor, ["ClusterId"])):
            # In this order: with the old reason, the job would be given up.
            _schedd().edit(by_htcondor, "HoldReason", classad2.quote(why))
            _schedd().edit(by_htcondor, "HoldReasonCode", str(BY_USER))
    return held + others


def release_run(run: str, why: str) -> int:
    """Release the jobs of a run that a person holds; return their number."""
    held = (
        f"{_jobs_of(run)} && JobStatus == {_Status.HELD:d} && "
        f"HoldReasonCode =?= {BY_USER}"
    )
    # Since 25.10, DAGMan would start only five minutes after it was held.
    cooling = f"{held} && {_is(RUN_ATTRIBUTE, run)} && JobCoolDownExpiration > 0"
    with translate_errors(f"the release of the jobs of {run}"):
        if _schedd().query(cooling, ["ClusterId"]):
            _schedd().edit(cooling, "JobCoolDownExpiration", "0")
        release = htcondor2.JobAction.Release
        return int(_schedd().act(release, held, (why, 0))["TotalSuccess"])


def _jobs_of(run: str) -> str:
    """Return a ClassAd expression: whether this user's job is of a run."""
    return f"{_mine()} && ({_is(RUN_ATTRIBUTE, run)} || {_is(NODE_ATTRIBUTE, run)})"


def still_there(attribute: str, value: str) -> int:
    """Return the number of jobs with this attribute that have not ended."""
    constraint = (
        f"{attribute} =?= {classad2.quote(value)} && JobStatus != {_Status.COMPLETED:d}"
    )
    with translate_errors("HTCondor's queue"):
        return len(_own_jobs(constraint, ["ClusterId"]))


def removal_reason(attribute: str, value: str) -> str | None:
    """Return why a job is being removed; None if the queue has no such job."""
    constraint = (
        f"{attribute} =?= {classad2.quote(value)} && JobStatus == {_Status.REMOVED:d}"
    )
    with translate_errors("HTCondor's queue"):
        for ad in _own_jobs(constraint, ["RemoveReason"]):
            return str(ad.get("RemoveReason", ""))
    return None


def jobs_of_runs(runs: Iterable[str]) -> list[RunJob]:
    """Return the jobs of runs that have not ended, and their DAGMans, by one query.

    Args:
        runs: the run directories.
    """
    constraint = " || ".join(
        _is(name, run) for run in runs for name in (RUN_ATTRIBUTE, NODE_ATTRIBUTE)
    )
    if not constraint:
        return []
    with translate_errors("HTCondor's queue"):
        ads = _own_jobs(constraint, list(_FACTS_OF_JOBS))
    return [_run_job(ad) for ad in ads if ad.get("JobStatus") != _Status.COMPLETED]


def _run_job(ad: classad2.ClassAd) -> RunJob:
    is_dagman = RUN_ATTRIBUTE in ad
    retry = None if is_dagman else _RETRY.search(str(ad.get("Environment", "")))
    hold = None
    if ad["JobStatus"] == _Status.HELD:
        hold = Hold(
            int(ad.get("HoldReasonCode", 0)),
            int(ad.get("HoldReasonSubCode", 0)),
            str(ad.get("HoldReason", "")),
        )
    return RunJob(
        id=f"{ad['ClusterId']}.{ad['ProcId']}",
        run=str(ad[RUN_ATTRIBUTE if is_dagman else NODE_ATTRIBUTE]),
        node="" if is_dagman else str(ad.get("DAGNodeName", "")),
        state=_STATUS_NAMES.get(ad["JobStatus"], "in the queue"),
        since=int(ad.get("EnteredCurrentStatus", 0)),
        machine=str(ad.get("RemoteHost") or ad.get("LastRemoteHost") or ""),
        attempt=int(retry[1]) + 1 if retry else None,
        starts=int(ad.get("NumShadowStarts", 0)),
        holds=int(ad.get("NumHolds", 0)),
        hold=hold,
    )


def waiting_jobs(run: str, expire_before: float) -> list[WaitingJob]:
    """Return the jobs of a run's nodes that wait with URLs that expire before then.

    Args:
        run: the run directory.
        expire_before: in seconds since 1970.
    """
    constraint = (
        f"{_is(NODE_ATTRIBUTE, run)} "
        f"&& (JobStatus == {_Status.IDLE:d} || JobStatus == {_Status.HELD:d}) "
        f"&& {URLS_EXPIRE} < {int(expire_before)}"
    )
    names = ["ClusterId", "ProcId", "DAGNodeName", "TransferInput"]
    with translate_errors("HTCondor's queue"):
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
    """Write a waiting job's new URLs, and when they expire, into the queue.

    If it has started to run, it continues with the old ones. The expiry is written
    last: if a crash comes before, the next poll does all of it again.

    Returns:
        Whether the job is still there.
    """
    changes = {
        "TransferInput": classad2.quote(job.input_files),
        "TransferOutputRemaps": classad2.quote(job.output_remaps),
        URLS_EXPIRE: str(urls_expire),
    }
    with translate_errors(f"the change of job {job.id}"):
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


def _is(attribute: str, value: str) -> str:
    """Return a ClassAd expression: whether an attribute has this value."""
    return f"{attribute} =?= {classad2.quote(value)}"


def _query(constraint: str) -> Iterator[Job]:
    with translate_errors("HTCondor's queue"):
        yield from map(_job, _own_jobs(constraint, [*_OF_A_JOB]))


def _job(ad: classad2.ClassAd) -> Job:
    held = ad["JobStatus"] == _Status.HELD
    nodes = [int(ad.get(name, 0)) for name in _OF_A_DAG]
    return Job(
        cluster=int(ad["ClusterId"]),
        status=_STATUS_NAMES.get(ad["JobStatus"], "in the queue"),
        owner=str(ad["Owner"]),
        hold_reason=str(ad.get("HoldReason", "")) if held else None,
        directory=str(ad.get("Iwd", "")),
        held_by_hand=held and ad.get("HoldReasonCode") == BY_USER,
        progress=Progress(*nodes) if _OF_A_DAG[0] in ad else None,
    )


def _own_jobs(constraint: str, names: list[str]) -> list[classad2.ClassAd]:
    """Return the ads of this user's jobs."""
    return _schedd().query(f"{_mine()} && ({constraint})", names)


def _mine() -> str:
    """Return a ClassAd expression: whether a job is this user's."""
    # HTCondor runs no jobs of root: in a personal pool that root started, they belong
    # to nobody. Its own option for "my jobs" shows all jobs to programs of DAGMan.
    name = pwd.getpwuid(os.geteuid()).pw_name if os.geteuid() else "nobody"
    return f"Owner == {classad2.quote(name)}"


def _schedd() -> htcondor2.Schedd:
    return htcondor2.Schedd()
