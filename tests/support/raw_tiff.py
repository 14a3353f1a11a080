"""TIFFs whose compressed strips a test makes itself, as other encoders do."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy

Value = tuple[int | float, ...]
ASCII, SHORT, LONG, DOUBLE = 2, 3, 4, 12
_FORMATS = {ASCII: "B", SHORT: "H", LONG: "I", DOUBLE: "d"}
# In the file's tag: version 1.1.0, a projected CRS, EPSG:32633.
_UTM_33 = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633)


def write(
    path: Path,
    width: int,
    height: int,
    rows: int,
    strips: Sequence[bytes],
    tags: dict[int, tuple[int, Value]],
) -> None:
    """Write a classic GeoTIFF in UTM zone 33.

    Args:
        rows: rows of a strip.
        strips: the compressed strips.
        tags: type and value of more tags, or of other values of the usual ones.
    """
    fields: dict[int, tuple[int, Value]] = {
        256: (SHORT, (width,)),
        257: (SHORT, (height,)),
        258: (SHORT, (8,)),
        262: (SHORT, (1,)),
        273: (LONG, (0,) * len(strips)),
        277: (SHORT, (1,)),
        278: (SHORT, (rows,)),
        279: (LONG, tuple(map(len, strips))),
        33550: (DOUBLE, (1.0, 1.0, 0.0)),
        33922: (DOUBLE, (0.0, 0.0, 0.0, 5e5, 5e6, 0.0)),
        34735: (SHORT, _UTM_33),
        **tags,
    }
    offsets, position = [], len(_directory(fields))
    for strip in strips:
        offsets.append(position)
        position += len(strip)
    fields[273] = LONG, tuple(offsets)
    path.write_bytes(_directory(fields) + b"".join(strips))


def _directory(fields: dict[int, tuple[int, Value]]) -> bytes:
    behind = 8 + 2 + 12 * len(fields) + 4
    entries, values = b"", b""
    for tag, (kind, value) in sorted(fields.items()):
        packed = struct.pack(f"<{len(value)}{_FORMATS[kind]}", *value)
        if len(packed) > 4:
            where = struct.pack("<I", behind + len(values))
            values += packed + b"\0" * (-len(packed) % 8)
            packed = where
        entries += struct.pack("<HHI", tag, kind, len(value)) + packed.ljust(4, b"\0")
    head = struct.pack("<2sHIH", b"II", 42, 8, len(fields))
    return head + entries + bytes(4) + values


def write_integers(path: Path, values: numpy.ndarray, nodata: int) -> None:
    """Write integers of 64 bits, since rasterio rounds what means "no data"."""
    tags = {
        258: (SHORT, (64,)),
        259: (SHORT, (1,)),
        339: (SHORT, (1 if values.dtype.kind == "u" else 2,)),
        42113: (ASCII, tuple(f"{nodata}\0".encode())),
    }
    rows, columns = values.shape
    write(path, columns, rows, rows, [values.tobytes()], tags)
