"""Start a daemon, find it again by its pid file, stop it."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from pool.errors import PoolError


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
        # The kernel shows an empty command line for a moment after exec.
        command_line = Path(f"/proc/{child.pid}/cmdline")
        while child.poll() is None and not command_line.read_bytes():
            time.sleep(0.01)
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
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return pid if os.fsencode(mark) in arguments else None
