"""What all commands share: how they speak, and how they end."""

import click
from rich.console import Console

from ops.health import State
from pack.errors import PackError
from pool.errors import PoolError
from state.errors import user_message
from state.exits import Exit
from state.journal import Journal
from state.text import one_line

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
            raise Ended(Exit.REFUSED, one_line(str(error))) from error
        except KeyboardInterrupt as error:
            sentence = (
                "stopped by Ctrl-C. What was done holds; the same command, or the "
                "next poll, carries on from there"
            )
            raise Ended(Exit.INTERRUPTED, sentence) from error
        except Exception as error:
            if said := user_message(error):
                raise Ended(Exit.REFUSED, one_line(said)) from error
            journal = context.obj or Journal(say)
            raise Ended(Exit.INTERNAL_ERROR, journal.internal_error(error)) from error


class Ended(click.ClickException):
    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.exit_code = code


def in_use(journal: Journal) -> Journal:
    """From here on, unforeseen errors are written into this journal."""
    click.get_current_context().find_root().obj = journal
    return journal


def say(sentence: str) -> None:
    click.echo(one_line(sentence))


def warn(sentence: str) -> None:
    click.echo(one_line(f"Warning: {sentence}"), err=True)
