"""Run directories as arguments of commands."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import click

from cli.common import fail, say, use_journal, warn
from ops.control import Answer
from state.errors import PipelineError, user_message
from state.exits import Exit
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

    A directory that nobody named and that cannot be read is left out, with a warning.

    Raises:
        PipelineError: a directory that was named is not that of a run.
    """
    if directories:
        return [load_run(directory) for directory in directories]
    return readable_runs(Path.cwd())


def readable_runs(folder: Path) -> list[Run]:
    """Return the runs whose directories are in a folder; warn of unreadable ones."""
    runs = []
    for directory in sorted(folder.glob(f"{RUN_DIRECTORY_PREFIX}*")):
        try:
            runs.append(load_run(directory))
        except PipelineError as error:
            _warn_once(f"{directory.name} is left out: {error}")
    return runs


@cache
def _warn_once(message: str) -> None:
    # A command that watches runs reads them again and again.
    warn(message)


def runs_beside(runs: Iterable[Run]) -> list[Run]:
    """Return all runs whose directories are where those of some runs are."""
    folders = sorted({run.directory.parent for run in runs})
    return [run for folder in folders for run in readable_runs(folder)]


def each_run(
    directories: Iterable[Path], act: Callable[[Run, Journal], Answer]
) -> list[str]:
    """Do something to each run, print what became of it, and log what happened.

    Returns:
        Why it failed for some runs. The others are independent of these.
    """
    failures = []
    for directory in directories:
        try:
            run = load_run(directory)
            journal = use_journal(Journal(say).of_run(run))
            answer = act(run, journal)
        except Exception as error:
            if (message := user_message(error)) is None:
                raise
            failures.append(f"{directory.name}: {message}")
        else:
            if answer.event:
                journal.record(answer.event)
            else:
                say(answer.message)
    return failures


def fail_if(failures: Sequence[str]) -> None:
    """End the command with an error if there are failures."""
    for failure in failures[:-1]:
        warn(failure)
    if failures:
        fail(Exit.REFUSED, failures[-1])
