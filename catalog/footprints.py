"""Make geometries of many footprints at once.

That takes a fifth of the time that GEOS takes to parse their GeoJSON.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

Geometries = NDArray[np.object_]


def geometries(footprints: Iterable[dict[str, Any] | None]) -> Geometries:
    """Return polygons of GeoJSON as geometries, of shape (n,).

    Args:
        footprints: polygons or multipolygons; None stays None.
    """
    positions: list[list[float]] = []
    ring_sizes: list[int] = []  # positions
    polygon_sizes: list[int] = []  # rings
    # The footprint of each polygon.
    owners: list[int] = []
    is_multiple: list[bool] = []
    for number, footprint in enumerate(footprints):
        if not footprint:
            is_multiple.append(False)
            continue
        is_multiple.append(footprint["type"] == "MultiPolygon")
        coordinates = footprint["coordinates"]
        for polygon in coordinates if is_multiple[-1] else [coordinates]:
            owners.append(number)
            polygon_sizes.append(len(polygon))
            for ring in polygon:
                ring_sizes.append(len(ring))
                positions += ring
    made = np.full(len(is_multiple), None, dtype=object)
    if not owners:
        return made
    rings = shapely.linearrings(np.array(positions), indices=_repeated(ring_sizes))
    polygons = shapely.polygons(rings, indices=_repeated(polygon_sizes))
    owner, multiple = np.array(owners), np.array(is_multiple)
    parts = multiple[owner]
    made[owner[~parts]] = polygons[~parts]
    if parts.any():
        shapely.multipolygons(polygons[parts], indices=owner[parts], out=made)
    return made


def _repeated(sizes: list[int]) -> NDArray[np.int64]:
    """Return 0 so often as the first size says, then 1, and so on."""
    return np.repeat(np.arange(len(sizes)), sizes)
