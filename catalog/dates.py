"""Dates of images, as people write them in manifests and in the names of files."""

import calendar
import re
from datetime import UTC, datetime, timedelta
from itertools import takewhile

from catalog.record import Dates

# The parts of a date that a pattern for keys can name.
GROUPS = ("year", "month", "day", "hour", "minute", "second")
_ISO = re.compile(
    r"(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)"
    r"(?:[T ](?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.\d+)?)?"
    r"(?P<zone>Z|[+-]\d\d:\d\d)?)?)?)?",
    re.ASCII,
)
_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def of_text(text: str) -> Dates | None:
    """Return the dates that a person wrote; None if they cannot be read.

    A date without a day or a time stands for all of the year, month or day. Two dates
    with a ``/`` between them are the first and the last.

    >>> of_text("1937")
    Dates(start='1937-01-01T00:00:00Z', end='1937-12-31T23:59:59Z')
    >>> of_text("1937-07/1937-08-15")
    Dates(start='1937-07-01T00:00:00Z', end='1937-08-15T23:59:59Z')
    """
    first, slash, last = text.strip().partition("/")
    start = _of_one(first)
    end = _of_one(last) if slash else start
    if start is None or end is None or end.end < start.start:
        return None
    return Dates(start.start, end.end)


def of_key(key: str, pattern: re.Pattern[str]) -> Dates | None:
    """Return the dates that a key has in its name; None if it has none.

    Args:
        pattern: a pattern with the groups ``year``, ``month`` and so on, or with one
            group ``date``, as in 1937, 1937-07-01 or 19370701.
    """
    match = pattern.search(key)
    if match is None:
        return None
    named = {name: text for name, text in match.groupdict().items() if text}
    if date := named.get("date"):
        if digits := re.fullmatch(r"(\d{4})(\d\d)(\d\d)?", date, re.ASCII):
            date = "-".join(filter(None, digits.groups()))
        return of_text(date)
    try:
        # A day without a month says nothing.
        parts = [int(named[name]) for name in takewhile(named.__contains__, GROUPS)]
    except ValueError:
        return None
    return _range(*parts) if parts else None


def _of_one(text: str) -> Dates | None:
    match = _ISO.fullmatch(text.strip())
    if match is None:
        return None
    parts = [int(match[name]) for name in GROUPS if match[name]]
    dates = _range(*parts)
    zone = match["zone"]
    if dates is None or zone in (None, "Z"):
        return dates
    try:
        offset = datetime.strptime(zone, "%z").utcoffset() or timedelta()
        start, end = (datetime.strptime(date, _FORMAT) - offset for date in dates)
    except (ValueError, OverflowError):
        return None
    return Dates(_text(start), _text(end))


def _range(*parts: int) -> Dates | None:
    """Return the first and the last second of a year, a month, a day, and so on."""
    first, last = (1, 1, 1, 0, 0, 0), (9999, 12, 31, 23, 59, 59)
    known = len(parts)
    try:
        start = _moment(*parts, *first[known:])
        if known == 2:
            parts = (*parts, calendar.monthrange(*parts)[1])
        end = _moment(*parts, *last[len(parts) :])
    except (ValueError, OverflowError):
        return None
    return Dates(_text(start), _text(end))


def _moment(
    year: int, month: int, day: int, hour: int, minute: int, second: int
) -> datetime:
    return datetime(year, month, day, hour, minute, second)


def _text(moment: datetime) -> str:
    # strftime does not fill years before 1000 with zeros.
    return moment.isoformat(timespec="seconds") + "Z"


def now() -> str:
    return _text(datetime.now(UTC).replace(tzinfo=None))
