"""Read a manifest as people write it, and say what is wrong with each row."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TextIO

from bucket import MAX_KEY_BYTES
from node import options
from state.errors import NotAManifest
from state.keys import MAX_NAME, jpeg_key, sandbox_name
from state.rows import Manifest, Refusal, Row

TIFF_SUFFIXES = (".tif", ".tiff")
# TIFF stores the number of samples of a pixel in 16 bits (TIFF 6.0, tag 277).
_MAX_BANDS = 65_535
# Some sidecar files have names that are eight bytes longer: image.tif.aux.xml.
_MAX_KEY = MAX_KEY_BYTES - 8  # bytes
# HTCondor walks the path of a URL, at most 128 levels with the host and the bucket.
_MAX_FOLDERS = 100
_BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
# A million rows of two fields are 48 MiB, and a poll needs 1.1 GB of memory for them.
# A larger manifest could use all the memory of the access point.
MAX_SIZE = 128 * 2**20  # bytes
MAX_FIELDS = 8_000_000
# Rows that name no image count too: each is kept, with its reason.
MAX_ROWS = 2_000_000
# All options of one row together: they become part of a command line.
_MAX_OPTIONS = 1000  # characters
_PIECE = 2**20  # characters
# One field may fill the manifest; the default limit of csv is 131,072 characters.
csv.field_size_limit(MAX_SIZE)
# Titles that people write above the two columns.
_IMAGE_HEADER = re.compile(r"\W*(image|file|path|key|name|object|url|raster)\b", re.I)
_NUMBER = re.compile(r"\s*\d+(\.\d*)?\s*", re.ASCII)
_BANDS_HEADER = re.compile(r"band|channel|sample|count|number", re.I)


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

    A row that cannot be converted is kept, with its reason. Only blank lines are left
    out.

    Raises:
        NotAManifest: the content is not text, has no rows, or has too many rows or
            fields.
    """
    if sum(content.count(mark) for mark in (b",", b"\n", b"\r")) > MAX_FIELDS:
        raise NotAManifest(f"the manifest has more than {MAX_FIELDS} fields: split it")
    header = None
    rows: list[Row] = []
    for line, fields, fault in _read_fields(content):
        if not any(field.strip() for field in fields):
            continue
        if fault:
            rows.append(Row(line, fields).failed(Refusal.NOT_CSV, fault))
        elif not rows and header is None and _is_header(fields):
            header = fields
        else:
            rows.append(_read_options(_read_row(line, fields), header))
        if len(rows) > MAX_ROWS:
            raise NotAManifest(f"the manifest has more than {MAX_ROWS} rows: split it")
    if not rows:
        raise NotAManifest("the manifest has no rows: write one image,bands on a line")
    return Manifest(tuple(rows), header)


def _text(content: bytes) -> TextIO:
    """Return a manifest's text, to be read line by line.

    The whole text at once could need four times as much memory as its bytes: one
    character outside of Latin-1 is enough.
    """
    encodings = (
        encoding
        for mark, encoding in _BYTE_ORDER_MARKS.items()
        if content.startswith(mark)
    )
    encoding = next(encodings, "utf-8")
    return io.TextIOWrapper(io.BytesIO(content), encoding, newline="")


def _check_text(content: bytes) -> None:
    """Raise NotAManifest unless the whole manifest is text."""
    try:
        pieces = iter(partial(_text(content).read, _PIECE), "")
        binary = any("\0" in piece for piece in pieces)
    except UnicodeDecodeError as error:
        raise NotAManifest(
            "the manifest is not text in UTF-8: save it again as 'CSV UTF-8'"
        ) from error
    if binary and _looks_like_utf_16(content[:200]):
        raise NotAManifest(
            "the manifest is UTF-16 without a byte order mark: save it again as 'CSV "
            "UTF-8'"
        )
    if binary:
        raise NotAManifest("the manifest is not a CSV file, but binary data")


def _looks_like_utf_16(head: bytes) -> bool:
    """Return whether every second byte is zero, and no other, as in ASCII's UTF-16."""
    halves = set(head[::2]), set(head[1::2])
    return any(
        zeros == {0} and others and 0 not in others
        for zeros, others in (halves, halves[::-1])
    )


