"""Run directories as arguments of commands."""

from collections.abc import Callable, Iterable
from pathlib import Path

import click

from cli.common import say, use_journal
from ops.control import Answer
from state.journal import Journal
from state.run import RUN_DIRECTORY_PREFIX, Run, load_run

runs_argument = click.argument(
    "run_directories",
    nargs=-1,
    metavar="[RUN_DIRECTORY]…",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)

some_runs_argument = click.argument(
    "run_directories",
    nargs=-1,
    required=True,
    metavar="RUN_DIRECTORY…",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)


def runs_of(directories: tuple[Path, ...]) -> list[Run]:
    """Return the runs of these directories; those of the current one if none is named.

    Raises:
        PipelineError: a directory is not that of a run.
    """
    named = directories or sorted(Path.cwd().glob(f"{RUN_DIRECTORY_PREFIX}*"))
    return [load_run(directory) for directory in named]


def runs_beside(runs: Iterable[Run]) -> list[Run]:
    """Return all runs whose directories are where those of some runs are.

    Raises:
        PipelineError: a directory is not that of a run.
    """
    folders = sorted({run.directory.parent for run in runs})
    return [
        load_run(directory)
        for folder in folders
        for directory in sorted(folder.glob(f"{RUN_DIRECTORY_PREFIX}*"))
    ]


def each_run(
    directories: Iterable[Path], act: Callable[[Run, Journal], Answer]
) -> None:
    """Do something to each run, print what became of it, and log what happened."""
    for directory in directories:
        run = load_run(directory)
        journal = use_journal(Journal(say).of_run(run))
        answer = act(run, journal)
        if answer.event:
            journal.record(answer.event)
        else:
            say(answer.message)
