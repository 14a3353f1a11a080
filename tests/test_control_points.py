"""Ground control points place an image in the CRS that they have or are given."""

from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.warp import transform

from tests.support import compare, rasters
from tests.support.kinds import convert

HEIGHT, WIDTH = 600, 700


def with_points(crs: str | None) -> Callable[[Path], None]:
    """Return a maker of an image with nine points in degrees, on a sheared grid."""

    def make(path: Path) -> None:
        points = [
            GroundControlPoint(row, column, *place(row, column))
            for row in (0, 300 + 1 / 3, 600)
            for column in (0, 350, 700)
        ]
        with rasterio.open(
            path, "w", driver="GTiff", width=WIDTH, height=HEIGHT, count=1,
            dtype="uint8",
        ) as raster:  # fmt: skip
            raster.gcps = points, CRS.from_user_input(crs) if crs else CRS()
            raster.write(numpy.indices((HEIGHT, WIDTH)).sum(0).astype("u1"), 1)

    return make


def place(row: float, column: float) -> tuple[float, float]:
    return 12 + column / 1000 + row / 9000, 50 - row / 1000


@pytest.mark.parametrize("crs", [None, "EPSG:4326", "EPSG:32633"])
def test_the_points_get_the_assigned_crs(crs: str | None, tmp_path: Path):
    make = with_points(crs)

    status, result, image = convert(tmp_path, make, 1, "--assign-crs", "EPSG:4258")

    assert status == 0, result["reason"]
    compare.assert_same_pixels(image, tmp_path / "image.tif")
    with rasterio.open(image) as source, rasterio.open(tmp_path / "image.tif") as cog:
        points, points_crs = cog.gcps
        assert points_crs == "EPSG:4258"
        assert [(p.row, p.col, p.x, p.y, p.z) for p in points] == [
            (p.row, p.col, p.x, p.y, p.z) for p in source.gcps[0]
        ]
    assert result["crs"] == "EPSG:4258"
    assert result["warnings"] == []
    assert result["bbox"][:2] == pytest.approx([12, 49.4], abs=1e-3)


def test_points_with_an_assigned_crs_can_be_warped(tmp_path: Path):
    options = ("--assign-crs", "EPSG:4326", "--reproject", "EPSG:32633")
    status, result, _ = convert(tmp_path, with_points(None), 1, *options)
    assert status == 0, result["reason"]
    with rasterio.open(tmp_path / "image.tif") as raster:
        assert raster.crs == "EPSG:32633"
        assert raster.gcps[0] == []
    assert result["bbox"][0] == pytest.approx(12, abs=1e-2)


# In Web Mercator, the grid of the result is given where the image leaves the area of
# web maps, as at -180°.
ON_A_GRID = {
    "web tiles": ("--profile", "web"),
    "at the antimeridian": ("--reproject", "EPSG:3857"),
}


@pytest.mark.parametrize("nodata", [None, 0])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("grid", ON_A_GRID)
def test_points_place_the_pixels_of_a_warp_to_a_grid(
    grid: str, dtype: str, nodata: int | None, tmp_path: Path
):
    west = 12 if grid == "web tiles" else -179.995

    def make(path: Path) -> None:
        points = [
            GroundControlPoint(row, column, west + column / 1000, 50 - row / 1000)
            for row in (0, HEIGHT)
            for column in (0, WIDTH)
        ]
        values = numpy.tile(50 + numpy.arange(WIDTH) / 5, (HEIGHT, 1)).astype(dtype)
        with rasterio.open(
            path, "w", driver="GTiff", width=WIDTH, height=HEIGHT, count=1,
            dtype=dtype, nodata=nodata,
        ) as raster:  # fmt: skip
            raster.gcps = points, CRS.from_epsg(4326)
            raster.write(values, 1)

    status, result, _ = convert(tmp_path, make, 1, *ON_A_GRID[grid])

    assert status == 0, result["reason"]
    with rasterio.open(tmp_path / "image.tif") as raster:
        values, valid = raster.read(1), raster.dataset_mask() > 0
        rows, columns = numpy.nonzero(valid)
        x, y = raster.transform * (columns + 0.5, rows + 0.5)
        area = valid.sum() * raster.res[0] * raster.res[1]
    longitude, latitude = map(numpy.array, transform("EPSG:3857", "EPSG:4326", x, y))
    expected = 50 + (1000 * (longitude - west) - 0.5) / 5
    assert numpy.abs(values[valid] - expected).max() < 1.5
    (left, right), (bottom, top) = transform(
        "EPSG:4326", "EPSG:3857", (west, west + 0.7), (49.4, 50)
    )
    assert area == pytest.approx((right - left) * (top - bottom), rel=0.01)
    assert 49.39 < latitude.min() < 49.41


def test_a_transform_goes_before_points_in_a_file_beside_the_image(tmp_path: Path):
    def make(path: Path) -> None:
        rasters.write(path, 1)
        corners = [(0, 0, 300_000, 5_000_000), (9, 0, 300_090, 5_000_000)]
        corners.append((0, 9, 300_000, 4_999_910))
        points = "".join(
            f'<GCP Id="{x}" Pixel="{pixel}" Line="{line}" X="{x}" Y="{y}"/>'
            for pixel, line, x, y in corners
        )
        path.with_name(f"{path.name}.aux.xml").write_text(
            f'<PAMDataset><GCPList Projection="EPSG:32616">{points}</GCPList>'
            "</PAMDataset>"
        )

    status, result, _ = convert(tmp_path, make, 1)

    assert status == 0, result["reason"]
    for beside in tmp_path.glob("*.aux.xml*"):
        beside.unlink()
    with rasterio.open(tmp_path / "image.tif") as raster:
        assert (raster.crs, raster.transform) == ("EPSG:32616", rasters.TRANSFORM)
        assert raster.gcps[0] == []
    assert any("control points are not in its COG" in w for w in result["warnings"])
    assert result["crs"] == "EPSG:32616"


def test_bounds_are_in_the_crs_of_the_points(tmp_path: Path):
    _, result, _ = convert(tmp_path, with_points("EPSG:4326"), 1)
    (left, top), (right, bottom) = place(0, 0), place(HEIGHT, WIDTH)
    assert result["bounds"] == pytest.approx([left, bottom, right, top], abs=1e-6)
    assert result["crs"] == "EPSG:4326"


def test_an_image_without_a_place_has_no_bounds(tmp_path: Path):
    def make(path: Path) -> None:
        with rasterio.open(
            path, "w", driver="GTiff", width=9, height=9, count=1, dtype="uint8",
            crs="EPSG:32633",
        ):  # fmt: skip
            pass

    _, result, _ = convert(tmp_path, make, 1)
    assert result["crs"] == "EPSG:32633"
    assert result["bounds"] is None
    assert any("no georeferencing" in text for text in result["warnings"])
