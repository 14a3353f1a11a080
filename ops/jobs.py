"""List the jobs of runs, and say why some are held."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from condor import queue
from condor.holds import Explanation, explain
from condor.queue import Hold
from state.rows import dag_node_of, load_rows_as_last_tried
from state.run import Run

# The states that need a person come first.
_ORDER = {"held": 0, "suspended": 1, "running": 2, "idle": 3}


@dataclass(frozen=True, slots=True)
class Job:
    """A job of a run.

    Attributes:
        run: the name of the run directory.
        id: its number in HTCondor's queue.
        node: the name of its DAG node; empty for DAGMan, which submits the others.
        image: the key of its image, or of the first one if it has several.
        images: the number of its images.
        state: ``idle``, ``running``, ``held`` and so on.
        since: when it entered this state.
        machine: where it runs or last ran; empty if it has not started.
        attempt: which try of the node it is, from 1; None if that is not known.
        starts: how often it was started on a machine.
        holds: how often it was held.
        hold: why it is held; None if it is not.
    """

    run: str
    id: str
    node: str
    image: str
    images: int
    state: str
    since: datetime
    machine: str
    attempt: int | None
    starts: int
    holds: int
    hold: Hold | None

    @property
    def duration(self) -> timedelta:
        """How long it has been in this state."""
        return datetime.now(UTC) - self.since

    @property
    def explanation(self) -> Explanation | None:
        """The meaning of its hold, and the remedy; None if it is not held."""
        return explain(self.hold.code, self.hold.reason) if self.hold else None


@dataclass(frozen=True)
class HeldGroup:
    """Jobs that are held for the same reason.

    Attributes:
        code, subcode: HTCondor's numbers of the reason.
        explanation: what they mean here, and what to do.
        jobs: number of jobs.
        example: one of them.
    """

    code: int
    subcode: int
    explanation: Explanation
    jobs: int
    example: Job


def jobs(runs: Collection[Run]) -> list[Job]:
    """Return the jobs of runs by one query of the queue: held ones first, idle last.

    Raises:
        SchedulerError: HTCondor does not answer.
    """
    of_run: dict[str, list[queue.RunJob]] = {}
    for job in queue.jobs_of_runs(str(run.directory) for run in runs if not run.done):
        of_run.setdefault(job.run, []).append(job)
    listed: list[Job] = []
    for run in runs:
        found = of_run.get(str(run.directory), [])
        # One pass over the rows, which may be a million; only those of jobs are kept.
        images = _images(run, {job.node for job in found if job.node})
        listed += (_job(run, job, images.get(job.node, ("", 0))) for job in found)
    return sorted(listed, key=_place)


def held_groups(jobs: Iterable[Job]) -> list[HeldGroup]:
    """Return the jobs that are held by reason, the most frequent reason first."""
    counts: Counter[tuple[int, int, Explanation]] = Counter()
    examples: dict[tuple[int, int, Explanation], Job] = {}
    for job in jobs:
        if job.hold and (explanation := job.explanation):
            reason = (job.hold.code, job.hold.subcode, explanation)
            counts[reason] += 1
            examples.setdefault(reason, job)
    return [
        HeldGroup(*reason, number, examples[reason])
        for reason, number in counts.most_common()
    ]


def _images(run: Run, nodes: Collection[str]) -> dict[str, tuple[str, int]]:
    """Return the first image and the number of images of nodes, by their names."""
    images: dict[str, tuple[str, int]] = {}
    if nodes:
        for row in load_rows_as_last_tried(run):
            if row.reason is None and (node := dag_node_of(row)) in nodes:
                first, number = images.get(node, (row.key, 0))
                images[node] = first, number + 1
    return images


def _job(run: Run, job: queue.RunJob, images: tuple[str, int]) -> Job:
    return Job(
        run=run.directory.name,
        id=job.id,
        node=job.node,
        image=images[0],
        images=images[1],
        state=job.state,
        since=datetime.fromtimestamp(job.since, UTC),
        machine=job.machine,
        attempt=job.attempt,
        starts=job.starts,
        holds=job.holds,
        hold=job.hold,
    )


def _place(job: Job) -> tuple[str, int, datetime, int]:
    cluster = int(job.id.partition(".")[0])
    return job.run, _ORDER.get(job.state, len(_ORDER)), job.since, cluster
