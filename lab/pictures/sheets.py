"""Draw the images of an invented county: map sheets in colour, aerial photographs."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy
import rasterio
from rasterio.transform import from_origin

from lab.pictures import landscape
from lab.pictures.landscape import Array

CRS = "EPSG:32616"
_NODATA = 0

# The south-western corner of the first map sheet, and the size of each, in metres.
_CORNER = (295_000, 4_768_000)
_SHEET = (4000, 4000)
_MAP_PIXEL = 5
_MAPS = 1954
# Rows from north to south. The sheet without a name was lost.
_NAMES = (
    ("cedar-hill", "north-fork", "lone-oak", "stony-ridge", "east-mills"),
    ("wind-lake", "clearwater", "three-rivers", "", "plum-hollow"),
    ("westfield", "mill-creek", "county-seat", "sugar-grove", "sandy-point"),
    ("blue-mound", "fox-prairie", "south-bend", "kettle-marsh", "elm-corners"),
)

# Photographs were taken along flight lines, and overlap.
_PHOTOS = 1937
_PHOTO_SIDE = 3300
_PHOTO_PIXEL = 4
_STEP = 2350
_LINES, _PHOTOS_OF_A_LINE = 2, 5
_FIRST_PHOTO = (301_800, 4_775_600)


@dataclass(frozen=True)
class Photo:
    """An aerial photograph: its centre in metres, and how far it is turned."""

    key: str
    x: float
    y: float
    degrees: float
    exposure: float


@dataclass(frozen=True)
class Map:
    """A map sheet: its western and its northern edge in metres."""

    key: str
    west: float
    north: float


def images() -> Iterator[Map | Photo]:
    """Yield all images of the collection."""
    yield from _maps()
    yield from _photos()


def bands(image: Map | Photo) -> int:
    """Return the number of bands of an image."""
    return 3 if isinstance(image, Map) else 1


def write(image: Map | Photo, path: Path) -> None:
    """Draw an image, and write it as a GeoTIFF."""
    if isinstance(image, Map):
        pixels, west, north, pixel = _draw_map(image)
    else:
        pixels, west, north, pixel = _draw_photo(image)
    count, rows, columns = pixels.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=columns,
        height=rows,
        count=count,
        dtype="uint8",
        crs=CRS,
        transform=from_origin(west, north, pixel, pixel),
        nodata=_NODATA,
    ) as raster:
        raster.write(pixels)


def _maps() -> Iterator[Map]:
    width, height = _SHEET
    for row, names in enumerate(_NAMES):
        for column, name in enumerate(names):
            if name:
                west = _CORNER[0] + column * width
                north = _CORNER[1] + (len(_NAMES) - row) * height
                yield Map(f"maps/{_MAPS}/{name}.tif", west, north)


def _photos() -> Iterator[Photo]:
    chance = numpy.random.default_rng(_PHOTOS)
    for line in range(_LINES):
        for number in range(_PHOTOS_OF_A_LINE):
            drift_x, drift_y = chance.uniform(-180, 180, 2)
            yield Photo(
                f"aerial/{_PHOTOS}/line-{line + 1}-photo-{number + 1}.tif",
                _FIRST_PHOTO[0] + number * _STEP + drift_x,
                _FIRST_PHOTO[1] - line * _STEP + drift_y,
                degrees=chance.uniform(-7, 7),
                exposure=chance.uniform(0.88, 1.12),
            )


def _centres(start: float, step: float, count: int) -> Array:
    """Return a coordinate of the centre of each of a row of pixels."""
    return start + (numpy.arange(count) + 0.5) * step


def _draw_map(sheet: Map) -> tuple[Array, float, float, float]:
    width, height = (side // _MAP_PIXEL for side in _SHEET)
    x = _centres(sheet.west, _MAP_PIXEL, width)
    y = _centres(sheet.north, -_MAP_PIXEL, height)
    ground = landscape.height(x, y)
    # Sheets were printed and have faded, each in its own way.
    chance = numpy.random.default_rng(round(sheet.west + sheet.north))
    paper = numpy.array([250, 244, 226]) - chance.uniform(0, 14, 3) * (0.5, 0.8, 1.5)
    colours = numpy.broadcast_to(paper, (height, width, 3)).copy()
    colours[landscape.is_wood(x, y)] = (203, 222, 178)
    colours *= 0.82 + 0.25 * landscape.shade(ground, _MAP_PIXEL)[..., None]
    for interval, colour in ((5, (206, 170, 128)), (25, (160, 110, 70))):
        colours[_edges(numpy.floor(ground / interval))] = colour
    road = landscape.distance_to_road(x, y)
    colours[road < 14] = (120, 90, 80)
    colours[road < 8] = (236, 130, 100)
    colours[landscape.is_house(x, y)] = (60, 50, 50)
    water = landscape.is_water(x, y, ground)
    colours[water] = (168, 205, 226)
    colours[water & _edges(water)] = (70, 125, 170)
    pixels = numpy.clip(colours, 1, 255).astype("uint8")
    pixels[~landscape.is_in_county(x, y)] = _NODATA
    return pixels.transpose(2, 0, 1), sheet.west, sheet.north, _MAP_PIXEL


def _edges(values: Array) -> Array:
    """Return the pixels that differ from the one on their right or below them."""
    edges = numpy.zeros(values.shape, bool)
    edges[:, :-1] |= values[:, 1:] != values[:, :-1]
    edges[:-1] |= values[1:] != values[:-1]
    return edges


def _draw_photo(photo: Photo) -> tuple[Array, float, float, float]:
    """Draw a photograph that was turned to the north, which leaves empty corners."""
    angle = math.radians(photo.degrees)
    half = _PHOTO_SIDE / 2
    turned = half * (abs(math.cos(angle)) + abs(math.sin(angle)))
    west, north = photo.x - turned, photo.y + turned
    count = math.ceil(2 * turned / _PHOTO_PIXEL)
    x = _centres(west, _PHOTO_PIXEL, count)
    y = _centres(north, -_PHOTO_PIXEL, count)
    ground = landscape.height(x, y)
    tone = 95 + 90 * landscape.field(x, y) + 10 * landscape.fractal(x, y, 90, 3, 11)
    trees = 74 + 14 * landscape.fractal(x, y, 40, 3, 12)
    tone = numpy.where(landscape.is_wood(x, y), trees, tone)
    tone *= 0.45 + 0.8 * landscape.shade(ground, _PHOTO_PIXEL)
    tone[landscape.distance_to_road(x, y) < 9] = 225
    tone[landscape.is_house(x, y)] = 240
    tone[landscape.is_water(x, y, ground)] = 38
    # The lens was brighter in the middle, and the film had grain.
    right, up = (x - photo.x) / half, (y[:, None] - photo.y) / half
    across = right * math.cos(angle) + up * math.sin(angle)
    along = up * math.cos(angle) - right * math.sin(angle)
    tone *= photo.exposure * (1.05 - 0.22 * (across**2 + along**2))
    tone += numpy.random.default_rng(1).normal(0, 2, tone.shape)
    pixels = numpy.clip(tone, 1, 255).astype("uint8")
    pixels[(numpy.abs(across) > 1) | (numpy.abs(along) > 1)] = _NODATA
    return pixels[None], west, north, _PHOTO_PIXEL
