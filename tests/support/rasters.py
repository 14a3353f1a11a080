"""Small GeoTIFFs to convert."""

from pathlib import Path

import numpy
import rasterio
from rasterio.transform import from_origin

TRANSFORM = from_origin(300_000, 4_800_000, 10, 10)


def write(
    path: Path,
    bands: int,
    width: int = 700,
    height: int = 600,
    dtype: str = "uint8",
    crs: str | None = "EPSG:32616",
    **options: str | int | bool,
) -> Path:
    """Write a raster of smooth colours with some noise; each band differs.

    Args:
        options: options of rasterio and of the GTiff driver.
    """
    noise = numpy.random.default_rng(bands).integers(0, 16, (bands, height, width))
    rows = numpy.linspace(0, 200, height)[None, :, None]
    columns = numpy.linspace(0, 30, width)[None, None, :]
    band = numpy.arange(bands)[:, None, None] * 3
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=bands,
        dtype=dtype,
        crs=crs,
        **{"transform": TRANSFORM} | options,
    ) as raster:
        # numpy has no complex integers.
        kind = "complex64" if dtype.startswith("complex_int") else dtype
        raster.write((rows + columns + band + noise).astype(kind))
    return path
