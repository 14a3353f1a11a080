"""Measure time and memory of a command, and the S3 requests meanwhile."""

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
_PEAK_MEMORY = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


class CommandFailed(Exception):
    """A measured command failed; the message has its output."""


@dataclass(frozen=True)
class Cost:
    """The cost of a command.

    Attributes:
        seconds: time from its start to its end.
        cpu: CPU time of all its processes, user and system, in seconds.
        memory: largest resident memory of one of its processes, in MiB.
        requests: number of requests of all clients that the S3 server answered
            meanwhile, by operation. GET includes HEAD and requests for a bucket's
            location.
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
        usage_file, output = Path(scratch, "usage"), Path(scratch, "output")
        # Otherwise the command could have to wait for earlier writes.
        os.sync()
        before = requests(server)
        subprocess.run(
            [sys.executable, "-I", "-S", _USAGE, usage_file, output, *command],
            cwd=directory,
            env=os.environ,
            check=True,
        )
        answered = requests(server) - before
        usage = json.loads(usage_file.read_text())
        if usage.pop("status"):
            tail = output.read_text(errors="replace")[-4000:]
            raise CommandFailed(f"{' '.join(command)} failed:\n{tail}")
    return Cost(requests=answered, **usage)


def requests(server: SeaweedFS) -> Counter[str]:
    """Return the number of S3 requests that the server has answered, by operation."""
    # The server counts a request only after it has answered.
    while any(map(float, _IN_FLIGHT.findall(_metrics(server)))):
        time.sleep(0.01)
    counts: Counter[str] = Counter()
    for operation, count in _COUNTER.findall(_metrics(server)):
        counts[operation] += int(float(count))
    return counts


def _metrics(server: SeaweedFS) -> str:
    url = f"http://127.0.0.1:{server.ports['metricsPort']}/metrics"
    with urllib.request.urlopen(url) as response:
        return response.read().decode()


def peak_memory(pid: int) -> float:
    """Return the largest resident memory that a process has had so far, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    (kilobytes,) = _PEAK_MEMORY.findall(status)
    return int(kilobytes) / 1024
