"""``health``: the state of launches, for monitoring."""

import json
import sys
from pathlib import Path

import click

from cli.common import json_option, say
from ops import health as healths
from ops.health import State
from state.errors import user_message
from state.journal import Journal
from state.launch import settings_files


class _UnknownState(click.UsageError):
    """A wrong command line; monitoring would take Exit.USAGE for CRITICAL."""

    exit_code = State.UNKNOWN


class _Plugin(click.Command):
    """A command with the exit codes of monitoring plugins."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        try:
            return super().parse_args(context, arguments)
        except click.UsageError as error:
            raise _UnknownState(error.format_message(), error.ctx) from error


@click.command(cls=_Plugin)
@click.argument(
    "launch_files",
    nargs=-1,
    metavar="[LAUNCH_FILE]…",
    type=click.Path(path_type=Path),
)
@json_option
def health(launch_files: tuple[Path, ...], as_json: bool) -> None:
    """Report the health of launches, one line each, for monitoring.

    \b
      python3 cog_pipeline.py health launch-maps-1a2b3c4d/launch.json

    Without a file, report all launches of the current directory. The exit code is
    that of monitoring plugins: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
    """
    try:
        files = launch_files or settings_files(Path.cwd())
        reports = [healths.examine(file) for file in files]
    except Exception as error:
        # Monitoring reads standard output, and gives other codes meanings of its own.
        message = user_message(error) or Journal(say).internal_error(error)
        say(f"{State.UNKNOWN.name}: {message}")
        sys.exit(State.UNKNOWN)
    if as_json:
        click.echo(
            json.dumps([healths.as_json(report) for report in reports], indent=2)
        )
    elif reports:
        for report in reports:
            say(healths.sentence(report))
    else:
        say(
            f"{State.UNKNOWN.name}: there is no launch in {Path.cwd()}; name the "
            "launch.json of one"
        )
    states = [report.state for report in reports]
    sys.exit(healths.worst(states) if states else State.UNKNOWN)
