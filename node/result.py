"""The record that a node writes about one image, in a file for the access point.

``Result`` is the contract between the node and everything that reads results. A node
writes it as ``result.json``; docs/reference.md has a table of its fields.

A hostile execution point can write anything in place of a result. Therefore the type of
each field has a check, and ``read`` returns a record whose every value is within
the bounds below, or raises ValueError.
"""

import base64
import binascii
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

# The version of the format. Results without a version are of version 1, which had no
# SHA-256, footprint, bands_info, thumbnails and the like.
VERSION = 2

# The largest results are those of a COG in 1,000 parts (90 kB) that also has
# MAX_BANDS bands with long descriptions.
MAX_BYTES = 256 * 1024
MAX_BANDS = 100
MAX_VERTICES = 50
MAX_PROJJSON_BYTES = 8 * 1024
_MAX_PROJJSON_LEVELS = 50  # that of a compound CRS has 9
MAX_DESCRIPTION = 80  # characters
# Side in pixels and size in bytes: of the thumbnail, and of the smaller one.
THUMBNAIL_LIMITS = ((256, 8_000), (96, 2_500))
_MAX_TEXT = 2000  # characters
_MAX_CRS = 16 * 1024  # characters
_MAX_WARNINGS = 100
_MAX_PARTS = 10_000
_MAX_SIDECARS = 20
# Programs that write JSON take others for an error.
_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**64
_MAX_FLOAT = sys.float_info.max
_MIN_GSD = 1e-9  # metres; a finer one is no distance between pixels
_CODE = re.compile(r"[a-z][a-z0-9-]{0,39}")
_DATETIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", re.ASCII)
_MD5 = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# JSON can spell half of a pair of surrogates, and UTF-8 cannot.
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# How JSON spells the numbers that it does not have.
_NOT_FINITE = ("nan", "inf", "-inf")

Check = Callable[[Any], Any]
_AnyRecord = TypeVar("_AnyRecord")
# In records, bytes is a field.
_Bytes = bytes


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("neither true nor false")
    return value


def _integer(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MAX_INTEGER:
        raise ValueError("not an integer from 0 on")
    return value


def _number(value: Any) -> float:
    if isinstance(value, str) and value in _NOT_FINITE:
        return float(value)
    return _finite(value)


def _finite(value: Any) -> float:
    if type(value) not in (int, float) or not abs(value) <= _MAX_FLOAT:
        raise ValueError("not a number")
    return value if _MIN_INTEGER <= value < _MAX_INTEGER else float(value)


def _between(minimum: float, maximum: float) -> Check:
    def check(value: Any) -> float:
        if not minimum <= _finite(value) <= maximum:
            raise ValueError(f"not between {minimum:g} and {maximum:g}")
        return float(value)

    return check


def _ground_distance(value: Any) -> float:
    distance: float = _between(0, 1e9)(value)
    # A transform may have any numbers, and the catalog divides by this one.
    return distance if distance >= _MIN_GSD else 0.0


def _text(max_length: int) -> Check:
    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError("not a text")
        return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value[:max_length])

    return check


def _matching(pattern: re.Pattern[str]) -> Check:
    def check(value: Any) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError("not in the expected form")
        return value

    return check


