"""``failures``: the rows that failed, by their reason."""

import csv
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cli.common import json_option, say
from cli.runs import runs_argument, runs_of
from ops.failures import Failure, Group, failures as failures_of, groups
from state.text import counted, csv_safe, printable


@click.command()
@runs_argument
@click.option(
    "--csv", "as_csv", is_flag=True, help="Print each failed row as CSV, with its code."
)
@json_option
def failures(run_directories: tuple[Path, ...], as_csv: bool, as_json: bool) -> None:
    """Show which rows failed, grouped by reason, with an example of each.

    \b
      python3 cog_pipeline.py failures workflow-run-20261120T193637Z

    Without a run, take all runs of the current directory that have ended.
    """
    runs = runs_of(run_directories)
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(("run", "line", "code", "image", "reason"))
        writer.writerows(
            _fields(failure) for run in runs for failure in failures_of(run)
        )
        return
    found = groups(runs)
    if as_json:
        click.echo(json.dumps([_as_json(group) for group in found], indent=2))
        return
    for group in found:
        again = ": 'retry' tries them again" if group.worth_another_try else ""
        say(f"{counted(group.rows, 'row')}, {group.code}{again}")
        example = group.example
        place = f"{example.run.directory.name}, line {example.line}"
        click.echo(f"  {printable(example.image)} ({place}):")
        click.echo(f"  {printable(example.reason)}")
    total = sum(group.rows for group in found)
    ended = sum(run.done for run in runs)
    say(f"{counted(total, 'row')} failed, in {counted(ended, 'run')} that ended.")


def _fields(failure: Failure) -> tuple[str, int, str, str, str]:
    return (
        csv_safe(failure.run.directory.name),
        failure.line,
        csv_safe(failure.code),
        csv_safe(failure.image),
        csv_safe(failure.reason),
    )


def _as_json(group: Group) -> dict[str, Any]:
    example = asdict(group.example) | {"run": group.example.run.directory.name}
    return {
        "code": group.code,
        "rows": group.rows,
        "worth_another_try": group.worth_another_try,
        "example": example,
    }
