"""Halve an image for its overviews, so that "no data" never mixes with data."""

import functools
import operator
from collections.abc import Iterable

import numpy
from PIL import Image

from node.masks import can_hold

# The rule of GDAL and of rio-cogeo: a level with no larger side needs no tiles, and an
# image no overviews.
_SMALL = 512  # pixels
# Pillow's mode for pixels with this number of 8-bit samples.
_PILLOW_MODES = {1: "L", 3: "RGB", 4: "RGBX"}


def sizes(
    width: int, height: int, tile: int, count: int | None
) -> list[tuple[int, int]]:
    """Return widths and heights of an image and its overviews, in pixels.

    Args:
        tile: side of a tile, in pixels.
        count: number of overviews; None to go down to one tile, or to 512 pixels if a
            tile is larger.

    >>> sizes(1300, 600, 512, None)
    [(1300, 600), (650, 300), (325, 150)]
    """
    levels = [(width, height)]
    end = min(tile, _SMALL)
    while len(levels) <= count if count is not None else max(levels[-1]) > end:
        width, height = levels[-1]
        if (width, height) == (1, 1):
            break
        levels.append((-(-width // 2), -(-height // 2)))
    return levels


def tile_width(width: int, height: int, tile: int) -> int:
    """Return the width of the tiles of a level of this size, in pixels.

    It is that of all tiles, or half of it: to rio-cogeo, tiles as wide as the level
    itself are strips, if a side of the level has more than 512 pixels.

    >>> tile_width(512, 1024, 512), tile_width(512, 512, 512), tile_width(513, 9, 512)
    (256, 512, 512)
    """
    looks_untiled = width == tile and max(width, height) > _SMALL
    return tile // 2 if looks_untiled else tile


def nearest(pixels: numpy.ndarray) -> numpy.ndarray:
    """Return every other pixel of every other row."""
    return pixels[::2, ::2]


def mode(pixels: numpy.ndarray, valid: numpy.ndarray | None) -> numpy.ndarray:
    """Return the most frequent of each two by two pixels, the first of equal ones.

    Args:
        pixels, valid: as for `average`.
    """
    quarters = _quarters(pixels)
    if valid is None:
        valid = numpy.ones((*pixels.shape[:2], 1), bool)
    # Where none is data, this is the first pixel.
    data = _quarters(valid)
    counts = [
        is_data
        * _sum(
            ((other == each) & also).astype("u1")
            for other, also in zip(quarters, data, strict=True)
        )
        for each, is_data in zip(quarters, data, strict=True)
    ]
    best, highest = quarters[0], counts[0]
    for each, count in zip(quarters[1:], counts[1:], strict=True):
        better = count > highest
        best = numpy.where(better, each, best)
        highest = numpy.maximum(highest, count)
    return best


def average(
    pixels: numpy.ndarray,
    valid: numpy.ndarray | None = None,
    nodata: tuple[float | None, ...] = (),
) -> numpy.ndarray:
    """Return the mean of each two by two pixels, without those that are not data.

    Args:
        pixels: array of shape (rows, columns, bands).
        valid: which samples are data, of the same shape or with one band for all;
            None if all are.
        nodata: value of each band for a mean of no data. A mean of data never has
            this value.

    Returns:
        Array of shape (rows / 2, columns / 2, bands), rounded up.
    """
    if pixels.dtype.kind == "f":
        finite = numpy.isfinite(pixels)
        if not finite.all():
            valid = finite if valid is None else finite & valid
    if valid is not None and not valid.all():
        return _average_of_valid(pixels, valid, nodata)
    mode = _PILLOW_MODES.get(pixels.shape[2])
    if pixels.dtype == numpy.uint8 and mode:
        means = _average_bytes(pixels, mode)
    else:
        means = _average_of_all(pixels)
    return _avoid_nodata(means, nodata) if any_of(nodata) else means


def any_of(nodata: tuple[float | None, ...]) -> bool:
    """Return whether a band has a value that means "no data"."""
    return any(value is not None for value in nodata)


def any_valid(mask: numpy.ndarray) -> numpy.ndarray:
    """Return the halved mask, of shape (rows, columns): valid if any of four is."""
    return numpy.maximum.reduce(_quarters(mask[:, :, None]))[:, :, 0]


def _quarters(pixels: numpy.ndarray) -> tuple[numpy.ndarray, ...]:
    """Return the four pixels of each two by two; an odd edge is repeated."""
    rows, columns = pixels.shape[:2]
    if rows % 2 or columns % 2:
        odd = ((0, rows % 2), (0, columns % 2), (0, 0))
        pixels = numpy.pad(pixels, odd, mode="edge")
    return tuple(pixels[y::2, x::2] for y in (0, 1) for x in (0, 1))


def _average_bytes(pixels: numpy.ndarray, mode: str) -> numpy.ndarray:
    rows, columns, bands = pixels.shape
    # With one or four samples, the array is Pillow's own form of an image.
    image = Image.frombuffer(
        mode, (columns, rows), numpy.ascontiguousarray(pixels), "raw", mode, 0, 1
    )
    halved = numpy.asarray(image.reduce(2))
    return halved.reshape(halved.shape[0], halved.shape[1], bands)


def _average_of_all(pixels: numpy.ndarray) -> numpy.ndarray:
    quarters = _quarters(pixels)
    kind = pixels.dtype
    if kind.kind == "f":
        # Divide first: the sum may be more than the type holds.
        return _sum(quarter * kind.type(0.25) for quarter in quarters)
    if kind.itemsize == 8:
        return _average_of_long(quarters, kind.type(4))
    total = _sum(quarter.astype(_wide(kind)) for quarter in quarters)
    return numpy.floor_divide(total + 2, 4).astype(kind)


def _average_of_long(
    values: Iterable[numpy.ndarray], count: numpy.ndarray
) -> numpy.ndarray:
    """Return the mean of integers of 64 bits, whose sum no type holds.

    Args:
        values: the integers; 0 in place of those that are left out.
        count: number of those that are not left out, at least 1.
    """
    parts = [numpy.divmod(each, count) for each in values]
    rest = _sum(remainder for _, remainder in parts)
    return _sum(quotient for quotient, _ in parts) + (rest + count // 2) // count


def _sum(arrays: Iterable[numpy.ndarray]) -> numpy.ndarray:
    return functools.reduce(operator.add, arrays)


def _average_of_valid(
    pixels: numpy.ndarray, valid: numpy.ndarray, nodata: tuple[float | None, ...]
) -> numpy.ndarray:
    kind = pixels.dtype
    quarters = _quarters(pixels)
    data = _quarters(valid)
    count = _sum(is_data.astype("i1") for is_data in data)
    share = numpy.maximum(count, 1)
    values = [
        numpy.where(is_data, quarter, kind.type(0))
        for is_data, quarter in zip(data, quarters, strict=True)
    ]
    if kind.kind != "f" and kind.itemsize == 8:
        means = _average_of_long(values, share.astype(kind))
    else:
        total = _sum(each.astype(_wide(kind)) for each in values)
        if kind.kind == "f":
            means = (total / share).astype(kind)
        else:
            means = numpy.floor_divide(total + share // 2, share).astype(kind)
    means = _avoid_nodata(means, nodata)
    no_data = numpy.broadcast_to(count == 0, means.shape)
    for band, value in enumerate(nodata or (None,) * means.shape[2]):
        empty = no_data[:, :, band]
        if value is None or not can_hold(kind, value):
            means[:, :, band][empty] = quarters[0][:, :, band][empty]
        else:
            means[:, :, band][empty] = value
    return means


def _wide(kind: numpy.dtype) -> numpy.dtype:
    """Return a type that holds a sum of four values."""
    if kind.itemsize == 8:
        return numpy.dtype(numpy.longdouble)
    if kind.kind == "f":
        return numpy.dtype("f8")
    return numpy.dtype("i4" if kind.itemsize <= 2 else "i8")


def _avoid_nodata(
    means: numpy.ndarray, nodata: tuple[float | None, ...]
) -> numpy.ndarray:
    """Replace means that equal nodata by the next value."""
    kind = means.dtype
    for band, value in enumerate(nodata):
        if value is None or value != value or not can_hold(kind, value):
            continue
        same = means[:, :, band] == kind.type(value)
        if same.any():
            if kind.kind == "f":
                beside = numpy.nextafter(kind.type(value), kind.type(0 if value else 1))
            else:
                highest = numpy.iinfo(kind).max
                beside = kind.type(value - 1 if value == highest else value + 1)
            means = means if means.flags.writeable else means.copy()
            means[:, :, band][same] = beside
    return means
