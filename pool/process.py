"""Start a daemon, find it again by its pid file, stop it."""

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
) -> None:
    """Start ``command`` in a session of its own, so that Ctrl-C passes it by."""
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


def alive(pidfile: Path, mark: str) -> bool:
    return _find(pidfile, mark) is not None


def stop(pidfile: Path, mark: str, how: signal.Signals, seconds: float) -> None:
    """Send ``how`` to the daemon of ``pidfile`` and wait for its end.

    Args:
        mark: an argument of the daemon's command line, which tells it from
            another process that has been given its number since.

    Raises:
        PoolError: it is still there after ``seconds``.
    """
    pid = _find(pidfile, mark)
    if pid is None:
        pidfile.unlink(missing_ok=True)
        return
    os.kill(pid, how)
    deadline = time.monotonic() + seconds
    while _find(pidfile, mark) is not None:
        if time.monotonic() > deadline:
            raise PoolError(f"process {pid} did not end after {seconds:.0f} s.")
        time.sleep(0.1)
    pidfile.unlink(missing_ok=True)


def _find(pidfile: Path, mark: str) -> int | None:
    if not pidfile.exists():
        return None
    text = pidfile.read_text().strip()
    if not text.isdigit():
        return None
    pid = int(text)
    # A child of ours stays as a zombie until it is waited for; after a restart
    # of ours it is somebody else's.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return pid if os.fsencode(mark) in _command_line(pid).split(b"\0") else None


def _command_line(pid: int) -> bytes:
    """Empty for a process that has ended, whether or not it was waited for."""
    try:
        for _ in range(_EXEC_ATTEMPTS):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if line or state in _ENDED:
                return line
            # The kernel shows none for a moment after exec.
            time.sleep(0.01)
    except (FileNotFoundError, ProcessLookupError):
        pass
    return b""
