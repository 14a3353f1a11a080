"""Start a daemon, find it again by its PID file, and stop it."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from pool.errors import PoolError

_EXEC_ATTEMPTS = 100
# https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
_ENDED = ("Z", "X")


def start(
    command: list[str], environment: dict[str, str], log: Path, pidfile: Path
) -> subprocess.Popen[bytes]:
    """Start ``command`` in its own session, so that Ctrl-C does not reach it.

    Returns:
        The process. Ask it, and not ``alive``, whether it ended early: the daemon may
        write its PID file itself, which is empty for a moment then.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        pidfile.write_text(str(child.pid))
    except BaseException:
        child.kill()
        raise
    return child


def alive(pidfile: Path, mark: str) -> bool:
    """Return whether the daemon of ``pidfile`` runs; see ``stop`` for ``mark``."""
    return _find(pidfile, mark) is not None


def stop(pidfile: Path, mark: str, stop_signal: signal.Signals, seconds: float) -> None:
    """Send a signal to the daemon of ``pidfile`` and wait until it has ended.

    Args:
        mark: an argument of the daemon's command line, which distinguishes it from
            a later process with the same PID.

    Raises:
        PoolError: the daemon still runs after ``seconds``.
    """
    pid = _find(pidfile, mark)
    if pid is None:
        pidfile.unlink(missing_ok=True)
        return
    os.kill(pid, stop_signal)
    deadline = time.monotonic() + seconds
    while _find(pidfile, mark) is not None:
        if time.monotonic() > deadline:
            raise PoolError(f"process {pid} did not end after {seconds:.0f} s.")
        time.sleep(0.1)
    pidfile.unlink(missing_ok=True)


def _find(pidfile: Path, mark: str) -> int | None:
    """Return the PID of the daemon, if it runs."""
    try:
        text = pidfile.read_text().strip()
    except FileNotFoundError:
        # A daemon that ends may remove it at any moment.
        return None
    if not text.isdigit():
        return None
    pid = int(text)
    # A child of this process stays as a zombie until it is waited for. If another
    # process started the daemon, it is no child of this one.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return pid if os.fsencode(mark) in _command_line(pid).split(b"\0") else None


def _command_line(pid: int) -> bytes:
    """Return the command line of a process, empty if the process has ended.

    A zombie has ended.
    """
    try:
        for _ in range(_EXEC_ATTEMPTS):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if line or state in _ENDED:
                return line
            # For a moment after exec, the kernel shows no command line.
            time.sleep(0.01)
    except (FileNotFoundError, ProcessLookupError):
        pass
    return b""
