"""Measure how a large run and a later, small one share a pool: ``make sharing``.

On the personal pool, a small manifest follows a large one as soon as the large one's
first node runs. This is measured with all nodes of a run in the queue, and with few of
them and each ``--run-order``.
"""

import os
import sys
from dataclasses import astuple, dataclass
from datetime import datetime
from pathlib import Path

from lab.scale import page as pages, small
from lab.support.markdown import insert, table
from state.project import PROJECT
from state.run import Run
from tests.support.archive import Archive

_LARGE, _SMALL = 150, 30
_FEW = ("--max-idle", "10")
# DAGMan counts the idle jobs once per interval, so it must not submit many in one.
_DAGMAN_SETTINGS = {"_CONDOR_DAGMAN_MAX_SUBMITS_PER_INTERVAL": "5"}
_OPTIONS: dict[str, tuple[str, ...]] = {
    "`--max-idle 1000` (the default)": (),
    "`--max-idle 10`": _FEW,
    "`--max-idle 10 --run-order fifo`": (*_FEW, "--run-order", "fifo"),
}


@dataclass(frozen=True)
class SharingTimes:
    """Times in seconds since the small manifest was claimed.

    Attributes:
        first_node: start of the first node of the small run.
        small_end: end of the small run.
        large_end: end of the large run.
    """

    first_node: float
    small_end: float
    large_end: float


def main() -> int:
    page = PROJECT / "docs" / "scale.md"
    os.environ.update(_DAGMAN_SETTINGS)
    with small.running_pool() as (pool, place):
        image = small.write_image(place)
        times = {
            name: measure(small.new_archive(pool, place / f"case{n}"), image, options)
            for n, (name, options) in enumerate(_OPTIONS.items())
        }
    head = ("", "the small run's first node, s", "its end, s", "the large run's end, s")
    lines = table(
        head,
        (
            (name, *(f"{seconds:.0f}" for seconds in astuple(case)))
            for name, case in times.items()
        ),
    )
    text = "\n".join([*lines, "", *pages.machine("rclone serve s3")]) + "\n"
    page.write_text(insert(page.read_text(), "sharing", text))
    print(text)
    return 0


def measure(archive: Archive, image: Path, options: tuple[str, ...]) -> SharingTimes:
    """Run both manifests, and return the times."""
    small.upload(archive, "large", image, _LARGE)
    small.launch(archive, "--rows-per-job", "1", *options)
    (large_run,) = small.runs(archive)
    small.wait_for(lambda: large_run.node_log.exists() and _starts(large_run))
    small.upload(archive, "small", image, _SMALL)
    small.poll(archive)
    _, small_run = small.runs(archive)
    small.wait_for(lambda: large_run.done and small_run.done)
    claimed = small_run.claimed_file.stat().st_mtime
    return SharingTimes(
        first_node=_starts(small_run)[0] - claimed,
        small_end=small_run.done_file.stat().st_mtime - claimed,
        large_end=large_run.done_file.stat().st_mtime - claimed,
    )


def _starts(run: Run) -> list[float]:
    """Return when the jobs of the nodes began to run, in seconds since 1970."""
    lines = run.node_log.read_text().splitlines()
    events = (line.split() for line in lines if "Job executing on host" in line)
    return [
        datetime.fromisoformat(f"{day} {clock}").timestamp()
        for _, _, day, clock, *_ in events
    ]


if __name__ == "__main__":
    sys.exit(main())
