"""A clock that a test can turn, for some processes alone (libfaketime)."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

# With libfaketime 0.9.10, to sleep by the clock that is not faked is an error.
_SLEEP = """\
import threading
import time

time.sleep = lambda seconds: threading.Event().wait(seconds)
"""


@dataclass(frozen=True)
class Clock:
    """What the processes that have ``environment`` take for the time.

    Attributes:
        preloaded: libfaketime's shared library.
        file: holds how far the clock is off.
    """

    preloaded: Path
    file: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self.preloaded),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            # Waiting goes by how much time passes, whatever the time is.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": str(self.file.parent),
        }

    def turn(self, offset: str) -> None:
        """Turn it, e.g. by ``-1h``; ``+0`` is the true time."""
        scratch = self.file.with_suffix(".new")
        scratch.write_text(f"{offset}\n")
        scratch.replace(self.file)


def make(directory: Path) -> Clock:
    """A clock that is right yet; fetches Debian's libfaketime into ``directory``."""
    if shutil.which("apt-get") is None:
        pytest.skip("libfaketime is fetched with apt-get, which is not here")
    lists = directory / "lists"
    (lists / "partial").mkdir(parents=True)
    options = [
        *("-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={directory}"),
        *("-o", "APT::Sandbox::User=", "-o", "Debug::NoLocking=true"),
    ]
    for command in ("update", "download"):
        package = ["libfaketime"] if command == "download" else []
        subprocess.run(
            ["apt-get", "-q", *options, command, *package],
            cwd=directory,
            capture_output=True,
            check=True,
        )
    (package,) = directory.glob("libfaketime_*.deb")
    subprocess.run(["dpkg", "-x", package.name, "."], cwd=directory, check=True)
    (preloaded,) = directory.glob("usr/lib/*/faketime/libfaketime.so.1")
    (directory / "sitecustomize.py").write_text(_SLEEP)
    clock = Clock(preloaded, directory / "offset")
    clock.turn("+0")
    return clock
