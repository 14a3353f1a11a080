"""Colours that are multiplied by alpha stay so, and are shown as they look."""

from pathlib import Path

import numpy
import pytest
import rasterio
from PIL import Image

from node import tiff
from tests.support import compare
from tests.support.kinds import Make, convert, filled

WIDTH, HEIGHT = 1200, 600


def half_red(dtype: str, photometric: str = "RGB", bits: int | None = None) -> Make:
    """Return a maker of an image: red of half opacity, nothing, green, blue."""
    largest = 1 if dtype == "float32" else numpy.iinfo(dtype).max
    options = {}
    if bits:
        largest, options = 2**bits - 1, {"nbits": bits}
    values = numpy.zeros((4, HEIGHT, WIDTH), dtype)
    values[0, :, :400] = values[3, :, :400] = largest / 2
    values[1, :, 800:1000] = values[2, :, 1000:] = values[3, :, 800:] = largest
    return filled(values, photometric=photometric, alpha="PREMULTIPLIED", **options)


def extra_samples(file: Path) -> list[list[int]]:
    with file.open("rb") as opened:
        structure = tiff.read(opened)
    return [
        structure.numbers(n, tiff.EXTRA_SAMPLES).tolist()
        for n in range(len(structure.directories))
    ]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_premultiplied_alpha_is_kept_and_shown(dtype: str, tmp_path: Path):
    status, result, image = convert(tmp_path, half_red(dtype), 4)

    assert status == 0, result["reason"]
    cog = tmp_path / "image.tif"
    compare.assert_valid(cog)
    compare.assert_same_pixels(image, cog)
    compare.assert_same_description(image, cog)
    assert extra_samples(image) == [[1]]
    assert all(kinds == [1] for kinds in extra_samples(cog))
    assert len(extra_samples(cog)) > 1
    assert_half_red(tmp_path / "image.jpg")


@pytest.mark.parametrize(("dtype", "bits"), [("uint8", 7), ("uint16", 12)])
def test_premultiplied_alpha_of_few_bits_is_shown(
    dtype: str, bits: int, tmp_path: Path
):
    status, result, _ = convert(tmp_path, half_red(dtype, bits=bits), 4)
    assert status == 0, result["reason"]
    assert_half_red(tmp_path / "image.jpg")


def assert_half_red(file: Path) -> None:
    """Check a JPEG: red of half opacity on white, white, green."""
    with Image.open(file) as jpeg:
        pixels = numpy.asarray(jpeg).astype(int)
    assert pixels[300, 200].tolist() == pytest.approx([255, 127, 127], abs=5)
    assert pixels[300, 600].tolist() == pytest.approx([255, 255, 255], abs=5)
    assert pixels[300, 900].tolist() == pytest.approx([0, 255, 0], abs=5)


@pytest.mark.parametrize("profile", ["webp", "lzw", "web"])
def test_premultiplied_alpha_is_kept_by_other_profiles(profile: str, tmp_path: Path):
    status, result, _ = convert(tmp_path, half_red("uint8"), 4, "--profile", profile)
    assert status == 0, result["reason"]
    assert all(kinds == [1] for kinds in extra_samples(tmp_path / "image.tif"))


@pytest.mark.parametrize("resampling", ["average", "bilinear", "cubic", "gauss"])
def test_no_colour_of_an_overview_is_more_than_its_alpha(
    resampling: str, tmp_path: Path
):
    generator = numpy.random.default_rng(0)
    values = numpy.zeros((4, HEIGHT, WIDTH), "u1")
    values[3] = generator.integers(0, 2, (HEIGHT, WIDTH)) * 200
    values[:3] = values[3] * generator.random((3, HEIGHT, WIDTH))
    make = filled(values, photometric="RGB", alpha="PREMULTIPLIED")

    convert(tmp_path, make, 4, "--overview-resampling", resampling)

    with rasterio.open(tmp_path / "image.tif", overview_level=0) as overview:
        *colours, alpha = overview.read().astype(int)
    assert all((colour <= alpha + 1).all() for colour in colours)


def test_alpha_that_is_not_associated_stays_so(tmp_path: Path):
    values = numpy.full((4, HEIGHT, WIDTH), 128, "u1")
    make = filled(values, photometric="RGB", alpha="NON-PREMULTIPLIED")
    convert(tmp_path, make, 4)
    assert all(kinds == [2] for kinds in extra_samples(tmp_path / "image.tif"))
