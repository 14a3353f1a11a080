"""``poll``, which the crondor job calls."""

from datetime import UTC, datetime
from pathlib import Path

import click

from cli.common import say, use_journal, warn
from dag import catalog_job
from dag.launch import exposed_keys
from dag.poll import poll as poll_once
from state.errors import user_message
from state.journal import Journal, journal_of
from state.launch import Launch, load_launch


@click.command(hidden=True)
@click.argument("launch_file", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--only-catalog",
    is_flag=True,
    help="Make the catalog of all runs that have ended (a job for many images calls "
    "this).",
)
def poll(launch_file: Path, only_catalog: bool) -> None:
    """Poll the bucket for manifests once (the crondor job calls this).

    \b
      python3 cog_pipeline.py poll launch-maps-1a2b3c4d/launch.json
    """
    launch = load_launch(launch_file)
    for fault in exposed_keys(launch.store):
        warn(fault)
    journal = use_journal(journal_of(launch.home, say))
    if only_catalog:
        _make_catalog(launch, journal, here=True)
        return
    try:
        poll_and_report(launch, journal)
    finally:
        if launch.catalog.products:
            _make_catalog(launch, journal)


def _make_catalog(launch: Launch, journal: Journal, *, here: bool = False) -> None:
    """Make the catalog of the runs that have ended, or submit a job for it.

    A failure changes nothing for the runs. The journal has it, and the next poll tries
    again.

    Args:
        here: whether to make it in any case, however many images there are.
    """
    try:
        # The catalog's packages need not be installed otherwise.
        from catalog import make

        runs = make.pending(launch, journal)
        if runs and not here and make.is_heavy(launch, runs):
            catalog_job.submit(launch, journal)
        else:
            make.make(runs, journal)
    except Exception as error:
        message = user_message(error) or journal.internal_error(error)
        text = f"the catalog: {message}; the next poll tries again"
        journal.say("catalog-failed", text, "error")


def poll_and_report(launch: Launch, journal: Journal) -> None:
    """Poll once, and print how many runs began."""
    runs = poll_once(launch, journal)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    say(f"{now}: polled {launch.input_bucket}, runs started: {len(runs)}")
