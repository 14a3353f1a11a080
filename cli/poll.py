"""``poll``, which the crondor job calls."""

from datetime import UTC, datetime
from pathlib import Path

import click

from cli.common import say, use_journal, warn
from dag.launch import exposed_keys
from dag.poll import poll as poll_once
from state.journal import Journal, journal_of
from state.launch import Launch, load_launch


@click.command(hidden=True)
@click.argument("launch_file", type=click.Path(exists=True, path_type=Path))
def poll(launch_file: Path) -> None:
    """Poll the bucket for manifests once (the crondor job calls this).

    \b
      python3 cog_pipeline.py poll launch-maps-1a2b3c4d/launch.json
    """
    launch = load_launch(launch_file)
    for fault in exposed_keys(launch.store):
        warn(fault)
    journal = use_journal(journal_of(launch.home, say))
    try:
        poll_and_report(launch, journal)
    finally:
        if launch.catalog.products:
            # Its packages need not be installed otherwise.
            from catalog import make

            make.catch_up(launch, journal)


def poll_and_report(launch: Launch, journal: Journal) -> None:
    """Poll once, and print how many runs began."""
    runs = poll_once(launch, journal)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    say(f"{now}: polled {launch.input_bucket}, runs started: {len(runs)}")
