"""A COG has no statistics of other pixels than its own."""

from pathlib import Path

import numpy
import pytest
import rasterio

from tests.support.kinds import Make, convert, filled

WARP = ("--reproject", "EPSG:4326")
STATISTICS = {
    "STATISTICS_MINIMUM": "1",
    "STATISTICS_MAXIMUM": "200",
    "STATISTICS_APPROXIMATE": "YES",
}


def described(**options) -> Make:
    """Return a maker of an image with statistics, as of gdalinfo -stats."""

    def make(path: Path) -> None:
        values = numpy.indices((600, 700)).sum(0)[None] % 200
        filled(values.astype("u1"), **options)(path)
        with rasterio.open(path, "r+") as raster:
            raster.update_tags(1, **STATISTICS, SENSOR="camera 7")

    return make


@pytest.mark.parametrize(
    "options",
    [WARP, ("--profile", "web"), ("--profile", "jpeg"), (*WARP, "--profile", "jpeg")],
)
def test_statistics_go_with_the_pixels(options: tuple[str, ...], tmp_path: Path):
    status, result, _ = convert(tmp_path, described(), 1, *options)
    assert status == 0, result["reason"]
    with rasterio.open(tmp_path / "image.tif") as raster:
        assert raster.tags(1) == {"SENSOR": "camera 7"}
    assert not any("is not kept" in warning for warning in result["warnings"])


def test_statistics_of_the_same_pixels_stay(tmp_path: Path):
    status, result, _ = convert(tmp_path, described(nodata=0), 1)
    assert status == 0, result["reason"]
    with rasterio.open(tmp_path / "image.tif") as raster:
        assert raster.tags(1) == {**STATISTICS, "SENSOR": "camera 7"}
