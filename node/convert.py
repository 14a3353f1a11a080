"""Read ▸ check ▸ COG ▸ JPEG: from an image to the two files made of it."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import rasterio
import rasterio.shutil
from PIL import Image
from rasterio._err import CPLE_BaseError  # what a copy raises of GDAL's own errors
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from node.errors import (
    ConversionFailed,
    ImageMissing,
    NotARaster,
    UnsupportedRaster,
    WrongBands,
)

JPEG_QUALITY = 80
# The format counts a side's pixels in 16 bits; libjpeg ends a little earlier.
_LONGEST_JPEG_SIDE = 65_500
_COG_OPTIONS = {
    "COMPRESS": "LZW",
    "BLOCKSIZE": "512",
    # The default's limit of 4 GiB is estimated, so leave a margin.
    "BIGTIFF": "IF_SAFER",
}
_GDAL_OPTIONS = {
    "GDAL_CACHEMAX": 256 * 1024 * 1024,  # bytes
    # No .aux.xml beside what is made.
    "GDAL_PAM_ENABLED": False,
}


@dataclass(frozen=True)
class Source:
    """What is known of an image.

    Attributes:
        width, height: in pixels.
        crs: as an authority's code where it has one, else as WKT.
        bounds: left, bottom, right, top, in units of the CRS.
        transform: the affine transform from pixels to the CRS, row by row.
    """

    width: int
    height: int
    bands: int
    data_type: str
    crs: str | None
    bounds: tuple[float, float, float, float]
    transform: tuple[float, float, float, float, float, float]
    nodata: float | None


def convert(image: Path, bands: int, cog: Path, jpeg: Path) -> Source:
    """Make a COG and a JPEG of an image, and leave the image as it is.

    Args:
        bands: how many bands the image is said to have.

    Raises:
        NodeError: it cannot be converted; neither file is complete then.
    """
    if not image.is_file():
        raise ImageMissing(f"{image.name} is not in the node's directory")
    with rasterio.Env(**_GDAL_OPTIONS), _open(image) as raster:
        if raster.count != bands:
            raise WrongBands(
                f"the manifest says {bands} bands, but the image has "
                f"{raster.count}: mend the row"
            )
        _check_for_jpeg(raster)
        with _failing_as("its COG cannot be made"):
            rasterio.shutil.copy(raster, cog, driver="COG", **_COG_OPTIONS)
        with _failing_as("its JPEG cannot be made"):
            _write_jpeg(raster, jpeg)
        return _describe(raster)


@contextmanager
def _open(image: Path) -> Iterator[rasterio.DatasetReader]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            # No other driver may look at it: some follow what a file says to
            # other files and addresses.
            raster = rasterio.open(os.path.abspath(image), driver="GTiff")
        except RasterioError as error:
            said = _in_short(error).replace(f"{os.path.abspath(image.parent)}/", "")
            raise NotARaster(
                f"GDAL cannot read it as a GeoTIFF ({said}): "
                "upload it again, or leave it out"
            ) from error
        with raster:
            yield raster


@contextmanager
def _failing_as(what: str) -> Iterator[None]:
    try:
        yield
    except (RasterioError, CPLE_BaseError, OSError, MemoryError) as error:
        raise ConversionFailed(f"{what}: {_in_short(error)}") from error


def _check_for_jpeg(raster: rasterio.DatasetReader) -> None:
    shown = {raster.dtypes[band - 1] for band in _shown_bands(raster)}
    if shown != {"uint8"}:
        raise UnsupportedRaster(
            f"its JPEG can be made of 8-bit bands alone, and it has "
            f"{', '.join(sorted(shown))}: convert it to 8 bits first"
        )


def _shown_bands(raster: rasterio.DatasetReader) -> list[int]:
    return [1, 2, 3] if raster.count >= 3 else [1]


def _write_jpeg(raster: rasterio.DatasetReader, jpeg: Path) -> None:
    scale = min(1, _LONGEST_JPEG_SIDE / max(raster.width, raster.height))
    height = max(1, int(raster.height * scale))
    width = max(1, int(raster.width * scale))
    shown = _shown_bands(raster)
    pixels = raster.read(shown, out_shape=(len(shown), height, width))
    pixels = pixels[0] if len(shown) == 1 else pixels.transpose(1, 2, 0)
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=JPEG_QUALITY)


def _describe(raster: rasterio.DatasetReader) -> Source:
    crs = raster.crs
    return Source(
        width=raster.width,
        height=raster.height,
        bands=raster.count,
        data_type=raster.dtypes[0],
        crs=crs.to_string() if crs else None,
        bounds=tuple(raster.bounds),
        transform=tuple(raster.transform)[:6],
        nodata=raster.nodata,
    )


def _in_short(error: BaseException) -> str:
    # rasterio wraps what GDAL said; the cause says more than the wrapper.
    said = error.__cause__ or error
    return " ".join(str(said).split())[:300] or type(said).__name__
