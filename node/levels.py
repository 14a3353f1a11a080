"""Make the tiles of all levels and the JPEG in one pass over an image.

Each strip is read once. While it is in memory, its tiles are compressed, it is halved
for the overview above, and it is added to the JPEG. Then the same is done for each
overview.
"""

import itertools
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy
import rasterio
from isal import isal_zlib
from rasterio.enums import Resampling
from rasterio.windows import Window

from node import encode, overviews
from node.jpeg import STRIP_ROWS, JpegWriter
from node.options import Options
from node.picture import Picture
from node.sample import Sample
from node.source import Source
from node.spool import TileSpool

_MIB = 1024 * 1024
# A strip is a whole row of tiles if that has no more bytes than this, otherwise as many
# tiles of it as fit, at least one.
_MAX_ROW_BYTES, _MAX_STRIP_BYTES = 128 * _MIB, 64 * _MIB
# Other methods mix classes to classes that are not there.
_RESAMPLINGS_OF_CLASSES = ("nearest", "mode")
# This is even, so that two rows that make one stay together.
_HALVED_ROWS = 64
# Larger overviews are kept on disk.
_MAX_IN_MEMORY = 128 * _MIB  # bytes


@dataclass(frozen=True)
class Plan:
    """Plan of the outputs of an image.

    Attributes:
        source: the image.
        options: how to convert it.
        sizes: widths and heights of the image, its overviews and, if the JPEG is
            smaller, of the levels between, in pixels.
        written: number of levels that are in the COG.
        jpeg_level: index of the level that becomes the JPEG.
        scratch: directory for temporary files.
    """

    source: Source
    options: Options
    sizes: list[tuple[int, int]]
    written: int
    jpeg_level: int
    scratch: Path

    @property
    def overview_resampling(self) -> str:
        """Method that computes the overviews."""
        asked = self.options.overview_resampling
        if asked and not self.refusal_of_resampling:
            return asked
        return "nearest" if self.source.categorical else "average"

    @property
    def refusal_of_resampling(self) -> str | None:
        """Why the method that the options name is not used; None if it is."""
        asked, source = self.options.overview_resampling, self.source
        if not asked or asked in _RESAMPLINGS_OF_CLASSES:
            return None
        if source.has_classes:
            return f"{asked} would mix its classes"
        if source.dtype.kind == "c" and asked == "gauss":
            return f"{asked} is not for complex numbers"
        if source.warped and source.nodata and asked != "average":
            return f"GDAL does not apply {asked} to a warped image with nodata"
        return None

    def tile_width(self, level: int) -> int:
        """Return the width of a level's tiles, in pixels."""
        return overviews.tile_width(*self.sizes[level], self.options.block_size)

    def windows(self, level: int) -> Iterator[Window]:
        """Yield windows: rows of tiles, or parts of rows that are too large."""
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
    """The pixels of a window.

    Attributes:
        window: where the pixels are in their level.
        pixels: array of shape (rows, columns, bands); the next strip overwrites it.
        mask: array of shape (rows, columns); None if there is no mask.
        valid: which samples are data, as `Source.valid` returns it.
    """

    window: Window
    pixels: numpy.ndarray
    mask: numpy.ndarray | None
    valid: numpy.ndarray | None

    def pieces(self, rows: int) -> Iterator["Strip"]:
        """Yield strips of fewer rows: results may be larger than the pixels."""
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
    """Checksums that show whether the COG has the image's pixels.

    Attributes:
        pixels: CRC-32 of all pixels, window by window; None if those of the tiles
            suffice.
        tiles: CRC-32 of each tile before compression; None where it is not known.
        mask: CRC-32 of the mask, window by window; None if there is no mask.
        data: CRC-32 of which samples are data, window by window; None if the pixels or
            the tiles show it.
    """

    pixels: int | None
    tiles: tuple[int | None, ...]
    mask: int | None
    data: int | None


class _Consumer(Protocol):
    def add(self, strip: Strip) -> None: ...


