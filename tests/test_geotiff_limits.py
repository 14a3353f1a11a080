"""What a GeoTIFF cannot hold is refused for good, with a remedy."""

from pathlib import Path

import numpy
import pytest
import rasterio
from rasterio.crs import CRS

from tests.support import compare, rasters
from tests.support.kinds import Make, convert

ROTATED_POLE = (
    "+proj=ob_tran +o_proj=longlat +lon_0=-162 +o_lat_p=39.25 +o_lon_p=180 "
    "+R=6371229 +no_defs"
)
NO_DATA = "<NoDataValue>{}</NoDataValue>"
COLOURS = (
    "<ColorInterp>Palette</ColorInterp>"
    '<ColorTable><Entry c1="9" c2="8" c3="7" c4="{}"/></ColorTable>'
)


def with_bands(*descriptions: str, **options) -> Make:
    """Return a maker of an image whose .aux.xml file describes its bands."""

    def make(path: Path) -> None:
        rasters.write(path, len(descriptions), **options)
        bands = "".join(
            f'<PAMRasterBand band="{band}">{description}</PAMRasterBand>'
            for band, description in enumerate(descriptions, start=1)
        )
        path.with_name(f"{path.name}.aux.xml").write_text(
            f"<PAMDataset>{bands}</PAMDataset>"
        )

    return make


def in_crs(text: str) -> Make:
    return lambda path: rasters.write(path, 1, crs=CRS.from_user_input(text))


REFUSED: dict[str, tuple[Make, int, str]] = {
    "two nodata values": (
        with_bands(NO_DATA.format(-9999), NO_DATA.format(0), dtype="int16"),
        2,
        "give them one value",
    ),
    "nodata of the first band only": (
        with_bands(NO_DATA.format(7), ""),
        2,
        "give them one value",
    ),
    "nodata of the second band only": (
        with_bands("", NO_DATA.format(7)),
        2,
        "give them one value",
    ),
    "a rotated pole": (in_crs(ROTATED_POLE), 1, "--reproject"),
    "icosahedral": (in_crs("+proj=isea"), 1, "--reproject"),
    "colours of 32 bits": (
        with_bands(COLOURS.format(255), dtype="int32"),
        1,
        "remove the colour table",
    ),
    "colours of floating point": (
        with_bands(COLOURS.format(255), dtype="float32"),
        1,
        "remove the colour table",
    ),
    "colours of signed bytes": (
        with_bands(COLOURS.format(255), dtype="int8"),
        1,
        "remove the colour table",
    ),
    "transparent colours": (with_bands(COLOURS.format(0)), 1, "-expand rgba"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_geotiff_cannot_hold_is_refused(kind: str, tmp_path: Path):
    make, bands, remedy = REFUSED[kind]
    status, result, _ = convert(tmp_path, make, bands)
    assert (status, result["code"]) == (65, "unsupported-raster")
    assert remedy in result["reason"]


def test_a_crs_that_a_geotiff_cannot_hold_can_be_warped(tmp_path: Path):
    def make(path: Path) -> None:
        transform = rasterio.Affine(0.11, 0, -20, 0, -0.11, 20)
        crs = CRS.from_user_input(ROTATED_POLE)
        rasters.write(path, 1, crs=crs, transform=transform)

    status, result, _ = convert(tmp_path, make, 1, "--reproject", "EPSG:4326")
    assert status == 0, result["reason"]
    assert result["crs"] == "EPSG:4326"


def test_one_nodata_value_for_all_bands_is_kept(tmp_path: Path):
    make = with_bands(*[NO_DATA.format("nan")] * 2, dtype="float32")
    status, result, _ = convert(tmp_path, make, 2)
    assert status == 0, result["reason"]
    with rasterio.open(tmp_path / "image.tif") as raster:
        assert all(map(numpy.isnan, raster.nodatavals))


def test_scales_that_are_not_numbers_are_kept(tmp_path: Path):
    make = with_bands("<Scale>nan</Scale><Offset>inf</Offset>")
    status, result, image = convert(tmp_path, make, 1)
    assert status == 0, result["reason"]
    compare.assert_same_pixels(image, tmp_path / "image.tif")
