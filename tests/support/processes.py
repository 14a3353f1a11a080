"""Find and kill the processes of a pool."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from pool.personal import PersonalPool


def descendants(pid: int) -> dict[int, str]:
    """Return the names of all descendants of a process, by process id."""
    # Without "ww", it cuts lines at the variable COLUMNS.
    command = ["ps", "-ewwo", "pid=,ppid=,args="]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    found: dict[int, str] = {}
    more = {pid}
    while more:
        children = {int(row[0]): row[2] for row in rows if int(row[1]) in more}
        found |= children
        more = set(children)
    return found


def kill(pool: PersonalPool, *names: str) -> None:
    """Kill the processes of a pool whose names begin with one of these."""
    commands = descendants(int(pool.condor.pidfile.read_text()))
    matching = [
        pid
        for pid, command in commands.items()
        if Path(command.split()[0]).name.startswith(names)
    ]
    assert matching, f"none of {names} is among {[*commands.values()]}"
    kill_all(matching)


def kill_all(pids: Iterable[int]) -> None:
    """Kill all processes in this order, and wait until none of them runs.

    On a busy machine, a killed process is visible for a while, so a check whether the
    pool runs would succeed.
    """
    killed = list(pids)
    for pid in killed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while any(_runs(pid) for pid in killed):
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        # A zombie has no command line.
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill_machines(pool: PersonalPool) -> None:
    """Kill the starters and nodes: for their shadows, the machine vanished."""
    master = int(pool.condor.pidfile.read_text())
    (startd,) = (
        pid
        for pid, command in descendants(master).items()
        if Path(command.split()[0]).name == "condor_startd"
    )
    kill_all(descendants(startd))
