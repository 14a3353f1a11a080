"""The order of points along a Hilbert curve, in which neighbours are close."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# The place of what has none: after all others.
NOWHERE = 2**63 - 1
_ORDER = 16
_SIDE = 1 << _ORDER


def hilbert_distances(
    longitudes: NDArray[np.float64], latitudes: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return how far along a Hilbert curve over the world some points are.

    The curve has 2¹⁶ cells a side. The algorithm is ``xy2d`` of
    https://en.wikipedia.org/wiki/Hilbert_curve, for all points at once.

    Args:
        longitudes, latitudes: degrees, of shape (n,).

    Returns:
        The distances, of shape (n,), in cells.
    """
    x = _cells(longitudes, 360)
    y = _cells(latitudes, 180)
    distance = np.zeros_like(x)
    step = _SIDE // 2
    while step:
        right, top = (x & step) > 0, (y & step) > 0
        distance += step * step * ((3 * right) ^ top)
        # Turn the quarter, so that it begins and ends as the whole does.
        flip = right & ~top
        x, y = np.where(flip, _SIDE - 1 - x, x), np.where(flip, _SIDE - 1 - y, y)
        x, y = np.where(top, x, y), np.where(top, y, x)
        step //= 2
    return distance


def center(bbox: Sequence[float]) -> tuple[float, float]:
    """Return longitude and latitude of the middle of a box, in degrees.

    Args:
        bbox: west, south, east and north in degrees; west is more than east across the
            antimeridian.

    >>> center((179, -18, -177, -16))
    (-179.0, -17.0)
    """
    west, south, east, north = bbox
    if west > east:
        east += 360
    longitude = (west + east) / 2
    return longitude - 360 if longitude > 180 else longitude, (south + north) / 2


def _cells(degrees: NDArray[np.float64], extent: float) -> NDArray[np.int64]:
    share = (degrees + extent / 2) / extent
    return np.clip(share * _SIDE, 0, _SIDE - 1).astype(np.int64)
