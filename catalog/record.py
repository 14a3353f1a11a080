"""A record: the facts of one image from which the catalog is made.

Records come from the rows, the results and the outcome of a run (``catalog.join``).
They are kept in the output bucket, and all products are made from them. No image is
opened again.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeVar

import orjson

from node.result import Band, Cog, Jpeg, Part, Result, Thumbnail
from state.keys import TIFF_SUFFIXES

_RESULT_FIELDS = frozenset(field.name for field in fields(Result))
_TUPLES = frozenset({"bbox", "warnings", "replaced_sidecars"})
# Numbers that may be NaN or infinite.
_NUMBERS = frozenset({"bounds", "transform"})
_NUMBERS_OF_BAND = frozenset({"nodata", "scale", "offset"})
_Part = TypeVar("_Part")
_LOSSY = re.compile(r"[^A-Za-z0-9._-]")
_HYPHENS = re.compile(r"--|-/|/-")
_MAX_ID = 120


class Dates(NamedTuple):
    """When an image was taken.

    Attributes:
        start: the first moment that is possible, in UTC, as in 2020-07-01T00:00:00Z.
        end: the last one; the same as ``start`` if the moment is known.
    """

    start: str
    end: str


@dataclass(frozen=True, slots=True)
class Record:
    """The facts of one image from which the catalog is made.

    Attributes:
        key: key of the COG in the output bucket.
        jpeg_key: key of the JPEG in the output bucket.
        source: bucket and key of the image that was converted.
        collection: id of its collection.
        manifest: key of the manifest that named it.
        run: id of the run that converted it; see ``Run.id``.
        converted: when the run began, in UTC, as in 2026-11-26T13:00:00Z.
        dates: when the image was taken; None if that is not known.
        mosaicid: the mosaic to which it is appended; empty for its collection's.
        result: what its node wrote about it.
    """

    key: str
    jpeg_key: str
    source: str
    collection: str
    manifest: str
    run: str
    converted: str
    dates: Dates | None
    mosaicid: str
    result: Result

    @property
    def id(self) -> str:
        """Its name among all records, of letters, digits and ``._-`` only."""
        # Images whose names differ only in .tif and .tiff are two, and so are those
        # that end in .tiff and .tiff.tif.
        stem = self.key.removesuffix(".tif")
        return safe_name(self.key if stem.lower().endswith(TIFF_SUFFIXES) else stem)


_RECORD_FIELDS = frozenset(Record.__slots__)


def safe_name(text: str) -> str:
    """Return a text as letters, digits and ``._-``; other texts get other names.

    >>> safe_name("1937/dane/sheet-7")
    '1937--dane--sheet-7'
    >>> safe_name("Bern (1)")
    'Bern--1--f8a6c74188e6fd82'
    """
    name = _LOSSY.sub("-", text.replace("/", "--"))
    # a-/b and a/-b would both be a---b.
    ambiguous = name != text.replace("/", "--") or _HYPHENS.search(text)
    if not ambiguous and len(name) <= _MAX_ID and not name.startswith("."):
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{name[: _MAX_ID - 17].lstrip('.')}-{digest}"


def to_line(record: Record) -> bytes:
    """Return a record as a line of JSON, with its line ending."""
    content = {name: getattr(record, name) for name in Record.__slots__}
    content["dates"] = [*record.dates] if record.dates else None
    content["result"] = record.result.to_json(compact=True)
    return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)


def gone_line(record: Record) -> bytes:
    """Return the line that says that the COG of a record is gone."""
    content = {"key": record.key, "run": record.run, "gone": True}
    return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)


def from_line(line: bytes) -> Record:
    """Return the record of a line that ``to_line`` wrote.

    Its values are not checked again: ``Result.from_json`` has, before they were
    written, and a check takes ten times as long as all the rest.

    Raises:
        ValueError, LookupError, TypeError: it is no such line.
    """
    content = orjson.loads(line)
    dates = content["dates"]
    content["dates"] = Dates(*dates) if dates else None
    content["result"] = _result(content["result"])
    return Record(**_known(content, _RECORD_FIELDS))


def _result(values: dict[str, Any]) -> Result:
    # JSON has lists where records have tuples, and words for NaN and infinity.
    for name in values.keys() & _TUPLES:
        values[name] = tuple(values[name])
    for name in values.keys() & _NUMBERS:
        values[name] = tuple(map(float, values[name]))
    if isinstance(values.get("nodata"), str):
        values["nodata"] = float(values["nodata"])
    if bands := values.get("bands_info"):
        values["bands_info"] = tuple(map(_band, bands))
    if thumbnails := values.get("thumbnails"):
        values["thumbnails"] = tuple(_of(Thumbnail, each) for each in thumbnails)
    if cog := values.get("cog"):
        if parts := cog.get("parts"):
            cog["parts"] = tuple(_of(Part, part) for part in parts)
        values["cog"] = _of(Cog, cog)
    if jpeg := values.get("jpeg"):
        values["jpeg"] = _of(Jpeg, jpeg)
    return Result(**_known(values, _RESULT_FIELDS))


def _band(values: dict[str, Any]) -> Band:
    for name in values.keys() & _NUMBERS_OF_BAND:
        values[name] = float(values[name])
    return _of(Band, values)


def _of(cls: Callable[..., _Part], values: dict[str, Any]) -> _Part:
    try:
        return cls(**values)
    except TypeError:
        known = frozenset(field.name for field in fields(cls))  # type: ignore[arg-type]
        return cls(**_known(values, known))


def _known(values: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """Return values without those of a later version."""
    if values.keys() <= names:
        return values
    return {name: values[name] for name in values.keys() & names}
