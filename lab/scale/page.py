"""Write the measured part of docs/scale.md."""

import os
import platform
import subprocess
from collections.abc import Iterable, Sequence

from lab.scale.idle import IdleCosts
from lab.scale.measure import Cost
from lab.scale.quantities import (
    QUANTITIES,
    Check,
    checks,
    growths,
    idle_checks,
    is_defect,
)
from lab.scale.run import RunCost
from lab.support.markdown import table
from pool.distribution import program_of_environment

_OPERATIONS = {
    "LIST": "LIST",
    "GET": "GET, HEAD",
    "PUT": "PUT",
    "POST": "POST",
    "DELETE": "DELETE",
}


def all_checks(costs: Sequence[RunCost], idle: IdleCosts | None) -> list[Check]:
    """Return the checks of all runs and of the idle polls."""
    run_checks = [check for cost in costs for check in checks(cost)]
    return run_checks + (idle_checks(idle) if idle else [])


def text(costs: Sequence[RunCost], idle: IdleCosts | None, chart: str) -> str:
    """Return the measurements in Markdown; ``chart`` is the name of its file."""
    lines = [
        "### Goals",
        "",
        *table(
            ("", "at", "measured", "at most", ""),
            (
                (
                    check.name,
                    f"{check.rows:,}",
                    _figure(check.value),
                    _figure(check.bound),
                    "met" if check.met else "**not met**",
                )
                for check in all_checks(costs, idle)
            ),
        ),
        "",
        "### By the number of rows",
        "",
        *table(
            ("", *(f"{cost.rows:,}" for cost in costs), "grows as"),
            _by_rows(costs),
        ),
        "",
        f"![Seconds, memory and requests over rows]({chart})",
        "",
        "### Each command and its S3 requests",
        "",
        *table(
            ("", "seconds", "CPU s", "MiB", *_OPERATIONS.values()),
            (
                (name, *_figures(cost))
                for name, cost in _command_costs(costs, idle).items()
            ),
        ),
        "",
        *machine(_seaweedfs()),
    ]
    return "\n".join(lines) + "\n"


def _by_rows(costs: Sequence[RunCost]) -> Iterable[tuple[str, ...]]:
    growth_of = growths(costs)
    for quantity in QUANTITIES:
        values = (_figure(quantity.of(cost)) for cost in costs)
        growth = growth_of.get(quantity)
        formula = f"rows^{growth.exponent:.2f}" if growth else ""
        if growth and is_defect(quantity, growth):
            formula += ", **too fast**"
        yield quantity.name, *values, formula
    yield "files in the run directory", *(str(cost.files) for cost in costs), ""
    yield "objects", *(f"{cost.objects:,}" for cost in costs), ""
    yield "objects filled per second", *(_figure(cost.filling) for cost in costs), ""


def _command_costs(costs: Sequence[RunCost], idle: IdleCosts | None) -> dict[str, Cost]:
    commands = {}
    for cost in costs:
        commands[f"poll, {cost.rows:,} rows"] = cost.poll
        commands[f"poll that gathers results, {cost.rows:,} rows"] = cost.gathering
        commands[f"status, {cost.rows:,} rows"] = cost.status
        commands[f"reconcile, {cost.rows:,} rows"] = cost.reconcile
        commands[f"validate --quick, {cost.rows:,} rows"] = cost.validate
    if idle:
        name = f"idle poll, {idle.objects:,} objects"
        commands[f"{name}, prefix"] = idle.with_prefix
        commands[f"{name}, no prefix"] = idle.without_prefix
    return commands


def _figures(cost: Cost) -> Iterable[str]:
    yield from map(_figure, (cost.seconds, cost.cpu, cost.memory))
    for operation in _OPERATIONS:
        yield str(cost.requests[operation])


def _seaweedfs() -> str:
    command = [str(program_of_environment("weed")), "version"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return f"SeaweedFS {result.stdout.split()[2]}"


def machine(s3_server: str) -> list[str]:
    """Return the lines of a table about the machine and its programs."""
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
            # The measurement itself causes a load of 1 to 2.
            ("load, of 15 minutes", f"{os.getloadavg()[2]:.1f}"),
        ),
    )


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
