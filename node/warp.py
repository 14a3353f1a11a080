"""An image warped to another CRS, or to the grid that web maps have tiles of."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import CRSError
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from node.errors import UnsupportedRaster, in_short
from node.source import READ_ERRORS, authority_crs

# OGC 17-083r4 (Two Dimensional Tile Matrix Set), annex D.1, WebMercatorQuad: the
# grid's origin, and metres a pixel where the world is one tile of 256 pixels.
_WEB_MERCATOR = "EPSG:3857"
_ORIGIN = 20_037_508.342_789_244
_WORLD_PIXEL = 2 * _ORIGIN / 256


@contextmanager
def warped(
    image: rasterio.DatasetReader,
    crs: CRS | None,
    reproject: str | None,
    tiling_scheme: str | None,
    tile: int,
    resampling: Resampling,
    check_size: Callable[[int, int], None],
) -> Iterator[WarpedVRT]:
    """See an image in another CRS.

    Where the image has neither nodata nor alpha, a band more is the mask of what
    the image does not cover.

    Args:
        check_size: takes the width and the height that it will have, in pixels, and
            raises NodeError where these cannot be.

    Raises:
        NodeError: it cannot be warped.
    """
    points, points_crs = image.gcps
    if not (crs or (points and points_crs)):
        raise UnsupportedRaster("it has no CRS to be warped from: see --assign-crs")
    covered = any(each is not None for each in image.nodatavals)
    covered = covered or ColorInterp.alpha in image.colorinterp
    options = {
        "src_crs": crs or points_crs,
        "crs": authority_crs(_WEB_MERCATOR if tiling_scheme else reproject),
        "resampling": resampling,
        "add_alpha": not covered,
    }
    try:
        with WarpedVRT(image, **options) as raster:
            check_size(raster.width, raster.height)
            if not tiling_scheme:
                yield raster
                return
            grid = _web_grid(raster, tile)
        check_size(grid["width"], grid["height"])
        with WarpedVRT(image, **options, **grid) as raster:
            yield raster
    except (CRSError, *READ_ERRORS) as error:
        raise UnsupportedRaster(
            f"it cannot be warped to {options['crs'].to_string()}: {in_short(error)}"
        ) from error


def _web_grid(raster: WarpedVRT, tile: int) -> dict:
    """The whole tiles that cover it, at the zoom level nearest to its own."""
    zoom = max(0, round(math.log2(_WORLD_PIXEL / raster.transform.a)))
    pixel = _WORLD_PIXEL / 2**zoom
    span = pixel * tile
    left, bottom, right, top = raster.bounds
    # A millionth of a tile: the edge of one may be computed to lie beyond it.
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
