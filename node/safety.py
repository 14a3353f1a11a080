"""Refuse images whose own claims would mislead or overload GDAL.

For one image GDAL reads more than the image: overviews and a mask beside it, with any
of its drivers, and whatever these refer to; files and addresses that tags name. Only
the GeoTIFF driver may open an input, and no input may refer to anything else.
"""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import rasterio
from rasterio.enums import Interleaving
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from node import sidecars, tiff
from node.errors import UnsupportedRaster

_GIB = 1024**3
# Upper limit on the decoded size of an image, in bytes. An image above
# _ALWAYS_ALLOWED is also limited by the size of its file: Deflate expands a byte to
# at most 1032 bytes.
_MAX_BYTES = 2048 * _GIB
_ALWAYS_ALLOWED = 32 * _GIB
_MAX_EXPANSION = 1032
# GDAL holds a whole block in memory.
_MAX_BLOCK = _GIB  # bytes
# Values of tags may take this much even if the file is smaller.
_MAX_SMALL_VALUES = 2**24  # bytes
_MAX_SIDE = 2**31 - 1
# How a CRS names grid files for PROJ: as an option, in WKT 1, in WKT 2.
_GRIDS = re.compile(
    r'grids=([^\s"]+)|PROJ4_GRIDS"\s*,\s*"([^"]*)|PARAMETERFILE\["[^"]*"\s*,\s*"([^"]*)'
)
# GDAL's own TIFF tag, which holds XML, and the XML elements that GDAL turns into tags,
# there and in the .aux.xml file. For each of them GDAL scans all those of its directory
# or file when it reads and writes a GeoTIFF: 20,000 take 5 s.
_GDAL_METADATA = 42112
_ITEM = re.compile(rb"<\s*(?:item|mdi|metadata)\b", re.IGNORECASE)
_MAX_ITEMS = 20_000
# Suffixes that the name of an image gets in the name of the file with its mask.
_MASKS = (".msk", ".MSK")
# GDAL's prefix for the name of a file that lies beside the image.
_BESIDE = ":::BASE:::"
# How much of a name that the image contains a message shows.
_MAX_NAME = 60  # characters


