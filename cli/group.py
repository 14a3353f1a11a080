"""The group of all commands: how it reads the first word, helps, and ends."""

import os
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from cli import configuration
from cli.common import fail, say
from pack.errors import PackError
from pool.errors import PoolError
from state.errors import user_message
from state.exits import Exit
from state.journal import Journal
from state.project import VERSION

_HELP = """Turn a bucket of rasters into Cloud Optimized GeoTIFFs with HTCondor.

Launch once on an access point. Then upload images and a manifest, and read the two
CSVs that appear beside it:

\b
  python3 cog_pipeline.py launch -a access.key -s secret.key \\
      -e s3.example.org --input-bucket maps --output-bucket cogs \\
      -p "*raw.csv"

If the first word is an option, the command is launch.
"""
_OWN_OPTIONS = ("--help", "--version")


class Group(click.Group):
    """A group that suggests a command for a mistyped one."""

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = arguments[0]
        if self.get_command(context, name) is None:
            names = [name for name, _ in self.visible_commands(context)]
            matches = get_close_matches(name, names, n=1)
            hint = f" Did you mean {matches[0]!r}?" if matches else ""
            context.fail(f"No such command {name!r}.{hint}")
        return super().resolve_command(context, arguments)

    def visible_commands(
        self, context: click.Context
    ) -> Iterator[tuple[str, click.Command]]:
        """Yield the names and the commands that ``--help`` shows."""
        for name in self.list_commands(context):
            command = self.get_command(context, name)
            if command and not command.hidden:
                yield name, command


def _works_on_buckets(command: click.Command) -> bool:
    return any(option.name == "s3_endpoint" for option in command.params)


class SectionedCommand(click.Command):
    """A command whose options are in sections of its help.

    Attributes:
        sections: the headings, by the name of the first option of each section.
    """

    def __init__(self, *args: Any, sections: Mapping[str, str], **attributes: Any):
        super().__init__(*args, **attributes)
        self.sections = sections

    def format_options(
        self, context: click.Context, formatter: click.HelpFormatter
    ) -> None:
        lines: dict[str, list[tuple[str, str]]] = {}
        heading = "Options"
        for parameter in self.get_params(context):
            heading = self.sections.get(parameter.name or "", heading)
            if parameter is self.get_help_option(context):
                heading = "Help"
            if line := parameter.get_help_record(context):
                lines.setdefault(heading, []).append(line)
        for heading, records in lines.items():
            with formatter.section(heading):
                formatter.write_dl(records)


class CommandLine(Group):
    """All commands of cog_pipeline.py.

    Attributes:
        sections: the headings of ``--help``, and the names of the commands under each.
            The command ``health`` is ``cli.health.health``. It is imported when it is
            needed, so that polls do not wait for the libraries of other commands.
    """

    def __init__(self, sections: Mapping[str, Sequence[str]]) -> None:
        # Run directories are private, whoever starts us.
        super().__init__(callback=lambda: os.umask(0o077), help=_HELP)
        self.sections = sections
        click.version_option(VERSION, message=f"cog_pipeline {VERSION}")(self)

    def list_commands(self, context: click.Context) -> list[str]:
        return [name for names in self.sections.values() for name in names]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(context):
            return None
        command: click.Command = getattr(import_module(f"cli.{name}"), name)
        return command

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return a command whose options the configuration has set."""
        name, command, rest = super().resolve_command(context, arguments)
        if name and command and _works_on_buckets(command):
            launch = self.get_command(context, "launch")
            configuration.apply(context, name, command, launch or command)
        return name, command, rest

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        """Take a command line that begins with an option for ``launch``."""
        if context.resilient_parsing:  # a shell completes the name of a command
            return super().parse_args(context, arguments)
        first = arguments[0] if arguments else ""
        if not first or (first.startswith("-") and first not in _OWN_OPTIONS):
            arguments = ["launch", *arguments]
        return super().parse_args(context, arguments)

    def format_commands(
        self, context: click.Context, formatter: click.HelpFormatter
    ) -> None:
        commands = dict(self.visible_commands(context))
        width = max(map(len, commands))
        limit = formatter.width - width - 6
        for heading, names in self.sections.items():
            lines = [
                (f"{name:{width}}", commands[name].get_short_help_str(limit))
                for name in names
                if name in commands
            ]
            if lines:
                with formatter.section(heading):
                    formatter.write_dl(lines)

    def invoke(self, context: click.Context) -> object:
        """Let every command end with a sentence and a code of ``Exit``."""
        try:
            return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            fail(
                Exit.INTERRUPTED,
                "stopped by Ctrl-C. Completed steps remain; the same command, or the "
                "next poll, continues from there",
            )
        except (PackError, PoolError) as error:
            fail(Exit.REFUSED, str(error))
        except Exception as error:
            if message := user_message(error):
                fail(Exit.REFUSED, message)
            journal = context.obj or Journal(say)
            fail(Exit.INTERNAL_ERROR, journal.internal_error(error))
