"""What HTCondor and transfers take of a node beyond its conversion.

    python -m scale.overhead [NODES]

Two DAGs of as many nodes run one after the other on the same personal pool: a
manifest's, of small images, and a bare one of ``/bin/true``. Compared are the CPU
seconds of all processes of the pool, since those of a clock are the machine's. What
the conversions take is measured by hand and taken off.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from bucket import Bucket, Store
from dag import run as runs, schedd
from pool import personal
from pool.personal import PersonalPool
from scale import page as pages
from tests import rasters

_PROJECT = Path(__file__).resolve().parent.parent
_PATIENCE_SECONDS = 3600
_BY_HAND = 11
# For the daemons to be done with what has left the queue.
_CALM_SECONDS = 3
BOUND = 1.3

_BARE = """\
SUBMIT-DESCRIPTION bare {
    executable = /bin/true
    should_transfer_files = YES
    request_memory = 1024
    request_disk = 1024
}
"""


@dataclass(frozen=True)
class Overhead:
    """CPU seconds a node.

    Attributes:
        bare: of a node that does nothing.
        node: of one of ours, its conversion included.
        conversion: of that alone, by hand.
        seconds: that the manifest took, by the clock; bare_seconds likewise.
    """

    nodes: int
    bare: float
    node: float
    conversion: float
    seconds: float
    bare_seconds: float

    @property
    def ratio(self) -> float:
        return (self.node - self.conversion) / self.bare


def main(nodes: int) -> int:
    page = _PROJECT / "docs" / "scale.md"
    with (
        tempfile.TemporaryDirectory(dir=_PROJECT, prefix=".scale-") as folder,
        personal.running_pool(Path(folder, "pool"), print) as pool,
    ):
        os.environ.update(pool.condor.environment)
        # The bindings were imported before there was a pool.
        schedd.htcondor2.reload_config()
        measured = measure(pool, Path(folder, "archive"), nodes)
    text = _text(measured)
    page.write_text(pages.insert(page.read_text(), "overhead", text))
    print(text)
    return 0 if measured.ratio <= BOUND else 1


def _text(measured: Overhead) -> str:
    lines = pages.table(
        (f"{measured.nodes} nodes", "CPU s a node", "s a node, by the clock"),
        (
            ("of `/bin/true`", f"{measured.bare:.3f}", f"{measured.bare_seconds:.2f}"),
            ("of a manifest", f"{measured.node:.3f}", f"{measured.seconds:.2f}"),
            ("its conversion, by hand", f"{measured.conversion:.3f}", ""),
            ("so beyond it", f"{measured.node - measured.conversion:.3f}", ""),
            (
                "times that of `/bin/true`",
                f"{measured.ratio:.2f}, at most {BOUND}: "
                + ("met" if measured.ratio <= BOUND else "**not met**"),
                "",
            ),
        ),
    )
    return "\n".join([*lines, "", *pages.machine()]) + "\n"


def measure(pool: PersonalPool, place: Path, nodes: int) -> Overhead:
    """Run both DAGs, the bare one before and after; the pool has no other jobs."""
    place.mkdir(mode=0o777)
    image = place / "image.tif"
    rasters.write(image, 1, width=64, height=64)
    conversion = statistics.median(_by_hand(image, place) for _ in range(_BY_HAND))
    before = _bare(pool, place / "before", nodes)
    ours = _manifest(pool, place, image, nodes)
    after = _bare(pool, place / "after", nodes)
    return Overhead(
        nodes,
        bare=(before.cpu + after.cpu) / 2 / nodes,
        node=ours.cpu / nodes,
        conversion=conversion,
        seconds=ours.seconds / nodes,
        bare_seconds=(before.seconds + after.seconds) / 2 / nodes,
    )


@dataclass(frozen=True)
class _Used:
    cpu: float
    seconds: float


def _used(pool: PersonalPool, work: Callable[[], None]) -> _Used:
    """What the pool used for some work, and how long that took."""
    cpu, began = _cpu(pool), time.monotonic()
    work()
    seconds = time.monotonic() - began
    time.sleep(_CALM_SECONDS)
    return _Used(_cpu(pool) - cpu, seconds)


def _cpu(pool: PersonalPool) -> float:
    """CPU seconds of the pool's processes, and of those that have ended."""
    master = psutil.Process(int(pool.condor.pidfile.read_text()))
    all_of_it = (master, *master.children(recursive=True))
    return sum(sum(process.cpu_times()[:4]) for process in all_of_it)


def _by_hand(image: Path, place: Path) -> float:
    """CPU seconds of one conversion, as HTCondor starts it."""
    script = _PROJECT / "bin" / "generate_cogs.sh"
    with tempfile.TemporaryDirectory(dir=place) as sandbox:
        shutil.copy(image, sandbox)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [str(script), image.name, "1"],
            cwd=sandbox,
            env=os.environ | {"PYTHON": sys.executable},
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _bare(pool: PersonalPool, place: Path, nodes: int) -> _Used:
    place.mkdir()
    jobs = "".join(f"JOB node{number} bare\n" for number in range(nodes))
    file = place / "bare.dag"
    file.write_text(_BARE + jobs)
    schedd.submit_dag(file, {"Bare": str(place)}, nodes)
    return _used(pool, lambda: _wait_for(lambda: not schedd.find("Bare", str(place))))


def _manifest(pool: PersonalPool, place: Path, image: Path, nodes: int) -> _Used:
    s3 = pool.s3
    store = Store(s3.endpoint, s3.access_key, s3.secret_key, ca_certs=s3.ca_certs)
    maps, cogs = (Bucket(store, f"overhead-{name}") for name in ("maps", "cogs"))
    maps.create()
    cogs.create()
    keys = [f"maps/{number:06}.tif" for number in range(nodes)]
    for key in keys:
        maps.upload(key, image)
    maps.write("batch-raw.csv", "".join(f"{key},1\n" for key in keys).encode())
    subprocess.run(
        [
            *(sys.executable, str(_PROJECT / "cog_pipeline.py")),
            *("-a", str(store.access_key), "-s", str(store.secret_key)),
            *("-e", store.endpoint, "--ca-certs", str(store.ca_certs)),
            *("--input-bucket", maps.name, "--output-bucket", cogs.name),
            *("--every", "1440"),
        ],
        cwd=place,
        check=True,
        capture_output=True,
    )
    (directory,) = place.glob("workflow-run-*")
    run = runs.load(directory)
    return _used(pool, lambda: _wait_for(lambda: run.done))


def _wait_for(until: Callable[[], object]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not until():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no end within {_PATIENCE_SECONDS} s")
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 200))
