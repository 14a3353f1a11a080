"""``convert``: convert the images that have no COG yet."""

import json
import tempfile
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import asdict
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.table import Table

from bucket import StoredObject
from cli import manifest as manifests, options as shared, sources
from cli.common import (
    console,
    fail,
    json_option,
    note,
    progress,
    say,
    use_journal,
    warn,
)
from condor import queue
from dag.estimate import Estimate, Range, estimate
from dag.intake import is_manifest_key
from dag.poll import poll
from ingest import manifest as making
from ingest.selection import Selection, originals, pending, rasters
from ops.status import State, Status, statuses
from state.errors import PollFailed
from state.exits import Exit
from state.journal import journal_of
from state.launch import Launch, load_launch, settings_files
from state.run import Run, all_runs, timestamp_now
from state.text import counted, duration

_SECONDS_BETWEEN = 2
_SECONDS_BETWEEN_POLLS = 15


@click.command()
@click.argument("prefix", default="", metavar="[PREFIX]")
@click.option(
    "--launch",
    "launch_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The launch.json of the launch to use, if the current directory has several.",
)
@sources.selection_options
@sources.sample_option
@click.option(
    "--overwrite",
    is_flag=True,
    help="Also convert images whose COG is there and is newer.",
)
@click.option(
    "--manifest",
    "manifest_key",
    metavar="KEY",
    help="Key of the manifest, if it cannot be made from the launch's pattern.",
)
@click.option(
    "--dry-run", is_flag=True, help="Only estimate what the conversion would take."
)
@shared.price_option("Estimate the money too. Needs --dry-run.")
@click.option(
    "--wait",
    is_flag=True,
    help="Wait for the end of the run. The exit code is 1 if a row failed.",
)
@json_option
def convert(
    prefix: str,
    launch_file: Path | None,
    selection: Selection,
    sample: int | None,
    overwrite: bool,
    manifest_key: str | None,
    dry_run: bool,
    price: float | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Convert the images of a bucket that have no COG yet. You need no manifest.

    \b
      python3 cog_pipeline.py convert scans/1923/ --wait

    It uses the settings of the launch in the current directory. It uploads a manifest
    of the images and polls immediately. The run then continues like any other.
    """
    if price is not None and not dry_run:
        raise click.UsageError("--price-per-core-hour needs --dry-run.")
    launch = load_launch(launch_file or _only_launch())
    prefix = prefix or launch.input_prefix
    images = _images(launch, prefix, selection, sample, overwrite=overwrite)
    if dry_run:
        _print_estimate(
            estimate(images, launch, queue.slots(), _runs(launch)), price, as_json
        )
        return
    key = manifest_key or making.key_for(launch.pattern, f"convert-{timestamp_now()}")
    if key is None:
        fail(
            Exit.REFUSED,
            f"the launch's pattern {launch.pattern!r} leaves no place for a name: name "
            "a key that it matches with --manifest KEY",
        )
    if not is_manifest_key(key, launch):
        fail(
            Exit.REFUSED,
            f"no poll would take {key} for a manifest: it must match the launch's "
            f"pattern {launch.pattern!r} and end in .csv, and must not have the name "
            "of an outcome",
        )
    # An earlier manifest may have had the same key.
    earlier = {run.directory for run in _runs(launch)}
    written, unreadable = _upload(launch, images, key)
    if not written:
        if unreadable:
            fail(Exit.REFUSED, manifests.lacks(unreadable))
        _report(None, None, as_json)
        return
    _poll(launch)
    status = _started(launch, key, earlier)
    if wait:
        status = _wait(launch, key, earlier)
    _report(status, key, as_json)
    if unreadable:
        fail(Exit.REFUSED, manifests.lacks(unreadable))
    if status and status.failed:
        rows = counted(status.failed, "row")
        fail(Exit.REFUSED, f"{rows} failed: 'failures {status.run}' shows why")


def _only_launch() -> Path:
    files = settings_files(Path.cwd())
    if not files:
        fail(Exit.REFUSED, f"there is no launch in {Path.cwd()}: use 'launch' first")
    if len(files) > 1:
        names = ", ".join(str(file.relative_to(Path.cwd())) for file in files)
        fail(
            Exit.REFUSED,
            f"there are several launches: name one of {names} with --launch",
        )
    return files[0]


def _images(
    launch: Launch,
    prefix: str,
    selection: Selection,
    number: int | None,
    *,
    overwrite: bool,
) -> Iterator[StoredObject]:
    found = rasters(launch.inputs(), prefix, selection)
    if launch.in_one_bucket and launch.output_prefix:
        found = originals(found, launch.output_prefix)
    if not overwrite:
        if launch.in_one_bucket and not launch.output_prefix:
            fail(
                Exit.REFUSED,
                "this launch replaces originals by COGs, so 'convert' cannot see which "
                "are done: choose the images with --filter or --since, and --overwrite",
            )
        found = pending(found, launch.outputs(), launch.output_names, prefix, warn)
    return iter(making.sample(found, number)) if number else found


def _runs(launch: Launch) -> list[Run]:
    return all_runs(launch)[0]


def _upload(
    launch: Launch, images: Iterator[StoredObject], key: str
) -> tuple[int, int]:
    """Upload a manifest of images, unless it has none.

    Returns:
        How many images it has, and how many it lacks because they cannot be read.
    """
    inputs = launch.inputs()
    if inputs.exists(key):
        fail(Exit.REFUSED, f"{inputs.name}/{key} is there already: name another key")
    rows = making.rows_of_bucket((image.key for image in images), inputs)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "manifest.csv"
        written, unreadable = manifests.write(rows, inputs.name, file)
        if written:
            inputs.upload(key, file, content_type="text/csv")
    return written, unreadable


def _poll(launch: Launch) -> None:
    try:
        poll(launch, use_journal(journal_of(launch.home, note)))
    except PollFailed as error:
        # It may have to do with other manifests.
        warn(str(error))


def _started(launch: Launch, key: str, earlier: Container[Path]) -> Status | None:
    """Return the status of the run of a manifest; None if it has none yet.

    Args:
        earlier: directories of the runs of earlier manifests.
    """
    runs = [
        run
        for run in _runs(launch)
        if run.manifest_key == key and run.directory not in earlier
    ]
    return statuses(runs[-1:])[0] if runs else None


def _wait(launch: Launch, key: str, earlier: Container[Path]) -> Status:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with progress(*columns) as display:
        task = display.add_task("jobs done", total=None)
        next_poll = time.monotonic() + _SECONDS_BETWEEN_POLLS
        while True:
            status = _started(launch, key, earlier)
            if status and status.state == State.DONE:
                return status
            if status and status.jobs:
                display.update(task, total=status.jobs, completed=status.jobs_done)
            time.sleep(_SECONDS_BETWEEN)
            if time.monotonic() > next_poll and _waits(status):
                # For instance because the store was slow when it was claimed.
                _poll(launch)
                next_poll = time.monotonic() + _SECONDS_BETWEEN_POLLS


def _waits(status: Status | None) -> bool:
    return status is None or status.state == State.WAITING


def _report(status: Status | None, key: str | None, as_json: bool) -> None:
    """Print what became of a manifest; without a key, there was none to upload."""
    if as_json:
        report = {
            "manifest": key,
            "run": status and status.run,
            "processed": status and status.processed,
            "failed": status and status.failed,
        }
        click.echo(json.dumps(report, indent=2))
    elif key is None:
        say("There is nothing to convert: no image, or each has a newer COG.")
    elif status is None:
        say(f"{key} waits for other runs; a later poll starts it.")
    elif status.processed is None:
        say(f"'status {status.run}' shows how far it is.")
    else:
        say(f"{status.run}: {status.processed:,} processed, {status.failed:,} failed.")


def _print_estimate(found: Estimate, price: float | None, as_json: bool) -> None:
    money = None if price is None else found.money(price)
    if as_json:
        record = asdict(found) | {"money": money and asdict(money)}
        click.echo(json.dumps(record, indent=2))
        return
    table = Table(box=None, show_header=False)
    table.add_row("images", f"{found.images:,}")
    table.add_row("their size", sources.size(found.size))
    table.add_row("jobs", f"{found.jobs:,}")
    table.add_row("slots of the pool", f"{found.slots:,}" if found.slots else "unknown")
    table.add_row("scratch disk of the largest job", sources.size(found.disk))
    table.add_row("machine time", _time(found.machine_seconds))
    if found.elapsed_seconds:
        table.add_row("time until the end", _time(found.elapsed_seconds))
    if money:
        table.add_row("money", _range(money, "{:,.3g}".format))
    console.print(table)
    if found.runs:
        say(f"The times are estimated from {counted(found.runs, 'earlier run')}.")
    else:
        say("The times are a guess, because no run of this launch has ended yet.")


def _time(seconds: Range) -> str:
    return _range(seconds, lambda value: duration(value, digits=1, days=False))


def _range(figure: Range, text: Callable[[float], str]) -> str:
    low, expected, high = map(text, (figure.low, figure.expected, figure.high))
    return expected if low == high else f"{expected} ({low} to {high})"
