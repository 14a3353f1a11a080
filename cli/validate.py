"""``validate``: check that the output bucket has what runs put there."""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import click
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bucket import Bucket, S3Endpoint
from cli import options as shared, sources
from cli.common import fail, json_option, progress, say
from cli.runs import runs_argument, runs_beside, runs_of
from ingest import manifest as making
from ingest.selection import Selection, rasters
from ops.validate import Check, Depth, check_cogs, records
from state.exits import Exit
from state.run import Run
from state.text import counted, csv_safe, printable


@click.command()
@runs_argument
@click.option("--quick", is_flag=True, help="Only list: do not read headers of COGs.")
@click.option(
    "--checksums", is_flag=True, help="Read each object, and compare its checksum."
)
@sources.sample_option
@click.option(
    "--bucket",
    metavar="NAME",
    help="Check all COGs of a bucket instead, no matter who made them.",
)
@click.option(
    "--prefix", default="", metavar="P", help="Only COGs whose keys begin with P."
)
@shared.lazy_store_options
@click.option("--csv", "as_csv", is_flag=True, help="Print each fault as CSV.")
@json_option
def validate(
    run_directories: tuple[Path, ...],
    quick: bool,
    checksums: bool,
    sample: int | None,
    bucket: str | None,
    prefix: str,
    store: Callable[[], S3Endpoint],
    as_csv: bool,
    as_json: bool,
) -> None:
    """Check that the output bucket has what runs put there.

    \b
      python3 cog_pipeline.py validate workflow-run-20261120T193637Z

    Each COG and JPEG must be there with its size and its ETag, and each COG must be
    valid. Without a run, check all runs of the current directory that have ended. The
    exit code is 1 if something is wrong.
    """
    # rasterio would print a traceback for each of GDAL's messages that is not UTF-8.
    sys.unraisablehook = lambda unraisable: None
    if bucket and (run_directories or quick or checksums):
        raise click.UsageError(
            "--bucket goes with --prefix and --sample only: no run says what the "
            "objects should be."
        )
    if prefix and not bucket:
        raise click.UsageError("--prefix needs --bucket.")
    if bucket:
        total, checks = _checks_of_bucket(Bucket(store(), bucket), prefix, sample)
    else:
        depth = Depth(headers=not quick, checksums=checksums)
        total, checks = _checks_of_runs(run_directories, sample, depth)
    number, faults = _print(checks, total, as_csv=as_csv, as_json=as_json)
    objects = counted(number, "object")
    if not number:
        fail(Exit.REFUSED, "there is nothing to check: name other runs or a bucket")
    if faults:
        fail(Exit.REFUSED, f"{faults:,} of {objects} are not as they should be")
    if not (as_csv or as_json):
        say(f"Checked {objects}: all are as they should be.")


def _checks_of_bucket(
    bucket: Bucket, prefix: str, sample: int | None
) -> tuple[int | None, Iterator[Check]]:
    """Return the number of objects, None if it is not known yet, and their checks."""
    found = rasters(bucket, prefix, Selection())
    if sample is None:
        return None, check_cogs(bucket, found)
    chosen = making.sample(found, sample)
    return len(chosen), check_cogs(bucket, chosen)


def _checks_of_runs(
    directories: tuple[Path, ...], sample: int | None, depth: Depth
) -> tuple[int, Iterator[Check]]:
    runs = runs_of(directories)
    if directories:
        _check_ended(runs)
    ended = [run for run in runs if run.done]
    places = records(ended, runs_beside(ended), sample)
    total = sum(map(len, places))
    return total, (check for place in places for check in place.check(depth))


def _check_ended(runs: list[Run]) -> None:
    for run in runs:
        if not run.done:
            name = run.directory.name
            fail(
                Exit.REFUSED, f"{name} has not ended yet: 'status' shows how far it is"
            )


def _print(
    checks: Iterator[Check], total: int | None, *, as_csv: bool, as_json: bool
) -> tuple[int, int]:
    """Print faults as they are found; return how many objects and faults there are."""
    number = faults = 0
    columns = (
        *(BarColumn(), MofNCompleteColumn()),
        *(TimeElapsedColumn(), TimeRemainingColumn()),
    )
    with progress(*columns) as display:
        task = display.add_task("", total=total)
        writer = csv.writer(sys.stdout, lineterminator="\n")
        if as_csv:
            writer.writerow(("key", "code", "reason", "run"))
        for check in checks:
            number += 1
            display.advance(task)
            if not check.code:
                continue
            faults += 1
            if as_csv:
                reason = csv_safe(check.reason)
                writer.writerow((csv_safe(check.key), check.code, reason, check.run))
            elif as_json:
                click.echo(json.dumps(asdict(check)))
            else:
                by = f" ({check.run})" if check.run else ""
                click.echo(f"{check.code}: {printable(check.key)}{by}:")
                click.echo(f"  {printable(check.reason)}")
    if as_json:
        click.echo(json.dumps({"objects": number, "faults": faults}))
    return number, faults
