"""``status``: how far each run is."""

import csv
import json
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE
from rich.console import Group as Lines
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from cli.common import console, json_option, say, warn
from cli.runs import runs_argument, runs_of
from ops.status import Status, statuses, totals
from state.errors import PipelineError
from state.launch import Launch, load_launch, settings_files
from state.text import counted, csv_safe, duration, one_line

_SECONDS_BETWEEN = 5
_BAR_WIDTH = 16


@click.command()
@runs_argument
@click.option("--watch", is_flag=True, help="Show it again every few seconds.")
@click.option("--csv", "as_csv", is_flag=True, help="Print each run as CSV.")
@json_option
def status(
    run_directories: tuple[Path, ...], watch: bool, as_csv: bool, as_json: bool
) -> None:
    """Show how far each run is, and estimate the time that is left.

    \b
      python3 cog_pipeline.py status --watch

    Without a run, show all runs of the current directory, and when its launches
    polled, since only a poll takes a new manifest. --watch continues until the
    last of them ends, or you press Ctrl-C.
    """
    found = statuses(runs_of(run_directories))
    if as_json:
        click.echo(json.dumps([_as_json(each) for each in found], indent=2))
        return
    if as_csv:
        _write_csv(found)
        return
    if not watch:
        console.print(_shown(found))
        for sentence in () if run_directories else map(_polls, _launches()):
            say(sentence)
        return
    # Where nothing can be drawn again, only the end is printed.
    screen = Live(console=console, auto_refresh=False) if console.is_terminal else None
    with screen or nullcontext():
        while True:
            if screen:
                screen.update(_shown(found), refresh=True)
            if found and all(each.processed is not None for each in found):
                break
            time.sleep(_SECONDS_BETWEEN)
            found = statuses(runs_of(run_directories))
    if not screen:
        console.print(_shown(found))


def _shown(found: list[Status]) -> Lines:
    table = Table(box=SIMPLE, pad_edge=False)
    for heading in ("manifest", "state", "", "jobs", "rows", "time"):
        table.add_column(heading, overflow="fold")
    for each in found:
        bar = ProgressBar(total=1.0, completed=each.share or 0, width=_BAR_WIDTH)
        table.add_row(
            escape(one_line(each.manifest)),
            each.state,
            bar,
            "" if each.jobs is None else f"{each.jobs_done:,} of {each.jobs:,}",
            _rows(each),
            _time(each),
        )
    remarks = [
        f"{each.run} is {each.state}: {one_line(each.remark)}"
        for each in found
        if each.remark
    ]
    return Lines(table, *map(escape, remarks), _total(found))


def _launches() -> Iterator[Launch]:
    for file in settings_files(Path.cwd()):
        try:
            yield load_launch(file)
        except PipelineError as error:
            warn(f"{file.parent.name} is left out: {error}")


def _polls(launch: Launch) -> str:
    """Return a sentence about the polls of a launch, which take new manifests."""
    polled = "has not polled yet"
    if launch.heartbeat_file.exists():
        age = time.time() - launch.heartbeat_file.stat().st_mtime
        polled = f"polled {duration(age)} ago"
    return (
        f"The launch for {launch.pattern!r} in {launch.input_bucket} {polled}, and "
        f"does so every {duration(launch.every * 60)}."
    )


def _total(found: list[Status]) -> str:
    """Return a sentence about all runs."""
    done = sum(each.processed is not None for each in found)
    sentence = f"{counted(len(found), 'run')}, {done} done."
    all_of_them = totals(found)
    if not all_of_them.rows:
        return sentence
    share = (all_of_them.rows - all_of_them.pending) / all_of_them.rows
    sentence += (
        f" {all_of_them.processed:,} of {all_of_them.rows:,} rows processed, "
        f"{all_of_them.failed:,} failed, {all_of_them.pending:,} pending ({share:.0%})."
    )
    if all_of_them.an_hour:
        sentence += f" About {all_of_them.an_hour:,.0f} rows an hour."
    return sentence


def _rows(status: Status) -> str:
    if status.processed is None:
        return ""
    failed = f", {status.failed:,} failed" if status.failed else ""
    return f"{status.processed:,}{failed}"


def _time(status: Status) -> str:
    if status.processed is not None:
        return ""
    if left := status.time_left:
        return f"about {duration(left)} left"
    return f"since {duration(datetime.now(UTC) - status.began)}"


def _write_csv(found: list[Status]) -> None:
    names = [*(field.name for field in fields(Status)), "seconds_left"]
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    for each in found:
        texts = {"manifest": csv_safe(each.manifest), "remark": csv_safe(each.remark)}
        writer.writerow(_as_json(each) | texts)


def _as_json(status: Status) -> dict[str, Any]:
    left = status.time_left
    return asdict(status) | {
        "began": status.began.isoformat(),
        "seconds_left": left and round(left.total_seconds()),
    }