@dataclass(frozen=True)
class SizeLimit:
    """How large an image may claim to be.

    Attributes:
        pixel_bytes: size of a pixel with all its bands, in bytes.
        tile: side of a tile of the COG, in pixels; the COG has whole tiles.
        file_bytes: size of the image's file, in bytes.
    """

    pixel_bytes: int
    tile: int
    file_bytes: int

    def check(self, width: int, height: int) -> None:
        """Raise UnsupportedRaster if an image of this size in pixels is too large."""
        if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE):
            raise UnsupportedRaster(
                f"an image cannot have a size of {width} x {height} pixels"
            )
        columns, rows = -(-width // self.tile), -(-height // self.tile)
        size = self.pixel_bytes * columns * rows * self.tile**2
        claim = f"it claims {width} x {height} pixels, {size // _GIB} GiB"
        if size > _MAX_BYTES:
            raise UnsupportedRaster(f"{claim}: if that is so, cut it into parts")
        if size > max(_ALWAYS_ALLOWED, _MAX_EXPANSION * self.file_bytes):
            raise UnsupportedRaster(
                f"{claim}, in a file of {self.file_bytes} bytes: if that is so, cut it "
                "into parts"
            )


def check_directories(image: Path) -> None:
    """Raise UnsupportedRaster if its directories are too many or would fill memory.

    Values that do not overlap cannot be larger than the file.
    """
    with image.open("rb") as file:
        length = file.seek(0, 2)
        try:
            value_bytes = tiff.bytes_of_values(file)
        except tiff.TooMany as error:
            raise UnsupportedRaster(
                f"{error}, one for each image in it: upload the first one alone"
            ) from error
        except tiff.NotATiff:
            return  # GDAL explains better what the file is.
    if value_bytes > max(length, _MAX_SMALL_VALUES):
        raise UnsupportedRaster(
            f"its tags claim {value_bytes} bytes, in a file of {length}: "
            "upload it again, or leave it out"
        )


def check_tags(image: Path) -> None:
    """Raise UnsupportedRaster if GDAL takes too long for its tags and sidecars."""
    for suffix in (*sidecars.WORLD_FILES, *map(str.upper, sidecars.WORLD_FILES)):
        _check_sidecar_size(image.with_suffix(suffix))
    sidecar = image.with_name(f"{image.name}.aux.xml")
    _check_sidecar_size(sidecar)
    counts = [_count_items(sidecar.read_bytes())] if _exists(sidecar) else []
    counts += map(_count_items, _gdal_metadata(image))
    if sum(count**2 for count in counts) > _MAX_ITEMS**2:
        raise UnsupportedRaster(
            f"it has more than {_MAX_ITEMS} tags, in itself or in its .aux.xml file: "
            "remove some"
        )


def _check_sidecar_size(sidecar: Path) -> None:
    size = sidecar.stat().st_size if _exists(sidecar) else 0
    if fault := sidecars.fault(sidecar.name, size):
        raise UnsupportedRaster(fault)


def _gdal_metadata(image: Path) -> Iterator[bytes]:
    """Yield the XML that each directory has in GDAL's tag."""
    with image.open("rb") as file, suppress(tiff.NotATiff):
        limit = sidecars.MAX_XML_BYTES
        for text in tiff.beginnings(file, _GDAL_METADATA, limit + 1):
            if len(text) > limit:
                raise UnsupportedRaster(
                    f"its tag GDAL_METADATA has more than {limit:,} bytes: remove some "
                    "of it"
                )
            yield text


def _count_items(xml: bytes) -> int:
    """Return how many tags GDAL makes of XML; stop counting above the limit."""
    return sum(1 for _ in islice(_ITEM.finditer(xml), _MAX_ITEMS + 1))


def _exists(path: Path) -> bool:
    # Path.exists raises an error if the name is too long.
    return os.path.exists(path)  # noqa: PTH110


def has_mask_beside(image: Path) -> bool:
    """Return whether GDAL finds a file with the mask of an image."""
    return any(_exists(image.with_name(image.name + suffix)) for suffix in _MASKS)


def check_beside(image: Path) -> None:
    """Check an image's mask and overview files before GDAL finds them.

    Raises:
        UnsupportedRaster: a file is not a GeoTIFF, which GDAL would open nevertheless,
            or refers to other files; or GDAL takes too long for its tags.
    """
    for suffix in (*_MASKS, ".ovr", ".OVR"):
        sidecar = image.with_name(image.name + suffix)
        if not _exists(sidecar):
            continue
        check_directories(sidecar)
        check_tags(sidecar)
        try:
            with warnings.catch_warnings():
                # It need not say where on the Earth it is.
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                dataset = rasterio.open(sidecar, driver="GTiff", sharing=False)
            with dataset:
                check_references(dataset)
        except RasterioError as error:
            raise UnsupportedRaster(
                f"its {suffix[1:]} file is not a GeoTIFF: remove it, or make it again"
            ) from error
        check_beside(sidecar)


def check_references(dataset: rasterio.DatasetReader) -> None:
    """Raise UnsupportedRaster if it says that its overviews are in another place."""
    name = _tag(dataset, "OVERVIEWS", "OVERVIEW_FILE")
    if name and ("/" in name or not name.startswith(_BESIDE)):
        raise UnsupportedRaster(
            f"it says that its overviews are elsewhere ({name[:_MAX_NAME]}): remove "
            "its tag OVERVIEW_FILE"
        )


def check_warping(dataset: rasterio.DatasetReader) -> None:
    """Raise UnsupportedRaster if warping it needs files that it names."""
    arrays = [_tag(dataset, "GEOLOCATION", f"{axis}_DATASET") for axis in "XY"]
    grids = [
        name for names in _GRIDS.findall(_wkt(dataset)) for name in names if "/" in name
    ]
    if names := [*filter(None, arrays), *grids]:
        raise UnsupportedRaster(
            f"warping it needs another file ({names[0][:_MAX_NAME]}): warp it before "
            "you upload it, or convert it as it is"
        )


def check_blocks(dataset: rasterio.DatasetReader, sample_bytes: int, tile: int) -> None:
    """Raise UnsupportedRaster if a block of it, or of its COG, is too large.

    Args:
        sample_bytes: size of one band of a pixel, in bytes.
        tile: side of a tile of the COG, in pixels.
    """
    rows, columns = max(dataset.block_shapes, key=lambda shape: shape[0] * shape[1])
    by_pixel = dataset.interleaving == Interleaving.pixel
    size = rows * columns * sample_bytes * (dataset.count if by_pixel else 1)
    if size > _MAX_BLOCK:
        raise UnsupportedRaster(
            f"each of its blocks of {columns} x {rows} pixels has {size / _GIB:.1f} "
            "GiB: store it in tiles of 512 x 512"
        )
    if tile * tile * sample_bytes * dataset.count > _MAX_BLOCK:
        raise UnsupportedRaster(
            f"it has {dataset.count} bands, too many for a COG: split it into several "
            "images"
        )


def _tag(dataset: rasterio.DatasetReader, namespace: str, name: str) -> str:
    """Return a tag's value; GDAL ignores the case of its name."""
    tags = dataset.tags(ns=namespace)
    return next((value for tag, value in tags.items() if tag.upper() == name), "")


def _wkt(dataset: rasterio.DatasetReader) -> str:
    return " ".join(crs.to_wkt() for crs in (dataset.crs, dataset.gcps[1]) if crs)
