"""Measure runs of more and more rows, print the tables, write docs/scale.md."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from condor import queue
from lab.scale import chart, idle, page, run
from lab.scale.fill import NotFilled, server_beside
from lab.scale.idle import Idle
from lab.scale.measure import CommandFailed
from lab.scale.quantities import growths, is_defect
from lab.scale.run import Measured, Wrong
from pool import personal
from pool.errors import PoolError
from tests.support.seaweedfs import SeaweedFS

PAGE = run.PROJECT / "docs" / "scale.md"
CHARTS = {"auto": "scale.svg", "presigned": "scale-presigned.svg"}
FEWEST_ROWS = 1_000
# About what is taken of the disk, in all the files of a measurement.
_BYTES_PER_ROW, _BYTES_PER_OBJECT = 16_000, 500

console = Console(highlight=False)


def main() -> int:
    options = _options()
    # Whoever starts this in the background has Ctrl-C ignored; and whatever ends it,
    # the pool and the server end, too.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    try:
        return _run(options)
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 130
    except (CommandFailed, NotFilled, PoolError, Wrong) as error:
        console.print(f"Not measured: {error}", markup=False, soft_wrap=True)
        return 1


def _run(options: argparse.Namespace) -> int:
    looked, measured = None, []
    # Not the system's temporary directory, which may be in memory.
    with (
        tempfile.TemporaryDirectory(dir=run.PROJECT, prefix=".scale-") as folder,
        running(Path(folder)) as server,
    ):
        # To look, nothing is signed for the nodes.
        if options.signing == "auto":
            objects = options.idle_objects
            with console.status(f"idle polls of {objects:,} objects"):
                looked = idle.measure(server, Path(folder, "idle"), objects)
        for rows in sizes(options.rows):
            place = Path(folder, f"run-{rows}")
            with console.status(f"a run of {rows:,} rows"):
                measured.append(run.measure(server, place, rows, options.signing))
            shutil.rmtree(place)
            # After each: the largest take an hour, and may fail.
            text = _write(measured, looked, options.signing)
            console.print(f"Measured {rows:,} rows.")
    console.print(text, markup=False, soft_wrap=True)
    console.print(f"Written to {PAGE.relative_to(run.PROJECT)} and its chart.")
    missed = [check for check in page.everything(measured, looked) if not check.met]
    fits = growths(measured).items()
    too_fast = [quantity for quantity, growth in fits if is_defect(quantity, growth)]
    return 1 if missed or too_fast else 0


def _write(measured: Sequence[Measured], looked: Idle | None, signing: str) -> str:
    drawing = PAGE.with_name(CHARTS[signing])
    text = page.text(measured, looked, drawing.name)
    PAGE.write_text(page.insert(PAGE.read_text(), f"SIGNING={signing}", text))
    drawing.write_text(chart.draw(measured))
    return text


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make scale", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="the most")
    parser.add_argument("--signing", choices=CHARTS, default="auto")
    parser.add_argument("--idle-objects", type=int, default=1_000_000)
    options = parser.parse_args()
    if options.rows < FEWEST_ROWS:
        parser.error(f"--rows {options.rows}: {FEWEST_ROWS} is the least")
    free = shutil.disk_usage(run.PROJECT).free >> 30
    bytes_needed = _BYTES_PER_ROW * options.rows
    needed = (bytes_needed + _BYTES_PER_OBJECT * options.idle_objects >> 30) + 1
    if free < needed:
        parser.error(f"{free} GiB are free here, and {needed} are needed: make room")
    return options


def sizes(most: int) -> Iterator[int]:
    """From a thousand rows on tenfold, and the most in the end."""
    rows = FEWEST_ROWS
    while rows < most:
        yield rows
        rows *= 10
    yield most


@contextmanager
def running(place: Path) -> Iterator[SeaweedFS]:
    """A personal pool, which the environment tells of, and a server beside it."""
    with personal.running_pool(place / "pool", console.print) as pool:
        os.environ.update(pool.condor.environment)
        # The bindings were imported before there was a pool.
        queue.htcondor2.reload_config()
        with server_beside(pool, place) as server:
            yield server


if __name__ == "__main__":
    sys.exit(main())