def _list(check: Check, max_length: int, min_length: int = 0) -> Check:
    def check_list(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not min_length <= len(value) <= max_length:
            raise ValueError(f"not a list of {min_length} to {max_length}")
        return tuple(check(item) for item in value)

    return check_list


def _record(cls: type) -> Check:
    return lambda value: _from_json(cls, value)


_longitude, _latitude = _between(-180, 180), _between(-90, 90)


def _bbox(value: Any) -> tuple[float, ...]:
    west, south, east, north = _list(_longitude, 4, 4)(value)
    # West of a box across the antimeridian is more than its east (RFC 7946, 5.2).
    if not -90 <= south <= north <= 90:
        raise ValueError("not a bounding box")
    return west, south, east, north


def _geometry(value: Any) -> dict[str, Any]:
    """Check a polygon of GeoJSON (RFC 7946, section 3.1)."""
    if not isinstance(value, dict) or value.get("type") not in _GEOMETRIES:
        raise ValueError("neither a polygon nor several")
    kind = value["type"]
    vertices = 0

    def position(value: Any) -> list[float]:
        if not isinstance(value, list) or len(value) != 2:
            raise ValueError("not a position")
        return [_longitude(value[0]), _latitude(value[1])]

    def ring(value: Any) -> list[list[float]]:
        nonlocal vertices
        positions = list(_list(position, MAX_VERTICES, 4)(value))
        vertices += len(positions)
        if positions[0] != positions[-1]:
            raise ValueError("a ring is not closed")
        if vertices > MAX_VERTICES:
            raise ValueError(f"more than {MAX_VERTICES} vertices")
        return positions

    def polygon(value: Any) -> list[Any]:
        return list(_list(ring, MAX_VERTICES, 1)(value))

    coordinates = value.get("coordinates")
    if kind == "Polygon":
        return {"type": kind, "coordinates": polygon(coordinates)}
    polygons = list(_list(polygon, MAX_VERTICES, 1)(coordinates))
    return {"type": kind, "coordinates": polygons}


_GEOMETRIES = ("Polygon", "MultiPolygon")


def _projjson(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not an object")
    _check_json(value, _MAX_PROJJSON_LEVELS)
    if len(json.dumps(value, allow_nan=False)) > MAX_PROJJSON_BYTES:
        raise ValueError(f"more than {MAX_PROJJSON_BYTES} bytes")
    return value


def _check_json(value: Any, levels: int) -> None:
    """Refuse JSON that only some programs can write."""
    if isinstance(value, dict | list):
        if not levels:
            raise ValueError("nested too deeply")
        for item in (*value, *value.values()) if isinstance(value, dict) else value:
            _check_json(item, levels - 1)
    elif isinstance(value, str) and _SURROGATE.search(value):
        raise ValueError("not a text of UTF-8")
    elif type(value) is int and not _MIN_INTEGER <= value < _MAX_INTEGER:
        raise ValueError("an integer of more than 64 bits")


class _Record:
    """Equality and a representation for all records.

    A node imports this module each time. dataclasses needs 11 ms for the
    classes if it generates these, and 5 ms if it does not.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and _values(self) == _values(other)

    def __hash__(self) -> int:
        return hash(_values(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_to_json(self, compact=True)})"


def _values(record: Any) -> tuple[Any, ...]:
    return tuple(getattr(record, each.name) for each in fields(record))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Part(_Record):
    """A file that is uploaded, or a part of one in a multipart upload.

    Attributes:
        bytes: size.
        md5: MD5, in hexadecimal digits; S3's ETag of the same bytes.
    """

    bytes: Annotated[int, _integer]
    md5: Annotated[str, _matching(_MD5)]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Cog(Part):
    """The COG of an image.

    Attributes:
        sha256: SHA-256, in hexadecimal digits.
        parts: the parts of its multipart upload; empty if it is uploaded whole.
    """

    sha256: Annotated[str | None, _matching(_SHA256)] = None
    parts: Annotated[tuple[Part, ...], _list(_record(Part), _MAX_PARTS)] = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Jpeg(Part):
    """The JPEG of an image.

    Attributes:
        sha256: SHA-256, in hexadecimal digits.
        width, height: size in pixels.
        quality: quality from 1 to 95, on libjpeg's scale.
    """

    sha256: Annotated[str | None, _matching(_SHA256)] = None
    width: Annotated[int | None, _integer] = None
    height: Annotated[int | None, _integer] = None
    quality: Annotated[int | None, _integer] = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Band(_Record):
    """A band of an image, and statistics of a sample of its valid pixels.

    Attributes:
        data_type: type of its pixels, as rasterio names it.
        nodata: value that means "no data".
        color_interpretation: meaning of its values, as rasterio names it.
        description: its name.
        unit: unit of its values after scale and offset.
        scale, offset: the physical value is ``value * scale + offset``.
        minimum, maximum, mean, stddev: statistics of the values; null if there are no
            valid pixels, or the pixels are complex numbers.
        valid_percent: share of pixels that are valid, from 0 to 100.
    """

    data_type: Annotated[str | None, _text(40)] = None
    nodata: Annotated[float | None, _number] = None
    color_interpretation: Annotated[str | None, _text(40)] = None
    description: Annotated[str | None, _text(MAX_DESCRIPTION)] = None
    unit: Annotated[str | None, _text(40)] = None
    scale: Annotated[float | None, _number] = None
    offset: Annotated[float | None, _number] = None
    minimum: Annotated[float | None, _finite] = None
    maximum: Annotated[float | None, _finite] = None
    mean: Annotated[float | None, _finite] = None
    stddev: Annotated[float | None, _finite] = None
    valid_percent: Annotated[float | None, _between(0, 100)] = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Thumbnail(_Record):
    """A small picture of an image, as WebP.

    It is inside the result, since one more file costs each of 100,000 jobs a transfer
    and the access point a file, and Base64 costs 2 kB. The access point moves it
    to one file for the run, so that ``results.jsonl`` stays small.

    Attributes:
        width, height: size in pixels.
        bytes: size of the WebP file.
        webp: the file in Base64; null in ``results.jsonl``.
        position: where it begins in ``thumbnails.bin``; null in ``result.json``.
    """

    width: Annotated[int, _integer]
    height: Annotated[int, _integer]
    bytes: Annotated[int, _integer]
    webp: Annotated[str | None, _text(2 * THUMBNAIL_LIMITS[0][1])] = None
    position: Annotated[int | None, _integer] = None

    def content(self) -> _Bytes:
        """Return the WebP file that is inside the record.

        Raises:
            ValueError: there is none, or it is not what the other fields say.
        """
        try:
            content = base64.b64decode(self.webp or "", validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("not Base64") from error
        if len(content) != self.bytes or webp_size(content) != (
            self.width,
            self.height,
        ):
            raise ValueError("not a WebP file of its size")
        return content


def _thumbnails(value: Any) -> tuple[Thumbnail, ...]:
    thumbnails = _list(_record(Thumbnail), len(THUMBNAIL_LIMITS))(value)
    for thumbnail, (side, size) in zip(thumbnails, THUMBNAIL_LIMITS, strict=False):
        if max(thumbnail.width, thumbnail.height) > side or thumbnail.bytes > size:
            raise ValueError(f"more than {side} pixels or {size} bytes")
        if thumbnail.webp is not None:
            thumbnail.content()
    return thumbnails


def webp_size(content: bytes) -> tuple[int, int] | None:
    """Return width and height of a WebP file of one lossy picture and nothing else.

    Returns None for everything else. The layout is that of RFC 9649, section 2.5, and
    of a VP8 key frame in RFC 6386, section 9.1.
    """
    length = int.from_bytes(content[4:8], "little")
    chunk = int.from_bytes(content[16:20], "little")
    if (
        len(content) < 30
        or content[:4] != b"RIFF"
        or content[8:16] != b"WEBPVP8 "
        or length != len(content) - 8
        or chunk + chunk % 2 != len(content) - 20
        # The lowest bit is 0 for a key frame.
        or content[20] & 1
        or content[23:26] != b"\x9d\x01\x2a"
    ):
        return None
    width, height = (int.from_bytes(content[n : n + 2], "little") for n in (26, 28))
    # The two highest bits are a scale for display.
    return width & 0x3FFF, height & 0x3FFF


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Result(_Record):
    """Record of a conversion: the image and its outputs, or the reason of a failure.

    Attributes:
        version: version of this format.
        ok: whether the node converted the image.
        code: reason of a failure, for programs; docs/conversion.md lists them.
        reason: reason of a failure, as a sentence for people.
        attempt: number of the attempt, from 1; null outside of a DAG.
        image: name of the file.
        seconds: duration of the conversion.
        cpu_seconds: CPU time of the node, in user and system mode.
        check_cpu_seconds: CPU time of the check of the COG.
        datetime: when the image was taken, in ISO 8601 without a time zone, as its EXIF
            or its TIFF tag 306 says.
        width, height: size of the image in pixels.
        bands: number of bands.
        data_type: type of the pixels, as rasterio names it.
        crs: code such as EPSG:32616 if the CRS has one, else WKT2.
        projjson: the CRS as PROJJSON, if it has no code and PROJJSON is not too long.
            That of a code follows from the code.
        bounds: left, bottom, right and top, in units of the CRS.
        transform: six numbers, from columns and rows to coordinates of the CRS: x is
            ``t[0] * column + t[1] * row + t[2]``, and y follows likewise.
        gsd: ground sample distance in metres: side of a square as large as the pixel
            at the centre; 0 below a nanometre.
        footprint: outline of the valid pixels, as a polygon of GeoJSON in longitude and
            latitude, split at the antimeridian.
        bbox: west, south, east and north of the footprint, in degrees; west is more
            than east if the footprint crosses the antimeridian.
        nodata: value of the first band that means "no data".
        bands_info: the bands, at most the first 100.
        profile: name of the profile.
        compression: compression of the COG, as GDAL names it.
        overviews: number of overviews in the COG.
        copied: whether the image was a COG already, and was kept as it was.
        warnings: sentences for people about what may surprise them.
        replaced_sidecars: names of the files beside the image that would override what
            the COG says.
        cog: the COG.
        jpeg: the JPEG.
        thumbnails: two small pictures, the larger one first.
    """

    version: Annotated[int, _integer] = VERSION
    ok: Annotated[bool, _flag]
    code: Annotated[str, _matching(_CODE)] = ""
    reason: Annotated[str, _text(_MAX_TEXT)] = ""
    attempt: Annotated[int | None, _integer] = None
    image: Annotated[str | None, _text(_MAX_TEXT)] = None
    seconds: Annotated[float | None, _between(0, 1e9)] = None
    cpu_seconds: Annotated[float | None, _between(0, 1e9)] = None
    check_cpu_seconds: Annotated[float | None, _between(0, 1e9)] = None
    datetime: Annotated[str | None, _matching(_DATETIME)] = None
    width: Annotated[int | None, _integer] = None
    height: Annotated[int | None, _integer] = None
    bands: Annotated[int | None, _integer] = None
    data_type: Annotated[str | None, _text(40)] = None
    crs: Annotated[str | None, _text(_MAX_CRS)] = None
    projjson: Annotated[dict[str, Any] | None, _projjson] = None
    bounds: Annotated[tuple[float, ...] | None, _list(_number, 4, 4)] = None
    transform: Annotated[tuple[float, ...] | None, _list(_number, 6, 6)] = None
    gsd: Annotated[float | None, _ground_distance] = None
    footprint: Annotated[dict[str, Any] | None, _geometry] = None
    bbox: Annotated[tuple[float, ...] | None, _bbox] = None
    nodata: Annotated[float | None, _number] = None
    bands_info: Annotated[tuple[Band, ...], _list(_record(Band), MAX_BANDS)] = ()
    profile: Annotated[str | None, _text(40)] = None
    compression: Annotated[str | None, _text(40)] = None
    overviews: Annotated[int | None, _integer] = None
    copied: Annotated[bool, _flag] = False
    warnings: Annotated[tuple[str, ...], _list(_text(_MAX_TEXT), _MAX_WARNINGS)] = ()
    replaced_sidecars: Annotated[
        tuple[str, ...], _list(_text(_MAX_TEXT), _MAX_SIDECARS)
    ] = ()
    cog: Annotated[Cog | None, _record(Cog)] = None
    jpeg: Annotated[Jpeg | None, _record(Jpeg)] = None
    thumbnails: Annotated[tuple[Thumbnail, ...], _thumbnails] = ()

    @classmethod
    def from_json(cls, payload: Any, only: Collection[str] | None = None) -> Self:
        """Return the record that parsed JSON holds; unknown fields are left out.

        Args:
            only: names of the fields that are read, if not all.

        Raises:
            ValueError: a field is missing or not of its type; the message says which.
        """
        if not isinstance(payload, dict) or not isinstance(payload.get("ok"), bool):
            raise ValueError("it is not an object with a field 'ok'")
        required = ("cog", "jpeg") if payload["ok"] else ("code", "reason")
        for name in required:
            if payload.get(name) is None:
                raise ValueError(f"it has no field {name!r}")
        return _from_json(cls, {"version": 1} | payload, only)

    def to_json(self, *, compact: bool = False) -> dict[str, Any]:
        """Return the record as JSON has it.

        Args:
            compact: whether to leave out the fields that have nothing to say.
        """
        return _to_json(self, compact)


def _from_json(
    cls: type[_AnyRecord], value: Any, only: Collection[str] | None = None
) -> _AnyRecord:
    if not isinstance(value, dict):
        raise ValueError("not an object")
    values = {}
    any_class: Any = cls
    for name, (check, required) in _checks(any_class).items():
        content = value.get(name)
        if content is None:
            if required:
                raise ValueError(f"its {name!r} is missing")
        elif only is None or name in only:
            try:
                values[name] = check(content)
            except ValueError as error:
                raise ValueError(f"its field {name!r} is wrong: {error}") from error
    return cls(**values)


@cache
def _checks(cls: Any) -> dict[str, tuple[Check, bool]]:
    checks = {}
    for each in fields(cls):
        annotated: Any = each.type
        checks[each.name] = annotated.__metadata__[0], each.default is MISSING
    return checks


def _to_json(value: Any, compact: bool) -> Any:
    """Return a value as JSON has it, which spells NaN and infinity as words."""
    if is_dataclass(value):
        return {
            each.name: _to_json(getattr(value, each.name), compact)
            for each in fields(value)
            # A success has no code, and a COG that is uploaded whole has no parts.
            if not (compact or each.name in ("code", "reason", "parts"))
            or each.name == "version"
            or getattr(value, each.name) != each.default
        }
    if isinstance(value, list | tuple):
        return [_to_json(item, compact) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def read(content: bytes) -> Result:
    """Return the record that a file holds.

    Raises:
        ValueError: the content is not a result; the message says why in a few words.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    try:
        payload = json.loads(content.decode("utf-8"), parse_constant=_not_json)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    except ValueError as error:
        raise ValueError(f"it is not JSON ({str(error)[:100]})") from error
    return Result.from_json(payload)


def _not_json(word: str) -> None:
    raise ValueError(f"{word} is not a number of JSON")


def write(file: Path, result: Result, image: Path, began: float) -> None:
    """Write a record, with the name of its image and what the node used.

    Args:
        began: when the conversion began, by the monotonic clock.
    """
    used = os.times()
    # DAGMan counts from 0.
    retry = os.environ.get("COG_PIPELINE_RETRY")
    result = replace(
        result,
        image=image.name,
        seconds=round(time.monotonic() - began, 3),
        cpu_seconds=round(used.user + used.system, 2),
        attempt=int(retry) + 1 if retry else None,
    )
    # One field a line: people read this file, too.
    lines = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(value, allow_nan=False)}"
        for name, value in result.to_json(compact=not result.ok).items()
    )
    file.write_text(f"{{\n{lines}\n}}\n")


def write_failure(
    file: Path, code: str, reason: str, image: Path, began: float
) -> None:
    """Print why an image was not converted, and write it unless the disk is full."""
    print(f"{image.name}: {reason}", file=sys.stderr)
    try:
        write(file, Result(ok=False, code=code, reason=reason), image, began)
    except OSError as error:
        # The exit status still says what was wrong.
        file.unlink(missing_ok=True)
        print(f"{file} cannot be written: {error}", file=sys.stderr)
