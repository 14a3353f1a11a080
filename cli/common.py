"""Print the messages of commands, and end them with an exit code."""

import sys
from typing import NoReturn

import click
from rich.console import Console
from rich.progress import Progress, ProgressColumn

from state.exits import Exit
from state.journal import Journal
from state.text import one_line

console = Console(highlight=False)
# A message that is printed by it does not disturb its display of progress.
_errors = Console(stderr=True, highlight=False)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON for programs."
)


def progress(*columns: ProgressColumn) -> Progress:
    """Return a display of progress, which only terminals get, on standard error."""
    return Progress(
        *columns,
        console=_errors,
        transient=True,
        disable=not sys.stderr.isatty(),
        # Otherwise rich prints on the terminal what is to go into a file.
        redirect_stdout=sys.stdout.isatty(),
    )


def fail(code: Exit, message: str) -> NoReturn:
    """End the command with a sentence and an exit code."""
    click.echo(f"Error: {one_line(message)}", err=True)
    sys.exit(code)


def use_journal(journal: Journal) -> Journal:
    """Let the journal take internal errors of this command from now on."""
    click.get_current_context().find_root().obj = journal
    return journal


def say(message: str) -> None:
    click.echo(one_line(message))


def note(message: str) -> None:
    """Print what is not part of the output, which a program may read.

    A message may be indented.
    """
    indent = message[: len(message) - len(message.lstrip(" "))]
    _print(indent + one_line(message))


def warn(message: str) -> None:
    _print(one_line(f"Warning: {message}"))


def _print(text: str) -> None:
    _errors.print(text, markup=False, emoji=False, soft_wrap=True)
