"""The place of an image on the Earth."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy
from rasterio.crs import CRS
from rasterio.transform import Affine, GCPTransformer, RPCTransformer

from node.gdal import authority_code, transformed
from node.source import Source

# Columns and rows, counted from the upper left corner of the image, to longitudes and
# latitudes of WGS 84 in degrees. What has no place on the Earth is not finite.
ToLonLat = Callable[[numpy.ndarray, numpy.ndarray], tuple[numpy.ndarray, numpy.ndarray]]
_ToCrs = Callable[[tuple[Any, Any]], tuple[Any, Any]]
# WGS 84: semi-major axis in metres and first eccentricity squared.
_AXIS, _ECCENTRICITY_2 = 6_378_137.0, 0.006_694_379_990_14
# An edge may be curved: this many points of it are placed.
_EDGE_POINTS = 17
# Differences over fewer pixels have more rounding errors.
_GSD_PIXELS = 8


def crs_fields(crs: CRS | None) -> tuple[str | None, dict[str, Any] | None]:
    """Return a CRS as code or WKT2, and as PROJJSON if it has no code."""
    if not crs:
        return None, None
    if code := authority_code(crs):
        return code, None
    return crs.to_wkt(version="WKT2_2019"), crs.to_dict(projjson=True)


def bounds(source: Source) -> tuple[float, ...] | None:
    """Return left, bottom, right and top in the CRS; None if it has no place in it."""
    if not source.placed_by_points:
        if not source.warped and source.pixels.transform.is_identity:
            return None
        # The rows of an image may go from south to north.
        left, bottom, right, top = source.pixels.bounds
        return min(left, right), min(bottom, top), max(left, right), max(bottom, top)
    along = numpy.linspace(0, 1, _EDGE_POINTS)
    at_0, at_1 = numpy.zeros(_EDGE_POINTS), numpy.ones(_EDGE_POINTS)
    columns = numpy.concatenate((along, along, at_0, at_1)) * source.width
    rows = numpy.concatenate((at_0, at_1, along, along)) * source.height
    x, y = map(
        numpy.asarray,
        _by_transformer(GCPTransformer(source.dataset.gcps[0]))((columns, rows)),
    )
    if not (numpy.isfinite(x).all() and numpy.isfinite(y).all()):
        return None
    return tuple(map(float, (x.min(), y.min(), x.max(), y.max())))


def lonlat_of_pixels(source: Source) -> ToLonLat | None:
    """Return the map from pixels to longitudes and latitudes; None if there is none."""
    matrix, crs, image = source.pixels.transform, source.crs, source.dataset
    to_crs: _ToCrs
    if matrix.is_degenerate:
        return None
    if source.warped or not matrix.is_identity:
        to_crs = partial(_by_matrix, matrix)
    elif source.placed_by_points:
        to_crs = _by_transformer(GCPTransformer(image.gcps[0]))
    elif image.rpcs:
        crs = CRS.from_epsg(4326)
        # Without a terrain model, the mean height is the best guess.
        to_crs = _by_transformer(RPCTransformer(image.rpcs), image.rpcs.height_off)
    else:
        return None
    if not crs:
        return None

    def to_lonlat(
        columns: numpy.ndarray, rows: numpy.ndarray
    ) -> tuple[numpy.ndarray, numpy.ndarray]:
        x, y = to_crs((columns, rows))
        return transformed(crs, "EPSG:4326", numpy.asarray(x), numpy.asarray(y))

    return to_lonlat


def _by_matrix(matrix: Affine, pixels: tuple[Any, Any]) -> tuple[Any, Any]:
    (a, b, c, d, e, f), (columns, rows) = matrix[:6], pixels
    return a * columns + b * rows + c, d * columns + e * rows + f


def _by_transformer(
    transformer: GCPTransformer | RPCTransformer, height: float = 0
) -> _ToCrs:
    def to_crs(pixels: tuple[Any, Any]) -> tuple[Any, Any]:
        columns, rows = pixels
        heights = numpy.full(len(rows), height)
        return transformer.xy(rows, columns, zs=heights, offset="ul")

    return to_crs


def ground_sample_distance(
    to_lonlat: ToLonLat, width: int, height: int
) -> float | None:
    """Return the side in metres of a square as large as the pixel at the centre."""
    span = min(_GSD_PIXELS, width / 4, height / 4)
    columns = width / 2 + numpy.array((-span, span, 0, 0))
    rows = height / 2 + numpy.array((0, 0, -span, span))
    longitudes, latitudes = to_lonlat(columns, rows)
    if not (numpy.isfinite(longitudes).all() and numpy.isfinite(latitudes).all()):
        return None
    west, east, above, below = _geocentric(longitudes, latitudes)
    area = float(numpy.linalg.norm(numpy.cross(east - west, below - above)))
    return math.sqrt(area) / (2 * span)


def _geocentric(longitudes: numpy.ndarray, latitudes: numpy.ndarray) -> numpy.ndarray:
    """Return places in metres from the centre of the Earth, of shape (points, 3).

    These have no pole and no antimeridian. The formula is that of EPSG's method 9602.
    """
    longitudes, latitudes = numpy.radians(longitudes), numpy.radians(latitudes)
    # The radius of curvature across the meridian.
    radius = _AXIS / numpy.sqrt(1 - _ECCENTRICITY_2 * numpy.sin(latitudes) ** 2)
    return numpy.stack(
        (
            radius * numpy.cos(latitudes) * numpy.cos(longitudes),
            radius * numpy.cos(latitudes) * numpy.sin(longitudes),
            radius * (1 - _ECCENTRICITY_2) * numpy.sin(latitudes),
        ),
        axis=1,
    )
