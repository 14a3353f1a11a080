"""Heights keep the coordinate reference system that they are measured in."""

from pathlib import Path

import numpy
import pytest
import rasterio
from rasterio.crs import CRS

from tests.support import raw_tiff
from tests.support.kinds import Make, convert
from tests.support.raw_tiff import DOUBLE, SHORT

NAVD88, NAVD88_FEET, UTM_16, NAD83 = 5703, 6360, 26916, 4269
PROJECTED, GEOGRAPHIC, VERTICAL, VERTICAL_UNITS = 3072, 2048, 4096, 4099


def with_keys(horizontal: tuple[int, int], *vertical: tuple[int, int]) -> Make:
    """Return a maker of an image that has keys of GeoTIFF 1.0."""
    model = 1 if horizontal[0] == PROJECTED else 2
    keys = ((1024, model), (1025, 1), horizontal, *vertical)
    entries = [number for key, value in keys for number in (key, 0, 1, value)]
    tags: dict[int, tuple[int, raw_tiff.Value]] = {
        259: (SHORT, (1,)),
        34735: (SHORT, (1, 1, 0, len(keys), *entries)),
    }
    if horizontal[0] == GEOGRAPHIC:
        tags[33550] = DOUBLE, (0.001, 0.001, 0.0)
        tags[33922] = DOUBLE, (0.0, 0.0, 0.0, -90.0, 45.0, 0.0)
    pixels = numpy.indices((600, 700)).sum(0).astype("u1").tobytes()
    return lambda path: raw_tiff.write(path, 700, 600, 600, [pixels], tags)


@pytest.mark.parametrize(
    ("horizontal", "vertical"),
    [
        ((PROJECTED, UTM_16), NAVD88),
        ((PROJECTED, UTM_16), NAVD88_FEET),
        ((GEOGRAPHIC, NAD83), NAVD88),
    ],
)
def test_a_vertical_crs_of_geotiff_1_0_is_kept(
    horizontal: tuple[int, int], vertical: int, tmp_path: Path
):
    make = with_keys(horizontal, (VERTICAL, vertical))

    status, result, image = convert(tmp_path, make, 1)

    assert status == 0, result["reason"]
    expected = CRS.from_user_input(f"EPSG:{horizontal[1]}+{vertical}")
    with rasterio.open(image) as source, rasterio.open(tmp_path / "image.tif") as cog:
        assert cog.crs == expected
        assert cog.transform == source.transform
    assert CRS.from_user_input(result["crs"]) == expected
    assert result["warnings"] == []
    assert result["bbox"] is not None


@pytest.mark.parametrize(
    "vertical", [((VERTICAL_UNITS, 9001),), ((VERTICAL, 5030),), ((VERTICAL, 32767),)]
)
def test_a_vertical_crs_without_a_code_does_no_harm(
    vertical: tuple[tuple[int, int], ...], tmp_path: Path
):
    make = with_keys((PROJECTED, UTM_16), *vertical)
    status, result, _ = convert(tmp_path, make, 1)
    assert status == 0, result["reason"]
    with rasterio.open(tmp_path / "image.tif") as cog:
        assert "NAD83 / UTM zone 16N" in cog.crs.to_wkt()


@pytest.mark.parametrize(
    "options", [("--reproject", "EPSG:4326"), ("--profile", "web")]
)
def test_an_image_with_a_vertical_crs_is_warped_as_without(
    options: tuple[str, ...], tmp_path: Path
):
    horizontal = PROJECTED, UTM_16
    pixels = []
    for name, vertical in (("with", [(VERTICAL, NAVD88)]), ("without", [])):
        directory = tmp_path / name
        directory.mkdir()
        make = with_keys(horizontal, *vertical)
        status, result, _ = convert(directory, make, 1, *options)
        assert status == 0, result["reason"]
        with rasterio.open(directory / "image.tif") as raster:
            pixels.append(raster.read())
    numpy.testing.assert_array_equal(*pixels)


def test_an_assigned_crs_replaces_the_vertical_one(tmp_path: Path):
    make = with_keys((PROJECTED, UTM_16), (VERTICAL, NAVD88))
    status, result, _ = convert(tmp_path, make, 1, "--assign-crs", "EPSG:32616")
    assert status == 0, result["reason"]
    with rasterio.open(tmp_path / "image.tif") as raster:
        assert raster.crs == "EPSG:32616"
