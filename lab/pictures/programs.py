"""Start the programs that pictures need, and say which ones are missing."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pool.distribution import program_of_environment

# What Debian's packages install, and the project does not need otherwise.
_NEEDED = {
    "qgis": "qgis",
    "chromium": "chromium",
    "npm": "npm",
    "xvfb-run": "xvfb xauth",
}
_READY_SECONDS = 120


class PictureError(Exception):
    """A picture cannot be made; the message says what to do."""


def check_installed() -> None:
    """Raise PictureError if a program is missing."""
    missing = [package for name, package in _NEEDED.items() if not shutil.which(name)]
    if missing:
        raise PictureError(
            "the pictures need programs that are not installed: run "
            f"'apt-get install {' '.join(missing)}'"
        )


def run(
    command: list[str],
    folder: Path,
    environment: Mapping[str, str] | None = None,
    seconds: float = 1200,
) -> str:
    """Run a program in a folder, and return what it writes to both outputs.

    Raises:
        PictureError: it failed, or took too long.
    """
    try:
        done = ended(command, folder, environment, seconds)
    except subprocess.TimeoutExpired as error:
        raise PictureError(f"{command[0]} did not end in {seconds:.0f} s") from error
    if done.returncode:
        raise PictureError(f"{' '.join(command)} failed:\n{done.stdout}")
    return done.stdout


def ended(
    command: list[str],
    folder: Path,
    environment: Mapping[str, str] | None,
    seconds: float | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run a program in a folder, whatever its exit status; both outputs are one.

    Raises:
        subprocess.TimeoutExpired: it took too long.
    """
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
    )


@contextmanager
def running(
    command: list[str], port: int, environment: Mapping[str, str]
) -> Iterator[None]:
    """Run a server of 127.0.0.1 during a ``with`` block, from when it listens on."""
    server = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + _READY_SECONDS
        while not _listens(port):
            if server.poll() is not None or time.monotonic() > deadline:
                raise PictureError(f"'{' '.join(command)}' did not start")
            time.sleep(0.2)
        yield
    finally:
        server.terminate()
        server.wait()


@contextmanager
def served_over_http(
    source: str, port: int, environment: Mapping[str, str]
) -> Iterator[str]:
    """Let everybody, and pages of all origins, read what rclone calls ``source``.

    Yields:
        The address.
    """
    address = f"127.0.0.1:{port}"
    command = [
        str(program_of_environment("rclone")),
        *("serve", "http", source, "--read-only", "--addr", address),
        *("--allow-origin", "*"),
    ]
    with running(command, port, environment):
        yield f"http://{address}"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
