"""What can go wrong: each fault is thrown at a pool, a store or a run, and ends."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from node.options import NEXT
from pool import personal, s3
from pool.personal import PersonalPool
from state.project import PROJECT
from tests.support.faulty_s3 import Fault, FaultyS3
from tests.support.hostile_node import HostileJobs, hostile_jobs, planted_in
from tests.support.processes import descendants, kill_all, kill_machines
from tests.support.steps import STEPS_OF_POLL

# How long to wait for what does not run all the time.
_PATIENCE_SECONDS = 20


@dataclass(frozen=True)
class Target:
    """What faults are thrown at.

    Attributes:
        launches: the directories that the pipeline was launched in.
    """

    pool: PersonalPool
    proxy: FaultyS3
    launches: tuple[Path, ...]


class NothingToHit(Exception):
    """The fault wants something that is not there just now."""


def _some_seconds() -> float:
    return random.uniform(3, 20)


def _suffer(*faults: Fault) -> Callable[[Target], None]:
    def throw(target: Target) -> None:
        with target.proxy.suffering(*faults):
            time.sleep(_some_seconds())

    return throw


def _kill(words: str) -> Callable[[Target], None]:
    """Kill a process of the pool, once there is one that has these words."""

    def throw(target: Target) -> None:
        pid = _wait_for_process(target, words)
        # Not always at its beginning.
        time.sleep(random.uniform(0, 0.5))
        kill_all([pid])

    return throw


def _wait_for_process(target: Target, words: str) -> int:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if found := _running(target, words):
            return random.choice(found)
        time.sleep(0.1)
    raise NothingToHit


def _running(target: Target, words: str) -> list[int]:
    running = descendants(_master(target.pool)).items()
    return [pid for pid, command in running if words in command]


def _machines_vanish(target: Target) -> None:
    _wait_for_process(target, "condor_startd")
    kill_machines(target.pool)


def _no_shared_job_survives(target: Target) -> None:
    """Long enough for all tries of some: then each of their rows gets its own job."""
    _wait_for_process(target, NEXT)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        kill_all(_running(target, NEXT))
        time.sleep(0.2)


def _power_cut(target: Target) -> None:
    """All of HTCondor at once, and back."""
    master = _master(target.pool)
    kill_all([master, *descendants(master)])
    time.sleep(random.uniform(0, 5))
    personal.start(target.pool.condor.directory.parent, lambda _: None)


def _store_restarts(target: Target) -> None:
    s3.stop(target.pool.s3)
    time.sleep(random.uniform(0, 10))
    s3.start(target.pool.s3)


def _remove_a_dag(target: Target) -> None:
    listed = subprocess.run(
        ["condor_q", "-constraint", "CogPipelineRun =!= undefined", "-af", "ClusterId"],
        capture_output=True,
        text=True,
    )
    if not listed.stdout.split():
        raise NothingToHit
    cluster = random.choice(listed.stdout.split())
    subprocess.run(["condor_rm", cluster], capture_output=True)


def _kill_a_poll(target: Target) -> None:
    launch = random.choice(target.launches)
    (file,) = launch.glob("launch-*/launch.json")
    step = random.choice(STEPS_OF_POLL)
    subprocess.run(
        [sys.executable, "-m", "tests.support.killed", step, "poll", str(file)],
        cwd=PROJECT,
        env=os.environ | {"KILLED_NOTES": str(launch / "notes")},
        capture_output=True,
        timeout=300,
    )


def _stop_for_a_while(target: Target) -> None:
    """A poll or reconcile that hangs, as on a file server that does not answer."""
    with _stopped(_wait_for_process(target, "cog_pipeline.py")):
        time.sleep(_some_seconds())


@contextmanager
def _stopped(pid: int):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _hostile_node(target: Target) -> None:
    """Jobs that leave files for the access point to run or to read."""
    with hostile_jobs(target.pool, _folder_of_hostile_jobs(target)) as hostile:
        before = hostile.count
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while hostile.count == before:
            if time.monotonic() > deadline:
                raise NothingToHit
            time.sleep(0.1)
        time.sleep(_some_seconds())


def came_through(target: Target) -> list[str]:
    """What hostile nodes have achieved: nothing, it should be."""
    planted = [path for launch in target.launches for path in planted_in(launch)]
    breaches = [f"a hostile node's file lies in {path}" for path in planted]
    if HostileJobs(_folder_of_hostile_jobs(target)).proof.exists():
        breaches.append("a hostile node's file was run")
    return breaches


def _folder_of_hostile_jobs(target: Target) -> Path:
    return target.pool.condor.directory.parent / "hostile"


def _master(pool: PersonalPool) -> int:
    return int(pool.condor.pidfile.read_text())


FAULTS: dict[str, Callable[[Target], None]] = {
    "S3: 500 and 503 now and then": _suffer(
        Fault(status=500, probability=0.2), Fault(status=503, probability=0.2)
    ),
    "S3: down": _suffer(Fault(cut_after=0)),
    "S3: 10 kB/s": _suffer(Fault(bytes_per_second=10_000)),
    "S3: connections dropped in a body": _suffer(
        Fault(cut_after=5000, probability=0.4)
    ),
    "S3: done, and the answer lost": _suffer(
        Fault("PUT|DELETE", answer_lost=True, probability=0.5)
    ),
    "S3: keys refused": _suffer(Fault(status=403)),
    "S3: the server stopped and started": _store_restarts,
    "a node killed": _kill("from node.__main__ import run"),
    "the machines vanish": _machines_vanish,
    "jobs that rows share killed": _no_shared_job_survives,
    "a starter killed": _kill("condor_starter"),
    "a shadow killed": _kill("condor_shadow"),
    "the startd killed": _kill("condor_startd"),
    "the schedd killed": _kill("condor_schedd"),
    "the collector killed": _kill("condor_collector"),
    "DAGMan killed": _kill("condor_scheduniv_exec"),
    "the whole pool killed and started": _power_cut,
    "a DAG removed by hand": _remove_a_dag,
    "a poll killed after a step": _kill_a_poll,
    "a poll killed": _kill("cog_pipeline.py poll"),
    "a reconcile killed": _kill("cog_pipeline.py reconcile"),
    "a poll or reconcile hangs": _stop_for_a_while,
    "a hostile node": _hostile_node,
}
