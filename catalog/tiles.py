"""Find the tiles of web maps that footprints touch: all of them at once."""

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from catalog.footprints import Geometries

# Web Mercator ends at these latitudes.
MAX_LATITUDE = float(np.degrees(np.arctan(np.sinh(np.pi))))
# Zoom levels of the tile matrix set WebMercatorQuad.
MAX_ZOOM = 24
# So many pairs of a tile and a footprint are in memory at once.
_BLOCK = 100_000
_Integers = NDArray[np.int64]


@dataclass(frozen=True)
class _Ranges:
    """The tiles of the bounding boxes of geometries; each is of shape (n,).

    Attributes:
        left, top: the first column and the first row.
        columns, rows: how many there are.
    """

    left: _Integers
    top: _Integers
    columns: _Integers
    rows: _Integers


def on_map(geometries: Geometries) -> NDArray[np.bool_]:
    """Return which geometries are between the latitudes of Web Mercator."""
    _, south, _, north = shapely.bounds(geometries).T
    return (south < MAX_LATITUDE) & (north > -MAX_LATITUDE)


def count(geometries: Geometries, zoom: int) -> int:
    """Return how many tiles the bounding boxes of geometries touch, all added up."""
    ranges = _ranges(geometries, zoom)
    return int((ranges.columns * ranges.rows).sum())


def touched(geometries: Geometries, zoom: int) -> tuple[_Integers, _Integers]:
    """Return the pairs of a geometry and a tile that it touches, in no order.

    Args:
        geometries: polygons in longitude and latitude, of shape (n,).

    Returns:
        The positions of the geometries, and the numbers of the tiles, of shape (m,)
        each. The number of a tile, in base 4, is its quadkey.
    """
    if not len(geometries):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    ranges = _ranges(geometries, zoom)
    sizes = ranges.columns * ranges.rows
    blocks = np.cumsum(sizes) // _BLOCK
    found = [
        _touched(geometries, ranges, np.flatnonzero(blocks == block), zoom)
        for block in np.unique(blocks)
    ]
    positions, tiles = zip(*found, strict=True)
    return np.concatenate(positions), np.concatenate(tiles)


def quadkeys(tiles: _Integers, zoom: int) -> list[str]:
    """Return the quadkeys of tiles, by their numbers."""
    shifts = 2 * np.arange(zoom - 1, -1, -1)
    digits = (tiles[:, None] >> shifts & 3) + ord("0")
    text = digits.astype(np.uint8).tobytes().decode("ascii")
    return [text[n * zoom : (n + 1) * zoom] for n in range(len(tiles))]


def _touched(
    geometries: Geometries, ranges: _Ranges, chosen: _Integers, zoom: int
) -> tuple[_Integers, _Integers]:
    columns = ranges.columns[chosen]
    sizes = columns * ranges.rows[chosen]
    each = np.repeat(np.arange(len(chosen)), sizes)
    number = np.arange(len(each)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    x = ranges.left[chosen][each] + number % columns[each]
    y = ranges.top[chosen][each] + number // columns[each]
    positions = chosen[each]
    # A geometry whose box is in one tile is in that tile.
    hit = sizes[each] == 1
    unsure = ~hit
    boxes = shapely.box(
        _longitude(x[unsure], zoom),
        _latitude(y[unsure] + 1, zoom),
        _longitude(x[unsure] + 1, zoom),
        _latitude(y[unsure], zoom),
    )
    several = geometries[positions[unsure]]
    shapely.prepare(several)
    hit[unsure] = shapely.intersects(several, boxes)
    # A prepared geometry takes more memory than the geometry itself.
    shapely.destroy_prepared(several)
    return positions[hit], _numbers(x[hit], y[hit], zoom)


def _ranges(geometries: Geometries, zoom: int) -> _Ranges:
    west, south, east, north = shapely.bounds(geometries).T
    left, right = _column(west, zoom), _column(east, zoom)
    top, bottom = _row(north, zoom), _row(south, zoom)
    return _Ranges(left, top, right - left + 1, bottom - top + 1)


def _column(longitude: NDArray[np.float64], zoom: int) -> _Integers:
    return _whole((longitude + 180) / 360, zoom)


def _row(latitude: NDArray[np.float64], zoom: int) -> _Integers:
    radians = np.radians(np.clip(latitude, -MAX_LATITUDE, MAX_LATITUDE))
    return _whole((1 - np.arcsinh(np.tan(radians)) / np.pi) / 2, zoom)


def _whole(share: NDArray[np.float64], zoom: int) -> _Integers:
    return np.clip(np.floor(share * 2**zoom), 0, 2**zoom - 1).astype(np.int64)


def _longitude(x: _Integers, zoom: int) -> NDArray[np.float64]:
    return x / 2**zoom * 360 - 180


def _latitude(y: _Integers, zoom: int) -> NDArray[np.float64]:
    return np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * y / 2**zoom))))


def _numbers(x: _Integers, y: _Integers, zoom: int) -> _Integers:
    """Return the numbers of tiles: the bits of y and x by turns."""
    numbers = np.zeros_like(x)
    for bit in range(zoom):
        numbers |= (x >> bit & 1) << 2 * bit
        numbers |= (y >> bit & 1) << 2 * bit + 1
    return numbers
