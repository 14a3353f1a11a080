"""``logs``: show the messages about a run, in order of time."""

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from cli.common import json_option
from ops.logs import Entry, RunLog, selection
from state.run import load_run
from state.text import one_line

_SECONDS_BETWEEN = 2


@click.command()
@click.argument(
    "run_directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.argument("image", required=False)
@click.option("--follow", is_flag=True, help="Show new messages until the run ends.")
@json_option
def logs(run_directory: Path, image: str | None, follow: bool, as_json: bool) -> None:
    """Show the messages of polls, HTCondor and nodes about a run, in order of time.

    \b
      python3 cog_pipeline.py logs workflow-run-20261120T193637Z scans/a.tif

    With an image, as the manifest names it, leave out messages about other images.
    Times are in UTC. With --json, each line is a JSON object.
    """
    run = load_run(run_directory)
    log = RunLog(run, selection(run, image) if image else None)
    while True:
        # Read once more after the end: the last lines come just before it.
        is_last = run.done or not follow
        for entry in log.new():
            _print(entry, as_json)
        if is_last:
            break
        time.sleep(_SECONDS_BETWEEN)
    for entry in log.rest():
        _print(entry, as_json)


def _print(entry: Entry, as_json: bool) -> None:
    at = datetime.fromtimestamp(entry.time, UTC)
    message = one_line(entry.message)
    if as_json:
        named = {"time": at.isoformat(timespec="milliseconds"), "message": message}
        click.echo(json.dumps(asdict(entry) | named))
        return
    attempt = f", try {entry.attempt}" if entry.attempt else ""
    place = f"{entry.node}{attempt}: " if entry.node else ""
    click.echo(f"{at:%Y-%m-%d %H:%M:%S}  {entry.source:6}  {place}{message}")
