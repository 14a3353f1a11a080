"""``clean``: list and remove what ended runs have left."""

import csv
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from cli.common import json_option, say
from cli.sources import size
from ops.clean import Leftover, leftovers
from state.launch import load_launch, settings_files
from state.text import csv_safe, printable

_AGE = re.compile(r"(\d{1,5})([hd])")
_UNITS = {"h": "hours", "d": "days"}
_FIELDS = ("kind", "name", "bytes", "modified", "reason", "removable", "removed")


def _age(text: str) -> timedelta:
    if not (match := _AGE.fullmatch(text)):
        raise click.BadParameter(f"{text!r} is not an age, such as 90d or 12h")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


@click.command()
@click.option(
    "--older-than",
    type=_age,
    default="90d",
    show_default=True,
    metavar="AGE",
    help="List only what is older, in days or hours, such as 12h.",
)
@click.option("--delete", is_flag=True, help="Remove what can be removed.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, without totals.")
@json_option
def clean(older_than: timedelta, delete: bool, as_csv: bool, as_json: bool) -> None:
    """List what ended runs have left; with --delete, remove what is safe to remove.

    \b
      python3 cog_pipeline.py clean --older-than 30d
      python3 cog_pipeline.py clean --older-than 30d --delete

    These are the launches and runs of the current directory, and their buckets. Only
    directories of runs whose CSVs are in the bucket, and multipart uploads of runs
    that have ended, are removed. Claims, uploads and objects that somebody else may
    need are only listed.
    """
    launches = [load_launch(file) for file in settings_files(Path.cwd())]
    before = datetime.now(UTC) - older_than
    writer = csv.DictWriter(sys.stdout, _FIELDS, lineterminator="\n")
    if as_csv:
        writer.writeheader()
    found = removable = removed = room = 0
    for leftover in leftovers(Path.cwd(), launches, before):
        can_remove = leftover.remove is not None
        is_removed = bool(delete and leftover.remove and leftover.remove())
        found += 1
        removable += can_remove
        removed += is_removed
        room += (leftover.bytes or 0) * (is_removed if delete else can_remove)
        record = _record(leftover, is_removed)
        if as_csv:
            texts = {name: csv_safe(record[name]) for name in ("name", "reason")}
            writer.writerow(record | texts)
        elif as_json:
            click.echo(json.dumps(record))
        else:
            _show(leftover, is_removed, delete)
    if as_json:
        totals = {"found": found, "removable": removable, "removed": removed}
        click.echo(json.dumps(totals | {"bytes": room}))
    elif not as_csv:
        say(_total(found, removed if delete else removable, room, delete))


def _show(leftover: Leftover, is_removed: bool, delete: bool) -> None:
    facts = [f"{leftover.modified:%Y-%m-%d}"]
    if leftover.bytes is not None:
        facts.append(size(leftover.bytes))
    if is_removed:
        facts.append("removed")
    elif leftover.remove is None:
        facts.append("only listed")
    elif delete:
        facts.append("not removed: a process works on it")
    click.echo(f"{leftover.kind} {printable(leftover.name)} ({', '.join(facts)}):")
    click.echo(f"  {printable(leftover.reason)}")


def _total(found: int, number: int, room: int, delete: bool) -> str:
    if not found:
        return "Nothing is left."
    if delete:
        return f"Removed {number:,} of {found:,}, {size(room)}."
    hint = ": the same command with --delete removes them" if number else ""
    return f"{number:,} of {found:,} can be removed, {size(room)}{hint}."


def _record(leftover: Leftover, is_removed: bool) -> dict[str, Any]:
    return {
        "kind": leftover.kind,
        "name": leftover.name,
        "bytes": leftover.bytes,
        "modified": f"{leftover.modified:%Y-%m-%dT%H:%M:%SZ}",
        "reason": leftover.reason,
        "removable": leftover.remove is not None,
        "removed": is_removed,
    }
