"""What strangers wrote, as it may be shown to people: in a CSV, a log, a terminal."""

import re
from functools import lru_cache

# As far as a URL goes in a text. Each of these takes time in proportion to the text,
# whatever stands in it: it may have been written to make us wait.
_WORD = re.compile(r"[^\s\"']+")
# What tells that a query is that of a presigned URL, by Signature Version 4 or 2.
# Such a query is a key until it expires: it is shown to nobody.
_SIGNING = re.compile(r"x-amz|signature|awsaccesskeyid", re.IGNORECASE)
# What a signature follows where the query has lost its beginning.
_SIGNATURE = re.compile(r"signature(=|%3d)", re.IGNORECASE)
_LONGEST = 500
# Text is cut before anything is looked for in it: it may have megabytes.
_SEARCHED = 20 * _LONGEST
# What spreadsheets take for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@")


def redact_signatures(text: str, most: int | None = None) -> str:
    """Return text without what would let others read or write an object.

    Args:
        most: characters that are kept of a longer text.
    """
    kept = text[:most]
    cut = len(kept) < len(text)

    def of_word(word: re.Match) -> str:
        # A URL that is cut may have lost what tells that it is signed.
        ends_early = cut and word.end() == len(kept)
        return _redact_signature(word[0], ends_early)

    return _WORD.sub(of_word, kept) + ("…" if cut else "")


def one_line(text: str) -> str:
    """Return text as one line with no signature and nothing that acts on a terminal.

    Characters that are not printable, among them those that turn the direction of
    writing round, become U+FFFD. What is longer than a sentence is cut.
    """
    line = " ".join(redact_signatures(text, _SEARCHED).split())
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def csv_safe(reason: str) -> str:
    """Return a reason as it may stand in a table: printable, and no formula."""
    # One character more than is shown: whether it was cut is to be seen.
    return _csv_safe(reason[: _SEARCHED + 1])


# A million rows may fail for the same reason, which then is in memory once.
@lru_cache(maxsize=100)
def _csv_safe(reason: str) -> str:
    line = one_line(reason)
    return one_line(f"said was: {line}") if line.startswith(_FORMULA) else line


def _redact_signature(word: str, ends_early: bool) -> str:
    query = word.find("?")
    if query >= 0 and (ends_early or _SIGNING.search(word, query)):
        return word[:query] + "?…"
    found = _SIGNATURE.search(word)
    return f"{word[: found.start()]}…" if found else word
