"""What strangers wrote, as it may be shown to people: in a CSV, a log, a terminal."""

import re

# A presigned URL's query is a key until it expires: it is shown to nobody.
_SIGNED_QUERY = re.compile(r"\?[^\s\"']*(X-Amz|Signature)[^\s\"']*")
_LONGEST = 500
# What spreadsheets take for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@")


def without_signatures(text: str) -> str:
    """Text without what would let others read or write an object."""
    return _SIGNED_QUERY.sub("?…", text)


def printable(text: str) -> str:
    """Text as one line with no signature and nothing that acts on a terminal.

    Characters that are not printable, among them those that turn the direction of
    writing round, become U+FFFD. What is longer than a sentence is cut.
    """
    line = " ".join(without_signatures(text).split())
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def presentable(reason: str) -> str:
    """A reason as it may stand in a table: printable, and no formula."""
    line = printable(reason)
    return printable(f"said was: {line}") if line.startswith(_FORMULA) else line
