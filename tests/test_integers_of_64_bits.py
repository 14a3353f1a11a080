"""Integers of 64 bits are right to the last bit, in overviews and as nodata."""

from fractions import Fraction
from pathlib import Path

import numpy
import pytest
import rasterio

from node import overviews, tiff
from tests.support import compare, raw_tiff
from tests.support.kinds import Make, convert

SIDE = 600
CHANCE = numpy.random.default_rng(0)
NODATA = {
    "<u8": (2**64 - 1, 2**64 - 2, 2**63 + 5, 2**53 + 1, 0),
    "<i8": (-(2**63), 2**63 - 1, 2**53 + 1, -(2**53) - 1, -9999),
}
VALUES_OF_NODATA = [(dtype, value) for dtype in NODATA for value in NODATA[dtype]]


def with_nodata(values: numpy.ndarray, nodata: int) -> Make:
    """Return a maker of an image of values of shape (rows, columns)."""
    return lambda path: raw_tiff.write_integers(path, values, nodata)


def nodata_of(cog: Path) -> int:
    """Return the nodata value as the file has it, since rasterio rounds it."""
    with cog.open("rb") as file:
        field = tiff.read(file).directories[0][42113]
    return int(field.value.rstrip(b"\0"))


def exact_mean(values: numpy.ndarray, nodata: int) -> int:
    """Return the mean of values that are data, rounded up; nodata if none are."""
    data = [int(value) for value in values.ravel() if int(value) != nodata]
    if not data:
        return nodata
    return int((Fraction(sum(data), len(data)) + Fraction(1, 2)).__floor__())


@pytest.mark.parametrize(("dtype", "nodata"), VALUES_OF_NODATA)
def test_nodata_and_overviews_are_exact(dtype: str, nodata: int, tmp_path: Path):
    limits = numpy.iinfo(dtype)
    values = CHANCE.integers(limits.min, limits.max, (SIDE, SIDE), dtype, endpoint=True)
    # Values beside nodata are data.
    beside = nodata - 1 if nodata == limits.max else nodata + 1
    values[CHANCE.random(values.shape) < 0.3] = beside
    values[CHANCE.random(values.shape) < 0.3] = nodata
    values[:, :200] = nodata

    status, result, image = convert(tmp_path, with_nodata(values, nodata), 1)

    assert status == 0, result["reason"]
    compare.assert_same_pixels(image, tmp_path / "image.tif")
    assert nodata_of(tmp_path / "image.tif") == nodata == result["nodata"]
    # Of the overview, in which a third is nodata.
    assert result["bands_info"][0]["valid_percent"] == pytest.approx(66, abs=1)
    with rasterio.open(tmp_path / "image.tif", overview_level=0) as overview:
        halved = overview.read(1)
    for row, column in CHANCE.integers(0, SIDE // 2, (300, 2)):
        quarters = values[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        expected = exact_mean(quarters, nodata)
        if expected == nodata and (quarters != numpy.array(nodata, dtype)).any():
            # No mean of data may have the value of nodata.
            assert int(halved[row, column]) != nodata
        else:
            assert int(halved[row, column]) == expected


@pytest.mark.parametrize("dtype", ["uint64", "int64"])
def test_means_of_the_largest_integers_do_not_overflow(dtype: str):
    limits = numpy.iinfo(dtype)
    for value in (limits.min, limits.max, limits.max - 1):
        pixels = numpy.full((4, 4, 1), value, dtype)
        assert (overviews.average(pixels) == pixels[:2, :2]).all()
    values = CHANCE.integers(limits.min, limits.max, (64, 64, 1), dtype, endpoint=True)
    halved = overviews.average(values)
    for row in range(32):
        quarters = values[2 * row : 2 * row + 2, :2]
        assert int(halved[row, 0, 0]) == exact_mean(quarters, 1)


def test_a_nodata_value_that_gdal_cannot_warp_is_refused(tmp_path: Path):
    values = numpy.ones((SIDE, SIDE), "<u8")
    make = with_nodata(values, 2**64 - 1)
    status, result, _ = convert(tmp_path, make, 1, "--reproject", "EPSG:4326")
    assert (status, result["code"]) == (65, "unsupported-raster")
    assert "less than 2**53" in result["reason"]


def test_warped_integers_have_a_warning(tmp_path: Path):
    make = with_nodata(numpy.ones((SIDE, SIDE), "<u8"), 0)
    status, result, _ = convert(tmp_path, make, 1, "--reproject", "EPSG:4326")
    assert status == 0, result["reason"]
    assert any("2**53" in text for text in result["warnings"])