def _read_fields(
    content: bytes,
) -> Iterator[tuple[int, tuple[str, ...], str | None]]:
    """Yield the line number, the fields, and the fault of a line that is not CSV."""
    _check_text(content)
    if _is_csv(content):
        reader = csv.reader(_text(content), strict=True)
        line = 1
        for fields in reader:
            yield line, tuple(fields), None
            line = reader.line_num + 1
        return
    # One line, for instance with a quote that is never closed, makes the whole file
    # invalid. Read each line on its own, so that only that one fails.
    for line, text in enumerate(_text(content), start=1):
        try:
            fields = next(csv.reader([text], strict=True), [])
            yield line, tuple(fields), None
        except csv.Error as error:
            # A space after a closing quote is harmless: the line has two fields.
            fields = [field.strip() for field in next(csv.reader([text]))]
            fault = f"the line is not CSV: {error}" if len(fields) < 2 else None
            yield line, tuple(fields), fault


def _is_csv(content: bytes) -> bool:
    try:
        for _ in csv.reader(_text(content), strict=True):
            pass
    except csv.Error:
        return False
    return True


def _is_header(fields: tuple[str, ...]) -> bool:
    image, bands = (*fields, "")[:2]
    if image.strip().lower().endswith(TIFF_SUFFIXES) or _NUMBER.fullmatch(bands):
        return False
    return bool(_IMAGE_HEADER.match(image) or _BANDS_HEADER.search(bands))


def _read_row(line: int, fields: tuple[str, ...]) -> Row:
    key = _bare(fields[0])
    row = Row(line, fields, key=key)
    if refusal := _refusal_of_key(key):
        return row.failed(*refusal)
    bands = _bare(fields[1]) if len(fields) > 1 else ""
    if not bands:
        return row.failed(Refusal.BAD_BANDS, "no number of bands: write image,bands")
    # A spreadsheet may turn 3 into 3.0.
    number = re.fullmatch(r"(\d{1,9})(\.0*)?", bands, re.ASCII)
    if not number or not 1 <= int(number[1]) <= _MAX_BANDS:
        return row.failed(
            Refusal.BAD_BANDS,
            f"impossible number of bands {bands[:40]!r}: write a number from 1 to "
            f"{_MAX_BANDS}",
        )
    return replace(row, bands=int(number[1]))


def _refusal_of_key(key: str) -> tuple[Refusal, str] | None:
    """Return why a row's image cannot have this key; None if it can."""
    if not key:
        return Refusal.NO_IMAGE, "no image is named"
    if key.startswith("/"):
        reason = "the image begins with '/': write bucket/path/image.tif"
        return Refusal.BAD_PATH, reason
    if {".", ".."} & set(key.split("/")):
        reason = "the image has '.' or '..' in its path: write it without"
        return Refusal.BAD_PATH, reason
    if (folders := key.count("/")) > _MAX_FOLDERS:
        reason = (
            f"the image is {folders} folders deep, and HTCondor accepts "
            f"{_MAX_FOLDERS}: move it"
        )
        return Refusal.BAD_PATH, reason
    if not key.lower().endswith(TIFF_SUFFIXES):
        reason = "not a TIFF by name: it must end in .tif or .tiff"
        return Refusal.NOT_A_TIFF, reason
    if key.rsplit("/", 1)[-1].startswith("."):
        return Refusal.BAD_PATH, "its name begins with '.': rename the image"
    encoded = max(len(sandbox_name(key)), len(sandbox_name(jpeg_key(key))))
    if encoded > MAX_NAME:
        reason = (
            f"the image's name is too long: {encoded} characters when "
            f"percent-encoded, at most {MAX_NAME}"
        )
        return Refusal.NAME_TOO_LONG, reason
    # No store has such an object, and some refuse the whole request.
    if (length := len(key.encode())) > _MAX_KEY:
        reason = f"its key has {length} bytes, and {_MAX_KEY} is the maximum: rename it"
        return Refusal.NAME_TOO_LONG, reason
    return None


def _read_options(row: Row, header: tuple[str, ...] | None) -> Row:
    """Read the options of a row's node from the columns that have their names."""
    if row.reason is not None or header is None:
        return row
    values: dict[str, list[str]] = {}
    length = 0
    for title, field in zip(header[2:], row.fields[2:], strict=False):
        name = title.strip().lower().removeprefix("--").replace("-", "_")
        if name in options.OPTION_NAMES and field.strip():
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


def _bare(field: str) -> str:
    """Return a field without spaces around it, and without quotes after a space."""
    field = field.strip()
    if len(field) > 1 and field[0] == field[-1] == '"':
        return field[1:-1].strip()
    return field