@dataclass(frozen=True)
class _Outputs:
    """Outputs of the pass over an image.

    Attributes:
        plan: the plan for the image.
        encode_tiles: function that compresses a row of tiles.
        picture: how the JPEG shows the image.
        jpeg_file: file for the JPEG.
        checksums: checksums of the image's pixels that are needed.
        sample: collector of a sample of its level; None if it is not needed.
        tiles: tiles of each level, the image first; filled by `consumers`.
    """

    plan: Plan
    encode_tiles: encode.Encode
    picture: Picture
    jpeg_file: BinaryIO
    checksums: "Sequence[_Checksum]"
    sample: Sample | None
    tiles: list["_Tiles"] = field(default_factory=list)

    def consumers(self, level: int) -> list[_Consumer]:
        """Return what takes the strips of a level."""
        plan = self.plan
        consumers: list[_Consumer] = []
        if level < plan.written:
            spool = TileSpool(plan.scratch, f"tiles-{level}")
            tile = plan.tile_width(level), plan.options.block_size
            self.tiles.append(_Tiles(spool, self.encode_tiles, tile))
            consumers.append(self.tiles[-1])
        if level == 0:
            consumers += self.checksums
        if level == plan.jpeg_level:
            width, height = plan.sizes[level]
            writer = JpegWriter(
                self.jpeg_file,
                width,
                height,
                plan.options.jpeg_quality,
                self.picture.colour_profile,
            )
            consumers.append(_JpegConsumer(writer, self.picture, width))
        if self.sample and level == self.sample.level:
            consumers.append(self.sample)
        return consumers


def make(
    plan: Plan,
    encode_tiles: encode.Encode,
    picture: Picture,
    jpeg: Path,
    whole_checksum: bool = False,
    data_checksum: bool = False,
    sample: Sample | None = None,
) -> tuple[list[TileSpool], Checksums]:
    """Write the JPEG, and make the tiles of the COG.

    Args:
        encode_tiles: function that compresses a row of tiles.
        picture: how the JPEG shows the image.
        jpeg: file to write the JPEG to.
        whole_checksum: whether to compute the checksum of all pixels instead of those
            of the tiles.
        data_checksum: whether to compute the checksum of which samples are data.
        sample: collects a sample of its level, if not None.

    Returns:
        The tiles of each level, and the checksums of the image.

    Raises:
        DamagedImage: the image cannot be read.
    """
    source = plan.source
    whole = _Checksum(lambda strip: strip.pixels) if whole_checksum else None
    data = None
    if data_checksum:
        data = _Checksum(lambda strip: packed(source.data(strip.pixels, strip.mask)))
    mask = _Checksum(lambda strip: packed(strip.mask)) if source.has_mask else None
    checksums = [checksum for checksum in (whole, data, mask) if checksum]
    levels = max(plan.written, plan.jpeg_level + 1)
    canvas: Canvas | None = None
    with jpeg.open("wb") as jpeg_file:
        outputs = _Outputs(plan, encode_tiles, picture, jpeg_file, checksums, sample)
        for level in range(levels):
            consumers = outputs.consumers(level)
            overview, halving = None, None
            if level + 1 < levels:
                overview = Canvas(*plan.sizes[level + 1], plan.source, plan.scratch)
                halving = _halving(plan, overview)
            if halving:
                consumers.append(halving)
            for strip in _strips(plan, level, canvas):
                for consumer in consumers:
                    consumer.add(strip)
            if overview and not halving:
                _resample(plan, level + 1, overview)
            canvas = overview
    tiles = outputs.tiles
    return [level_tiles.spool for level_tiles in tiles], Checksums(
        pixels=whole.crc32 if whole else None,
        tiles=tuple(tiles[0].checksums) if tiles and not whole else (),
        mask=mask.crc32 if mask else None,
        data=data.crc32 if data else None,
    )


def packed(flags: numpy.ndarray | None) -> numpy.ndarray:
    """Return booleans as bits, for a checksum; none of them for None."""
    return numpy.packbits(() if flags is None else flags)


