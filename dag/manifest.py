"""Read a manifest as people make them, and say what is wrong with each row."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TextIO

from bucket import LONGEST_KEY
from node import options
from state.errors import NotAManifest
from state.rows import MAX_NAME, Manifest, Row, jpeg_key, sandbox_name

TIFF_SUFFIXES = (".tif", ".tiff")
# TIFF counts samples a pixel in 16 bits (TIFF 6.0, tag 277).
_MOST_BANDS = 65_535
# Some of the files beside an image have eight more, as in image.tif.aux.xml.
_LONGEST_KEY = LONGEST_KEY - 8  # bytes
# HTCondor follows a URL folder by folder, 128 of them with the host's and bucket's.
_MOST_FOLDERS = 100
_BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
# A million rows of two fields are 48 MiB, and a poll of them takes 1.1 GB of memory:
# what is larger could take all that the access point has.
LARGEST = 128 * 2**20  # bytes
MOST_FIELDS = 8_000_000
# Also of rows that are not worth a name: each is kept, with its reason.
MOST_ROWS = 2_000_000
# Of all of a row's options together: they become a part of a command line.
_LONGEST_OPTIONS = 1000  # characters
_PIECE = 2**20  # characters
# A field may be as long as all; by itself the module ends at 131,072 characters.
csv.field_size_limit(LARGEST)
# What people write over the two columns.
_IMAGE_HEADER = re.compile(r"\W*(image|file|path|key|name|object|url|raster)\b", re.I)
_NUMBER = re.compile(r"\s*\d+(\.\d*)?\s*", re.ASCII)
_BANDS_HEADER = re.compile(r"band|channel|sample|count|number", re.I)


def read(path: Path) -> Manifest:
    """Read a manifest from its file.

    Raises:
        NotAManifest: it is too large, no text, or has no rows.
    """
    size = path.stat().st_size
    if size > LARGEST:
        raise NotAManifest(too_large(size))
    return parse(path.read_bytes())


def too_large(size: int) -> str:
    """Return what is wrong with a manifest of so many bytes."""
    return (
        f"the manifest has {size >> 20} MiB, and {LARGEST >> 20} is the most: make "
        "several of it"
    )


def parse(content: bytes) -> Manifest:
    """Read a manifest.

    A row that cannot be worked on is there with its reason; nothing is left out
    but blank lines.

    Raises:
        NotAManifest: the content is no text, has no rows, or has too many rows or
            fields.
    """
    if sum(content.count(mark) for mark in (b",", b"\n", b"\r")) > MOST_FIELDS:
        raise NotAManifest(
            f"the manifest has more than {MOST_FIELDS} fields: make several of it"
        )
    header = None
    rows: list[Row] = []
    for number, fields, broken in _read_fields(content):
        if not any(field.strip() for field in fields):
            continue
        if broken:
            rows.append(Row(number, fields, reason=broken))
        elif not rows and header is None and _is_header(fields):
            header = fields
        else:
            rows.append(_read_options(_read_row(number, fields), header))
        if len(rows) > MOST_ROWS:
            raise NotAManifest(
                f"the manifest has more than {MOST_ROWS} rows: make several of it"
            )
    if not rows:
        raise NotAManifest("the manifest has no rows: write image,bands, one a line")
    return Manifest(tuple(rows), header)


def _text(content: bytes) -> TextIO:
    """Return a manifest's text, to be read line by line.

    A single character may make the text as a whole four times as large in memory.
    """
    encodings = (
        encoding
        for mark, encoding in _BYTE_ORDER_MARKS.items()
        if content.startswith(mark)
    )
    encoding = next(encodings, "utf-8")
    return io.TextIOWrapper(io.BytesIO(content), encoding, newline="")


def _check_text(content: bytes) -> None:
    """Raise NotAManifest unless all of a manifest is text."""
    try:
        pieces = iter(partial(_text(content).read, _PIECE), "")
        binary = any("\0" in piece for piece in pieces)
    except UnicodeDecodeError as error:
        raise NotAManifest(
            "the manifest is not text in UTF-8: save it again as 'CSV UTF-8'"
        ) from error
    if binary and _looks_like_utf_16(content[:200]):
        raise NotAManifest(
            "the manifest is UTF-16 that does not say so: save it again as 'CSV UTF-8'"
        )
    if binary:
        raise NotAManifest("the manifest is not a CSV file, but binary data")


def _looks_like_utf_16(head: bytes) -> bool:
    """Whether every other byte is zero, and no other is, as in ASCII's UTF-16."""
    halves = set(head[::2]), set(head[1::2])
    return any(
        zeros == {0} and others and 0 not in others
        for zeros, others in (halves, halves[::-1])
    )


