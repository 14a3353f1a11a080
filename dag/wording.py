"""What strangers wrote, as it may be shown to people: in a CSV, a log, a terminal."""

import re

# A presigned URL's query is a key for a week: it never goes into a reason.
_SIGNED_QUERY = re.compile(r"\?[^\s\"']*(X-Amz|Signature)[^\s\"']*")
_LONGEST_REASON = 500
# What spreadsheets take for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@")


def printable(text: str) -> str:
    """Text as one line with no signature and nothing that acts on a terminal.

    Characters that are not printable, among them those that turn the direction of
    writing round, become U+FFFD.
    """
    line = " ".join(_SIGNED_QUERY.sub("?…", text).split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


def presentable(reason: str) -> str:
    """A reason as one line of a table that may be shown to anyone."""
    line = printable(reason)
    if line.startswith(_FORMULA):
        line = f"said was: {line}"
    if len(line) > _LONGEST_REASON:
        line = line[: _LONGEST_REASON - 1] + "…"
    return line
