"""Measure CPU time, memory and disk of processes and of all that they start."""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from state.project import PROJECT

_NODE = str(PROJECT / "bin" / "generate_cogs.sh")


@dataclass(frozen=True)
class Method:
    """A method to make a COG, and maybe a JPEG, of ``image.tif``.

    Attributes:
        commands: commands that run one after the other in a folder of their own.
        cog: file name of the COG that they make.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    cog: str = "image.tif"


@dataclass(frozen=True)
class Cost:
    """The cost of one run of a method.

    Attributes:
        cpu: CPU time of all processes together, user and system, in seconds.
        memory: largest resident memory of a process, in MiB.
        cog: size of the COG, in bytes.
        scratch: largest size of all files in the folder except the image, in bytes.
        checked: the part of ``cpu`` that the check of the COG took, in seconds.
    """

    cpu: float
    memory: float
    cog: int
    scratch: int
    checked: float


def reference(bands: int) -> Method:
    """Return the commands that this project replaces: GDAL with LZW and JPEG 80."""
    jpeg_bands = ("-b", "1", "-b", "2", "-b", "3") if bands >= 3 else ("-b", "1")
    cog = ("gdal_translate", "-q", "-of", "COG", "-co", "COMPRESS=LZW")
    jpeg = ("gdal_translate", "-q", "-of", "JPEG", "-co", "QUALITY=80", *jpeg_bands)
    return Method(
        "reference",
        (
            (*cog, "image.tif", "cog.tif"),
            (*jpeg, "cog.tif", "image.jpg"),
        ),
        "cog.tif",
    )


def node(bands: int, *options: str, name: str = "cog_pipeline") -> Method:
    """Return the command of this project."""
    return Method(name, ((_NODE, "image.tif", str(bands), *options),))


def rio_cogeo(profile: str) -> Method:
    """Return the command of rio-cogeo, which makes no JPEG, with a profile."""
    program = str(Path(sys.executable).with_name("rio"))
    create = (program, "cogeo", "create", "-q", "-p", profile)
    return Method(
        f"rio-cogeo, {profile}, no JPEG",
        ((*create, "--overview-resampling", "average", "image.tif", "cog.tif"),),
        "cog.tif",
    )


def once(method: Method, image: Path, place: Path) -> Cost:
    """Run a method once on a copy of ``image`` in a new folder in ``place``.

    Raises:
        subprocess.CalledProcessError: a command failed.
    """
    with tempfile.TemporaryDirectory(dir=place) as folder:
        shutil.copy(image, Path(folder, "image.tif"))
        environment = os.environ | {"PYTHON": sys.executable}
        environment.pop("OMP_NUM_THREADS", None)
        disk = _PeakDisk(Path(folder))
        cpu = memory = 0.0
        with disk:
            for command in method.commands:
                usage = _run(command, folder, environment)
                cpu += usage.ru_utime + usage.ru_stime
                memory = max(memory, usage.ru_maxrss / 1024)
        return Cost(
            cpu,
            memory,
            Path(folder, method.cog).stat().st_size,
            disk.bytes - image.stat().st_size,
            _check_seconds(Path(folder, "result.json")),
        )


def median(costs: Sequence[Cost], of: Callable[[Cost], float]) -> float:
    """Return the median of one figure of several costs."""
    return statistics.median(of(cost) for cost in costs)


def _check_seconds(result: Path) -> float:
    """Return the CPU time of the check, which the node's result has."""
    return json.loads(result.read_text())["check_cpu_seconds"] if result.exists() else 0


def _run(
    command: tuple[str, ...], folder: str, environment: dict[str, str]
) -> resource.struct_rusage:
    """Run a command to its end, and return its usage and that of all it started."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return usage


class _PeakDisk:
    """The largest size of a folder, in bytes, sampled every 0.1 s."""

    def __init__(self, folder: Path) -> None:
        self.bytes = 0
        self._folder = folder
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            total = 0
            for file in self._folder.rglob("*"):
                try:
                    status = file.stat()
                except FileNotFoundError:
                    continue  # the file was removed meanwhile
                # The allocated size; the length of a sparse file is larger.
                total += status.st_blocks * 512
            self.bytes = max(self.bytes, total)
