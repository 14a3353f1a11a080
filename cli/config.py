"""``config``: the value of each option, and where it comes from."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from cli import configuration
from cli.common import console, json_option
from cli.launch import launch
from state.text import printable


@click.command()
@json_option
def config(as_json: bool) -> None:
    """Show the value of each option of launch, and where it comes from.

    \b
      python3 cog_pipeline.py config

    Values come from the command line, from variables such as
    COG_PIPELINE_INPUT_BUCKET, from cog_pipeline.toml in the current folder or one
    above it, and from the defaults, in this order.
    """
    rows = list(_values(click.get_current_context().find_root()))
    if as_json:
        click.echo(json.dumps({name: [value, source] for name, value, source in rows}))
        return
    table = Table(box=SIMPLE)
    for heading in ("option", "value", "from"):
        table.add_column(heading, overflow="fold")
    for name, value, source in rows:
        table.add_row(name, escape(printable(_text(value))), escape(source))
    console.print(table)


def _values(root: click.Context) -> Iterator[tuple[str, Any, str]]:
    """Yield the name, the value and the source of each option of launch."""
    configuration.apply(root, "launch", launch, launch)
    file = configuration.find(Path.cwd())
    with launch.make_context("launch", [], parent=root, resilient_parsing=True) as own:
        for option in configuration.options_of(launch):
            source = own.get_parameter_source(str(option.name))
            where = {
                ParameterSource.ENVIRONMENT: str(configuration.variable_of(option)),
                ParameterSource.DEFAULT_MAP: str(file),
            }.get(source or ParameterSource.DEFAULT, "default")
            value = own.params[str(option.name)]
            if where == "default":
                # Callbacks may have turned it into another unit.
                value = option.to_info_dict()["default"]
            yield configuration.name_of(option), _plain(value), where


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, tuple):
        return [str(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _text(value: Any) -> str:
    if value is None or value == []:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else str(value)
