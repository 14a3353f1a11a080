"""Read the number of bands from the header of a TIFF, by ranges.

The first request reads enough for most files. A file whose directory lies at its end
takes a second one.
Source: TIFF 6.0, section 2; for BigTIFF, https://libtiff.gitlab.io/libtiff/specification/bigtiff.html
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

# Returns up to so many bytes (second argument) from an offset.
ReadRange = Callable[[int, int], bytes]

_FIRST = 16384  # bytes
# A directory with more entries is no image's.
_MAX_ENTRIES = 1000
_SAMPLES_PER_PIXEL = 277
_SHORT, _LONG = 3, 4
_BYTE_ORDERS = {b"II": "<", b"MM": ">"}


class NotReadable(Exception):
    """The number of bands cannot be read; the message says why."""


@dataclass(frozen=True)
class _Layout:
    """How a kind of TIFF writes its directory.

    Attributes:
        offset, count, entry: formats of the directory's place, of the number of its
            entries, and of an entry's tag, type, number of values and first value.
        offset_at: where the place of the directory is written.
    """

    offset: str
    offset_at: int
    count: str
    entry: str


_LAYOUTS = {
    42: _Layout(offset="I", offset_at=4, count="H", entry="HHI4s"),
    43: _Layout(offset="Q", offset_at=8, count="Q", entry="HHQ8s"),
}


def bands(read: ReadRange) -> int:
    """Return the number of bands of a TIFF's first image.

    Args:
        read: function that returns bytes of the file, fewer only at its end.

    Raises:
        NotReadable: the file is not a TIFF, or is damaged.
    """
    start = read(0, _FIRST)
    order = _BYTE_ORDERS.get(start[:2])
    if not order or len(start) < 16:
        raise NotReadable("it is not a TIFF")
    (version,) = struct.unpack_from(f"{order}H", start, 2)
    if version not in _LAYOUTS:
        raise NotReadable("it is not a TIFF")
    layout = _LAYOUTS[version]
    (offset,) = struct.unpack_from(order + layout.offset, start, layout.offset_at)
    return _samples(_directory(read, start, offset, order, layout), order, layout)


def _directory(
    read: ReadRange, start: bytes, offset: int, order: str, layout: _Layout
) -> bytes:
    """Return the entries of the directory at an offset."""
    head = struct.calcsize(order + layout.count)
    size = struct.calcsize(order + layout.entry)
    there = start[offset:]
    if len(there) < head:
        there = read(offset, _FIRST)
    if len(there) < head:
        raise NotReadable("it ends before its directory: is it complete?")
    (number,) = struct.unpack_from(order + layout.count, there)
    if not 0 < number <= _MAX_ENTRIES:
        raise NotReadable(f"its directory has {number} entries: is it damaged?")
    needed = head + number * size
    if len(there) < needed:
        there = read(offset, needed)
    if len(there) < needed:
        raise NotReadable("it ends within its directory: is it complete?")
    return there[head:needed]


def _samples(directory: bytes, order: str, layout: _Layout) -> int:
    """Return the value of SamplesPerPixel, which is 1 if there is no such entry."""
    for tag, kind, _, value in struct.iter_unpack(order + layout.entry, directory):
        if tag == _SAMPLES_PER_PIXEL:
            if kind not in (_SHORT, _LONG):
                raise NotReadable("its number of bands is not a number")
            form = "H" if kind == _SHORT else "I"
            (samples,) = struct.unpack_from(order + form, value)
            if not samples:
                raise NotReadable("it has no bands")
            return int(samples)
    return 1
