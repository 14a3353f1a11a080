"""What an image says of itself that is not believed, and not followed.

Of an image GDAL reads more than the image: overviews and a mask beside it, by any
of its drivers, and whatever these name; files and addresses that tags name. Only
the GeoTIFF driver may open what came in, and nothing that came in leads elsewhere.
"""

import os
import re
from pathlib import Path

import rasterio
from rasterio.enums import Interleaving
from rasterio.errors import RasterioError

from node import tiff
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
# What GDAL puts before the name of a file that lies beside the image.
_BESIDE = ":::BASE:::"


def check_directories(image: Path) -> None:
    """Raise UnsupportedRaster if its directories would fill more than memory.

    What does not overlap cannot be more than the file.
    """
    with image.open("rb") as file:
        length = file.seek(0, 2)
        try:
            values = tiff.bytes_of_values(file)
        except tiff.NotATiff:
            return  # GDAL says in more words what it is
    if values > max(length, _MANY_VALUES):
        raise UnsupportedRaster(
            f"its tags say that they hold {values} bytes, in a file of {length}: "
            "upload it again, or leave it out"
        )


def check_beside(image: Path) -> None:
    """Look at an image's mask and overviews before GDAL finds them.

    Raises:
        UnsupportedRaster: one is no GeoTIFF, which GDAL would open nevertheless,
            or names other files.
    """
    for suffix in (".msk", ".MSK", ".ovr", ".OVR"):
        beside = image.with_name(image.name + suffix)
        # Not Path.exists, which fails where a name is too long to be one.
        if not os.path.exists(beside):  # noqa: PTH110
            continue
        check_directories(beside)
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
