"""A warped image is in its place, also at the poles and at the antimeridian."""

import math
from pathlib import Path

import numpy
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings, strategies
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform

from node.check import layout_faults
from node.convert import convert
from node.errors import UnsupportedRaster
from node.options import parse
from tests.support import compare

END = 20_037_508.342_789_244
MAX_LATITUDE = math.degrees(math.atan(math.sinh(math.pi)))
WEB, MERCATOR = ("--profile", "web"), ("--reproject", "EPSG:3857")
GLOBAL = {
    "from -180": from_origin(-180, 90, 0.5, 0.5),
    "from 0": from_origin(0, 90, 0.5, 0.5),
    "with its centres at -180": from_origin(-180.25, 90.25, 0.5, 0.5),
    "with its centres at 0": from_origin(-0.25, 90.25, 0.5, 0.5),
    "south up": Affine(0.5, 0, -180, 0, 0.5, -90),
}


def write(path: Path, crs: str, place: Affine, width: int, height: int) -> None:
    """Write an image whose pixels say where on the Earth they are."""
    rows, columns = numpy.mgrid[0:height, 0:width] + 0.5
    a, b, c, d, e, f = place[:6]
    x, y = a * columns + b * rows + c, d * columns + e * rows + f
    longitude, latitude = transform(crs, "EPSG:4326", x.ravel(), y.ravel())[:2]
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=3,
        dtype="float32",
        crs=crs,
        transform=place,
    ) as raster:
        raster.write(of_place(longitude, latitude).reshape(3, height, width))


def of_place(longitude, latitude) -> numpy.ndarray:
    """Return values that are continuous at the antimeridian."""
    degrees = numpy.radians(longitude)
    values = numpy.cos(degrees), numpy.sin(degrees), numpy.asarray(latitude) / 90
    return numpy.stack(values).astype("f4")


def web_map(directory: Path, words: tuple[str, ...]) -> Path:
    ((_, _, options),) = parse(["image.tif", "3", *words])
    cog = directory / "cog.tif"
    convert(directory / "image.tif", 3, options, cog, directory / "image.jpg")
    return cog


def assert_in_place(cog: Path, tolerance: float) -> numpy.ndarray:
    """Compare the valid pixels with their places, and return the mask."""
    with rasterio.open(cog) as raster:
        valid, pixels = raster.dataset_mask() > 0, raster.read()
        rows, columns = numpy.nonzero(valid)
        x, y = raster.transform @ (columns + 0.5, rows + 0.5)
        longitude, latitude = transform(raster.crs, "EPSG:4326", x, y)
    difference = numpy.abs(of_place(longitude, latitude) - pixels[:, valid])
    assert difference.max(initial=0) < tolerance
    return valid


def assert_in_tile_matrix(cog: Path) -> None:
    """Compare the grid with the tiles of 512 pixels of WebMercatorQuad."""
    with rasterio.open(cog) as raster:
        place, tile = raster.transform, 512 * raster.transform.a
        zoom = math.log2(2 * END / tile)
        tiles = (
            *((place.c + END) / tile, (END - place.f) / tile),
            *(raster.width / 512, raster.height / 512),
        )
        assert [zoom, *tiles] == pytest.approx([round(zoom), *map(round, tiles)])
        assert max(map(abs, raster.bounds)) <= END + 1e-3
    assert layout_faults(cog) == []


@pytest.mark.parametrize("grid", GLOBAL)
def test_a_global_grid_ends_where_web_maps_end(grid: str, tmp_path: Path):
    write(tmp_path / "image.tif", "EPSG:4326", GLOBAL[grid], 720, 361)

    cog = web_map(tmp_path, WEB)

    assert_in_tile_matrix(cog)
    assert assert_in_place(cog, 0.02).all()
    with rasterio.open(cog) as raster:
        assert raster.shape == (512, 512)


def test_the_resolution_is_that_of_what_is_left(tmp_path: Path):
    place = from_origin(-180, 90, 0.25, 0.25)
    write(tmp_path / "image.tif", "EPSG:4326", place, 1440, 720)

    cog = web_map(tmp_path, WEB)

    compare.assert_valid(cog)
    with rasterio.open(cog) as raster:
        assert raster.shape == (1024, 1024)
        assert raster.transform.a == pytest.approx(39_135.758)
        assert raster.bounds == pytest.approx((-END, -END, END, END))


