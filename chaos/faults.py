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

from pool import personal, s3
from pool.personal import PersonalPool
from tests.conftest import PROJECT
from tests.faulty_s3 import Fault, FaultyS3
from tests.processes import descendants, kill_all, kill_machines
from tests.test_killed import STEPS_OF_POLL, STEPS_OF_RECONCILE


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


def _kill_one(name: str) -> Callable[[Target], None]:
    def throw(target: Target) -> None:
        found = [
            pid
            for pid, command in descendants(_master(target.pool)).items()
            if name in command.split()[0].rsplit("/", 1)[-1]
        ]
        if not found:
            raise NothingToHit
        kill_all([random.choice(found)])

    return throw


def _kill_a_node(target: Target) -> None:
    found = [
        pid
        for pid, command in descendants(_master(target.pool)).items()
        if "from node.__main__ import run" in command
    ]
    if not found:
        raise NothingToHit
    kill_all([random.choice(found)])


def _machines_vanish(target: Target) -> None:
    kill_machines(target.pool)


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
    (file,) = launch.glob("pipeline-*/pipeline.json")
    _run_killed(random.choice(STEPS_OF_POLL), "poll", file, launch)


def _kill_a_reconcile(target: Target) -> None:
    live = [
        file.parent
        for launch in target.launches
        for file in launch.glob("workflow-run-*/convert.dag.dagman.out")
        if not (file.parent / "done.json").exists()
    ]
    if not live:
        raise NothingToHit
    run = random.choice(live)
    # By hand, in the middle of a run, it would end it: only when DAGMan has gone.
    in_queue = subprocess.run(
        ["condor_q", "-constraint", f'CogPipelineRun == "{run}"', "-af", "ClusterId"],
        capture_output=True,
        text=True,
    )
    if in_queue.returncode != 0 or in_queue.stdout.strip():
        raise NothingToHit
    _run_killed(random.choice(STEPS_OF_RECONCILE), "reconcile", run, run)


def _run_killed(step: str, command: str, argument: Path, notes: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "tests.killed", step, command, str(argument)],
        cwd=PROJECT,
        env=os.environ | {"KILLED_NOTES": str(notes / "notes")},
        capture_output=True,
        timeout=300,
    )


def _stop_for_a_while(target: Target) -> None:
    """A poll or reconcile that hangs, as on a file server that does not answer."""
    found = [
        pid
        for pid, command in descendants(_master(target.pool)).items()
        if "cog_pipeline.py" in command
    ]
    if not found:
        raise NothingToHit
    with _stopped(random.choice(found)):
        time.sleep(_some_seconds())


@contextmanager
def _stopped(pid: int):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


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
    "a node killed": _kill_a_node,
    "the machines vanish": _machines_vanish,
    "a starter killed": _kill_one("condor_starter"),
    "a shadow killed": _kill_one("condor_shadow"),
    "the startd killed": _kill_one("condor_startd"),
    "the schedd killed": _kill_one("condor_schedd"),
    "the collector killed": _kill_one("condor_collector"),
    "DAGMan killed": _kill_one("condor_scheduniv_exec"),
    "the whole pool killed and started": _power_cut,
    "a DAG removed by hand": _remove_a_dag,
    "a poll killed after a step": _kill_a_poll,
    "a reconcile killed after a step": _kill_a_reconcile,
    "a poll or reconcile hangs": _stop_for_a_while,
}
