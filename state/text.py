"""Text for people: durations, and what strangers wrote, made safe to show."""

import re
from datetime import timedelta
from functools import lru_cache

# A word, as far as a URL goes in a text. Each pattern here takes time in proportion to
# the text, whatever it contains: a stranger may have written it to keep us busy.
_WORD = re.compile(r"[^\s\"']+")
# Marks the query of a presigned URL, of Signature Version 4 or 2. Such a query is a key
# until it expires, so it is never shown.
_SIGNING = re.compile(r"x-amz|signature|awsaccesskeyid", re.IGNORECASE)
# Comes before a signature in a query that has lost its beginning.
_SIGNATURE = re.compile(r"signature(=|%3d)", re.IGNORECASE)
_MAX_LINE = 500  # characters
# Text may have megabytes. It is cut before it is searched.
_MAX_SEARCHED = 20 * _MAX_LINE  # characters
# Spreadsheets take a field that begins like this for a formula.
_FORMULA = ("=", "+", "-", "@")
_UNITS = (("days", 86400), ("h", 3600), ("min", 60))


def redact_signatures(text: str, max_length: int | None = None) -> str:
    """Return text without the signatures that let others read or write an object.

    Args:
        max_length: number of characters to keep of a longer text.

    >>> redact_signatures("GET https://store/b/k?X-Amz-Signature=0a1b: 403")
    'GET https://store/b/k?… 403'
    """
    kept = text[:max_length]
    is_cut = len(kept) < len(text)

    def redact(word: re.Match[str]) -> str:
        # A URL that is cut may have lost the mark of a signed one.
        ends_early = is_cut and word.end() == len(kept)
        return _redact_signature(word[0], ends_early)

    return _WORD.sub(redact, kept) + ("…" if is_cut else "")


def one_line(text: str) -> str:
    """Return text as one line without signatures or terminal control characters.

    Characters that are not printable become U+FFFD. Those that change the direction of
    writing are among them. A line longer than a sentence is cut.

    >>> one_line("two\\nlines\\x1b[31m")
    'two lines�[31m'
    """
    line = printable(" ".join(redact_signatures(text, _MAX_SEARCHED).split()))
    return line if len(line) <= _MAX_LINE else line[: _MAX_LINE - 1] + "…"


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, which has a regular plural.

    >>> counted(1, "row"), counted(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """Return text with U+FFFD for each character that is not printable.

    >>> printable("two  spaces\\x1b[31m")
    'two  spaces�[31m'
    """
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def csv_safe(reason: str) -> str:
    """Return a reason that is safe in a table: one printable line, and no formula.

    >>> csv_safe("=1+1")
    'the text was: =1+1'
    """
    # One character more than is searched shows whether the text was cut.
    return _csv_safe(reason[: _MAX_SEARCHED + 1])


# A million rows may fail for the same reason. It is in memory once.
@lru_cache(maxsize=100)
def _csv_safe(reason: str) -> str:
    line = one_line(reason)
    return one_line(f"the text was: {line}") if line.startswith(_FORMULA) else line


def _redact_signature(word: str, ends_early: bool) -> str:
    query = word.find("?")
    if query >= 0 and (ends_early or _SIGNING.search(word, query)):
        return word[:query] + "?…"
    signature = _SIGNATURE.search(word)
    return f"{word[: signature.start()]}…" if signature else word


def duration(length: float | timedelta, digits: int = 0, *, days: bool = True) -> str:
    """Return a duration in the largest unit of which it has at least two.

    Args:
        length: the duration, in seconds if it is a number.
        digits: number of decimal places.
        days: whether to use days; otherwise hours are the largest unit.

    >>> duration(60 * 52)
    '52 min'
    >>> duration(90, digits=1)
    '90.0 s'
    """
    seconds = length.total_seconds() if isinstance(length, timedelta) else length
    for unit, size in _UNITS if days else _UNITS[1:]:
        if seconds >= 2 * size:
            return f"{seconds / size:,.{digits}f} {unit}"
    return f"{max(seconds, 0):.{digits}f} s"
