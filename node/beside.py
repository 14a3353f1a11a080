"""Find the files beside an image that would change its COG in the image's place.

GDAL prefers what an ``.aux.xml`` file says to what is in a GeoTIFF. After the COG has
got another CRS or grid than the image, this is wrong.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import rasterio

from node.cog import STATISTICS


def overriding(cog: Path, image: str, files: Sequence[str], scratch: Path) -> list[str]:
    """Return the names of files that change what GDAL says about a COG beside them.

    Args:
        cog: the COG.
        image: the name that it will have.
        files: the files that GDAL used with the image, the image first.
        scratch: directory for temporary files.
    """
    beside = [os.path.abspath(file) for file in files[1:]]
    if not beside:
        return []
    trial = scratch / "beside"
    trial.mkdir()
    os.link(cog, trial / image)
    alone = _description(trial / image)
    names = []
    for file in beside:
        name = os.path.basename(file)  # noqa: PTH119
        (trial / name).symlink_to(file)
        if _description(trial / image) != alone:
            names.append(name)
            (trial / name).unlink()
    return names


def _description(path: Path) -> tuple[object, ...]:
    """Return what an option of the node can change, as GDAL reads it."""
    with rasterio.open(path, driver="GTiff", sharing=False) as raster:
        points, points_crs = raster.gcps
        return (
            raster.crs,
            raster.transform,
            [(point.row, point.col, point.x, point.y, point.z) for point in points],
            points_crs,
            raster.rpcs and raster.rpcs.to_gdal(),
            raster.tags(ns="GEOLOCATION"),
            [str(value) for value in raster.nodatavals],
            raster.mask_flag_enums,
            raster.colorinterp,
            [raster.overviews(band) for band in raster.indexes],
            [_statistics(raster, band) for band in raster.indexes],
        )


def _statistics(raster: rasterio.DatasetReader, band: int) -> dict[str, str]:
    tags = raster.tags(band)
    return {name: tags[name] for name in tags if name.startswith(STATISTICS)}
