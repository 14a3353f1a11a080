"""Write the two CSVs that replace a manifest."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from state.files import writing
from state.rows import Row

Fields = tuple[str, ...]


@contextmanager
def writing_rows(
    path: Path, header: Fields | None, *, with_reasons: bool
) -> Iterator[Callable[[Row], None]]:
    """Give a function that adds a row to a CSV.

    The CSV becomes ``path`` when the ``with`` block ends without an exception. It is
    empty if no row was added, so the header is written before the first row.

    Args:
        header: the header row of the manifest; None if it has none.
        with_reasons: whether the rows failed, and have their reason as third field.
    """
    with writing(path) as file:
        is_empty = True

        def add(row: Row) -> None:
            nonlocal is_empty
            if header and is_empty:
                title = "reason" if with_reasons else None
                _write(file, _with_reason(header, title, header))
            is_empty = False
            _write(file, _with_reason(row.fields, row.reason, header))

        yield add


def _write(file: TextIO, fields: Fields) -> None:
    # The csv module leaves a carriage return unquoted.
    has_return = "\r" in "".join(fields)
    csv.writer(
        file,
        lineterminator="\n",
        quoting=csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL,
    ).writerow(fields)


def _with_reason(fields: Fields, reason: str | None, header: Fields | None) -> Fields:
    """Return the fields with the reason, if there is one, as the third field.

    The reason of an earlier run is replaced, if the header says that there is one.

    >>> _with_reason(("a.tif", "3", "urgent"), "no CRS", None)
    ('a.tif', '3', 'no CRS', 'urgent')
    >>> _with_reason(("a.tif",), "no CRS", None)
    ('a.tif', '', 'no CRS')
    """
    if reason is None:
        return fields
    first_two = (*fields, "", "")[:2]
    had_reason = header is not None and header[2:3] == ("reason",)
    return (*first_two, reason, *fields[3 if had_reason else 2 :])
