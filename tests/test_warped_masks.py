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


@pytest.mark.parametrize("options", [TO_ANOTHER_ZONE, ("--profile", "web")])
def test_the_nodata_of_one_band_is_not_mixed_with_its_pixels(
    options: tuple[str, ...], tmp_path: Path
):
    values = numpy.full((2, 300, 300), 100, "f4")
    values[0, :, 80:120] = values[1, 80:120] = -9999
    status, result, _ = convert(tmp_path, filled(values, nodata=-9999), 2, *options)
    assert status == 0, result["reason"]
    with rasterio.open(tmp_path / "image.tif") as raster:
        pixels = raster.read()
    assert numpy.unique(pixels).tolist() == [-9999, 100]
    assert result["bands_info"][0]["minimum"] == 100


def test_nodata_that_the_type_cannot_hold_needs_a_mask(tmp_path: Path):
    def make(path: Path) -> None:
        filled(numpy.full((1, 300, 300), 7, "i2"))(path)
        path.with_name(f"{path.name}.aux.xml").write_text(
            '<PAMDataset><PAMRasterBand band="1"><NoDataValue>-9999.5</NoDataValue>'
            "</PAMRasterBand></PAMDataset>"
        )

    status, result, _ = convert(tmp_path, make, 1, *TO_ANOTHER_ZONE)
    assert status == 0, result["reason"]
    with rasterio.open(tmp_path / "image.tif") as raster:
        mask, pixels = raster.dataset_mask() > 0, raster.read(1)
    assert 0.7 < mask.mean() < 0.99
    assert (pixels[mask] == 7).all()


@pytest.mark.parametrize("code", ["EPSG:4978", "EPSG:5773"])
def test_a_crs_that_no_image_has_is_refused(code: str, tmp_path: Path):
    make = filled(numpy.full((1, 30, 30), 7, "u1"))
    status, result, _ = convert(tmp_path, make, 1, "--reproject", code)
    assert (status, result["code"]) == (65, "unsupported-raster")
    assert f"{code} is neither a projected nor a geographic CRS" in result["reason"]


def test_a_warp_between_planets_is_refused_and_one_on_the_moon_is_not(tmp_path: Path):
    make = filled(numpy.full((1, 30, 30), 7, "u1"), crs="IAU_2015:30110")
    for code, expected in (("EPSG:3857", 65), ("IAU_2015:30100", 0)):
        directory = tmp_path / code.partition(":")[0]
        directory.mkdir()
        status, result, _ = convert(directory, make, 1, "--reproject", code)
        assert status == expected, result["reason"]
        if status:
            assert "PROJ knows no way from its CRS to EPSG:3857" in result["reason"]


@pytest.mark.parametrize("nodata", [None, 0])
def test_a_method_that_gdal_does_not_apply_is_named(nodata: int | None, tmp_path: Path):
    values = numpy.random.default_rng(1).integers(1, 999, (1, 900, 900), "u2")
    options = (*TO_ANOTHER_ZONE, "--overview-resampling", "cubic")
    status, result, _ = convert(tmp_path, filled(values, nodata=nodata), 1, *options)
    assert status == 0, result["reason"]
    named = any("are made with average: GDAL" in each for each in result["warnings"])
    assert named == (nodata is not None)
