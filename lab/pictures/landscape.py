"""An invented county: for each place, its height, its water, its woods and its fields.

The functions take the x of some columns and the y of some rows, as UTM coordinates in
metres, and return an array of shape (rows, columns). The same place always looks the
same, so that images of it fit together.
"""

import numpy

Array = numpy.ndarray

# A mile, by which the land is divided into sections, with roads between them.
_SECTION = 1609.344
_LAKE_LEVEL = 250.0
# The centre of the county and its radius.
_CENTRE = (305_000.0, 4_776_000.0)
_RADIUS = 12_900.0
_TABLE = numpy.random.default_rng(1937).random((256, 256)) * 2 - 1


def height(x: Array, y: Array) -> Array:
    """Return the height of the ground in metres."""
    hills = 275 + 58 * fractal(x, y, 6000, 6, seed=1)
    # A river has cut a valley into the hills.
    valley = numpy.exp(-((_river(x, y) / 700) ** 2))
    return hills + (_LAKE_LEVEL + 4 - hills) * 0.85 * valley


def is_water(x: Array, y: Array, ground: Array) -> Array:
    """Return where the river and the lakes are; ``ground`` is the height."""
    return (_river(x, y) < 45) | (ground < _LAKE_LEVEL)


def _river(x: Array, y: Array) -> Array:
    """Return about the distance from the river in metres."""
    bends = 1900 * fractal(x, y, 5000, 4, seed=2)
    east, north = x - _CENTRE[0], y[:, None] - _CENTRE[1]
    return numpy.abs(north + 1500 - 0.35 * east + bends)


def is_wood(x: Array, y: Array) -> Array:
    """Return where trees grow."""
    return fractal(x, y, 1800, 4, seed=3) > 0.26


def field(x: Array, y: Array) -> Array:
    """Return a number from 0 to 1 for each field, by which fields look different."""
    # Some sections are divided into squares, and others into strips.
    has_squares = _lattice(x / _SECTION, y / _SECTION, seed=4) > 0
    squares, strips = (
        _lattice(x * parts / _SECTION, y * 4 / _SECTION, seed=5) for parts in (4, 8)
    )
    return (numpy.where(has_squares, squares, strips) + 1) / 2


def distance_to_road(x: Array, y: Array) -> Array:
    """Return the distance to a road between sections, in metres."""
    columns, rows = x / _SECTION, y / _SECTION
    # Not every side of a section has a road.
    sides = (
        (numpy.abs(columns - numpy.round(columns)), _lattice(columns + 0.5, rows, 6)),
        (
            numpy.abs(rows - numpy.round(rows))[:, None],
            _lattice(columns, rows + 0.5, 7),
        ),
    )
    return numpy.minimum(
        *(numpy.where(there > -0.45, away, 1) * _SECTION for away, there in sides)
    )


def is_house(x: Array, y: Array) -> Array:
    """Return where houses stand: beside roads, and close together in villages."""
    size = 55
    there = _lattice(x / size, y / size, seed=8)
    village = fractal(x, y, 4000, 2, seed=9) > 0.3
    road = distance_to_road(x, y)
    near = (road > 25) & (road < numpy.where(village, 330, 75))
    walls = (
        ((y % size > 20) & (y % size < 38))[:, None] & (x % size > 18) & (x % size < 40)
    )
    return near & walls & (there > numpy.where(village, -0.2, 0.82))


def is_in_county(x: Array, y: Array) -> Array:
    """Return what the border of the county encloses."""
    east, north = x - _CENTRE[0], y[:, None] - _CENTRE[1]
    border = _RADIUS * (1 + 0.09 * fractal(x, y, 7000, 3, seed=10))
    return numpy.hypot(east, north * 1.25) < border


def shade(ground: Array, pixel: float) -> Array:
    """Return how bright the ground is in a light from the north-west, from 0 to 1."""
    # Rows go south, so ground that rises to the south and to the east is bright.
    south, east = numpy.gradient(3 * ground, pixel)
    lit = (1 + (east + south) / numpy.sqrt(2)) / numpy.sqrt(1 + east**2 + south**2)
    return numpy.clip(lit / numpy.sqrt(2), 0, 1)


def fractal(x: Array, y: Array, size: float, octaves: int, seed: int) -> Array:
    """Return a random surface, about from -1 to 1, with features of ``size`` metres."""
    surface = numpy.zeros((len(y), len(x)))
    for octave in range(octaves):
        scale = 2**octave / size
        surface += _noise(x * scale, y * scale, seed + 20 * octave) / 2**octave
    return surface


def _noise(u: Array, v: Array, seed: int) -> Array:
    """Return random values at whole numbers, and smooth ones between them."""
    columns, rows = (numpy.arange(numpy.floor(w.min()), w.max() + 2) for w in (u, v))
    values = _lattice(columns, rows, seed)
    return _weights(v, rows) @ values @ _weights(u, columns).T


def _weights(places: Array, whole: Array) -> Array:
    """Return how much each whole number counts at each place."""
    near = numpy.clip(1 - numpy.abs(places[:, None] - whole), 0, 1)
    return near * near * (3 - 2 * near)


def _lattice(u: Array, v: Array, seed: int) -> Array:
    """Return a random value from -1 to 1 for each square of side 1."""
    columns, rows = (numpy.floor(w).astype(int) for w in (u, v))
    return _TABLE[(rows[:, None] + 91 * seed) % 256, (columns + 37 * seed) % 256]
