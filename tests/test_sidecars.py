"""Files that stay beside the COG do not override what it says."""

import json
from pathlib import Path

import numpy
import pytest
import rasterio

from tests.support import rasters
from tests.support.node import files, run_node

OF_THE_IMAGE = (
    "<SRS>EPSG:21781</SRS><GeoTransform>600000, 1, 0, 200000, 0, -1</GeoTransform>"
)
POINTS = (
    '<GCPList Projection="EPSG:4326"><GCP Id="1" Pixel="0" Line="0" X="8" Y="47"/>'
    '<GCP Id="2" Pixel="700" Line="0" X="9" Y="47"/>'
    '<GCP Id="3" Pixel="0" Line="600" X="8" Y="46"/></GCPList>'
)
STATISTICS = (
    '<PAMRasterBand band="1"><Metadata><MDI key="STATISTICS_MAXIMUM">7</MDI>'
    "</Metadata></PAMRasterBand>"
)


def convert_beside(directory: Path, content: str, *options: str) -> dict:
    """Convert an image that has an .aux.xml file; return the result."""
    image = directory / "image.tif"
    if not image.exists():
        rasters.write(image, 1, crs=None, transform=rasterio.Affine.identity())
    image.with_name("image.tif.aux.xml").write_text(
        f"<PAMDataset>{content}</PAMDataset>"
    )
    done = run_node(directory, "image.tif", "1", *options)
    assert done.returncode == 0, done.stderr
    return json.loads((directory / "result.json").read_text())


@pytest.mark.parametrize(
    "content, options, crs",
    [
        (OF_THE_IMAGE, ("--assign-crs", "EPSG:2056"), "EPSG:2056"),
        (OF_THE_IMAGE, ("--reproject", "EPSG:4326"), "EPSG:4326"),
        (OF_THE_IMAGE, ("--profile", "web"), "EPSG:3857"),
        (POINTS, ("--reproject", "EPSG:2056"), "EPSG:2056"),
    ],
)
def test_a_sidecar_that_would_override_the_cog_is_set_aside(
    content: str, options: tuple[str, ...], crs: str, tmp_path: Path
):
    result = convert_beside(tmp_path, content, *options)

    assert "image.tif.aux.xml" not in files(tmp_path)
    assert "image.tif.aux.xml.replaced" in files(tmp_path)
    assert result["replaced_sidecars"] == ["image.tif.aux.xml"]
    assert any("image.tif.aux.xml.replaced" in text for text in result["warnings"])
    with rasterio.open(tmp_path / "image.tif") as raster:
        assert raster.crs == crs == result["crs"]
        assert list(raster.transform)[:6] == result["transform"]
        assert list(raster.bounds) == result["bounds"]
        assert raster.gcps[0] == []


def test_overviews_and_a_mask_of_the_pixels_before_warping_are_set_aside(
    tmp_path: Path,
):
    image = rasters.write(tmp_path / "image.tif", 1, width=400, height=300)
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(image, "r+") as raster:
        raster.build_overviews([2])
    internal = rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False)
    with internal, rasterio.open(image, "r+") as raster:
        raster.write_mask(numpy.full((300, 400), 255, "u1"))
    assert {"image.tif.ovr", "image.tif.msk"} <= files(tmp_path)

    done = run_node(tmp_path, "image.tif", "1", "--reproject", "EPSG:4326")

    assert done.returncode == 0, done.stderr
    assert "image.tif.ovr.replaced" in files(tmp_path)
    with rasterio.open(image) as raster:
        assert raster.overviews(1) == []
        assert raster.read_masks(1).shape == raster.shape


@pytest.mark.parametrize("content", [OF_THE_IMAGE, POINTS, OF_THE_IMAGE + STATISTICS])
def test_a_sidecar_that_agrees_with_the_cog_stays(content: str, tmp_path: Path):
    result = convert_beside(tmp_path, content)
    assert "image.tif.aux.xml" in files(tmp_path)
    assert result["replaced_sidecars"] == []
    assert result["warnings"] == []


def test_a_failed_conversion_leaves_the_sidecar(tmp_path: Path):
    rasters.write(tmp_path / "image.tif", 1)
    (tmp_path / "image.tif.aux.xml").write_text(
        f"<PAMDataset>{OF_THE_IMAGE}</PAMDataset>"
    )
    before = files(tmp_path)
    done = run_node(tmp_path, "image.tif", "3", "--assign-crs", "EPSG:2056")
    assert done.returncode == 65
    assert files(tmp_path) == before | {"result.json"}