@pytest.mark.parametrize("grid", GLOBAL)
def test_a_global_grid_in_web_mercator_has_no_poles(grid: str, tmp_path: Path):
    write(tmp_path / "image.tif", "EPSG:4326", GLOBAL[grid], 720, 361)
    cog = web_map(tmp_path, MERCATOR)
    assert assert_in_place(cog, 0.02).mean() > 0.99
    with rasterio.open(cog) as raster:
        assert max(map(abs, raster.bounds)) <= END + 1e-3
        assert 450 < raster.width == raster.height < 720


@pytest.mark.parametrize(("crs", "sign"), [("EPSG:3413", 1), ("EPSG:3031", -1)])
def test_an_image_around_a_pole_is_right_round_the_world(
    crs: str, sign: int, tmp_path: Path
):
    place = from_origin(-3e6, 3e6, 15_000, 15_000)
    write(tmp_path / "image.tif", crs, place, 400, 400)
    cog = web_map(tmp_path, WEB)
    assert_in_tile_matrix(cog)
    # A degree at the pole is a large step of its pixels.
    valid = assert_in_place(cog, 0.1)
    assert valid.any(axis=0).all()
    assert valid[0 if sign > 0 else -1].all()


@pytest.mark.parametrize("words", [WEB, MERCATOR])
@pytest.mark.parametrize("west", [160, 180, 190, -200, -180])
def test_an_image_beside_the_antimeridian_is_in_its_place(
    west: int, words: tuple[str, ...], tmp_path: Path
):
    place = from_origin(west, 10, 0.05, 0.05)
    write(tmp_path / "image.tif", "EPSG:4326", place, 400, 400)
    cog = web_map(tmp_path, words)
    valid = assert_in_place(cog, 0.01)
    with rasterio.open(cog) as raster:
        assert raster.bounds.right - raster.bounds.left < END / 3
        # 20 degrees by 20 degrees, to the height of the pixels at 10 degrees.
        assert valid.sum() * raster.res[0] ** 2 == pytest.approx(4.98e12, rel=0.01)


@pytest.mark.parametrize("words", [WEB, MERCATOR, ("--reproject", "EPSG:4326")])
@pytest.mark.parametrize(
    ("crs", "place"),
    [
        ("EPSG:32760", from_origin(7e5, 8_200_000, 300, 300)),
        ("EPSG:32701", from_origin(1e5, 8_200_000, 300, 300)),
        ("EPSG:3460", from_origin(1_900_000, 4_000_000, 1000, 1000)),
    ],
)
def test_an_image_across_the_antimeridian_is_no_picture_round_the_world(
    crs: str, place: Affine, words: tuple[str, ...], tmp_path: Path
):
    write(tmp_path / "image.tif", crs, place, 700, 600)
    with pytest.raises(UnsupportedRaster, match="antimeridian"):
        web_map(tmp_path, words)


def test_an_image_beyond_the_end_of_web_maps_says_so(tmp_path: Path):
    place = from_origin(0, 90, 0.02, 0.02)
    write(tmp_path / "image.tif", "EPSG:4326", place, 400, 200)
    with pytest.raises(UnsupportedRaster, match=r"beyond 85\.05°"):
        web_map(tmp_path, WEB)


@given(
    west=strategies.integers(-360, 360),
    north=strategies.integers(-80, 90),
    degrees=strategies.sampled_from((5, 20, 90, 180, 359, 360)),
    words=strategies.sampled_from((WEB, MERCATOR)),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_each_warped_pixel_is_in_its_place(
    tmp_path_factory, west: int, north: int, degrees: int, words: tuple[str, ...]
):
    directory = tmp_path_factory.mktemp("image")
    pixel = degrees / 300
    rows = round(min(degrees, north + 90) / pixel)
    place = from_origin(west, north, pixel, pixel)
    write(directory / "image.tif", "EPSG:4326", place, 300, rows)
    first = math.floor((west + 180) / 360)
    across = math.ceil((west + degrees + 180) / 360) - first > 1
    try:
        cog = web_map(directory, words)
    except UnsupportedRaster as error:
        if "antimeridian" in str(error):
            assert across
            assert degrees <= 180
        else:
            assert "beyond 85.05°" in str(error)
            assert north - rows * pixel >= 85
        return
    assert not across or degrees >= 180
    assert assert_in_place(cog, 0.04).any()
    if words == WEB:
        assert_in_tile_matrix(cog)
    with rasterio.open(cog) as raster:
        assert max(map(abs, raster.bounds)) <= END + 1e-3
