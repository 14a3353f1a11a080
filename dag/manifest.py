"""Read a manifest as people write it, and say what is wrong with each row."""

import re
from dataclasses import replace
from pathlib import Path

from dag import names
from dag.fields import (
    SEPARATORS,
    Fields,
    Line,
    bare,
    is_comment,
    is_header,
    is_marked,
    is_row,
    is_separator_line,
    option_of,
    read_lines,
    separator_fault,
)
from node import options
from state.errors import NotAManifest
from state.rows import Manifest, Refusal, Row

# TIFF stores the number of samples of a pixel in 16 bits (TIFF 6.0, tag 277).
_MAX_BANDS = 65_535
# A million rows of two fields are 48 MiB, and a poll needs 1.1 GB of memory for them.
# A larger manifest could use all the memory of the access point.
MAX_SIZE = 128 * 2**20  # bytes
MAX_FIELDS = 8_000_000
# Rows that name no image count too: each is kept, with its reason.
MAX_ROWS = 2_000_000
# All options of one row together: they become part of a command line.
_MAX_OPTIONS = 1000  # characters
_LATE_HEADER = (
    "a header after the first row is not used: move it to the first line, or make a "
    "manifest of the rows below it"
)


def read(path: Path) -> Manifest:
    """Read a manifest from its file.

    Raises:
        NotAManifest: it is too large, is not text, or has no rows.
    """
    size = path.stat().st_size
    if size > MAX_SIZE:
        raise NotAManifest(too_large(size))
    return parse(path.read_bytes())


def too_large(size: int) -> str:
    """Return what is wrong with a manifest of ``size`` bytes."""
    return (
        f"the manifest has {size >> 20} MiB, and {MAX_SIZE >> 20} is the maximum: "
        "split it"
    )


def parse(content: bytes) -> Manifest:
    """Read a manifest.

    A row that cannot be converted is kept, with its reason. Blank lines and comments
    are left out. The header is the last one before the first row: there may be other
    lines before it, such as the title of a table.

    Raises:
        NotAManifest: the content is not text, has no rows, or has too many rows or
            fields.
    """
    if sum(content.count(mark.encode()) for mark in SEPARATORS + "\r\n") > MAX_FIELDS:
        raise NotAManifest(f"the manifest has more than {MAX_FIELDS} fields: split it")
    header: Fields | None = None
    rows: list[Row] = []
    begun = False
    for line in read_lines(content):
        fields = line.fields
        if not any(field.strip() for field in fields):
            continue
        if line.fault:
            row = Row(line.number, fields)
            rows.append(row.failed(Refusal.NOT_CSV, line.fault))
        elif is_row(fields) and not is_comment(fields):
            rows.append(_read_options(_read_row(line), header))
            # A row that somebody turned into a comment may stand before the header.
            begun = begun or not is_marked(fields)
        elif is_header(fields) and not (begun and is_marked(fields)):
            if begun:
                row = Row(line.number, fields)
                rows.append(row.failed(Refusal.LATE_HEADER, _LATE_HEADER))
            elif header is None or not is_marked(fields):
                header = fields
        elif not is_comment(fields) and (begun or not is_separator_line(fields)):
            rows.append(_read_row(line))
        if len(rows) > MAX_ROWS:
            raise NotAManifest(f"the manifest has more than {MAX_ROWS} rows: split it")
    if not rows:
        raise NotAManifest("the manifest has no rows: write one image,bands on a line")
    return Manifest(tuple(rows), header)


def _read_row(line: Line) -> Row:
    fields = line.fields
    key = bare(fields[0])
    row = Row(line.number, fields, key=key)
    if not any(fields[1:]) and (fault := separator_fault(key)):
        return row.failed(Refusal.NOT_CSV, fault)
    if refusal := names.refusal(key):
        return row.failed(*refusal)
    bands = bare(fields[1]) if len(fields) > 1 else ""
    if not bands:
        return row.failed(
            Refusal.BAD_BANDS, "its number of bands is missing: write image,bands"
        )
    # A spreadsheet may turn 3 into 3.0, or into 3,0.
    number = re.fullmatch(r"(\d{1,9})([.,]0*)?", bands, re.ASCII)
    if not number or not 1 <= int(number[1]) <= _MAX_BANDS:
        return row.failed(
            Refusal.BAD_BANDS,
            f"invalid number of bands {bands[:40]!r}: write a number from 1 to "
            f"{_MAX_BANDS}",
        )
    return replace(row, bands=int(number[1]))


def _read_options(row: Row, header: Fields | None) -> Row:
    """Read the options of a row's node from the columns that have their names."""
    if row.reason is not None or header is None:
        return row
    values: dict[str, list[str]] = {}
    length = 0
    for title, field in zip(header[2:], row.fields[2:], strict=False):
        name = option_of(title)
        if name and field.strip():
            length += len(field)
            if length > _MAX_OPTIONS:
                return row.failed(
                    Refusal.BAD_OPTION,
                    f"its options have more than {_MAX_OPTIONS} characters: correct "
                    "the columns",
                )
            # No value contains a space: a space separates several values.
            values.setdefault(name, []).extend(field.split())
    try:
        return replace(row, options=options.checked(values))
    except options.UsageError as error:
        return row.failed(Refusal.BAD_OPTION, f"the option {error}: correct the column")
