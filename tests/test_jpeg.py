"""The JPEG shows an image as a person expects to see it."""

import io
from pathlib import Path

import numpy
import pytest
import rasterio
from PIL import Image

from node.jpeg import STRIP_ROWS, JpegWriter
from tests.support.kinds import BITS, convert, filled, plain, with_mask, with_palette

RAMP = numpy.tile(numpy.arange(700), (600, 1))


def read_jpeg(directory: Path) -> numpy.ndarray:
    with Image.open(directory / "image.jpg") as jpeg:
        return numpy.asarray(jpeg).astype(int)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBX"])
@pytest.mark.parametrize(("width", "height"), [(100, 1000), (17, 129), (1, 1)])
def test_strips_make_the_same_picture_as_the_whole(mode: str, width: int, height: int):
    bands = len(mode)
    shape = (height, width, bands)[: 2 if bands == 1 else 3]
    smooth = numpy.indices(shape).sum(axis=0) % 256
    pixels = smooth.astype("u1")
    by_strips = io.BytesIO()
    writer = JpegWriter(by_strips, width, height, 80)
    for row in range(0, height, STRIP_ROWS):
        writer.add(numpy.ascontiguousarray(pixels[row : row + STRIP_ROWS]))
    expected = io.BytesIO()
    whole = pixels if bands == 1 else pixels[:, :, :3]
    Image.fromarray(whole).save(expected, "JPEG", quality=80)

    with Image.open(by_strips) as jpeg, Image.open(expected) as other:
        jpeg.load()
        difference = numpy.asarray(jpeg).astype(int) - numpy.asarray(other)
        # The decoder smooths colours slightly differently across rows of blocks.
        assert numpy.abs(difference).max() <= 2
        assert jpeg.size == (width, height)


def test_8_bit_values_are_shown_unchanged(tmp_path: Path):
    status, result, image = convert(tmp_path, plain(3), 3)
    assert status == 0
    with rasterio.open(image) as raster:
        pixels = raster.read().transpose(1, 2, 0).astype(int)
    assert numpy.abs(read_jpeg(tmp_path) - pixels).mean() < 4
    jpeg = result["jpeg"]
    assert (jpeg["width"], jpeg["height"], jpeg["quality"]) == (700, 600, 80)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "float32", "float64"])
def test_values_of_more_than_8_bits_are_stretched(dtype: str, tmp_path: Path):
    values = (RAMP * 40 - 5000).clip(0 if dtype == "uint16" else None).astype(dtype)
    convert(tmp_path, filled(values[None]), 1)
    shown = read_jpeg(tmp_path)
    assert shown.min() <= 2
    assert shown.max() >= 253
    assert (numpy.diff(shown[300, 20:-20].astype(int)) >= -2).all()


def test_a_wide_image_is_assembled_from_parts(tmp_path: Path):
    # One row of its tiles is larger than the amount that is read at a time.
    values = numpy.tile(numpy.arange(40_000, dtype="float32"), (3, 40, 1))
    status, *_ = convert(tmp_path, filled(values), 3)
    assert status == 0
    shown = read_jpeg(tmp_path)
    assert shown.shape == (40, 40_000, 3)
    middle = shown[20, 1000:-1000, 0]
    assert (numpy.diff(middle) >= -2).all()
    assert numpy.abs(middle - numpy.linspace(1.5, 253.5, middle.size)).max() < 6


def test_nodata_is_white_and_does_not_affect_the_stretch(tmp_path: Path):
    values = (1000 + RAMP).astype("float32")
    values[:300] = -3.4e38
    convert(tmp_path, filled(values[None], nodata=-3.4e38), 1)
    shown = read_jpeg(tmp_path)
    assert shown[:290].min() >= 250
    assert shown[310:, 5:30].max() < 20
    assert shown[310:, -10:].min() > 240


def test_nan_is_white_and_infinities_are_black_or_white(tmp_path: Path):
    values = RAMP.astype("float32")
    values[:100], values[100:200], values[200:300] = numpy.nan, numpy.inf, -numpy.inf
    convert(tmp_path, filled(values[None]), 1)
    shown = read_jpeg(tmp_path)
    assert shown[8:192].min() >= 250
    assert shown[208:290].max() <= 5


def test_an_image_with_a_single_value_is_grey(tmp_path: Path):
    convert(tmp_path, filled(numpy.full((1, 600, 700), 12345, "int32")), 1)
    assert 100 < read_jpeg(tmp_path).mean() < 155


def test_a_palette_has_its_colours(tmp_path: Path):
    _, _, image = convert(tmp_path, with_palette, 1)
    with rasterio.open(image) as raster:
        classes, colours = raster.read(1), raster.colormap(1)
    table = numpy.array([colours[value][:3] for value in range(256)])
    assert (
        numpy.abs(
            read_jpeg(tmp_path).mean(axis=(0, 1)) - table[classes].mean((0, 1))
        ).max()
        < 4
    )


def test_one_bit_is_black_and_white(tmp_path: Path):
    blocks = numpy.kron(BITS[0, :60, :70], numpy.ones((10, 10), "u1"))[None]
    convert(tmp_path, filled(blocks, nbits=1), 1)
    shown = read_jpeg(tmp_path).mean(axis=2)[5::10, 5::10]
    assert ((shown > 127) == (BITS[0, :60, :70] > 0)).all()


def test_a_miniswhite_image_is_inverted(tmp_path: Path):
    values = numpy.full((1, 600, 700), 10, "u1")
    convert(tmp_path, filled(values, photometric="MINISWHITE"), 1)
    assert 240 < read_jpeg(tmp_path).mean() < 250


def test_masked_pixels_are_white(tmp_path: Path):
    convert(tmp_path, with_mask(True, bands=3), 3)
    assert read_jpeg(tmp_path)[10:-10, 10:330].min() >= 245
    assert read_jpeg(tmp_path)[:, 360:].mean() < 200


def test_transparent_pixels_are_white_and_half_transparent_ones_are_paler(
    tmp_path: Path,
):
    values = numpy.zeros((4, 600, 700), "u1")
    values[3, :, 200:400], values[3, :, 400:] = 128, 255
    convert(tmp_path, filled(values, photometric="RGB", alpha="YES"), 4)
    shown = read_jpeg(tmp_path).mean(axis=(0, 2))
    assert shown[50] > 250
    assert 120 < shown[300] < 135
    assert shown[600] < 5


def test_a_colour_with_the_nodata_value_in_one_band_is_shown(tmp_path: Path):
    values = numpy.zeros((3, 600, 700), "u1")
    values[1, :, :350] = 200
    convert(tmp_path, filled(values, nodata=0), 3)
    shown = read_jpeg(tmp_path)
    assert numpy.abs(shown[:, 20:330] - [0, 200, 0]).max() < 12
    assert shown[:, 370:].min() > 245


@pytest.mark.parametrize(("max_size", "size"), [(700, (700, 600)), (200, (175, 150))])
def test_jpeg_max_size_limits_the_size(
    max_size: int, size: tuple[int, int], tmp_path: Path
):
    options = ("--jpeg-max-size", str(max_size), "--jpeg-quality", "60")
    status, result, _ = convert(tmp_path, plain(3), 3, *options)
    assert status == 0
    assert read_jpeg(tmp_path).shape[1::-1] == size
    jpeg = result["jpeg"]
    assert (jpeg["width"], jpeg["height"]) == size
    assert jpeg["quality"] == 60
    scaled = any("scaled down" in text for text in result["warnings"])
    assert scaled == (max_size < 700)
