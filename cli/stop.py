"""``stop``: end runs early, or a launch."""

from pathlib import Path

import click

from bucket import BucketError
from cli.common import fail, say
from cli.runs import each_run, fail_if, runs_argument
from ops import control
from state.errors import PipelineError
from state.exits import Exit
from state.journal import journal_of
from state.launch import Launch, load_launch, settings_files


@click.command()
@runs_argument
@click.option(
    "--launch", "only_launch", is_flag=True, help="Stop the polls; runs go on."
)
@click.option("--all", "everything", is_flag=True, help="Stop the polls and all runs.")
def stop(
    run_directories: tuple[Path, ...], only_launch: bool, everything: bool
) -> None:
    """Stop runs: rows that are not done go to the failed CSV with that reason.

    \b
      python3 cog_pipeline.py stop workflow-run-20261120T193637Z
      python3 cog_pipeline.py stop --all

    Rows that are done stay done, and 'retry' tries the others again. --launch and
    --all are for the launches of the current directory.
    """
    if bool(run_directories) + only_launch + everything != 1:
        raise click.UsageError("name runs, or give one of --launch and --all.")
    if run_directories:
        fail_if(each_run(run_directories, control.stop))
        return
    files = settings_files(Path.cwd())
    if not files:
        fail(Exit.REFUSED, f"there is no launch in {Path.cwd()}")
    failures = []
    for file in files:
        try:
            failures += _stop_launch(load_launch(file), everything=everything)
        except (BucketError, PipelineError) as error:
            failures.append(f"{file.parent.name}: {error}")
    fail_if(failures)


def _stop_launch(launch: Launch, *, everything: bool) -> list[str]:
    """Stop the polls of a launch, and perhaps its runs; return what failed."""
    answer = control.stop_launch(launch)
    if answer.event:
        journal_of(launch.home, say).record(answer.event)
    else:
        say(answer.message)
    runs = control.runs_that_last(launch)
    if everything:
        return each_run([run.directory for run in runs], control.stop)
    if runs:
        number = "1 run goes" if len(runs) == 1 else f"{len(runs)} runs go"
        say(f"{number} on: 'stop --all' stops them, too")
    return []
