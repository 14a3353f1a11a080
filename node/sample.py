"""A sample of an image's pixels, for its statistics, footprint and thumbnails.

The pixels come from an overview that is in memory while the COG is made.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy
from PIL import Image
from rasterio.windows import Window

from node.picture import Picture
from node.result import MAX_BANDS
from node.source import Source

# The overview is the smallest one whose longer side has at least as many pixels, so
# that a thumbnail can be made of it.
_MIN_SIDE = 256
# More pixels are not kept: an image may have no overview.
_MAX_SIDE = 512


class _Strip(Protocol):
    @property
    def window(self) -> Window: ...
    @property
    def pixels(self) -> numpy.ndarray: ...
    @property
    def valid(self) -> numpy.ndarray | None: ...


@dataclass
class Statistics:
    """Statistics of the valid pixels of a band, from one strip after the other.

    Attributes:
        count: number of valid pixels.
        squares: sum of the squared differences from the mean.
    """

    count: int = 0
    minimum: float = math.inf
    maximum: float = -math.inf
    mean: float = 0.0
    squares: float = 0.0

    @property
    def stddev(self) -> float:
        return math.sqrt(self.squares / self.count)

    def add(self, values: numpy.ndarray) -> None:
        """Add the values of a strip, which are finite real numbers."""
        size = values.size
        if not size:
            return
        weights = None
        if values.dtype == numpy.uint8:
            # Pillow counts the values in less time than numpy needs for their sum.
            counts = numpy.array(Image.fromarray(values[None]).histogram())
            values = numpy.flatnonzero(counts)
            weights = counts[values]
        self.minimum = min(self.minimum, values.min().item())
        self.maximum = max(self.maximum, values.max().item())
        doubles = values.astype("f8")
        with numpy.errstate(over="ignore", invalid="ignore"):
            mean = numpy.average(doubles, weights=weights).item()
            doubles -= mean
            weighted = doubles if weights is None else doubles * weights
            squares = numpy.dot(doubles, weighted).item()
        # Chan, Golub and LeVeque (1979), "Updating formulae and a pairwise algorithm
        # for computing sample variances", equation 2.1.
        count = self.count + size
        difference = mean - self.mean
        self.mean += difference * size / count
        self.squares += squares + difference * difference * self.count * size / count
        self.count = count


class Sample:
    """Collect a sample of the pixels of one level.

    Attributes:
        level: the level whose strips are to be added.
        factor: side in pixels of the image that one pixel of the sample stands for.
        picture: how the sample looks, 8-bit, of shape (rows, columns) or
            (rows, columns, 3).
        mask: pixels that are valid in any band but alpha, of shape (rows, columns).
        bands: statistics of the first bands; empty for complex numbers.
        valid_counts: number of valid pixels of the first bands.
        alpha: index of the alpha band; None if there is none.
        bands_1_to_3_equal: whether there are three bands, and their pixels are equal.
    """

    def __init__(
        self, source: Source, sizes: list[tuple[int, int]], levels: int, look: Picture
    ) -> None:
        """Choose the level among the first ones of an image.

        Args:
            sizes: widths and heights of the levels.
            levels: number of levels that are made.
        """
        self.level = max(
            (n for n in range(levels) if max(sizes[n]) >= _MIN_SIDE), default=0
        )
        width, height = sizes[self.level]
        self._step = -(-max(width, height) // _MAX_SIDE)
        self.factor = 2**self.level * self._step
        rows, columns = -(-height // self._step), -(-width // self._step)
        self._look = look
        count = min(source.bands, MAX_BANDS)
        self._real = source.dtype.kind != "c"
        colors = (3,) if source.palette is not None or len(look.bands) == 3 else ()
        self.picture = numpy.empty((rows, columns, *colors), "u1")
        self.mask = numpy.ones((rows, columns), bool)
        self.bands = [Statistics() for _ in range(count)] if self._real else []
        self.valid_counts = [0] * count
        self.alpha = source.alpha
        self.bands_1_to_3_equal = source.bands >= 3

    def add(self, strip: _Strip) -> None:
        window, step = strip.window, self._step
        # The first row and column of the strip that the sample has.
        row, column = -window.row_off % step, -window.col_off % step
        pixels = strip.pixels[row::step, column::step]
        if not pixels.size:
            return
        valid = strip.valid
        valid = None if valid is None else valid[row::step, column::step]
        if pixels.dtype.kind in "fc":
            finite = numpy.isfinite(pixels)
            if not finite.all():
                valid = finite if valid is None else finite & valid
        rows, columns = pixels.shape[:2]
        top, left = (window.row_off + row) // step, (window.col_off + column) // step
        area = slice(top, top + rows), slice(left, left + columns)
        seen = self._look.show(pixels, valid)
        self.picture[area] = seen[:, :, :3] if seen.ndim == 3 else seen
        if valid is not None:
            self.mask[area] = self._any_band(valid)
        if self.bands_1_to_3_equal:
            first = pixels[:, :, :1]
            self.bands_1_to_3_equal = bool((pixels[:, :, 1:3] == first).all())
        for band in range(len(self.valid_counts)):
            values = pixels[:, :, band].ravel()
            if valid is not None:
                data = valid[:, :, band if valid.shape[2] > 1 else 0].ravel()
                values = values[data]
            self.valid_counts[band] += values.size
            if self._real:
                self.bands[band].add(values)

    def _any_band(self, valid: numpy.ndarray) -> numpy.ndarray:
        alpha = self.alpha
        if alpha is not None and valid.shape[2] > 1:
            valid = numpy.delete(valid, alpha, axis=2)
        return numpy.any(valid, axis=2)
