"""CPU seconds and memory of whole processes, with all they start."""

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
class Way:
    """One way to make a COG, and maybe a JPEG, of ``image.tif``.

    Attributes:
        commands: run one after the other, in a folder of their own.
        cog: the name of the COG they leave.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    cog: str = "image.tif"


@dataclass(frozen=True)
class Cost:
    """What a way cost once.

    Attributes:
        cpu: seconds, of all processes together, user's and system's.
        memory: MiB, the largest that one of them had resident.
        cog: bytes of the COG.
        scratch: bytes, the most that lay in the folder but for the image.
        checked: of the CPU seconds, those spent on checking what was made.
    """

    cpu: float
    memory: float
    cog: int
    scratch: int
    checked: float


def reference(bands: int) -> Way:
    """The script that this project replaces: GDAL's programs, LZW, JPEG 80."""
    shown = ("-b", "1", "-b", "2", "-b", "3") if bands >= 3 else ("-b", "1")
    cog = ("gdal_translate", "-q", "-of", "COG", "-co", "COMPRESS=LZW")
    jpeg = ("gdal_translate", "-q", "-of", "JPEG", "-co", "QUALITY=80", *shown)
    return Way(
        "reference",
        (
            (*cog, "image.tif", "cog.tif"),
            (*jpeg, "cog.tif", "image.jpg"),
        ),
        "cog.tif",
    )


def node(bands: int, *options: str, name: str = "cog_pipeline") -> Way:
    return Way(name, ((_NODE, "image.tif", str(bands), *options),))


def rio_cogeo(profile: str) -> Way:
    """rio-cogeo with the profile of that name; it makes no JPEG."""
    program = str(Path(sys.executable).with_name("rio"))
    create = (program, "cogeo", "create", "-q", "-p", profile)
    return Way(
        f"rio-cogeo, {profile}, no JPEG",
        ((*create, "--overview-resampling", "average", "image.tif", "cog.tif"),),
        "cog.tif",
    )


def once(way: Way, image: Path, place: Path) -> Cost:
    with tempfile.TemporaryDirectory(dir=place) as folder:
        shutil.copy(image, Path(folder, "image.tif"))
        environment = os.environ | {"PYTHON": sys.executable}
        environment.pop("OMP_NUM_THREADS", None)
        most = _Most(Path(folder))
        cpu = memory = 0.0
        with most:
            for command in way.commands:
                used = _run(command, folder, environment)
                cpu += used.ru_utime + used.ru_stime
                memory = max(memory, used.ru_maxrss / 1024)
        return Cost(
            cpu,
            memory,
            Path(folder, way.cog).stat().st_size,
            most.bytes - image.stat().st_size,
            _checked(Path(folder, "result.json")),
        )


def median(costs: Sequence[Cost], of: Callable[[Cost], float]) -> float:
    return statistics.median(of(cost) for cost in costs)


def _checked(result: Path) -> float:
    return json.loads(result.read_text())["check_cpu_seconds"] if result.exists() else 0


def _run(
    command: tuple[str, ...], folder: str, environment: dict
) -> resource.struct_rusage:
    """Run a command to its end; returns what it and all it started have used."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return used


class _Most:
    """The most bytes that were in a folder, looked at every tenth of a second."""

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
                    continue  # it came and went
                # What is allocated, not how long a file says it is.
                total += status.st_blocks * 512
            self.bytes = max(self.bytes, total)
