"""The faults: each one harms a pool, an S3 server or a run for a while, then ends."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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

# How long to wait for a process that does not run all the time.
_PATIENCE_SECONDS = 20


@dataclass(frozen=True)
class Target:
    """The target of the faults.

    Attributes:
        proxy: proxy in front of the pool's S3 server.
        launches: directories in which the pipeline was launched.
    """

    pool: PersonalPool
    proxy: FaultyS3
    launches: tuple[Path, ...]


class NoTarget(Exception):
    """There is nothing at the moment that the fault could harm."""


def _random_seconds() -> float:
    return random.uniform(3, 20)


def _s3_faults(*faults: Fault) -> Callable[[Target], None]:
    """Return a function that makes S3 requests fail for a while."""

    def inject(target: Target) -> None:
        with target.proxy.suffering(*faults):
            time.sleep(_random_seconds())

    return inject


def _kill(words: str) -> Callable[[Target], None]:
    """Return a function that kills a process with these words in its command line."""

    def inject(target: Target) -> None:
        pid = _wait_for_process(target, words)
        # Otherwise the process would always be killed at its start.
        time.sleep(random.uniform(0, 0.5))
        kill_all([pid])

    return inject


def _wait_for_process(target: Target, words: str) -> int:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if pids := _processes(target, words):
            return random.choice(pids)
        time.sleep(0.1)
    raise NoTarget


def _processes(target: Target, words: str) -> list[int]:
    """Return the PIDs of the pool's processes with words in their command line."""
    commands = descendants(_master(target.pool)).items()
    return [pid for pid, command in commands if words in command]


def _machines_vanish(target: Target) -> None:
    _wait_for_process(target, "condor_startd")
    kill_machines(target.pool)


def _kill_shared_jobs(target: Target) -> None:
    """Kill each job with several rows for 30 s.

    In this time, some of the jobs use up all their attempts. Then each of their rows
    gets a job of its own.
    """
    _wait_for_process(target, NEXT)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        kill_all(_processes(target, NEXT))
        time.sleep(0.2)


def _power_cut(target: Target) -> None:
    """Kill all of HTCondor at once, and start it again."""
    master = _master(target.pool)
    kill_all([master, *descendants(master)])
    time.sleep(random.uniform(0, 5))
    personal.start(target.pool.condor.directory.parent, lambda _: None)


def _store_restarts(target: Target) -> None:
    s3.stop(target.pool.s3)
    time.sleep(random.uniform(0, 10))
    s3.start(target.pool.s3)


def _remove_a_dag(target: Target) -> None:
    result = subprocess.run(
        ["condor_q", "-constraint", "CogPipelineRun =!= undefined", "-af", "ClusterId"],
        capture_output=True,
        text=True,
    )
    clusters = result.stdout.split()
    if not clusters:
        raise NoTarget
    cluster = random.choice(clusters)
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


def _suspend_for_a_while(target: Target) -> None:
    """Make a poll or reconcile hang, as on a file server that does not answer."""
    with _suspended(_wait_for_process(target, "cog_pipeline.py")):
        time.sleep(_random_seconds())


@contextmanager
def _suspended(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _hostile_node(target: Target) -> None:
    """Run jobs that leave files for the access point to run or to read."""
    with hostile_jobs(target.pool, _folder_of_hostile_jobs(target)) as hostile:
        before = hostile.count
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while hostile.count == before:
            if time.monotonic() > deadline:
                raise NoTarget
            time.sleep(0.1)
        time.sleep(_random_seconds())


def hostile_node_breaches(target: Target) -> list[str]:
    """Return a sentence for each success of a hostile node; there should be none."""
    files = [path for launch in target.launches for path in planted_in(launch)]
    breaches = [f"a hostile node's file is in {path}" for path in files]
    if HostileJobs(_folder_of_hostile_jobs(target)).proof.exists():
        breaches.append("a hostile node's file was run")
    return breaches


def _folder_of_hostile_jobs(target: Target) -> Path:
    return target.pool.condor.directory.parent / "hostile"


def _master(pool: PersonalPool) -> int:
    return int(pool.condor.pidfile.read_text())


FAULTS: dict[str, Callable[[Target], None]] = {
    "S3: 500 and 503 now and then": _s3_faults(
        Fault(status=500, probability=0.2), Fault(status=503, probability=0.2)
    ),
    "S3: down": _s3_faults(Fault(cut_after=0)),
    "S3: 10 kB/s": _s3_faults(Fault(bytes_per_second=10_000)),
    "S3: connections dropped in a body": _s3_faults(
        Fault(cut_after=5000, probability=0.4)
    ),
    "S3: request done, response lost": _s3_faults(
        Fault("PUT|DELETE", answer_lost=True, probability=0.5)
    ),
    "S3: keys refused": _s3_faults(Fault(status=403)),
    "S3: the server stopped and started": _store_restarts,
    "a node killed": _kill("from node.__main__ import run"),
    "the machines vanish": _machines_vanish,
    "jobs with several rows killed": _kill_shared_jobs,
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
    "a poll or reconcile hangs": _suspend_for_a_while,
    "a hostile node": _hostile_node,
}
