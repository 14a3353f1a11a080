#!/usr/bin/env python3
"""The command line of cog_pipeline; see README.md."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.box import SIMPLE
from rich.table import Table

from bucket import BucketError
from cli.common import LaunchByDefault, console, in_use, say
from cli.launch import launch, poll
from cli.pool import pool
from ops import cost as costs, health as healths
from ops.health import State
from post.reconcile import check_ended, reconcile as reconcile_run
from state.errors import PipelineError, user_message
from state.exits import Exit
from state.journal import Journal
from state.launch import settings_files
from state.run import count_attempt, load_run, locked, settings_of

# One attempt each --retry-seconds; after that the next poll takes over.
MOST_ATTEMPTS = 60


@click.group(cls=LaunchByDefault)
def cli() -> None:
    """Turn a bucket of rasters into Cloud Optimized GeoTIFFs, on HTCondor.

    Launch once on an access point (LAUNCH is what happens when no command is
    named); then upload images and a manifest, and read two CSVs:

    \b
      python3 cog_pipeline.py -a access.key -s secret.key -e s3.example.org \\
          --input-bucket maps --output-bucket cogs -p "*raw.csv"

    LAUNCH --help tells all options.  HEALTH is for monitoring.  POLL and
    RECONCILE are what HTCondor calls; people rarely do.
    """
    # Run directories are nobody else's business, whoever starts us.
    os.umask(0o077)


for command in (launch, poll, pool):
    cli.add_command(command)


@cli.command()
@click.argument(
    "launch_files",
    nargs=-1,
    metavar="[LAUNCH_FILE]…",
    type=click.Path(path_type=Path),
)
@click.option("--json", "as_json", is_flag=True, help="Print it for programs.")
def health(launch_files: tuple[Path, ...], as_json: bool) -> None:
    """Say how launches are, a line each, for monitoring.

    \b
      python3 cog_pipeline.py health launch-maps-1a2b3c4d/launch.json

    Without a file: all launches of the current directory.  The exit code is that
    of monitoring plugins: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
    """
    files = launch_files or settings_files(Path.cwd())
    try:
        found = [healths.examine(file) for file in files]
    except Exception as error:
        # Monitoring reads what is printed here, and takes other codes as it likes.
        say(f"{State.UNKNOWN.name}: {Journal(say).internal_error(error)}")
        sys.exit(State.UNKNOWN)
    if as_json:
        click.echo(json.dumps([healths.as_json(one) for one in found], indent=2))
    elif found:
        for one in found:
            say(healths.sentence(one))
    else:
        say(
            f"{State.UNKNOWN.name}: no launch has been made in {Path.cwd()}; name the "
            "launch.json of one"
        )
    sys.exit(healths.worst(one.state for one in found) if found else State.UNKNOWN)


@cli.command()
@click.argument("run_directory", type=click.Path(exists=True, path_type=Path))
@click.option("--final-node-of", metavar="DAG", help="For DAGMan, which calls this.")
def reconcile(run_directory: Path, final_node_of: str | None) -> None:
    """End a run: write its two CSVs (DAGMan calls this).

    \b
      python3 cog_pipeline.py reconcile workflow-run-20261120T193637Z

    By hand, that is refused while its DAG is in the queue.  Where rows shared jobs
    that failed, the next poll submits them again, and there are no CSVs yet.
    """
    run = load_run(run_directory)
    if not (final_node_of or run.done):
        # No poll is to submit a DAG of it meanwhile.
        click.get_current_context().with_resource(locked(run.home))
        check_ended(run)
    journal = in_use(Journal(say).of_run(run))
    try:
        attempt = count_attempt(run)
    except OSError as error:
        # The disk is full, and DAGMan could not even write that this script ended.
        say(f"{user_message(error) or error}; tried again soon")
        sys.exit(Exit.TRY_AGAIN)
    try:
        reconcile_run(run, settings_of(run), journal, final_node_of)
    except (BucketError, PipelineError, OSError) as error:
        last = attempt >= MOST_ATTEMPTS
        then = "the next poll tries again" if last else "tried again soon"
        sentence = f"attempt {attempt}: {error}; {then}"
        journal.say("not-reconciled", sentence, "warning", attempt=attempt)
        sys.exit(Exit.REFUSED if last else Exit.TRY_AGAIN)


@cli.command()
@click.argument("run_directory", type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print it for programs.")
def cost(run_directory: Path, as_json: bool) -> None:
    """Say what a run cost, so far or in all: time of machines, CPU, bytes.

    \b
      python3 cog_pipeline.py cost workflow-run-20261120T193637Z

    The average is that of the rows that were worked on.
    """
    spent = costs.cost(load_run(run_directory))
    if as_json:
        click.echo(json.dumps(asdict(spent), indent=2))
        return
    ended = "still runs"
    if spent.processed is not None:
        ended = f"{spent.processed} processed, {spent.failed} failed"
    shown = Table(title=f"{run_directory.name}: {spent.rows} rows, {ended}", box=SIMPLE)
    shown.add_column("")
    shown.add_column("the run", justify="right")
    shown.add_column("the average row", justify="right")
    for line in costs.table(spent):
        shown.add_row(*line)
    console.print(shown)


if __name__ == "__main__":
    cli()
