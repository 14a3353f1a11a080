"""What an image says of itself that is not believed, and not followed.

Of an image GDAL reads more than the image: overviews and a mask beside it, by any
of its drivers, and whatever these name; files and addresses that tags name. Only
the GeoTIFF driver may open what came in, and nothing that came in leads elsewhere.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import rasterio
from rasterio.enums import Interleaving
from rasterio.errors import RasterioError

from node import sidecars, tiff
from node.errors import UnsupportedRaster

_GIB = 1024**3
# Of pixels, whatever the file. Of more than a little, no more than a file of its
# size holds: Deflate makes at most 1032 bytes of one.
_MOST_BYTES = 2048 * _GIB
_LITTLE = 32 * _GIB
_MOST_TIMES = 1032
# GDAL has a whole block in memory at a time.
_LARGEST_BLOCK = _GIB
_MANY_VALUES = 2**24  # bytes
_LONGEST_SIDE = 2**31 - 1
# How PROJ is told of files with grids: as an option, in WKT 1, in WKT 2.
_GRIDS = re.compile(
    r'grids=([^\s"]+)|PROJ4_GRIDS"\s*,\s*"([^"]*)|PARAMETERFILE\["[^"]*"\s*,\s*"([^"]*)'
)
# GDAL's own tag, of XML, and elements that it makes tags of, there and beside the
# image. For each of them it goes over all those of its directory or file, when it
# reads and writes a GeoTIFF: 20,000 take 5 s.
_GDAL_METADATA = 42112
_ITEM = re.compile(rb"<\s*(?:item|mdi|metadata)\b", re.IGNORECASE)
_MOST_ITEMS = 20_000
# What GDAL puts before the name of a file that lies beside the image.
_BESIDE = ":::BASE:::"


def check_directories(image: Path) -> None:
    """Raise UnsupportedRaster if its directories are too many, or fill memory.

    What does not overlap cannot be more than the file.
    """
    with image.open("rb") as file:
        length = file.seek(0, 2)
        try:
            values = tiff.bytes_of_values(file)
        except tiff.TooMany as error:
            raise UnsupportedRaster(
                f"{error}, one for each image in it: upload the first one alone"
            ) from error
        except tiff.NotATiff:
            return  # GDAL says in more words what it is
    if values > max(length, _MANY_VALUES):
        raise UnsupportedRaster(
            f"its tags say that they hold {values} bytes, in a file of {length}: "
            "upload it again, or leave it out"
        )


def check_tags(image: Path) -> None:
    """Raise UnsupportedRaster if its tags, and those beside it, take GDAL too long."""
    for suffix in (*sidecars.WORLD_FILES, *map(str.upper, sidecars.WORLD_FILES)):
        _check_beside_size(image.with_suffix(suffix))
    beside = image.with_name(f"{image.name}.aux.xml")
    _check_beside_size(beside)
    items = [_items(beside.read_bytes())] if _exists(beside) else []
    items += map(_items, _metadata(image))
    if sum(number**2 for number in items) > _MOST_ITEMS**2:
        raise UnsupportedRaster(
            f"it has more than {_MOST_ITEMS} tags, in itself or in its .aux.xml file: "
            "leave some out"
        )


def _check_beside_size(beside: Path) -> None:
    size = beside.stat().st_size if _exists(beside) else 0
    if fault := sidecars.fault(beside.name, size):
        raise UnsupportedRaster(fault)


def _metadata(image: Path) -> Iterator[bytes]:
    """Yield what each of its directories has as GDAL's tag."""
    with image.open("rb") as file, suppress(tiff.NotATiff):
        largest = sidecars.LARGEST_XML
        for text in tiff.beginnings(file, _GDAL_METADATA, largest + 1):
            if len(text) > largest:
                raise UnsupportedRaster(
                    f"its tag GDAL_METADATA has more than {largest:,} bytes: leave "
                    "some of it out"
                )
            yield text


def _items(xml: bytes) -> int:
    """Return how many tags GDAL makes of XML, or one more than it may."""
    return sum(1 for _ in islice(_ITEM.finditer(xml), _MOST_ITEMS + 1))


