"""``release``: let held runs continue."""

from pathlib import Path

import click

from cli.runs import each_run, fail_if, some_runs_argument
from ops import control


@click.command()
@some_runs_argument
def release(run_directories: tuple[Path, ...]) -> None:
    """Let runs that you hold continue.

    \b
      python3 cog_pipeline.py release workflow-run-20261120T193637Z

    This also releases jobs that somebody held with condor_hold.
    """
    fail_if(each_run(run_directories, lambda run, journal: control.release(run)))
