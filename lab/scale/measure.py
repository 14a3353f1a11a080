"""Instruments: what a command used, and what the S3 server was asked meanwhile."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.support.seaweedfs import SeaweedFS

_USAGE = Path(__file__).with_name("usage.py")
_COUNTER = re.compile(
    r'^SeaweedFS_s3_request_total\{.*type="(\w+)"\} ([\d.e+]+)$', re.MULTILINE
)
_IN_FLIGHT = re.compile(r"^SeaweedFS_s3_in_flight_requests\{.*\} (\S+)$", re.MULTILINE)
_HIGHEST = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


class CommandFailed(Exception):
    """A command that is measured failed; the message has what it said."""


@dataclass(frozen=True)
class Cost:
    """What a command cost.

    Attributes:
        seconds: from its start to its end.
        cpu: seconds, user's and system's, with those of all it started.
        memory: MiB, the most that it, or one that it started, had resident.
        requests: what the S3 server answered meanwhile, to anyone, by operation.
            GET stands for HEAD and for a bucket's location as well.
    """

    seconds: float
    cpu: float
    memory: float
    requests: Counter[str]


def cost(command: list[str], directory: Path, server: SeaweedFS) -> Cost:
    """Run a command to its end in a directory.

    Raises:
        CommandFailed: its exit status was not 0.
    """
    with tempfile.TemporaryDirectory() as scratch:
        told, output = Path(scratch, "told"), Path(scratch, "output")
        # What was written before is not to be waited for by the command.
        os.sync()
        before = requests(server)
        subprocess.run(
            [sys.executable, "-I", "-S", _USAGE, told, output, *command],
            cwd=directory,
            env=os.environ,
            check=True,
        )
        answered = requests(server) - before
        used = json.loads(told.read_text())
        if used.pop("status"):
            said = output.read_text(errors="replace")[-4000:]
            raise CommandFailed(f"{' '.join(command)} failed:\n{said}")
    return Cost(requests=answered, **used)


def requests(server: SeaweedFS) -> Counter[str]:
    """How many requests the server has answered by S3, by operation."""
    # Each is counted only after its answer.
    while any(map(float, _IN_FLIGHT.findall(_metrics(server)))):
        time.sleep(0.01)
    counted: Counter[str] = Counter()
    for operation, count in _COUNTER.findall(_metrics(server)):
        counted[operation] += int(float(count))
    return counted


def _metrics(server: SeaweedFS) -> str:
    url = f"http://127.0.0.1:{server.ports['metricsPort']}/metrics"
    with urllib.request.urlopen(url) as answer:
        return answer.read().decode()


def most_memory(pid: int) -> float:
    """The most that a process has had resident so far, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(_HIGHEST.search(status)[1]) / 1024
