"""Split a manifest into lines of fields, in the forms in which programs save it.

Excel separates fields by the list separator of the country, which often is ``;``. It
writes tabs in UTF-16 as "Unicode Text", a first line ``sep=;`` for itself, and quotes
around a whole line that was pasted into one cell.
"""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TextIO

from node import options
from state.errors import NotAManifest
from state.keys import TIFF_SUFFIXES

Fields = tuple[str, ...]

_BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_PIECE = 2**20  # characters
# If two separators fit equally well, the first one counts.
SEPARATORS = ",;\t|"
_NAMES_OF_SEPARATORS = {"\t": "a tab", " ": "a space"}
# The first lines show by what a manifest is separated.
_SAMPLE = 2**16  # characters
_SAMPLE_LINES = 100
_LINE_END = re.compile(r"\r\n|\r|\n")
_SEPARATOR_LINE = re.compile(r'"?sep=([^\w"])"?[,;\t]*', re.IGNORECASE)
# A spreadsheet may turn 3 into 3.0, or into 3,0.
_NUMBER = re.compile(r"\d+([.,]\d*)?", re.ASCII)
# Titles that people write above the two columns.
_IMAGE_TITLE = re.compile(
    r"\W*((s3|image|file|path|key|name|object|ur[li]|raster|tiff?|source)[\W_]*)+", re.I
)
_BANDS_TITLE = re.compile(
    r"band|bänd|[ck]anal|kanäl|canaux|channel|layer|sample|count|number|anzahl|nombre"
    r"|\bn\b",
    re.IGNORECASE,
)
# The characters between image and bands if there is none of the separators above. A
# limit on the spaces keeps the time linear.
_OTHER_SEPARATOR = re.compile(
    r"\.tiff?(\s|\s{0,9}[^\w\s./\\-])\s{0,9}\d", re.IGNORECASE
)
# Not seen, and left by programs at the beginning or the end of a file or a field.
_INVISIBLE = (
    "\ufeff\u200b\u2060"
    # Windows and browsers put marks of the writing direction around names.
    "\u200e\u200f\u202a\u202b\u202c\u2066\u2067\u2068\u2069"
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a manifest.

    Attributes:
        number: its line number, from 1; the first one of several lines.
        fields: its fields, as written.
        fault: why it is not CSV; None if it is.
    """

    number: int
    fields: Fields
    fault: str | None = None


def read_lines(content: bytes) -> Iterator[Line]:
    """Yield the lines of a manifest, blank ones too.

    Raises:
        NotAManifest: the content is not text, or has an unusual separator.
    """
    _check_text(content)
    separator = _separator_of(content)
    for line in _split_lines(content, separator):
        yield Line(line.number, _unwrapped(line.fields), line.fault)


def is_comment(fields: Fields) -> bool:
    """Return whether a line begins with ``#`` and names no TIFF."""
    return is_marked(fields) and not _names_tiff(fields)


def is_marked(fields: Fields) -> bool:
    """Return whether a line begins with ``#``."""
    return bare(fields[0]).startswith("#")


def is_separator_line(fields: Fields) -> bool:
    """Return whether a line only names the separator, as ``sep=;`` does for Excel."""
    text = "".join(fields).strip().lower()
    return text == "sep=" or _SEPARATOR_LINE.fullmatch(text) is not None


def is_row(fields: Fields) -> bool:
    """Return whether a line names a TIFF, or a number of bands."""
    return _likeness(fields) > 0


def is_header(fields: Fields) -> bool:
    """Return whether a line has titles in both fields, or the title of an option.

    >>> is_header(("image", "bands")), is_header(("image-archive/scan 1.img", "three"))
    (True, False)
    """
    image, bands = (*map(bare, fields), "")[:2]
    if is_row(fields):
        return False
    has_options = any(option_of(title) for title in fields[2:])
    if "/" in image or "\\" in image:
        # Such as bucket/key. Without options, it is an image of another format.
        return has_options and _BANDS_TITLE.search(bands) is not None
    if has_options:
        return True
    if "." in image and not _IMAGE_TITLE.fullmatch(image):
        return False
    return bool(image and not bands[:1].isdigit() and _BANDS_TITLE.search(bands))


def option_of(title: str) -> str | None:
    """Return the option of which a column has the title; None if it has none.

    >>> option_of("--Jpeg-Max-Size"), option_of("Time limit:")
    ('jpeg_max_size', 'time_limit')
    """
    name = bare(title).lower().removeprefix("--").rstrip(":")
    name = re.sub(r"[\s-]", "_", name)
    return name if name in options.OPTION_NAMES else None


def bare(field: str) -> str:
    """Return a field without spaces around it, and without quotes after a space."""
    field = field.strip()
    if not field.isascii():
        field = field.strip(_INVISIBLE).strip()
    if len(field) > 1 and field[0] == field[-1] and field[0] in "\"'":
        return field[1:-1].strip()
    return field


def separator_fault(text: str) -> str | None:
    """Return what is wrong with the separator of a line that has one field.

    >>> separator_fault("maps/a.tif 3")
    'a space separates image and bands: write a comma'
    """
    if text.lower().endswith(TIFF_SUFFIXES):
        return None
    if match := _OTHER_SEPARATOR.search(text):
        return f"{_name_of(match[1])} separates image and bands: write a comma"
    if any(separator in text for separator in SEPARATORS):
        return "the line has one field: write image,bands"
    return None


def _name_of(separator: str) -> str:
    return _NAMES_OF_SEPARATORS.get(separator, repr(separator.strip()))


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
    binary = "the manifest is binary data, not a CSV file in UTF-8"
    try:
        pieces = iter(partial(_text(content).read, _PIECE), "")
        has_zeros = any("\0" in piece for piece in pieces)
    except UnicodeDecodeError as error:
        if b"\0" in content:
            raise NotAManifest(f"{binary}: save it as 'CSV UTF-8'") from error
        raise NotAManifest(
            f"the manifest is not text in UTF-8{_where_not_utf_8(content)}: save it "
            "again as 'CSV UTF-8'"
        ) from error
    if has_zeros and _looks_like_utf_16(content[:200]):
        raise NotAManifest(
            "the manifest is UTF-16 without a byte order mark: save it again as 'CSV "
            "UTF-8'"
        )
    if has_zeros:
        raise NotAManifest(f"{binary}: save it as 'CSV UTF-8'")


def _where_not_utf_8(content: bytes) -> str:
    """Return the first line that is not UTF-8, and the encoding that it may have."""
    for number, line in enumerate(io.BytesIO(content), start=1):
        try:
            line.decode()
        except UnicodeDecodeError:
            return f", but perhaps in Windows-1252 or Latin-1 (line {number})"
    return ""


def _looks_like_utf_16(head: bytes) -> bool:
    """Return whether every second byte is zero, and no other, as in ASCII's UTF-16."""
    halves = set(head[::2]), set(head[1::2])
    return any(
        zeros == {0} and others and 0 not in others
        for zeros, others in (halves, halves[::-1])
    )


def _separator_of(content: bytes) -> str:
    """Return the separator of a manifest, from a line ``sep=…`` or the first lines."""
    sample = _LINE_END.split(_text(content).read(_SAMPLE))
    lines = [line for line in sample if line.strip()][:_SAMPLE_LINES]
    for line in lines:
        if match := _SEPARATOR_LINE.fullmatch(line.strip(" ")):
            if match[1] not in SEPARATORS:
                raise NotAManifest(
                    f"{_name_of(match[1])} separates the fields of the manifest: write "
                    "commas"
                )
            return match[1]
        if not line.startswith("#"):
            break
    return _likely_separator(lines)


def _likely_separator(lines: list[str]) -> str:
    """Return the separator with which most lines look like rows."""

    def fit(separator: str) -> tuple[int, int]:
        split = [_split(line, separator) for line in lines]
        unwrapped = sum(_likeness(_unwrapped(fields)) for fields in split)
        return unwrapped, sum(map(_likeness, split))

    return max(SEPARATORS, key=fit)


def _likeness(fields: Fields) -> int:
    """Return 2 for a line that names a TIFF and a number of bands, 1 for either."""
    bands = bare(fields[1]) if len(fields) > 1 else ""
    return _names_tiff(fields) + (_NUMBER.fullmatch(bands) is not None)


def _names_tiff(fields: Fields) -> bool:
    return bool(fields) and bare(fields[0]).lower().endswith(TIFF_SUFFIXES)


def _unwrapped(fields: Fields) -> Fields:
    """Return the fields in the only field of a line, if they are a row or a header.

    >>> _unwrapped(("maps/a.tif,3", ""))
    ('maps/a.tif', '3')
    >>> _unwrapped(("maps/a,b.tif", ""))
    ('maps/a,b.tif', '')
    """
    if not fields or any(field.strip() for field in fields[1:]):
        return fields
    for separator in SEPARATORS:
        if separator in fields[0]:
            inner = _split(fields[0], separator)
            if _likeness(inner) == 2 or is_header(inner):
                return inner
    return fields


def _split(line: str, separator: str) -> Fields:
    """Return the fields of a single line, whatever its quotes."""
    text = _LINE_END.sub(" ", line)
    return tuple(next(csv.reader([text], delimiter=separator), ()))


def _split_lines(content: bytes, separator: str) -> Iterator[Line]:
    if _is_csv(content, separator):
        reader = csv.reader(_text(content), delimiter=separator, strict=True)
        number = 1
        for fields in reader:
            yield Line(number, tuple(fields))
            number = reader.line_num + 1
        return
    # One line, for instance with a quote that is never closed, makes the whole file
    # invalid. Read each line on its own, so that only that one fails.
    for number, text in enumerate(_text(content), start=1):
        try:
            fields = next(csv.reader([text], delimiter=separator, strict=True), [])
            yield Line(number, tuple(fields))
        except csv.Error as error:
            # A space after a closing quote is harmless: the line has two fields.
            lenient = next(csv.reader([text], delimiter=separator))
            fields = [field.strip() for field in lenient]
            fault = f"the line is not CSV: {error}" if len(fields) < 2 else None
            yield Line(number, tuple(fields), fault)


def _is_csv(content: bytes, separator: str) -> bool:
    try:
        for _ in csv.reader(_text(content), delimiter=separator, strict=True):
            pass
    except csv.Error:
        return False
    return True
