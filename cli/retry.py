"""``retry``: try failed rows of a run again."""

import json
from pathlib import Path

import click

from cli.common import fail, json_option, say
from ops import failures
from state.exits import Exit
from state.run import load_run, settings_of
from state.text import counted


@click.command()
@click.argument(
    "run_directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option("--all", "everything", is_flag=True, help="Try all failed rows again.")
@click.option(
    "--code",
    "codes",
    multiple=True,
    metavar="CODE",
    help="Retry only the rows that failed with this code, as 'failures' shows it. You "
    "can repeat it.",
)
@json_option
def retry(
    run_directory: Path, everything: bool, codes: tuple[str, ...], as_json: bool
) -> None:
    """Upload a manifest of a run's failed rows, so that they are tried again.

    \b
      python3 cog_pipeline.py retry workflow-run-20261120T193637Z

    Without options, these are the rows that may succeed without a change: a machine
    or the network failed, or a job was removed. After you have corrected images, use
    --all or --code.
    """
    if everything and codes:
        raise click.UsageError("give one of --all and --code, not both.")
    run = load_run(run_directory)
    lines = failures.rows_to_retry(run, codes, everything=everything)
    if not lines:
        fail(
            Exit.REFUSED,
            "no failed row can succeed without a change: correct the images and use "
            "--all; 'failures' shows the reasons",
        )
    key = failures.upload_retry(run, lines)
    if as_json:
        click.echo(json.dumps({"manifest": key, "rows": len(lines)}))
        return
    rows = counted(len(lines), "row")
    bucket = settings_of(run).input_bucket
    say(f"Uploaded {bucket}/{key} with {rows}; the next poll takes it.")
