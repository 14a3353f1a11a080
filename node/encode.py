"""Encode pixels as the tiles of a TIFF: apply a predictor, then compress."""

import io
import math
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy
from isal import isal_zlib
from rasterio.io import MemoryFile

from node import tiff
from node.masks import can_hold
from node.source import Source

Apply = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]


@dataclass(frozen=True)
class Tile:
    """A tile as it is stored.

    Attributes:
        data: the compressed tile.
        crc32: CRC-32 of what was compressed; None if that is not known.
    """

    data: bytes
    crc32: int | None = None


# LERC rounds twice, so that values may differ by a little more than its error.
_ROUNDING = 1 - 2**-10

# Level 1 of Zstandard has a hash table of 2^14 entries. One of 2^12 stays in the
# fastest cache of a processor, and finds nearly all of the few matches in images.
_HASH_LOG = 12

# Width and height of a tile, in pixels.
Size = tuple[int, int]
# A function that makes a row of tiles of a size from at most as many rows of pixels as
# a tile has.
Encode = Callable[[numpy.ndarray, Size], Iterator[Tile]]


@dataclass(frozen=True)
class Codec:
    """A compression that this module can apply and reverse.

    Attributes:
        compress: function that compresses the bytes of an array.
        decompress: function that reverses ``compress``.
        error: exception that ``decompress`` raises if the bytes are damaged.
    """

    compress: Callable[[numpy.ndarray], bytes]
    decompress: Callable[[bytes], bytes]
    error: type[Exception]


def encoder(options: Mapping[str, str], source: Source, apply: Apply) -> Encode:
    """Return a function that makes tiles of pixels of shape (rows, columns, bands).

    The compressions that are used most have their own code here, which is faster: GDAL
    and libtiff copy every tile several times, and ISA-L deflates three times as fast
    as the library that they use. GDAL does the others, into a file in memory from
    which the tiles are taken.

    Args:
        options: creation options of the GTiff driver, with PREDICTOR as a number.
        source: the image.
        apply: ``map``, or that of an executor with threads.
    """
    known = codec(options, source.data_type)
    if not known and float(options.get("MAX_Z_ERROR", "0")):
        return lambda pixels, tile: _by_lerc_with_error(pixels, options, source, tile)
    if not known:
        return lambda pixels, tile: iter(
            _by_gdal(pixels, options, source.data_type, tile)[0]
        )
    predict = _PREDICTORS[options.get("PREDICTOR", "1")]

    def encode_one(pixels: numpy.ndarray) -> Tile:
        predicted = predict(pixels)
        return Tile(known.compress(predicted), isal_zlib.crc32(predicted.data))

    def encode(pixels: numpy.ndarray, tile: Size) -> Iterator[Tile]:
        width = tile[0]
        columns = range(0, pixels.shape[1], width)
        return apply(
            encode_one, (_padded(pixels[:, x : x + width], tile) for x in columns)
        )

    return encode


def encode_mask(mask: numpy.ndarray, tile: Size) -> Iterator[Tile]:
    """Yield a mask's tiles: one bit a pixel, deflated (see `tiff.mask_directory`)."""
    width, height = tile
    for x in range(0, mask.shape[1], width):
        part = mask[:, x : x + width]
        whole = numpy.zeros((height, width), bool)
        whole[: part.shape[0], : part.shape[1]] = part
        yield Tile(zlib.compress(numpy.packbits(whole, axis=1).data, 6))


def codec(options: Mapping[str, str], data_type: str) -> Codec | None:
    """Return the codec for creation options; None if GDAL compresses."""
    if data_type.startswith("complex_int") or "NBITS" in options:
        return None  # numpy has no such type.
    kind = options["COMPRESS"]
    if kind == "ZSTD":
        import zstandard

        level = int(options.get("ZSTD_LEVEL", "9"))
        how: dict[str, Any] = {"level": level}
        if level == 1:
            parameters = zstandard.ZstdCompressionParameters
            how = {"compression_params": parameters.from_level(1, hash_log=_HASH_LOG)}
        # Threads cannot share a compressor.
        local = threading.local()

        def compress(tile: numpy.ndarray) -> bytes:
            if not hasattr(local, "compressor"):
                local.compressor = zstandard.ZstdCompressor(**how)
            return local.compressor.compress(tile)

        decompress = zstandard.ZstdDecompressor().decompress
        return Codec(compress, decompress, zstandard.ZstdError)
    if kind == "DEFLATE" and options.get("ZLEVEL") == "1":
        return Codec(
            lambda tile: isal_zlib.compress(tile, 1),
            isal_zlib.decompress,
            isal_zlib.error,  # type: ignore[arg-type]  # its stub says it is an instance
        )
    return None


