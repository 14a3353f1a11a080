"""Options that choose rasters, and the text of sizes and dates."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from typing import Any

import click

from ingest.selection import Selection

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?")


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise click.BadParameter(
            f"{text!r} is not a regular expression: {error}"
        ) from error


def _bytes(text: str) -> int:
    if not (match := _SIZE.fullmatch(text)):
        raise click.BadParameter(f"{text!r} is not a size, such as 500MB or 2G")
    return int(float(match[1]) * _UNITS[match[2]])


_DATE = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


def selection_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that choose rasters; the command takes ``selection``."""

    @click.option(
        "--filter",
        "filters",
        type=_pattern,
        multiple=True,
        metavar="REGEX",
        help="Take only keys that this matches somewhere. If you repeat it, one of "
        "them must match.",
    )
    @click.option(
        "--exclude",
        "excludes",
        type=_pattern,
        multiple=True,
        metavar="REGEX",
        help="Leave out keys that this matches somewhere. You can repeat it.",
    )
    @click.option(
        "--since",
        type=_DATE,
        metavar="DATE",
        help="Take only rasters that were written on this day (UTC) or later.",
    )
    @click.option(
        "--larger-than",
        type=_bytes,
        metavar="SIZE",
        help="Take only rasters with more bytes, such as 500MB.",
    )
    @wraps(command)
    def with_selection(
        filters: tuple[re.Pattern[str], ...],
        excludes: tuple[re.Pattern[str], ...],
        since: datetime | None,
        larger_than: int | None,
        **others: Any,
    ) -> None:
        day = since.replace(tzinfo=UTC) if since else None
        command(selection=Selection(filters, excludes, day, larger_than), **others)

    return with_selection


sample_option = click.option(
    "--sample",
    type=click.IntRange(min=1),
    metavar="N",
    help="Take only N images, chosen at random.",
)


def size(number: int) -> str:
    """Return a number of bytes for people.

    >>> size(999), size(12_345), size(2_000_000_000)
    ('999 B', '12.3 kB', '2.0 GB')
    """
    value, unit = float(number), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
