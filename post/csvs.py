"""The two CSVs that come in place of a manifest."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from state.files import writing
from state.rows import Row

Fields = tuple[str, ...]


def write(path: Path, header: Fields | None, rows: Iterable[Row]) -> list[int]:
    """Write rows as they were, failed ones with their reason as third column.

    Args:
        rows: all failed, or none.

    Returns:
        Their numbers; the file is empty when there are none.
    """
    numbers: list[int] = []
    with writing(path) as file:
        for row in rows:
            if header and not numbers:
                title = None if row.reason is None else "reason"
                _write(file, _with_reason(header, title, header))
            numbers.append(row.line)
            _write(file, _with_reason(row.fields, row.reason, header))
    return numbers


def _write(file: TextIO, fields: Fields) -> None:
    # By itself the module leaves a carriage return unquoted.
    quoting = csv.QUOTE_ALL if "\r" in "".join(fields) else csv.QUOTE_MINIMAL
    csv.writer(file, lineterminator="\n", quoting=quoting).writerow(fields)


def _with_reason(fields: Fields, reason: str | None, header: Fields | None) -> Fields:
    """The fields with the reason, if there is one, as the third.

    It replaces an earlier run's, where the header tells that there is one.
    """
    if reason is None:
        return fields
    first_two = (*fields, "", "")[:2]
    had_reason = header is not None and header[2:3] == ("reason",)
    return (*first_two, reason, *fields[3 if had_reason else 2 :])
