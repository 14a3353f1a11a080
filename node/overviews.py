"""Halve an image for its overviews, so that what is not data never bleeds in."""

import numpy
from PIL import Image

# How Pillow sees pixels of so many 8-bit samples.
_PILLOW_MODES = {1: "L", 3: "RGB", 4: "RGBX"}


def sizes(
    width: int, height: int, tile: int, count: int | None
) -> list[tuple[int, int]]:
    """Widths and heights of an image and its overviews.

    Args:
        count: of overviews; None for down to one tile.
    """
    found = [(width, height)]
    while len(found) <= count if count is not None else max(found[-1]) > tile:
        if found[-1] == (1, 1):
            break
        found.append(tuple(-(-side // 2) for side in found[-1]))
    return found


def nearest(pixels: numpy.ndarray) -> numpy.ndarray:
    """Every other pixel of every other row."""
    return pixels[::2, ::2]


def average(
    pixels: numpy.ndarray,
    valid: numpy.ndarray | None = None,
    nodata: tuple[float | None, ...] = (),
) -> numpy.ndarray:
    """The mean of each two by two pixels, of those of them that are data.

    Args:
        pixels: of shape (rows, columns, bands).
        valid: which samples are data, of the same shape or with one band for
            all; None for all.
        nodata: each band's value for a mean of no data; a mean of data never
            has it.

    Returns:
        Of shape (rows / 2, columns / 2, bands), rounded up.
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
    return _keep_apart(means, nodata) if any_of(nodata) else means


def any_of(nodata: tuple[float | None, ...]) -> bool:
    return any(value is not None for value in nodata)


def any_valid(mask: numpy.ndarray) -> numpy.ndarray:
    """The mask of the halved image: of shape (rows, columns), 0 is no data."""
    return numpy.maximum.reduce(_quarters(mask[:, :, None]))[:, :, 0]


def _quarters(pixels: numpy.ndarray) -> tuple[numpy.ndarray, ...]:
    """The four pixels of each two by two; at an odd edge some stand twice."""
    rows, columns = pixels.shape[:2]
    if rows % 2 or columns % 2:
        odd = ((0, rows % 2), (0, columns % 2), (0, 0))
        pixels = numpy.pad(pixels, odd, mode="edge")
    return tuple(pixels[y::2, x::2] for y in (0, 1) for x in (0, 1))


def _average_bytes(pixels: numpy.ndarray, mode: str) -> numpy.ndarray:
    rows, columns, bands = pixels.shape
    # With one or four samples the array is Pillow's own form of an image.
    image = Image.frombuffer(
        mode, (columns, rows), numpy.ascontiguousarray(pixels), "raw", mode, 0, 1
    )
    halved = numpy.asarray(image.reduce(2))
    return halved.reshape(halved.shape[0], halved.shape[1], bands)


def _average_of_all(pixels: numpy.ndarray) -> numpy.ndarray:
    quarters = _quarters(pixels)
    kind = pixels.dtype
    if kind.kind == "f":
        # A quarter of each first: their sum may be more than the type holds.
        return sum(quarter * kind.type(0.25) for quarter in quarters)
    total = sum(quarter.astype(_wide(kind)) for quarter in quarters)
    return numpy.floor_divide(total + 2, 4).astype(kind)


def _average_of_valid(
    pixels: numpy.ndarray, valid: numpy.ndarray, nodata: tuple[float | None, ...]
) -> numpy.ndarray:
    kind = pixels.dtype
    quarters = _quarters(pixels)
    data = _quarters(valid)
    count = sum(is_data.astype("i1") for is_data in data)
    share = numpy.maximum(count, 1)
    total = sum(
        numpy.where(is_data, quarter, 0).astype(_wide(kind))
        for is_data, quarter in zip(data, quarters, strict=True)
    )
    if kind.kind == "f":
        means = (total / share).astype(kind)
    else:
        means = numpy.floor_divide(total + share // 2, share).astype(kind)
    means = _keep_apart(means, nodata)
    nothing = numpy.broadcast_to(count == 0, means.shape)
    for band, value in enumerate(nodata or (None,) * means.shape[2]):
        empty = nothing[:, :, band]
        if value is None or not can_hold(kind, value):
            means[:, :, band][empty] = quarters[0][:, :, band][empty]
        else:
            means[:, :, band][empty] = value
    return means


def _wide(kind: numpy.dtype) -> numpy.dtype:
    """A type that holds a sum of four."""
    if kind.itemsize == 8:
        return numpy.dtype(numpy.longdouble)
    if kind.kind == "f":
        return numpy.dtype("f8")
    return numpy.dtype("i4" if kind.itemsize <= 2 else "i8")


def _keep_apart(
    means: numpy.ndarray, nodata: tuple[float | None, ...]
) -> numpy.ndarray:
    """Move what became nodata by averaging to the value beside it."""
    kind = means.dtype
    for band, value in enumerate(nodata):
        if value is None or value != value or not can_hold(kind, value):
            continue
        same = means[:, :, band] == kind.type(value)
        if same.any():
            if kind.kind == "f":
                beside = numpy.nextafter(kind.type(value), kind.type(0 if value else 1))
            else:
                most = numpy.iinfo(kind).max
                beside = kind.type(value - 1 if value == most else value + 1)
            means = means if means.flags.writeable else means.copy()
            means[:, :, band][same] = beside
    return means


def can_hold(kind: numpy.dtype, value: float) -> bool:
    """Whether a value is one that a type has."""
    if kind.kind not in "iu":
        return True
    limits = numpy.iinfo(kind)
    return value == int(value) and limits.min <= value <= limits.max
