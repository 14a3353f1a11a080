"""A clock that a test can set, for chosen processes only (libfaketime)."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

# With libfaketime 0.9.10, sleeping by the clock that is not faked is an error.
_SLEEP = """\
import threading
import time

time.sleep = lambda seconds: threading.Event().wait(seconds)
"""


@dataclass(frozen=True)
class Clock:
    """The time that processes with ``environment`` see.

    Attributes:
        preloaded: shared library of libfaketime.
        file: file with the offset of the clock.
    """

    preloaded: Path
    file: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self.preloaded),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            # Timeouts follow the time that passes, not the time of day.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": str(self.file.parent),
        }

    def turn(self, offset: str) -> None:
        """Set the offset, for example ``-1h``; ``+0`` is the true time."""
        scratch = self.file.with_suffix(".new")
        scratch.write_text(f"{offset}\n")
        scratch.replace(self.file)


def make(directory: Path) -> Clock:
    """Return a clock that is right, after fetching libfaketime into ``directory``."""
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
