"""Warp an image to another CRS, or to the tile grid of web maps."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy
import rasterio
from rasterio._err import CPLE_NotSupportedError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import CRSError
from rasterio.transform import Affine, GCPTransformer
from rasterio.vrt import WarpedVRT

from node.errors import UnsupportedRaster, in_short
from node.gdal import READ_ERRORS, authority_crs, transformed
from node.masks import can_hold
from node.safety import SizeLimit

# OGC 17-083r4 (Two Dimensional Tile Matrix Set), annex D.1, WebMercatorQuad: the
# origin of the grid, in metres, and the size of a pixel, in metres, at the zoom level
# where one tile of 256 pixels covers the world.
_WEB_MERCATOR = "EPSG:3857"
_ORIGIN = 20_037_508.342_789_244
_WORLD_PIXEL = 2 * _ORIGIN / 256
_RADIUS = _ORIGIN / math.pi
# The latitude at which the grid ends.
_MAX_LATITUDE = math.degrees(math.atan(math.sinh(math.pi)))
_NEARLY_180 = 179.99  # degrees
# Points along a side of an image whose places are computed. They lie inside it by a
# part of a pixel, because an edge at 180° is at -180°, too.
_POINTS, _INSET = 129, 1e-3
_ACROSS = "it lies on both sides of the antimeridian (180°)"


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
        crs = authority_crs(code)
        if not (crs.is_projected or crs.is_geographic):
            raise UnsupportedRaster(
                f"{code} is neither a projected nor a geographic CRS: choose another "
                "one for --reproject"
            )
        return crs


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
    kind = numpy.dtype(dataset.dtypes[0])
    has_nodata = any(
        value is not None and can_hold(kind, value) for value in dataset.nodatavals
    )
    has_alpha = ColorInterp.alpha in dataset.colorinterp
    has_mask = dataset.mask_flag_enums[0] == [MaskFlags.per_dataset]
    if has_mask and (has_nodata or has_alpha):
        other = "alpha" if has_alpha else "nodata"
        raise UnsupportedRaster(
            f"it has both {other} and a mask, and a warp would lose the mask: remove "
            "one of the two, or convert it as it is"
        )
    crs = request.crs or points_crs
    places = _places(dataset, crs)
    options = {
        "src_crs": places.wrapped_crs(request.destination) if places else crs,
        "crs": request.destination,
        "resampling": request.resampling,
        "add_alpha": not (has_nodata or has_alpha),
        # rasterio's own choice mixes the nodata of one band with its other pixels.
        "UNIFIED_SRC_NODATA": "PARTIAL",
    }
    try:
        on_the_web = request.destination == _WEB_MERCATOR
        if on_the_web and places and places.leave_the_web:
            bounds, side = places.on_the_web()
            if request.web_tiles:
                grid = _tiles_of(bounds, side, request.tile)
            else:
                grid = _grid_of(bounds, side)
        else:
            with WarpedVRT(dataset, **options) as raster:
                request.size_limit.check(raster.width, raster.height)
                if not request.web_tiles:
                    if places and places.are_torn_apart(raster):
                        raise UnsupportedRaster(
                            f"{_ACROSS}, where {raster.crs.to_string()} ends: cut it "
                            "into two images there, or warp it to another CRS"
                        )
                    yield raster
                    return
                grid = _tiles_of(raster.bounds, raster.transform.a, request.tile)
        request.size_limit.check(grid["width"], grid["height"])
        if not dataset.transform.is_identity:
            with WarpedVRT(dataset, **options, **grid) as raster:
                yield raster
            return
        # With a grid, rasterio ignores ground control points and RPCs.
        with WarpedVRT(dataset, **{**options, "src_crs": crs, "crs": crs}) as located:
            request.size_limit.check(located.width, located.height)
            west, _, east, _ = located.bounds
            options["src_crs"] = _wrapped(crs, west, east, request.destination)
            options["add_alpha"] = False
            with WarpedVRT(located, **options, **grid) as raster:
                yield raster
    except CPLE_NotSupportedError as error:
        raise UnsupportedRaster(
            f"PROJ knows no way from its CRS to {options['crs'].to_string()}: correct "
            "one of the two"
        ) from error
    except (CRSError, *READ_ERRORS) as error:
        raise UnsupportedRaster(
            f"it cannot be warped to {options['crs'].to_string()}: {in_short(error)}"
        ) from error


@dataclass(frozen=True)
class _Places:
    """Places of points of an image, in arrays of shape (points down, points across).

    Attributes:
        crs: the image's CRS.
        x, y: coordinates in it.
        longitude: in degrees from -180 to 180; NaN where there is no place on Earth.
        latitude: in degrees, or NaN.
        cell: number of pixels between four neighbouring points.
    """

    crs: CRS
    x: numpy.ndarray
    y: numpy.ndarray
    longitude: numpy.ndarray
    latitude: numpy.ndarray
    cell: float

    @property
    def cross_the_antimeridian(self) -> bool:
        """Whether the image is on both sides of 180°."""
        return bool(self._crossings(0).any() or self._crossings(1).any())

    @property
    def leave_the_web(self) -> bool:
        """Whether the image is not well within the grid of web maps as a whole."""
        return self.cross_the_antimeridian or bool(
            numpy.nanmax(numpy.abs(self.latitude), initial=0) > _MAX_LATITUDE
            # GDAL finds an edge at 180° at either end of the grid.
            or numpy.nanmax(numpy.abs(self.longitude), initial=0) > _NEARLY_180
        )

    @property
    def are_in_one_half(self) -> bool:
        """Whether there is a gap of 180° or more in the longitudes of the image."""
        known = numpy.sort(self.longitude[numpy.isfinite(self.longitude)])
        gaps = numpy.diff(known, append=known[:1] + 360)
        return bool(gaps.max(initial=0) >= 180)

    def wrapped_crs(self, target: CRS) -> CRS:
        """Return the CRS for warping, with which GDAL finds longitudes beyond 180°."""
        return _wrapped(self.crs, float(self.x.min()), float(self.x.max()), target)

    def on_the_web(self) -> tuple[tuple[float, float, float, float], float]:
        """Return left, bottom, right and top in the grid, and the pixel's side there.

        Raises:
            UnsupportedRaster: there is nothing to show, or it would be a picture round
                the world of an image at its edges.
        """
        inside = numpy.abs(self.latitude) <= _MAX_LATITUDE
        if not inside.any():
            raise UnsupportedRaster(
                f"it is beyond {_MAX_LATITUDE:.2f}° of latitude, where web maps end: "
                "use another profile or CRS"
            )
        left, right = -_ORIGIN, _ORIGIN
        if not self.cross_the_antimeridian:
            longitudes = self.longitude[inside]
            left, right = (
                math.radians(each) * _RADIUS
                for each in (longitudes.min(), longitudes.max())
            )
        elif self.are_in_one_half:
            raise UnsupportedRaster(
                f"{_ACROSS}, where web maps end: cut it into two images there, or use "
                "another profile or CRS"
            )
        latitudes = numpy.clip(self.latitude, -_MAX_LATITUDE, _MAX_LATITUDE)
        y = numpy.arcsinh(numpy.tan(numpy.radians(latitudes))) * _RADIUS
        areas = self._areas(y)
        # Cells outside have no area, and those of which a point has no place are NaN.
        shown = areas > 0
        side = math.sqrt(areas[shown].mean() / self.cell) if shown.any() else 0
        return (left, numpy.nanmin(y), right, numpy.nanmax(y)), side or _WORLD_PIXEL

    def are_torn_apart(self, raster: WarpedVRT) -> bool:
        """Return whether the two sides of an image are at two ends of a raster."""
        if not self.cross_the_antimeridian or not self.are_in_one_half:
            return False
        x, _ = transformed(self.crs, raster.crs, self.x.ravel(), self.y.ravel())
        steps = [
            numpy.abs(numpy.diff(x.reshape(self.x.shape), axis=axis))[
                self._crossings(axis)
            ]
            for axis in (0, 1)
        ]
        step = numpy.nanmax(numpy.concatenate(steps))
        width = raster.bounds.right - raster.bounds.left
        # Otherwise the raster continues beyond 180°, or does not end there.
        return bool(step > width / 2 and width > step / 2)

    def _crossings(self, axis: int) -> numpy.ndarray:
        return numpy.abs(numpy.diff(self.longitude, axis=axis)) > 180

    def _areas(self, y: numpy.ndarray) -> numpy.ndarray:
        """Return the areas between four points, in square metres of web maps."""

        def east(a: numpy.ndarray, b: numpy.ndarray) -> numpy.ndarray:
            return numpy.radians((b - a + 180) % 360 - 180) * _RADIUS

        longitude = self.longitude
        across = east(longitude[:-1, :-1], longitude[1:, 1:])
        down = east(longitude[:-1, 1:], longitude[1:, :-1])
        cross = across * (y[1:, :-1] - y[:-1, 1:]) - down * (y[1:, 1:] - y[:-1, :-1])
        areas: numpy.ndarray = numpy.abs(cross) / 2
        return areas


def _wrapped(crs: CRS, west: float, east: float, target: CRS) -> CRS:
    """Return a CRS with which GDAL finds longitudes between west and east."""
    inside = west >= -180 and east <= 180
    if not crs.is_geographic or target.is_geographic or inside:
        return crs
    return CRS.from_string(f"{crs.to_proj4()} +lon_wrap={(west + east) / 2}")


def _places(dataset: rasterio.DatasetReader, crs: CRS) -> _Places | None:
    """Return places of points of an image; None if it has only RPCs."""
    points = dataset.gcps[0]
    columns, rows = (
        each.ravel()
        for each in numpy.meshgrid(
            numpy.linspace(_INSET, dataset.width - _INSET, _POINTS),
            numpy.linspace(_INSET, dataset.height - _INSET, _POINTS),
        )
    )
    if not dataset.transform.is_identity:
        a, b, c, d, e, f = dataset.transform[:6]
        x, y = a * columns + b * rows + c, d * columns + e * rows + f
    elif points:
        by_points = GCPTransformer(points).xy(rows, columns, offset="ul")
        x, y = (numpy.asarray(each) for each in by_points)
    else:
        return None
    longitude, latitude = transformed(crs, "EPSG:4326", x, y)
    placed = numpy.isfinite(longitude) & numpy.isfinite(latitude)
    longitude, latitude = (
        numpy.where(placed, each, numpy.nan) for each in (longitude, latitude)
    )
    outside = numpy.abs(longitude) > 180
    longitude = numpy.where(outside, (longitude + 180) % 360 - 180, longitude)
    cell = dataset.width * dataset.height / (_POINTS - 1) ** 2
    shape = _POINTS, _POINTS
    x, y, longitude, latitude = (
        each.reshape(shape) for each in (x, y, longitude, latitude)
    )
    return _Places(crs, x, y, longitude, latitude, cell)


def _grid_of(bounds: tuple[float, float, float, float], side: float) -> dict[str, Any]:
    """Return the grid of pixels of a side that covers bounds."""
    left, bottom, right, top = bounds
    width, height = (
        max(1, round(span / side)) for span in (right - left, top - bottom)
    )
    across, down = (right - left) / width, (top - bottom) / height
    return {
        "transform": Affine(across, 0, left, 0, -down, top),
        "width": width,
        "height": height,
    }


def _tiles_of(
    bounds: tuple[float, float, float, float], side: float, tile: int
) -> dict[str, Any]:
    """Return the grid of whole tiles that covers bounds, as far as there are tiles.

    The zoom level is the one whose resolution is nearest to a pixel's side.
    """
    # The world has at least one tile.
    lowest = math.ceil(math.log2(tile / 256))
    zoom = max(0, lowest, round(math.log2(_WORLD_PIXEL / side)))
    pixel = _WORLD_PIXEL / 2**zoom
    span = pixel * tile
    count = math.ceil(2 * _ORIGIN / span - 1e-6)
    left, bottom, right, top = bounds
    # Allow a millionth of a tile: rounding may place an edge beyond a tile's edge.
    first_column = max(0, math.floor((left + _ORIGIN) / span + 1e-6))
    first_row = max(0, math.floor((_ORIGIN - top) / span + 1e-6))
    end_column = min(count, math.ceil((right + _ORIGIN) / span - 1e-6))
    end_row = min(count, math.ceil((_ORIGIN - bottom) / span - 1e-6))
    west = -_ORIGIN + first_column * span
    north = _ORIGIN - first_row * span
    return {
        "transform": Affine(pixel, 0, west, 0, -pixel, north),
        "width": max(1, end_column - first_column) * tile,
        "height": max(1, end_row - first_row) * tile,
    }
