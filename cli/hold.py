"""``hold``: keep the jobs of runs from running."""

from pathlib import Path

import click

from cli.runs import each_run, fail_if, some_runs_argument
from ops import control


@click.command()
@some_runs_argument
def hold(run_directories: tuple[Path, ...]) -> None:
    """Hold runs: none of their jobs runs until you release them.

    \b
      python3 cog_pipeline.py hold workflow-run-20261120T193637Z

    Running jobs are ended, and start from the beginning after the release. Rows that
    are done stay done.
    """
    fail_if(each_run(run_directories, lambda run, journal: control.hold(run)))
