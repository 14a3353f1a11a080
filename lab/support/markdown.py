"""Write tables in Markdown, and the parts of pages that are measured."""

from collections.abc import Iterable

_BEGIN, _END = "<!-- {} writes from here -->", "<!-- to here -->"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table."""
    lines = [head, ("---",) * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def insert(page: str, mark: str, text: str) -> str:
    """Return a page with ``text`` between its two marks.

    Raises:
        ValueError: the page lacks one of the marks.
    """
    begin = _BEGIN.format(mark)
    before, _, rest = page.partition(begin)
    _, end, after = rest.partition(_END)
    if not end:
        raise ValueError(f"the page lacks a line {begin!r} or, after it, {_END!r}")
    return f"{before}{begin}\n\n{text}\n{_END}{after}"
