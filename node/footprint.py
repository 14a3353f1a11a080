"""The outline of an image's valid pixels in longitude and latitude.

The outline is traced around a mask of at most 256 pixels a side. Holes are filled.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy

from node.georeference import ToLonLat
from node.overviews import any_valid
from node.result import MAX_VERTICES

# Arrays of shape (vertices, 2); the first vertex is not repeated at the end.
Ring = numpy.ndarray
_MAX_SIDE = 256
# A mask with more changes between valid and not valid in its rows is a sieve, which
# would take long to trace.
_MAX_CHANGES = 2000
# If so many parts of the mask are not most of it, they get one outline together.
_MAX_PARTS, _MIN_SHARE = 5, 0.95
# A curved edge gets a vertex after so many pixels of the mask, before it is simplified.
_EDGE_PIXELS = 16
# Tolerances in pixels of the mask.
_STAIRS = 0.75
# The last one is for an image that is so thin that the others leave a line of it.
_TOLERANCES = (0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 0)
_DECIMALS = 7  # of degrees: a centimetre


@dataclass(frozen=True)
class Footprint:
    """An outline.

    Attributes:
        geometry: GeoJSON, a Polygon or MultiPolygon split at the antimeridian.
        bbox: west, south, east and north, as RFC 7946 has them.
    """

    geometry: dict[str, Any]
    bbox: tuple[float, float, float, float]


def footprint(
    mask: numpy.ndarray, factor: int, width: int, height: int, to_lonlat: ToLonLat
) -> Footprint | None:
    """Return the outline of valid pixels, None if there are none with a place.

    Args:
        mask: valid pixels, of shape (rows, columns).
        factor: side in pixels of the image that a pixel of the mask stands for.
        width, height: size of the image.
    """
    if not mask.any():
        return None
    while max(mask.shape) > _MAX_SIDE or _is_sieve(mask):
        mask, factor = any_valid(mask), 2 * factor
    limits = numpy.array((width, height))

    def project(ring: Ring) -> Ring:
        pixels = numpy.minimum(_densified(ring) * factor, limits)
        return numpy.stack(to_lonlat(*pixels.T), axis=1)

    rings = [project(ring) for ring in _traced(mask)]
    if not all(numpy.isfinite(ring).all() for ring in rings):
        # Corners may lie beside the Earth, as those of a picture of its full disk do.
        # A few points first: each point that fails takes as long as a thousand others.
        coarse = -(-max(mask.shape) // 8)
        if not _on_earth((8, 8), coarse * factor, limits, to_lonlat).any():
            return None
        mask = mask & _on_earth(mask.shape, factor, limits, to_lonlat)
        if not mask.any():
            return None
        rings = [project(ring) for ring in _traced(mask)]
        rings = [ring[numpy.isfinite(ring).all(axis=1)] for ring in rings]
    rings = [_unwrapped(_parted_at_poles(ring)) for ring in rings]
    if any(_winding(ring) for ring in rings):
        around = project(_hull_of_mask(mask))
        around = _unwrapped(around[numpy.isfinite(around).all(axis=1)])
        if _winding(around):
            return _around_pole(around)
        rings = [around]
    return _not_around_pole(rings, pixels=math.hypot(*mask.shape))


def _is_sieve(mask: numpy.ndarray) -> bool:
    changes = int(numpy.count_nonzero(mask[:, 1:] != mask[:, :-1]))
    return changes > _MAX_CHANGES


def _on_earth(
    shape: tuple[int, int], factor: int, limits: numpy.ndarray, to_lonlat: ToLonLat
) -> numpy.ndarray:
    """Return which pixels of a mask have four corners with a place on the Earth."""
    rows, columns = shape
    y, x = numpy.mgrid[0 : rows + 1, 0 : columns + 1]
    pixels = numpy.minimum(numpy.stack((x.ravel(), y.ravel()), 1) * factor, limits)
    finite = numpy.isfinite(numpy.stack(to_lonlat(*pixels.T))).all(axis=0)
    finite = finite.reshape(rows + 1, columns + 1)
    return finite[1:, 1:] & finite[:-1, 1:] & finite[1:, :-1] & finite[:-1, :-1]


def _traced(mask: numpy.ndarray) -> list[Ring]:
    """Return the outer rings of the valid pixels, the largest one first."""
    rows, columns = mask.shape
    if mask.all():
        return [numpy.array([(0, 0), (columns, 0), (columns, rows), (0, rows)], "f8")]
    from rasterio.features import shapes

    rings = [
        numpy.array(geometry["coordinates"][0][:-1])
        for geometry, _ in shapes(mask.astype("u1"), mask=mask)
    ]
    rings.sort(key=lambda ring: abs(_area(ring)), reverse=True)
    areas = [abs(_area(ring)) for ring in rings]
    parts = next(
        n for n in range(1, len(areas) + 1) if sum(areas[:n]) >= _MIN_SHARE * sum(areas)
    )
    if parts > _MAX_PARTS:
        return [_hull_of_mask(mask)]
    simple = [(_simplified(ring, _STAIRS), ring) for ring in rings[:parts]]
    # A few pixels would become a line.
    return [small if len(small) > 2 else ring for small, ring in simple]


def _hull_of_mask(mask: numpy.ndarray) -> Ring:
    rows = numpy.flatnonzero(mask.any(axis=1))
    left = mask[rows].argmax(axis=1)
    right = mask.shape[1] - mask[rows, ::-1].argmax(axis=1)
    corners = [
        numpy.stack((columns, rows + below), axis=1)
        for columns in (left, right)
        for below in (0, 1)
    ]
    return _hull(numpy.concatenate(corners).astype("f8"))


def _hull(points: numpy.ndarray) -> Ring:
    """Return the convex hull: Andrew's monotone chain, in counterclockwise order."""
    ordered = sorted(set(map(tuple, points.tolist())))

    def half(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
        chain: list[tuple[float, float]] = []
        for x, y in points:
            while len(chain) > 1:
                (x1, y1), (x2, y2) = chain[-2:]
                if (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) > 0:
                    break
                chain.pop()
            chain.append((x, y))
        return chain[:-1]

    return numpy.array(half(ordered) + half(reversed(ordered)))


def _area(ring: Ring) -> float:
    """Return the area, which is positive if the ring is counterclockwise."""
    x, y = ring.T
    return float(numpy.dot(x, numpy.roll(y, -1)) - numpy.dot(y, numpy.roll(x, -1))) / 2


def _densified(ring: Ring) -> Ring:
    pieces = []
    for begin, end in zip(ring, numpy.roll(ring, -1, axis=0), strict=True):
        count = max(4, math.ceil(numpy.abs(end - begin).max() / _EDGE_PIXELS))
        pieces.append(begin + (end - begin) * (numpy.arange(count) / count)[:, None])
    return numpy.concatenate(pieces)


def _simplified(ring: Ring, tolerance: float) -> Ring:
    """Return a ring without the vertices that are near the line without them.

    Ramer (1972) and Douglas and Peucker (1973), from the vertex that is farthest from
    the centre and the one that is farthest from that.
    """
    first = _farthest(ring - ring.mean(axis=0))
    ring = numpy.roll(ring, -first, axis=0)
    return _simplified_line(
        numpy.vstack((ring, ring[:1])), tolerance, _farthest(ring - ring[0])
    )[:-1]


def _simplified_line(line: Ring, tolerance: float, middle: int) -> Ring:
    last = len(line) - 1
    kept = {0, middle, last}
    spans = [(0, middle), (middle, last)]
    while spans:
        begin, end = spans.pop()
        if end - begin < 2:
            continue
        (dx, dy), between = line[end] - line[begin], line[begin + 1 : end] - line[begin]
        length = math.hypot(dx, dy)
        distances = (
            numpy.abs(between[:, 0] * dy - between[:, 1] * dx) / length
            if length
            else numpy.hypot(*between.T)
        )
        split = int(distances.argmax())
        if distances[split] > tolerance:
            split += begin + 1
            kept.add(split)
            spans += [(begin, split), (split, end)]
    return line[sorted(kept)]


def _farthest(points: numpy.ndarray) -> int:
    return int(numpy.hypot(*points.T).argmax())


def _parted_at_poles(ring: Ring) -> Ring:
    """Give a vertex at a pole the longitudes of the vertices beside it."""
    at_pole = numpy.abs(ring[:, 1]) > 90 - 1e-9
    alone = at_pole & ~numpy.roll(at_pole, 1) & ~numpy.roll(at_pole, -1)
    parted = []
    for index, (longitude, latitude) in enumerate(ring):
        if alone[index]:
            beside = ring[index - 1, 0], ring[(index + 1) % len(ring), 0]
            parted += [(each, latitude) for each in beside]
        else:
            parted.append((longitude, latitude))
    return numpy.array(parted)


def _unwrapped(ring: Ring) -> Ring:
    """Return a ring whose longitudes do not jump, though they may leave ±180."""
    longitudes = numpy.unwrap(ring[:, 0], period=360)
    return numpy.stack((longitudes, numpy.clip(ring[:, 1], -90, 90)), axis=1)


def _winding(ring: Ring) -> int:
    """Return how often a ring goes around a pole, to the east if positive."""
    if not len(ring):
        return 0
    last = (ring[0, 0] - ring[-1, 0] + 180) % 360 - 180
    return round((ring[-1, 0] + last - ring[0, 0]) / 360)


def _around_pole(ring: Ring) -> Footprint:
    """Return the outline of what lies between a ring and the pole in its midst."""
    pole = math.copysign(90.0, ring[:, 1].mean())
    if _winding(ring) < 0:
        ring = ring[::-1]
    # From the antimeridian to the antimeridian, to the east.
    longitudes = (ring[:, 0] + 180) % 360 - 180
    ring = numpy.stack((longitudes, ring[:, 1]), axis=1)
    ring = numpy.roll(ring, -int(longitudes.argmin()), axis=0)
    before, after = ring[-1] - (360, 0), ring[0]
    share = (-180 - before[0]) / (after[0] - before[0])
    latitude = before[1] + share * (after[1] - before[1])
    line = numpy.vstack(((-180, latitude), ring, (180, latitude)))
    tolerance = 0.01  # degrees
    while len(kept := _simplified_line(line, tolerance, len(line) // 2)) > (
        MAX_VERTICES - 3
    ):
        tolerance *= 1.5
    closed = numpy.vstack((kept, (180, pole), (-180, pole)))
    south, north = sorted((float(closed[:, 1].min()), float(closed[:, 1].max())))
    return Footprint(_geometry([closed]), (-180.0, south, 180.0, north))


def _not_around_pole(rings: list[Ring], pixels: float) -> Footprint | None:
    """Return the outline of rings, the largest one first.

    Args:
        pixels: diagonal of the mask.
    """
    rings = [ring for ring in rings if len(ring) > 2]
    if not rings:
        return None
    # Beside each other, and the first one within ±180.
    centre = _centre(rings[0])
    centre -= 360 * math.floor((centre + 180) / 360)
    rings = [ring - (360 * round((_centre(ring) - centre) / 360), 0) for ring in rings]
    points = numpy.concatenate(rings)
    # A rounding error must not split what ends at the antimeridian.
    west, south = numpy.round(points.min(axis=0), 9).tolist()
    east, north = numpy.round(points.max(axis=0), 9).tolist()
    if east - west >= 360:
        whole = [(-180, south), (180, south), (180, north), (-180, north)]
        return Footprint(_geometry([numpy.array(whole)]), (-180.0, south, 180.0, north))
    scale = numpy.array((max(0.01, math.cos(math.radians((south + north) / 2))), 1))
    pixel = math.hypot(*((east - west, north - south) * scale)) / pixels
    crosses = west < -180 or east > 180
    # One convex outline is never too much, and can be cut at the antimeridian.
    hull = [_hull(points)]
    for outlines in [hull] if crosses else [rings, hull]:
        for tolerance in _TOLERANCES:
            kept = [
                _simplified(ring * scale, tolerance * pixel) / scale
                for ring in outlines
            ]
            if crosses:
                kept = _cut(kept[0])
            kept = [
                numpy.clip(ring, (-180, -90), (180, 90))
                for ring in kept
                if len(ring) > 2
            ]
            vertices = sum(len(ring) + 1 for ring in kept)
            if 0 < vertices <= MAX_VERTICES and not _intersects(kept):
                if crosses:
                    west, east = (west + 180) % 360 - 180, (east + 180) % 360 - 180
                bbox = (west, south, east, north)
                return Footprint(
                    _geometry(kept), tuple(round(each, _DECIMALS) for each in bbox)
                )
    return None


def _centre(ring: Ring) -> float:
    return float(ring[:, 0].min() + ring[:, 0].max()) / 2


def _cut(ring: Ring) -> list[Ring]:
    """Return the parts of a convex ring on either side of the antimeridian."""
    pieces = [
        _clipped(_clipped(ring - (shift, 0), -180, 1), 180, -1)
        for shift in (-360, 0, 360)
    ]
    return [piece for piece in pieces if len(piece) > 2 and abs(_area(piece)) > 1e-12]


def _clipped(ring: Ring, meridian: float, side: int) -> Ring:
    """Return a ring's part east (1) or west (-1) of a meridian.

    Sutherland and Hodgman (1974), "Reentrant polygon clipping".
    """
    clipped = []
    for begin, end in zip(ring, numpy.roll(ring, -1, axis=0), strict=True):
        inside = [(each[0] - meridian) * side >= 0 for each in (begin, end)]
        if inside[0]:
            clipped.append(begin)
        if inside[0] != inside[1]:
            share = (meridian - begin[0]) / (end[0] - begin[0])
            clipped.append((meridian, begin[1] + share * (end[1] - begin[1])))
    return numpy.array(clipped).reshape(-1, 2)


def _intersects(rings: list[Ring]) -> bool:
    """Return whether any two edges cross."""
    begin = numpy.concatenate(rings)
    end = numpy.concatenate([numpy.roll(ring, -1, axis=0) for ring in rings])

    def sides(points: numpy.ndarray) -> numpy.ndarray:
        """Return the side of each edge (row) that each point (column) is on."""
        (dx, dy), (x, y) = (end - begin).T, (points[None] - begin[:, None]).T
        return numpy.sign(dx[:, None] * y.T - dy[:, None] * x.T)

    apart = sides(begin) * sides(end) < 0
    return bool((apart & apart.T).any())


def _geometry(rings: list[Ring]) -> dict[str, Any]:
    polygons = []
    for ring in rings:
        # RFC 7946, section 3.1.6: exterior rings are counterclockwise.
        ring = ring if _area(ring) > 0 else ring[::-1]
        ring = numpy.round(ring, _DECIMALS) + 0.0  # no negative zero
        polygons.append([[*ring.tolist(), ring[0].tolist()]])
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}
