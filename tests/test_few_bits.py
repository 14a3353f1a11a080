"""Values of less than 8 bits keep their bits, and are shown up to the largest one."""

from pathlib import Path

import numpy
import pytest
import rasterio
from PIL import Image

from tests.support import compare
from tests.support.kinds import Make, convert, filled

HEIGHT, WIDTH = 600, 1200


def bars(bits: int, bands: int = 1, **options) -> Make:
    """Return a maker of an image of bars: black, half, the largest value."""
    largest = 2**bits - 1
    values = numpy.zeros((bands, HEIGHT, WIDTH), "u1")
    values[:, :, 400:800] = (largest + 1) // 2
    values[:, :, 800:] = largest
    return filled(values, nbits=bits, **options)


def shown(jpeg: Path) -> list:
    """Return what the JPEG shows in the middle of each bar."""
    with Image.open(jpeg) as image:
        pixels = numpy.asarray(image).astype(int)
    return [pixels[300, column] for column in (200, 600, 1000)]


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("photometric", ["MINISBLACK", "MINISWHITE"])
def test_grey_of_few_bits_is_grey_everywhere(
    bits: int, photometric: str, tmp_path: Path
):
    make = bars(bits, photometric=photometric)

    status, result, image = convert(tmp_path, make, 1)

    assert status == 0, result["reason"]
    cog = tmp_path / "image.tif"
    compare.assert_valid(cog)
    compare.assert_same_pixels(image, cog)
    compare.assert_same_description(image, cog)
    with rasterio.open(cog) as raster:
        assert raster.tags(1, ns="IMAGE_STRUCTURE")["NBITS"] == str(bits)
    half = round((2**bits // 2) * 255 / (2**bits - 1))
    expected = [0, half, 255]
    if photometric == "MINISWHITE":
        expected = [255 - value for value in expected]
    assert numpy.allclose(shown(tmp_path / "image.jpg"), expected, atol=2)
    assert result["warnings"] == []


@pytest.mark.parametrize("bits", [1, 4])
def test_colours_of_few_bits_are_not_dark(bits: int, tmp_path: Path):
    status, result, image = convert(tmp_path, bars(bits, 3, photometric="RGB"), 3)
    assert status == 0, result["reason"]
    compare.assert_same_pixels(image, tmp_path / "image.tif")
    black, _, white = shown(tmp_path / "image.jpg")
    assert black.tolist() == [0] * 3 and white.min() >= 253


def test_alpha_of_few_bits_is_opaque_at_its_largest_value(tmp_path: Path):
    values = numpy.full((2, HEIGHT, WIDTH), 15, "u1")
    values[0, :, 400:] = 0
    values[1, :, 800:] = 0
    make = filled(values, nbits=4, alpha="YES")
    status, result, _ = convert(tmp_path, make, 2)
    assert status == 0, result["reason"]
    assert numpy.allclose(shown(tmp_path / "image.jpg"), [255, 0, 255], atol=2)


@pytest.mark.parametrize("profile", ["deflate", "lzw", "packbits", "raw", "archive"])
def test_every_lossless_profile_keeps_the_bits(profile: str, tmp_path: Path):
    status, result, image = convert(tmp_path, bars(4), 1, "--profile", profile)
    assert status == 0, result["reason"]
    compare.assert_same_pixels(image, tmp_path / "image.tif")
    with rasterio.open(tmp_path / "image.tif") as raster:
        assert raster.tags(1, ns="IMAGE_STRUCTURE")["NBITS"] == "4"


@pytest.mark.parametrize("profile", ["jpeg", "lerc"])
def test_a_compression_of_whole_bytes_refuses_them(profile: str, tmp_path: Path):
    status, result, _ = convert(tmp_path, bars(4), 1, "--profile", profile)
    assert (status, result["code"]) == (65, "unsupported-raster")
    assert "of 4 bits" in result["reason"]


def test_nodata_that_needs_more_bits_is_nodata_after_warping(tmp_path: Path):
    make = bars(4, nodata=255)
    status, result, _ = convert(tmp_path, make, 1, "--reproject", "EPSG:4326")
    assert status == 0, result["reason"]
    with rasterio.open(tmp_path / "image.tif") as raster:
        assert set(numpy.unique(raster.read())) >= {0, 15, 255}
        assert raster.nodata == 255


def test_a_file_beside_the_image_cannot_change_the_number_of_bits(tmp_path: Path):
    def make(path: Path) -> None:
        values = numpy.full((1, HEIGHT, WIDTH), 200, "u1")
        filled(values)(path)
        path.with_name(f"{path.name}.aux.xml").write_text(
            '<PAMDataset><PAMRasterBand band="1"><Metadata domain="IMAGE_STRUCTURE">'
            '<MDI key="NBITS">4</MDI></Metadata></PAMRasterBand></PAMDataset>'
        )

    status, result, image = convert(tmp_path, make, 1)
    assert status == 0, result["reason"]
    compare.assert_same_pixels(image, tmp_path / "image.tif")
