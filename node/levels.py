"""One pass over an image, from which everything that is made of it is fed.

Each strip is read once; while it is in memory its tiles are compressed, it is
halved for the overview above it, and shown in the JPEG. Then each overview is
gone over in the same way.
"""

import itertools
import mmap
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy
import rasterio
from rasterio.enums import Resampling
from rasterio.windows import Window

from node import encode, overviews
from node.jpeg import STRIP_ROWS, JpegWriter
from node.options import Options
from node.picture import Picture
from node.source import Source
from node.spool import TileSpool

_MIB = 1024 * 1024
# Of pixels at a time: a whole row of tiles if it is no more than this, else some
# tiles of it, or one.
_MAX_ROW_BYTES, _MAX_STRIP_BYTES = 128 * _MIB, 64 * _MIB  # bytes
# Even, so that no two pixels that make one are parted.
_HALVED_ROWS = 64
# Overviews larger than this wait on disk.
_MAX_IN_MEMORY = 128 * _MIB  # bytes


@dataclass(frozen=True)
class Plan:
    """What is to be made of an image.

    Attributes:
        sizes: widths and heights of the image, its overviews and, where the
            JPEG is smaller, what lies between.
        written: how many of them are in the COG.
        jpeg_level: which of them is the JPEG.
        scratch: a folder for temporary files.
    """

    source: Source
    options: Options
    sizes: list[tuple[int, int]]
    written: int
    jpeg_level: int
    scratch: Path

    def windows(self, level: int) -> Iterator[Window]:
        """A row of tiles at a time, or as much of one as memory is for."""
        width, height = self.sizes[level]
        tile = self.options.block_size
        pixel = self.source.bands * self.source.dtype.itemsize
        columns = width
        if width * pixel * tile > _MAX_ROW_BYTES:
            columns = max(1, _MAX_STRIP_BYTES // (pixel * tile * tile)) * tile
        for row in range(0, height, tile):
            for column in range(0, width, columns):
                yield Window(
                    column,
                    row,
                    min(columns, width - column),
                    min(tile, height - row),
                )


@dataclass(frozen=True)
class Strip:
    """What a window shows.

    Attributes:
        pixels: of shape (rows, columns, bands); gone when the next strip is read.
        mask: of shape (rows, columns), None where there is none.
        valid: which samples are data, as `Source.valid` tells it.
    """

    window: Window
    pixels: numpy.ndarray
    mask: numpy.ndarray | None
    valid: numpy.ndarray | None

    def pieces(self, rows: int) -> Iterator["Strip"]:
        """Some rows at a time: what is made of pixels may be larger than they."""
        window = self.window
        for row in range(0, window.height, rows):
            taken = slice(row, row + rows)
            pixels = self.pixels[taken]
            yield Strip(
                Window(window.col_off, window.row_off + row, window.width, len(pixels)),
                pixels,
                None if self.mask is None else self.mask[taken],
                None if self.valid is None else self.valid[taken],
            )


@dataclass(frozen=True)
class Checksums:
    """By which the COG can be compared with the image.

    Attributes:
        pixels: CRC-32 of all pixels, window by window, or None where it was
            enough to have the next one.
        tiles: of each tile as it was before it was compressed.
    """

    pixels: int | None
    tiles: tuple[int, ...]


class _Consumer(Protocol):
    def add(self, strip: Strip) -> None: ...


def make(
    plan: Plan,
    encode_tiles: encode.Encode,
    shown: Picture,
    jpeg: Path,
    whole_checksum: bool,
) -> tuple[list[TileSpool], Checksums]:
    """Write the JPEG, and make the tiles of the COG.

    Returns:
        The tiles of each level, and the checksums of the image.

    Raises:
        DamagedImage: the image cannot be read.
    """
    pixels = _Checksum()
    tiles: list[_Tiles] = []
    canvas: Canvas | None = None
    levels = max(plan.written, plan.jpeg_level + 1)
    with jpeg.open("wb") as jpeg_file:
        for level in range(levels):
            consumers: list[_Consumer] = []
            if level < plan.written:
                spool = TileSpool(plan.scratch, f"tiles-{level}")
                tiles.append(_Tiles(spool, encode_tiles, plan.options.block_size))
                consumers.append(tiles[-1])
            if level == 0 and whole_checksum:
                consumers.append(pixels)
            if level == plan.jpeg_level:
                writer = JpegWriter(
                    jpeg_file, *plan.sizes[level], plan.options.jpeg_quality
                )
                consumers.append(_JpegConsumer(writer, shown, plan.sizes[level][0]))
            following, halving = None, None
            if level + 1 < levels:
                following = Canvas(*plan.sizes[level + 1], plan.source, plan.scratch)
                halving = _halving(plan, following)
            if halving:
                consumers.append(halving)
            for strip in _strips(plan, level, canvas):
                for consumer in consumers:
                    consumer.add(strip)
            if following and not halving:
                _resample(plan, level + 1, following)
            canvas = following
    checksums = Checksums(
        pixels.crc32 if whole_checksum else None,
        tuple(tiles[0].checksums) if tiles and not whole_checksum else (),
    )
    return [each.spool for each in tiles], checksums


class Canvas:
    """The pixels of an overview, in memory or, when large, on disk.

    Attributes:
        pixels: of shape (height, width, bands).
        mask: of shape (height, width), None where there is none.
    """

    def __init__(
        self, width: int, height: int, source: Source, directory: Path
    ) -> None:
        shape = (height, width, source.bands)
        kind = source.dtype
        size = height * width * source.bands * kind.itemsize
        self._map = None
        if size > _MAX_IN_MEMORY:
            path = directory / "overview"
            with path.open("w+b") as file:
                # Not a file with holes: a disk that is full is to be an error here,
                # not a signal when a page is written.
                os.posix_fallocate(file.fileno(), 0, size)
                self._map = mmap.mmap(file.fileno(), size)
            # It goes when the map does.
            path.unlink()
            self.pixels = numpy.frombuffer(self._map, kind).reshape(shape)
        else:
            self.pixels = numpy.empty(shape, kind)
        self.mask = numpy.empty((height, width), bool) if source.has_mask else None

    def release_pages(self) -> None:
        """Let go of memory whose content also stands on disk."""
        if self._map:
            self._map.madvise(mmap.MADV_DONTNEED)


def _strips(plan: Plan, level: int, canvas: Canvas | None) -> Iterator[Strip]:
    source = plan.source
    buffer = numpy.empty(0, source.dtype)
    for window in plan.windows(level):
        if canvas:
            area = window.toslices()
            pixels = canvas.pixels[area]
            mask = None if canvas.mask is None else canvas.mask[area]
        else:
            shape = (window.height, window.width, source.bands)
            samples = window.height * window.width * source.bands
            if buffer.size < samples:
                buffer = numpy.empty(samples, source.dtype)
            pixels = buffer[:samples].reshape(shape)
            mask = source.read(window, pixels)
        yield Strip(window, pixels, mask, source.valid(pixels, mask))
        if canvas:
            canvas.release_pages()


class _Checksum:
    def __init__(self) -> None:
        self.crc32 = 0

    def add(self, strip: Strip) -> None:
        self.crc32 = zlib.crc32(strip.pixels, self.crc32)


@dataclass(frozen=True)
class _Tiles:
    spool: TileSpool
    encode_tiles: encode.Encode
    tile: int
    checksums: list[int | None] = field(default_factory=list)

    def add(self, strip: Strip) -> None:
        masks: Iterable[encode.Tile | None] = itertools.repeat(None)
        if strip.mask is not None:
            masks = encode.encode_mask(strip.mask, self.tile)
        for tile, mask in zip(self.encode_tiles(strip.pixels), masks, strict=False):
            self.spool.add(tile.data, *([mask.data] if mask else []))
            self.checksums.append(tile.crc32)


class _JpegConsumer:
    """The JPEG, of parts that are put together to whole rows."""

    def __init__(self, writer: JpegWriter, shown: Picture, width: int) -> None:
        self._writer = writer
        self._shown = shown
        self._width = width
        self._strips: list[numpy.ndarray] = []

    def add(self, strip: Strip) -> None:
        window = strip.window
        if window.width == self._width:
            for piece in strip.pieces(STRIP_ROWS):
                self._writer.add(self._shown.show(piece.pixels, piece.valid))
            return
        seen = [
            self._shown.show(piece.pixels, piece.valid)
            for piece in strip.pieces(STRIP_ROWS)
        ]
        self._strips.append(numpy.concatenate(seen))
        if window.col_off + window.width == self._width:
            for row in range(0, window.height, STRIP_ROWS):
                rows = [strip[row : row + STRIP_ROWS] for strip in self._strips]
                self._writer.add(numpy.hstack(rows))
            self._strips.clear()


@dataclass(frozen=True)
class _Halving:
    canvas: Canvas
    halve: Callable[[Strip], numpy.ndarray]

    def add(self, strip: Strip) -> None:
        for piece in strip.pieces(_HALVED_ROWS):
            halved = self.halve(piece)
            row, column = piece.window.row_off // 2, piece.window.col_off // 2
            rows, columns = halved.shape[:2]
            area = slice(row, row + rows), slice(column, column + columns)
            self.canvas.pixels[area] = halved
            if piece.mask is not None:
                self.canvas.mask[area] = overviews.any_valid(piece.mask)
        self.canvas.release_pages()


def _halving(plan: Plan, canvas: Canvas) -> _Halving | None:
    """The way to halve that suits the data or was asked for, None if it is GDAL's."""
    source = plan.source
    suits = "nearest" if source.categorical else "average"
    resampling = plan.options.overview_resampling or suits
    if resampling == "nearest":
        return _Halving(canvas, lambda strip: overviews.nearest(strip.pixels))
    if resampling == "average" and source.dtype.kind != "c":
        return _Halving(
            canvas,
            lambda strip: overviews.average(strip.pixels, strip.valid, source.nodata),
        )
    return None


def _resample(plan: Plan, level: int, canvas: Canvas) -> None:
    """Fill an overview from the image itself, as GDAL resamples it."""
    source = plan.source
    width, height = plan.sizes[level]
    across, down = source.width / width, source.height / height
    resampling = Resampling[plan.options.overview_resampling]
    # Not from overviews that the image may have: those are somebody else's.
    with rasterio.open(
        source.dataset.name, driver="GTiff", OVERVIEW_LEVEL="NONE"
    ) as image:
        raster = source.pixels if source.warped else image
        for window in plan.windows(level):
            area = window.toslices()
            strip = Window(
                window.col_off * across,
                window.row_off * down,
                window.width * across,
                window.height * down,
            )
            shape = (window.height, window.width)
            bands = list(range(1, source.bands + 1))
            read = raster.read(
                bands,
                window=strip,
                out_shape=(source.bands, *shape),
                resampling=resampling,
            )
            canvas.pixels[area] = read.transpose(1, 2, 0)
            if canvas.mask is not None:
                canvas.mask[area] = (
                    raster.dataset_mask(window=strip, out_shape=shape) > 0
                )
            canvas.release_pages()
