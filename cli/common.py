"""What all commands share: how they speak, and how they end."""

import click
from rich.console import Console

from dag.errors import foreseen
from dag.exits import Exit
from dag.health import State
from dag.journal import Journal
from dag.wording import printable
from pack.errors import PackError
from pool.errors import PoolError

console = Console(highlight=False)


class LaunchByDefault(click.Group):
    """``launch`` is what happens when no command is named."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        if not arguments or arguments[0] not in (*self.commands, "--help"):
            arguments = ["launch", *arguments]
        return super().parse_args(context, arguments)

    def invoke(self, context: click.Context) -> object:
        """Let every command end with a sentence and a code of ``Exit``."""
        try:
            return super().invoke(context)
        except click.UsageError as error:
            if error.ctx and error.ctx.command.name == "health":
                # What Exit.MISUSED is to others, monitoring takes for CRITICAL.
                error.exit_code = State.UNKNOWN
            raise
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise
        except (PackError, PoolError) as error:
            raise Ended(Exit.REFUSED, printable(str(error))) from error
        except KeyboardInterrupt as error:
            sentence = (
                "stopped by Ctrl-C. What was done holds; the same command, or the "
                "next poll, carries on from there"
            )
            raise Ended(Exit.INTERRUPTED, sentence) from error
        except Exception as error:
            if said := foreseen(error):
                raise Ended(Exit.REFUSED, printable(said)) from error
            journal = context.obj or Journal(say)
            raise Ended(Exit.UNFORESEEN, journal.unforeseen(error)) from error


class Ended(click.ClickException):
    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.exit_code = code


def in_use(journal: Journal) -> Journal:
    """From here on, unforeseen errors are written into this journal."""
    click.get_current_context().find_root().obj = journal
    return journal


def say(sentence: str) -> None:
    click.echo(printable(sentence))


def warn(sentence: str) -> None:
    click.echo(printable(f"Warning: {sentence}"), err=True)
