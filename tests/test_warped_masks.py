"""A warped image has no data where the image has none, whatever its type."""

from pathlib import Path

import numpy
import pytest
import rasterio

from tests.support.kinds import Make, convert, filled, with_mask

TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "float32", "float64")
TO_ANOTHER_ZONE = ("--reproject", "EPSG:32617")


@pytest.mark.parametrize("bands", [1, 3, 5])
@pytest.mark.parametrize("dtype", TYPES)
def test_what_a_warped_image_does_not_cover_is_masked(
    dtype: str, bands: int, tmp_path: Path
):
    values = numpy.full((bands, 300, 300), 7, dtype)
    status, result, _ = convert(tmp_path, filled(values), bands, *TO_ANOTHER_ZONE)
    assert status == 0, result["reason"]
    with rasterio.open(tmp_path / "image.tif") as raster:
        mask, pixels = raster.dataset_mask() > 0, raster.read()
    assert 0.7 < mask.mean() < 0.99
    assert numpy.allclose(pixels[:, mask], 7)
    assert not pixels[:, ~mask].any()


@pytest.mark.parametrize("dtype", TYPES)
def test_a_mask_is_warped_with_the_image(dtype: str, tmp_path: Path):
    make = with_mask(True, bands=1, dtype=dtype)
    status, result, image = convert(tmp_path, make, 1, *TO_ANOTHER_ZONE)
    assert status == 0, result["reason"]
    with rasterio.open(image) as before, rasterio.open(tmp_path / "image.tif") as after:
        areas = [
            (raster.dataset_mask() > 0).sum() * raster.res[0] * raster.res[1]
            for raster in (before, after)
        ]
    assert areas[1] == pytest.approx(areas[0], rel=0.05)


def with_nodata(path: Path) -> None:
    with_mask(True, bands=1, nodata=0)(path)


def with_alpha(path: Path) -> None:
    with_mask(True, bands=4, photometric="RGB", alpha="YES")(path)


@pytest.mark.parametrize(("make", "bands"), [(with_nodata, 1), (with_alpha, 4)])
def test_a_mask_that_a_warp_would_lose_is_refused(
    make: Make, bands: int, tmp_path: Path
):
    status, result, _ = convert(tmp_path, make, bands, *TO_ANOTHER_ZONE)
    assert (status, result["code"]) == (65, "unsupported-raster")
    assert "a warp would lose the mask" in result["reason"]
