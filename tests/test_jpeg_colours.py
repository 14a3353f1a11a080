"""The JPEG has the colours that the bands of an image stand for."""

from pathlib import Path

import numpy
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp

from tests.support import rasters
from tests.support.kinds import Make, convert

WIDTH, HEIGHT = 700, 600


def shown(directory: Path) -> list[int]:
    """Return what the JPEG shows in the middle of the image."""
    with Image.open(directory / "image.jpg") as jpeg:
        return numpy.asarray(jpeg).astype(int)[300, 350].tolist()


def flat(values: list[int], meanings: list[ColorInterp], dtype: str = "uint8") -> Make:
    """Return a maker of an image with one value a band, which has these meanings."""

    def make(path: Path) -> None:
        rasters.write(path, len(values), dtype=dtype, photometric="MINISBLACK")
        with rasterio.open(path, "r+") as raster:
            raster.colorinterp = meanings
            pixels = numpy.empty((len(values), HEIGHT, WIDTH), dtype)
            pixels[:] = numpy.array(values)[:, None, None]
            # The darkest and the brightest pixels, for the stretch of 16 bits.
            if dtype != "uint8":
                pixels[:, :300], pixels[:, 301:] = 0, 1000
            raster.write(pixels)

    return make


RED, GREEN, BLUE = ColorInterp.red, ColorInterp.green, ColorInterp.blue
UNDEFINED, ALPHA = ColorInterp.undefined, ColorInterp.alpha


@pytest.mark.parametrize(
    ("values", "meanings", "expected"),
    [
        ([30, 60, 200, 90], [BLUE, GREEN, RED, UNDEFINED], [200, 60, 30]),
        ([30, 60, 200], [BLUE, GREEN, RED], [200, 60, 30]),
        ([9, 30, 60, 200, 9], [UNDEFINED, BLUE, GREEN, RED, UNDEFINED], [200, 60, 30]),
        ([255, 30, 60, 200], [ALPHA, BLUE, GREEN, RED], [200, 60, 30]),
        ([200, 60, 30, 90], [RED, GREEN, UNDEFINED, BLUE], [200, 60, 90]),
        ([30, 60, 200, 90], [UNDEFINED, GREEN, RED, UNDEFINED], [30, 60, 200]),
        ([255, 30, 60, 200], [ALPHA, UNDEFINED, UNDEFINED, UNDEFINED], [30, 60, 200]),
    ],
)
def test_bands_are_shown_by_their_colour(
    values: list[int], meanings: list, expected: list[int], tmp_path: Path
):
    make = flat(values, meanings)
    status, result, _ = convert(tmp_path, make, len(values))
    assert status == 0, result["reason"]
    assert shown(tmp_path) == pytest.approx(expected, abs=3)


def test_bands_of_16_bits_are_shown_by_their_colour(tmp_path: Path):
    make = flat([100, 500, 900], [BLUE, GREEN, RED], "uint16")
    status, result, _ = convert(tmp_path, make, 3)
    assert status == 0, result["reason"]
    with Image.open(tmp_path / "image.jpg") as jpeg:
        red, _, blue = numpy.asarray(jpeg).astype(int)[300, 350]
    assert red > blue + 20


@pytest.mark.parametrize("value", [0, 100, 300, 2000, 65535])
def test_a_palette_of_16_bits_has_its_colours(value: int, tmp_path: Path):
    def make(path: Path) -> None:
        with rasterio.open(
            path, "w", driver="GTiff", width=WIDTH, height=HEIGHT, count=1,
            dtype="uint16", crs="EPSG:5070", transform=rasters.TRANSFORM,
            photometric="palette",
        ) as raster:  # fmt: skip
            raster.write_colormap(1, {value: (20, 180, 90)})
            raster.write(numpy.full((1, HEIGHT, WIDTH), value, "u2"))

    status, result, _ = convert(tmp_path, make, 1)
    assert status == 0, result["reason"]
    assert shown(tmp_path) == pytest.approx([20, 180, 90], abs=3)
