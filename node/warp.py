"""Warp an image to another CRS, or to the tile grid of web maps."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import CRSError
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from node.errors import UnsupportedRaster, in_short
from node.gdal import READ_ERRORS, authority_crs
from node.safety import SizeLimit

# OGC 17-083r4 (Two Dimensional Tile Matrix Set), annex D.1, WebMercatorQuad: the
# origin of the grid, in metres, and the size of a pixel, in metres, at the zoom level
# where one tile of 256 pixels covers the world.
_WEB_MERCATOR = "EPSG:3857"
_ORIGIN = 20_037_508.342_789_244
_WORLD_PIXEL = 2 * _ORIGIN / 256


@dataclass(frozen=True)
class WarpRequest:
    """How to warp an image.

    Attributes:
        crs: the image's CRS; None to use that of its ground control points.
        target_crs: the authority code of the CRS to warp to.
        web_tiles: whether to align the result with the tiles of web maps. These are
            in Web Mercator, whatever ``target_crs`` is.
        tile: side of a tile, in pixels.
        resampling: method that computes the new pixels.
        size_limit: limit on the size of the warped image.
    """

    crs: CRS | None
    target_crs: str | None
    web_tiles: bool
    tile: int
    resampling: Resampling
    size_limit: SizeLimit

    @property
    def destination(self) -> CRS:
        """The CRS to warp to."""
        code = _WEB_MERCATOR if self.web_tiles else self.target_crs
        if code is None:
            raise ValueError("there is no CRS to warp to")
        return authority_crs(code)


@contextmanager
def warped(
    dataset: rasterio.DatasetReader, request: WarpRequest
) -> Iterator[WarpedVRT]:
    """Open an image as it looks in another CRS.

    If the image has neither nodata nor alpha, the result has one more band: the mask
    of the area that the image covers.

    Raises:
        NodeError: the image cannot be warped, or would be too large.
    """
    points, points_crs = dataset.gcps
    if not (request.crs or (points and points_crs)):
        raise UnsupportedRaster("it has no CRS to warp it from: see --assign-crs")
    has_nodata = any(value is not None for value in dataset.nodatavals)
    covered = has_nodata or ColorInterp.alpha in dataset.colorinterp
    options = {
        "src_crs": request.crs or points_crs,
        "crs": request.destination,
        "resampling": request.resampling,
        "add_alpha": not covered,
    }
    try:
        with WarpedVRT(dataset, **options) as raster:
            request.size_limit.check(raster.width, raster.height)
            if not request.web_tiles:
                yield raster
                return
            grid = _web_grid(raster, request.tile)
        request.size_limit.check(grid["width"], grid["height"])
        with WarpedVRT(dataset, **options, **grid) as raster:
            yield raster
    except (CRSError, *READ_ERRORS) as error:
        raise UnsupportedRaster(
            f"it cannot be warped to {options['crs'].to_string()}: {in_short(error)}"
        ) from error


def _web_grid(raster: WarpedVRT, tile: int) -> dict[str, Any]:
    """Return the grid of whole tiles that covers a raster.

    The zoom level is the one whose resolution is nearest to the raster's.
    """
    zoom = max(0, round(math.log2(_WORLD_PIXEL / raster.transform.a)))
    pixel = _WORLD_PIXEL / 2**zoom
    span = pixel * tile
    left, bottom, right, top = raster.bounds
    # Allow a millionth of a tile: rounding may place an edge beyond a tile's edge.
    first_column = math.floor((left + _ORIGIN) / span + 1e-6)
    first_row = math.floor((_ORIGIN - top) / span + 1e-6)
    columns = max(1, math.ceil((right + _ORIGIN) / span - 1e-6) - first_column)
    rows = max(1, math.ceil((_ORIGIN - bottom) / span - 1e-6) - first_row)
    west = -_ORIGIN + first_column * span
    north = _ORIGIN - first_row * span
    return {
        "transform": Affine(pixel, 0, west, 0, -pixel, north),
        "width": columns * tile,
        "height": rows * tile,
    }