def _exists(path: Path) -> bool:
    # Not Path.exists, which fails where a name is too long to be one.
    return os.path.exists(path)  # noqa: PTH110


def check_beside(image: Path) -> None:
    """Look at an image's mask and overviews before GDAL finds them.

    Raises:
        UnsupportedRaster: one is no GeoTIFF, which GDAL would open nevertheless,
            or names other files; or its tags take GDAL too long.
    """
    for suffix in (".msk", ".MSK", ".ovr", ".OVR"):
        beside = image.with_name(image.name + suffix)
        if not _exists(beside):
            continue
        check_directories(beside)
        check_tags(beside)
        try:
            with rasterio.open(beside, driver="GTiff", sharing=False) as raster:
                check_references(raster)
        except RasterioError as error:
            raise UnsupportedRaster(
                f"its {suffix[1:]} file is no GeoTIFF: remove it, or make it again"
            ) from error
        check_beside(beside)


def check_references(image: rasterio.DatasetReader) -> None:
    """Raise UnsupportedRaster if its overviews are said to be elsewhere."""
    named = _item(image, "OVERVIEWS", "OVERVIEW_FILE")
    if named and ("/" in named or not named.startswith(_BESIDE)):
        raise UnsupportedRaster(
            f"it says that its overviews are elsewhere ({named[:60]}): remove its "
            "tag OVERVIEW_FILE"
        )


def check_warping(image: rasterio.DatasetReader) -> None:
    """Raise UnsupportedRaster if files that it names are needed to warp it."""
    arrays = [_item(image, "GEOLOCATION", f"{axis}_DATASET") for axis in "XY"]
    grids = [
        name for found in _GRIDS.findall(_wkt(image)) for name in found if "/" in name
    ]
    if named := [*filter(None, arrays), *grids]:
        raise UnsupportedRaster(
            f"to warp it, another file is needed ({named[0][:60]}): warp it before, "
            "or convert it as it is"
        )


def check_size(width: int, height: int, pixel: int, tile: int, file: int) -> None:
    """Raise UnsupportedRaster if an image says that it holds more than it can.

    Args:
        pixel: of all its bands, in bytes.
        tile: a tile's side in the COG, in pixels, which has whole tiles.
        file: the image's size, in bytes.
    """
    if not (0 < width <= _LONGEST_SIDE and 0 < height <= _LONGEST_SIDE):
        raise UnsupportedRaster(f"{width} x {height} pixels is no size of an image")
    size = pixel * (-(-width // tile) * tile) * (-(-height // tile) * tile)
    said = f"it says that it is of {width} x {height} pixels, {size // _GIB} GiB"
    if size > _MOST_BYTES:
        raise UnsupportedRaster(f"{said}: if that is so, cut it into parts")
    if size > max(_LITTLE, _MOST_TIMES * file):
        raise UnsupportedRaster(
            f"{said}, in a file of {file} bytes: if that is so, cut it into parts"
        )


def check_blocks(image: rasterio.DatasetReader, sample: int, tile: int) -> None:
    """Raise UnsupportedRaster if a block of it, or of its COG, is too large.

    Args:
        sample: of each pixel in each band, in bytes.
    """
    rows, columns = max(image.block_shapes, key=lambda shape: shape[0] * shape[1])
    by_pixel = image.interleaving == Interleaving.pixel
    size = rows * columns * sample * (image.count if by_pixel else 1)
    if size > _LARGEST_BLOCK:
        raise UnsupportedRaster(
            f"its blocks of {columns} x {rows} pixels are of {size / _GIB:.1f} GiB "
            "each: store it in tiles of 512 x 512"
        )
    if tile * tile * sample * image.count > _LARGEST_BLOCK:
        raise UnsupportedRaster(
            f"it has {image.count} bands, too many for a COG: make images of some"
        )


def _item(image: rasterio.DatasetReader, namespace: str, name: str) -> str:
    """A tag's value; GDAL does not tell upper from lower case in its name."""
    tags = image.tags(ns=namespace)
    return next((value for tag, value in tags.items() if tag.upper() == name), "")


def _wkt(image: rasterio.DatasetReader) -> str:
    return " ".join(crs.to_wkt() for crs in (image.crs, image.gcps[1]) if crs)
