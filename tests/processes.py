"""Find and kill the processes of a pool."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path

from pool.personal import PersonalPool


def descendants(pid: int) -> dict[int, str]:
    """The processes that one started, and those that they did, by their names."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    found: dict[int, str] = {}
    more = {pid}
    while more:
        children = {int(row[0]): row[2] for row in rows if int(row[1]) in more}
        found |= children
        more = set(children)
    return found


def kill(pool: PersonalPool, name: str) -> None:
    master = int(pool.condor.pidfile.read_text())
    matching = [
        pid
        for pid, command in descendants(master).items()
        if Path(command.split()[0]).name.startswith(name)
    ]
    assert matching, f"no {name} runs"
    kill_all(matching)


def kill_all(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_machines(pool: PersonalPool) -> None:
    """Kill what runs nodes, and the nodes: to their shadows the machine vanished."""
    master = int(pool.condor.pidfile.read_text())
    (startd,) = (
        pid
        for pid, command in descendants(master).items()
        if Path(command.split()[0]).name == "condor_startd"
    )
    kill_all(descendants(startd))