def _padded(pixels: numpy.ndarray, tile: Size) -> numpy.ndarray:
    width, height = tile
    rows, columns = pixels.shape[:2]
    if (columns, rows) == tile:
        return pixels
    # Repeat the last pixels: they compress to nearly nothing.
    missing = ((0, height - rows), (0, width - columns), (0, 0))
    return numpy.pad(pixels, missing, mode="edge")


def _unpredicted(pixels: numpy.ndarray) -> numpy.ndarray:
    return numpy.ascontiguousarray(pixels)


def _differences(pixels: numpy.ndarray) -> numpy.ndarray:
    """Apply predictor 2: subtract the pixel before (TIFF 6.0, section 14)."""
    samples = pixels.view(f"u{pixels.dtype.itemsize}")
    differences = numpy.empty(samples.shape, samples.dtype)
    differences[:, 0] = samples[:, 0]
    numpy.subtract(samples[:, 1:], samples[:, :-1], out=differences[:, 1:])
    return differences


def _float_differences(pixels: numpy.ndarray) -> numpy.ndarray:
    """Apply predictor 3: a row's most significant bytes first, then differences.

    The source is Adobe's TIFF Technical Note 3.
    """
    rows, columns, bands = pixels.shape
    size = pixels.dtype.itemsize
    big_endian = pixels.astype(pixels.dtype.newbyteorder(">"), order="C")
    planes = big_endian.view("u1").reshape(rows, columns * bands, size)
    row_bytes = numpy.ascontiguousarray(planes.transpose(0, 2, 1)).reshape(rows, -1)
    differences = row_bytes.copy()
    differences[:, bands:] -= row_bytes[:, :-bands]
    return differences


_PREDICTORS = {"1": _unpredicted, "2": _differences, "3": _float_differences}


def _by_gdal(
    pixels: numpy.ndarray, options: Mapping[str, str], data_type: str, tile: Size
) -> tuple[list[Tile], bytes]:
    """Return a row of tiles, and the TIFF from which they were taken."""
    width, height = tile
    rows, columns, bands = pixels.shape
    if options["COMPRESS"].startswith("LERC"):
        # If alpha is 0 or 255, libtiff leaves out colours that are transparent.
        options = {**options, "ALPHA": "NO"}
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            width=columns,
            height=rows,
            count=bands,
            dtype=data_type,
            tiled=True,
            blockxsize=width,
            blockysize=height,
            interleave="pixel",
            **options,
        ) as raster:
            raster.write(pixels.transpose(2, 0, 1))
        content = bytes(memory.getbuffer())
    file = io.BytesIO(content)
    return [Tile(data) for data in tiff.tiles(tiff.read(file), file)], content


def _by_lerc_with_error(
    pixels: numpy.ndarray, options: Mapping[str, str], source: Source, tile: Size
) -> Iterator[Tile]:
    """Yield a row of tiles in which each sample that is no data stays so.

    LERC rounds nodata values as it does others. A tile with a value that it does not
    keep is made again: with the other values at distances from it that LERC often
    keeps, and, if that does not help, without loss.
    """
    allowed = float(options["MAX_Z_ERROR"])
    width = tile[0]
    for x in range(0, pixels.shape[1], width):
        part = pixels[:, x : x + width]
        data = source.data(part, None)
        error = math.floor(allowed) if part.dtype.kind in "iu" else allowed * _ROUNDING
        for values, limit in (
            (part, allowed),
            (_at_steps(part, source.nodata, error), error),
            (part, 0),
        ):
            (encoded,), content = _by_gdal(
                values,
                {**options, "MAX_Z_ERROR": repr(limit)},
                source.data_type,
                tile,
            )
            with MemoryFile(content) as memory, memory.open(driver="GTiff") as raster:
                decoded = raster.read().transpose(1, 2, 0)
            kept = (source.data(decoded, None) == data).all()
            if kept and (values is part or _within(part, decoded, data, allowed)):
                break
        yield encoded


def _within(
    pixels: numpy.ndarray, decoded: numpy.ndarray, data: numpy.ndarray, error: float
) -> bool:
    difference = pixels[data].astype("f8") - decoded[data]
    return bool(numpy.abs(difference).max(initial=0) <= error)


def _at_steps(
    pixels: numpy.ndarray, nodata: tuple[float | None, ...], error: float
) -> numpy.ndarray:
    """Return pixels at multiples of twice an error from nodata, where that is near."""
    kind = pixels.dtype
    if not error or not nodata or nodata[0] is None or not can_hold(kind, nodata[0]):
        return pixels
    value = nodata[0]
    exact = pixels.astype("f8")
    moved = value + numpy.rint((exact - value) / (2 * error)) * (2 * error)
    near = (numpy.abs(moved - exact) <= error) & (moved != value)
    if kind.kind in "iu":
        limits = numpy.iinfo(kind)
        near &= (moved >= limits.min) & (moved <= limits.max)
    return numpy.where(near, moved, exact).astype(kind)
