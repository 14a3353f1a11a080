"""The measured part of docs/scale.md."""

import os
import platform
import subprocess
from collections.abc import Iterable, Sequence

from lab.scale.idle import Idle
from lab.scale.measure import Cost
from lab.scale.quantities import (
    QUANTITIES,
    Check,
    checks,
    growths,
    idle_checks,
    is_defect,
)
from lab.scale.run import Measured
from pool.distribution import program_of_environment

_OPERATIONS = {
    "LIST": "LIST",
    "GET": "GET, HEAD",
    "PUT": "PUT",
    "POST": "POST",
    "DELETE": "DELETE",
}
_BEGIN, _END = "<!-- {} writes from here -->", "<!-- to here -->"


def insert(page: str, mark: str, measured: str) -> str:
    """A page with what was measured between its two marks."""
    begin = _BEGIN.format(mark)
    before, _, rest = page.partition(begin)
    _, end, after = rest.partition(_END)
    if not end:
        raise ValueError(f"the page lacks a line {begin!r} or, after it, {_END!r}")
    return f"{before}{begin}\n\n{measured}\n{_END}{after}"


def everything(measured: Sequence[Measured], idle: Idle | None) -> list[Check]:
    found = [check for one in measured for check in checks(one)]
    return found + (idle_checks(idle) if idle else [])


def text(measured: Sequence[Measured], idle: Idle | None, chart: str) -> str:
    """What was measured, in Markdown; ``chart`` is the name of its file."""
    lines = [
        "### Goals",
        "",
        *table(
            ("", "at", "measured", "at most", ""),
            (
                (
                    check.what,
                    f"{check.rows:,}",
                    _figure(check.measured),
                    _figure(check.allowed),
                    "met" if check.met else "**not met**",
                )
                for check in everything(measured, idle)
            ),
        ),
        "",
        "### By the number of rows",
        "",
        *table(
            ("", *(f"{one.rows:,}" for one in measured), "grows as"),
            _by_rows(measured),
        ),
        "",
        f"![Seconds, memory and requests over rows]({chart})",
        "",
        "### Each command and its S3 requests",
        "",
        *table(
            ("", "seconds", "CPU s", "MiB", *_OPERATIONS.values()),
            ((what, *_of(cost)) for what, cost in _costs(measured, idle).items()),
        ),
        "",
        *machine(_seaweedfs()),
    ]
    return "\n".join(lines) + "\n"


def _by_rows(measured: Sequence[Measured]) -> Iterable[tuple[str, ...]]:
    fits = growths(measured)
    for quantity in QUANTITIES:
        values = (_figure(quantity.of(one)) for one in measured)
        growth = fits.get(quantity)
        said = f"rows^{growth.exponent:.2f}" if growth else ""
        if growth and is_defect(quantity, growth):
            said += ", **too fast**"
        yield quantity.name, *values, said
    yield "files in the run directory", *(str(one.files) for one in measured), ""
    yield "objects", *(f"{one.objects:,}" for one in measured), ""
    yield "objects filled in a second", *(_figure(one.filling) for one in measured), ""


def _costs(measured: Sequence[Measured], idle: Idle | None) -> dict[str, Cost]:
    found = {}
    for one in measured:
        found[f"poll, {one.rows:,} rows"] = one.poll
        found[f"poll that gathers results, {one.rows:,} rows"] = one.gathering
        found[f"reconcile, {one.rows:,} rows"] = one.reconcile
    if idle:
        found[f"idle poll, {idle.objects:,} objects, prefix"] = idle.beside
        found[f"idle poll, {idle.objects:,} objects, no prefix"] = idle.among
    return found


def _of(cost: Cost) -> Iterable[str]:
    yield from map(_figure, (cost.seconds, cost.cpu, cost.memory))
    for operation in _OPERATIONS:
        yield str(cost.requests[operation])


def _seaweedfs() -> str:
    weed = [program_of_environment("weed"), "version"]
    said = subprocess.run(weed, capture_output=True, text=True, check=True).stdout
    return f"SeaweedFS {said.split()[2]}"


def machine(s3_server: str) -> list[str]:
    return table(
        ("", ""),
        (
            ("S3 server", s3_server),
            ("Python", platform.python_version()),
            (
                "machine",
                f"{platform.machine()}, {platform.system()}, "
                f"{os.cpu_count()} processors, which the S3 server shares",
            ),
            # Of its own load, the measurement makes 1 to 2.
            ("load, of 15 minutes", f"{os.getloadavg()[2]:.1f}"),
        ),
    )


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    every = [head, ("---",) * len(head), *rows]
    return ["| " + " | ".join(row) + " |" for row in every]
