"""Measure runs with increasing numbers of rows, and write docs/scale.md."""

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

from condor.bindings import htcondor2
from lab.scale import chart, idle, page, run
from lab.scale.fill import FillError, server_beside_pool
from lab.scale.idle import IdleCosts
from lab.scale.measure import CommandFailed
from lab.scale.quantities import growths, is_defect
from lab.scale.run import RunCost, WrongOutcome
from lab.support.markdown import insert
from pool import personal
from pool.errors import PoolError
from state.project import PROJECT
from tests.support.seaweedfs import SeaweedFS

PAGE = PROJECT / "docs" / "scale.md"
CHARTS = {"auto": "scale.svg", "presigned": "scale-presigned.svg"}
MIN_ROWS = 1_000
# Rough disk use of all files of a measurement.
_BYTES_PER_ROW, _BYTES_PER_OBJECT = 40_000, 500

console = Console(highlight=False)


def main() -> int:
    options = _options()
    # A shell makes a background process ignore Ctrl-C. With these handlers, both
    # signals end the pool and the server too.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        return _run(options)
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 130
    except (CommandFailed, FillError, PoolError, WrongOutcome) as error:
        console.print(f"Not measured: {error}", markup=False, soft_wrap=True)
        return 1


def _run(options: argparse.Namespace) -> int:
    idle_costs: IdleCosts | None = None
    costs: list[RunCost] = []
    # The system's temporary directory may be in memory, so it is not used.
    with (
        tempfile.TemporaryDirectory(dir=PROJECT, prefix=".scale-") as folder,
        running_server(Path(folder)) as server,
    ):
        # An idle poll signs nothing, so it is measured with one kind of signing only.
        if options.signing == "auto":
            objects = options.idle_objects
            with console.status(f"idle polls of {objects:,} objects"):
                idle_costs = idle.measure(server, Path(folder, "idle"), objects)
        for rows in sizes(options.rows):
            place = Path(folder, f"run-{rows}")
            with console.status(f"a run of {rows:,} rows"):
                costs.append(run.measure(server, place, rows, options.signing))
            shutil.rmtree(place)
            # The page is written after each run: the largest takes an hour and may
            # fail.
            text = _write(costs, idle_costs, options.signing)
            console.print(f"Measured {rows:,} rows.")
    console.print(text, markup=False, soft_wrap=True)
    console.print(f"Wrote {PAGE.relative_to(PROJECT)} and its chart.")
    checks = page.all_checks(costs, idle_costs)
    growth_is_too_fast = any(
        is_defect(quantity, growth) for quantity, growth in growths(costs).items()
    )
    return 0 if all(check.met for check in checks) and not growth_is_too_fast else 1


def _write(costs: Sequence[RunCost], idle_costs: IdleCosts | None, signing: str) -> str:
    """Write the page and its chart, and return the part of the page that is new."""
    chart_file = PAGE.with_name(CHARTS[signing])
    text = page.text(costs, idle_costs, chart_file.name)
    PAGE.write_text(insert(PAGE.read_text(), f"SIGNING={signing}", text))
    chart_file.write_text(chart.draw(costs))
    return text


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make scale", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="largest run")
    parser.add_argument("--signing", choices=CHARTS, default="auto")
    parser.add_argument("--idle-objects", type=int, default=1_000_000)
    options = parser.parse_args()
    if options.rows < MIN_ROWS:
        parser.error(f"--rows {options.rows}: the minimum is {MIN_ROWS}")
    free = shutil.disk_usage(PROJECT).free >> 30
    row_bytes = _BYTES_PER_ROW * options.rows
    needed = (row_bytes + _BYTES_PER_OBJECT * options.idle_objects >> 30) + 1
    if free < needed:
        parser.error(f"{free} GiB are free and {needed} are needed: free some space")
    return options


def sizes(max_rows: int) -> Iterator[int]:
    """Yield 1,000, 10,000 and so on below ``max_rows``, then ``max_rows``."""
    rows = MIN_ROWS
    while rows < max_rows:
        yield rows
        rows *= 10
    yield max_rows


@contextmanager
def running_server(place: Path) -> Iterator[SeaweedFS]:
    """Start a personal pool, whose variables are set, and yield a server beside it."""
    with personal.running_pool(place / "pool", console.print) as pool:
        os.environ.update(pool.condor.environment)
        # The bindings were imported before there was a pool.
        htcondor2.reload_config()
        with server_beside_pool(pool, place) as server:
            yield server


if __name__ == "__main__":
    sys.exit(main())