class Canvas:
    """The pixels of an overview, in memory or, if it is large, on disk.

    Attributes:
        pixels: array of shape (height, width, bands).
        mask: array of shape (height, width); None if there is no mask.
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
                # Allocate the file now: a full disk is an error here. In a file with
                # holes it would be a signal when a page is written.
                os.posix_fallocate(file.fileno(), 0, size)
                self._map = mmap.mmap(file.fileno(), size)
            # The kernel removes the file when the map is gone.
            path.unlink()
            self.pixels = numpy.frombuffer(self._map, kind).reshape(shape)
        else:
            self.pixels = numpy.empty(shape, kind)
        self.mask = numpy.empty((height, width), bool) if source.has_mask else None

    def release_pages(self) -> None:
        """Release memory whose content is also on disk."""
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


@dataclass
class _Checksum:
    """CRC-32 of what a function returns for each strip.

    ISA-L computes it four times as fast as zlib.
    """

    part: Callable[[Strip], numpy.ndarray]
    crc32: int = 0

    def add(self, strip: Strip) -> None:
        self.crc32 = isal_zlib.crc32(self.part(strip).data, self.crc32)


@dataclass(frozen=True)
class _Tiles:
    spool: TileSpool
    encode_tiles: encode.Encode
    tile: encode.Size
    checksums: list[int | None] = field(default_factory=list)

    def add(self, strip: Strip) -> None:
        masks: Iterable[encode.Tile | None] = itertools.repeat(None)
        if strip.mask is not None:
            masks = encode.encode_mask(strip.mask, self.tile)
        tiles = self.encode_tiles(strip.pixels, self.tile)
        for tile, mask in zip(tiles, masks, strict=False):
            self.spool.add(tile.data, *([mask.data] if mask else []))
            self.checksums.append(tile.crc32)


class _JpegConsumer:
    """Join strips to whole rows, and write them to the JPEG."""

    def __init__(self, writer: JpegWriter, picture: Picture, width: int) -> None:
        self._writer = writer
        self._picture = picture
        self._width = width
        self._pending: list[numpy.ndarray] = []

    def add(self, strip: Strip) -> None:
        window = strip.window
        if window.width == self._width:
            for piece in strip.pieces(STRIP_ROWS):
                self._writer.add(self._picture.show(piece.pixels, piece.valid))
            return
        pieces = [
            self._picture.show(piece.pixels, piece.valid)
            for piece in strip.pieces(STRIP_ROWS)
        ]
        self._pending.append(numpy.concatenate(pieces))
        if window.col_off + window.width == self._width:
            for row in range(0, window.height, STRIP_ROWS):
                rows = [block[row : row + STRIP_ROWS] for block in self._pending]
                self._writer.add(numpy.hstack(rows))
            self._pending.clear()


@dataclass(frozen=True)
class _Halving:
    canvas: Canvas
    halve: Callable[[Strip], numpy.ndarray]
    halve_mask: Callable[[numpy.ndarray], numpy.ndarray]

    def add(self, strip: Strip) -> None:
        for piece in strip.pieces(_HALVED_ROWS):
            halved = self.halve(piece)
            row, column = piece.window.row_off // 2, piece.window.col_off // 2
            rows, columns = halved.shape[:2]
            area = slice(row, row + rows), slice(column, column + columns)
            self.canvas.pixels[area] = halved
            if piece.mask is not None and self.canvas.mask is not None:
                self.canvas.mask[area] = self.halve_mask(piece.mask)
        self.canvas.release_pages()


def _halving(plan: Plan, canvas: Canvas) -> _Halving | None:
    """Return how to halve for an overview; None if GDAL has to resample it."""
    source = plan.source
    resampling = plan.overview_resampling
    if resampling == "nearest":
        # The mask, too: a class of a masked pixel must not become valid.
        return _Halving(
            canvas, lambda strip: overviews.nearest(strip.pixels), overviews.nearest
        )
    if resampling == "mode":
        return _Halving(
            canvas,
            # A mask comes before nodata, and the mask of the overview is made of it.
            lambda strip: overviews.mode(
                strip.pixels,
                strip.valid if strip.mask is None else strip.mask[:, :, None],
            ),
            overviews.any_valid,
        )
    if resampling == "average" and source.dtype.kind != "c":
        return _Halving(
            canvas,
            # Colours that are multiplied by alpha are 0 where there is no data.
            lambda strip: overviews.average(
                strip.pixels,
                None if source.premultiplied else strip.valid,
                source.nodata,
            ),
            overviews.any_valid,
        )
    return None


def _resample(plan: Plan, level: int, canvas: Canvas) -> None:
    """Have GDAL resample the image itself for an overview."""
    source = plan.source
    width, height = plan.sizes[level]
    across, down = source.width / width, source.height / height
    resampling = Resampling[plan.overview_resampling]
    # Ignore overviews that the image may have: another program made them.
    with rasterio.open(
        source.dataset.name, driver="GTiff", OVERVIEW_LEVEL="NONE"
    ) as dataset:
        raster = source.pixels if source.warped else dataset
        for window in plan.windows(level):
            target = window.toslices()
            area = Window(
                window.col_off * across,
                window.row_off * down,
                window.width * across,
                window.height * down,
            )
            pixels = numpy.empty(canvas.pixels[target].shape, source.dtype)
            mask = source.read(area, pixels, raster, resampling)
            if source.premultiplied and source.alpha is not None:
                # Some methods compute colours that are more than their alpha.
                numpy.minimum(pixels, pixels[:, :, [source.alpha]], out=pixels)
            canvas.pixels[target] = pixels
            if canvas.mask is not None:
                canvas.mask[target] = mask
            canvas.release_pages()
