"""Options of a launch that want more than click knows: checked, or passed on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dag import render, submit_options
from node import options


def submit_option(
    context: click.Context, parameter: click.Parameter, lines: tuple[str, ...]
) -> tuple[str, ...]:
    for line in lines:
        try:
            submit_options.check(line)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
    return lines


def node_environment(
    context: click.Context, parameter: click.Parameter, said: str
) -> str:
    kind, _, image = said.partition(":")
    if kind == "container" and image and image.isprintable():
        # A file of this machine; anything else is for a registry to know.
        return f"container:{Path(image).resolve()}" if Path(image).exists() else said
    if said in ("host", "packed"):
        return said
    raise click.BadParameter(
        f"{said!r} is none of 'host', 'packed' and 'container:' with an image behind, "
        "as in container:docker://registry.example.org/cog_pipeline:1"
    )


def node_options(command: Callable) -> Callable:
    """Add the options that a launch passes on to its nodes."""
    for option in reversed(options.NODE_OPTIONS):
        how: dict[str, Any] = {
            "multiple": option.multiple,
            "metavar": option.metavar,
        }
        command = click.option(
            option.flag,
            option.name,
            is_flag=option.metavar is None,
            hidden=option.hidden,
            help=f"For the nodes: {option.help}.",
            **{name: value for name, value in how.items() if value},
        )(command)
    return command


def former_name(flag: str, name: str, convert: Callable) -> Callable:
    """Add a hidden option: the name that an option had before version 0.1."""

    def set_option(
        context: click.Context, parameter: click.Parameter, value: str | None
    ) -> None:
        if value is not None:
            context.params[name] = convert(value)

    return click.option(flag, hidden=True, expose_value=False, callback=set_option)


def as_arguments(
    told: dict[str, str | tuple[str, ...] | bool | None],
) -> tuple[str, ...]:
    """What was said of the nodes' options, as arguments for them."""
    said: dict[str, list[str]] = {}
    for name, value in told.items():
        if value is True:
            said[name] = ["yes"]
        elif value:
            said[name] = list(value) if isinstance(value, tuple) else [value]
    try:
        return options.arguments(said)
    except options.UsageError as error:
        raise click.UsageError(str(error)) from error


def period(context: click.Context, parameter: click.Parameter, every: int) -> int:
    try:
        render.cron_schedule(every)
    except ValueError as error:
        raise click.BadParameter(
            f"{error}: name one that divides an hour (1, 2, 5, 10, 15, 20, 30, …) "
            "or hours that divide a day (60, 120, 180, …)"
        ) from error
    return every