def _read_fields(
    content: bytes,
) -> Iterator[tuple[int, tuple[str, ...], str | None]]:
    """Yield number, fields and, for a line that is no CSV, what is wrong."""
    _check_text(content)
    if _is_csv(content):
        reader = csv.reader(_text(content), strict=True)
        number = 1
        for fields in reader:
            yield number, tuple(fields), None
            number = reader.line_num + 1
        return
    # One line spoils it, a quote that is never closed for instance: read each line
    # on its own, so that only that one fails.
    for number, line in enumerate(_text(content), start=1):
        try:
            fields = next(csv.reader([line], strict=True), [])
            yield number, tuple(fields), None
        except csv.Error as error:
            # A space after a closing quote does no harm: there are two fields.
            fields = [field.strip() for field in next(csv.reader([line]))]
            broken = f"the line is no CSV: {error}" if len(fields) < 2 else None
            yield number, tuple(fields), broken


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


def _read_row(number: int, fields: tuple[str, ...]) -> Row:
    key = _bare(fields[0])
    row = Row(number, fields, key=key)
    if not key:
        return row.failed("no image is named")
    if key.startswith("/"):
        return row.failed("the image begins with '/': write bucket/path/image.tif")
    if {".", ".."} & set(key.split("/")):
        return row.failed("the image has '.' or '..' in its path: write it without")
    if key.count("/") > _MOST_FOLDERS:
        return row.failed(
            f"it lies in {key.count('/')} folders, and HTCondor takes {_MOST_FOLDERS}: "
            "move it"
        )
    if not key.lower().endswith(TIFF_SUFFIXES):
        return row.failed("not a TIFF by name: it must end in .tif or .tiff")
    if key.rsplit("/", 1)[-1].startswith("."):
        return row.failed("its name begins with '.': rename the image")
    encoded = max(len(sandbox_name(key)), len(sandbox_name(jpeg_key(key))))
    if encoded > MAX_NAME:
        return row.failed(
            f"the image's name is too long: {encoded} characters when "
            f"percent-encoded, at most {MAX_NAME}"
        )
    # No store can be asked for such an object, so none is.
    if (length := len(key.encode())) > _LONGEST_KEY:
        return row.failed(
            f"its key has {length} bytes, and {_LONGEST_KEY} is the most: rename it"
        )
    written = _bare(fields[1]) if len(fields) > 1 else ""
    if not written:
        return row.failed("no number of bands: write image,bands")
    # A spreadsheet may make 3.0 of a 3.
    bands = re.fullmatch(r"(\d{1,9})(\.0*)?", written, re.ASCII)
    if not bands or not 1 <= int(bands[1]) <= _MOST_BANDS:
        return row.failed(
            f"impossible number of bands {written[:40]!r}: "
            f"write a number from 1 to {_MOST_BANDS}"
        )
    return replace(row, bands=int(bands[1]))


def _read_options(row: Row, header: tuple[str, ...] | None) -> Row:
    """Options of its node, from columns that have their names."""
    if row.reason is not None or header is None:
        return row
    said: dict[str, list[str]] = {}
    length = 0
    for title, field in zip(header[2:], row.fields[2:], strict=False):
        name = title.strip().lower().removeprefix("--").replace("-", "_")
        if name in options.OPTION_NAMES and field.strip():
            length += len(field)
            if length > _LONGEST_OPTIONS:
                return row.failed(
                    f"its options have more than {_LONGEST_OPTIONS} characters: "
                    "mend the columns"
                )
            # No value of an option has a space: one parts several.
            said.setdefault(name, []).extend(field.split())
    try:
        return replace(row, options=options.arguments(said))
    except options.UsageError as error:
        return row.failed(f"the option {error}: mend the column")


def _bare(field: str) -> str:
    """A field without the spaces, and the quotes after a space, round it."""
    field = field.strip()
    if len(field) > 1 and field[0] == field[-1] == '"':
        return field[1:-1].strip()
    return field
