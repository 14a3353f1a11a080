"""The footprint, location, statistics and thumbnails in a result."""

import base64
import io
import itertools
import math
from pathlib import Path
from typing import Any

import numpy
import pyproj
import pytest
import rasterio
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasterio.transform import Affine, from_bounds, from_origin

from node import result as node_result
from node.convert import convert
from node.options import parse
from node.result import MAX_BANDS, MAX_VERTICES, THUMBNAIL_LIMITS, Result

UTM = CRS.from_epsg(32616)


def write_and_convert(
    folder: Path, pixels: numpy.ndarray, *options: str, **profile: Any
):
    """Convert an image of shape (bands, rows, columns) and return its result."""
    write(folder / "image.tif", pixels, **profile)
    return convert_image(folder, len(pixels), *options)


def write(path: Path, pixels: numpy.ndarray, **profile: Any) -> None:
    bands, height, width = pixels.shape
    size = {"count": bands, "height": height, "width": width}
    georeference = {"crs": UTM, "transform": from_origin(500_000, 4_800_000, 10, 10)}
    profile = {"driver": "GTiff", "dtype": pixels.dtype} | size | georeference | profile
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(pixels)


def convert_image(folder: Path, bands: int, *options: str) -> Result:
    ((image, bands, parsed),) = parse(["image.tif", str(bands), *options])
    files = folder / "cog.tif", folder / "jpeg.jpg"
    for file in files:
        file.unlink(missing_ok=True)
    result = convert(folder / image, bands, parsed, *files)
    # The access point accepts each field unchanged.
    content = result.to_json()
    assert node_result.Result.from_json(content).to_json() == content
    return result


def noise(*shape: int, dtype: str = "u1") -> numpy.ndarray:
    return numpy.random.default_rng(1).integers(1, 255, shape).astype(dtype)


def rings(geometry: dict) -> list[numpy.ndarray]:
    polygons = geometry["coordinates"]
    if geometry["type"] == "Polygon":
        polygons = [polygons]
    for polygon in polygons:
        assert len(polygon) == 1, "there are holes"
    return [numpy.array(polygon[0]) for polygon in polygons]


def signed_area(ring: numpy.ndarray) -> float:
    x, y = ring.T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def check_geometry(result: Result, slack: float = 0.02) -> None:
    """Check that a footprint conforms to RFC 7946 and to the limits of the project.

    Args:
        slack: how much smaller than its bounding box the footprint may be, in degrees.
    """
    assert result.footprint is not None
    assert result.bbox is not None
    assert sum(map(len, rings(result.footprint))) <= MAX_VERTICES
    _, south, _, north = result.bbox
    points = numpy.concatenate(rings(result.footprint))
    assert (numpy.abs(points) <= (180, 90)).all()
    assert points[:, 1].min() == pytest.approx(south, abs=slack)
    assert points[:, 1].max() == pytest.approx(north, abs=slack)
    for ring in rings(result.footprint):
        assert ring[0].tolist() == ring[-1].tolist()
        assert signed_area(ring) > 0, "it is clockwise"


def area_in_square_metres(geometry: dict) -> float:
    geod = pyproj.Geod(ellps="WGS84")
    return sum(geod.polygon_area_perimeter(*ring.T)[0] for ring in rings(geometry))


def contains(geometry: dict, x: float, y: float) -> bool:
    """Return whether a point is in a geometry, by counting edges to its east."""
    inside = False
    for ring in rings(geometry):
        for (x1, y1), (x2, y2) in itertools.pairwise(ring):
            if (y1 > y) != (y2 > y) and x < x1 + (y - y1) / (y2 - y1) * (x2 - x1):
                inside = not inside
    return inside


def test_the_footprint_of_an_image_without_nodata_is_its_four_corners(tmp_path: Path):
    result = write_and_convert(tmp_path, noise(3, 600, 700))
    check_geometry(result)
    to_lonlat = pyproj.Transformer.from_crs(32616, 4326, always_xy=True).transform
    corners = [
        to_lonlat(500_000 + 10 * x, 4_800_000 - 10 * y)
        for x, y in ((0, 0), (0, 600), (700, 600), (700, 0))
    ]
    (ring,) = rings(result.footprint)
    assert len(ring) == 5
    for corner in corners:
        assert min(numpy.hypot(*(ring - corner).T)) < 1e-6
    longitudes, latitudes = zip(*corners, strict=True)
    assert result.bbox == pytest.approx(
        (min(longitudes), min(latitudes), max(longitudes), max(latitudes)), abs=1e-4
    )


@pytest.mark.parametrize(
    ("crs", "transform", "expected"),
    [
        (UTM, from_origin(500_000, 4_800_000, 0.3, 0.3), 0.3),
        # Scale 1 / cos(60°) in the Web Mercator projection, roughly.
        (CRS.from_epsg(3857), from_origin(0, 8_399_738, 10, 10), 5.0),
        # A degree of latitude is about 111 km, one of longitude half as much at 60°.
        (
            CRS.from_epsg(4326),
            from_origin(10, 60, 0.001, 0.001),
            111_300 / math.sqrt(2) / 1000,
        ),
        # Rotated by 30°.
        (
            UTM,
            Affine.translation(500_000, 4_800_000)
            * Affine.rotation(30)
            * Affine.scale(2, -2),
            2.0,
        ),
        # Feet: CRS of New York, Long Island.
        (CRS.from_epsg(2263), from_origin(980_000, 200_000, 1, 1), 0.3048),
        # Equal area, with the pole at the centre, and beside it.
        (CRS.from_epsg(6931), from_origin(-20_000, 20_000, 1000, 1000), 1000),
        (CRS.from_epsg(6931), from_origin(-15_000, 22_000, 1000, 1000), 1000),
    ],
)
def test_ground_sample_distance(
    tmp_path: Path, crs: CRS, transform: Affine, expected: float
):
    result = write_and_convert(tmp_path, noise(1, 40, 40), crs=crs, transform=transform)
    assert result.gsd == pytest.approx(expected, rel=0.01)
    check_geometry(result)
    assert area_in_square_metres(result.footprint) == pytest.approx(
        (40 * result.gsd) ** 2, rel=0.01
    )


def test_corners_without_data_are_cut_off(tmp_path: Path):
    # The valid pixels form a square that is rotated by 45°.
    side = 1000
    y, x = numpy.mgrid[:side, :side]
    diamond = abs(x - side / 2) + abs(y - side / 2) < side / 2
    pixels = noise(1, side, side) * diamond
    result = write_and_convert(tmp_path, pixels, nodata=0)
    check_geometry(result)
    assert area_in_square_metres(result.footprint) == pytest.approx(
        diamond.sum() * 100, rel=0.03
    )
    assert len(rings(result.footprint)[0]) < 12
    assert result.bands_info[0].valid_percent == pytest.approx(50, abs=1)


@pytest.mark.parametrize("kind", ["nodata", "mask", "alpha", "nan"])
def test_each_way_to_mark_nodata_gives_the_same_footprint(tmp_path: Path, kind: str):
    pixels = noise(1, 700, 700)
    valid = numpy.ones((700, 700), bool)
    valid[300:, 300:] = False
    if kind == "nan":
        floats = pixels.astype("f4")
        floats[0][~valid] = numpy.nan
        result = write_and_convert(tmp_path, floats)
    elif kind == "nodata":
        result = write_and_convert(tmp_path, pixels * valid, nodata=0)
    elif kind == "alpha":
        with_alpha = numpy.stack((pixels[0], valid * numpy.uint8(255)))
        write(tmp_path / "image.tif", with_alpha, alpha="YES")
        with rasterio.open(tmp_path / "image.tif", "r+") as raster:
            raster.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
        result = convert_image(tmp_path, 2)
    else:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            write(tmp_path / "image.tif", pixels)
            with rasterio.open(tmp_path / "image.tif", "r+") as raster:
                raster.write_mask(valid)
        result = convert_image(tmp_path, 1)
    check_geometry(result)
    assert area_in_square_metres(result.footprint) == pytest.approx(
        valid.sum() * 100, rel=0.02
    )
    assert len(rings(result.footprint)[0]) == 7
    assert result.bands_info[0].valid_percent == pytest.approx(
        100 * valid.mean(), abs=0.5
    )


def test_islands_are_several_polygons_and_holes_are_filled(tmp_path: Path):
    valid = numpy.zeros((800, 800), bool)
    valid[50:350, 50:350] = True
    valid[150:250, 150:250] = False
    valid[500:700, 400:700] = True
    result = write_and_convert(tmp_path, noise(1, 800, 800) * valid, nodata=0)
    check_geometry(result)
    assert result.footprint["type"] == "MultiPolygon"
    areas = [
        area_in_square_metres({"type": "Polygon", "coordinates": [ring.tolist()]})
        for ring in rings(result.footprint)
    ]
    assert areas == [
        pytest.approx(300 * 300 * 100, rel=0.03),
        pytest.approx(200 * 300 * 100, rel=0.03),
    ]


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.3, 0.7, 0.999])
def test_an_image_with_random_nodata_has_a_footprint(tmp_path: Path, share: float):
    valid = numpy.random.default_rng(2).random((900, 900)) < share
    result = write_and_convert(tmp_path, noise(1, 900, 900) * valid, nodata=0)
    check_geometry(result)
    assert area_in_square_metres(result.footprint) > 0.5 * 9000 * 9000


def test_a_ragged_outline_has_few_vertices(tmp_path: Path):
    y, x = numpy.mgrid[:1024, :1024] - 512
    angle = numpy.arctan2(y, x)
    valid = numpy.hypot(x, y) < 350 + 100 * numpy.sin(23 * angle)
    result = write_and_convert(tmp_path, noise(1, 1024, 1024) * valid, nodata=0)
    check_geometry(result)
    assert area_in_square_metres(result.footprint) == pytest.approx(
        valid.sum() * 100, rel=0.35
    )


def test_an_image_without_data_has_no_footprint(tmp_path: Path):
    result = write_and_convert(tmp_path, numpy.zeros((2, 300, 300), "u2"), nodata=0)
    assert (result.footprint, result.bbox) == (None, None)
    assert result.gsd == pytest.approx(10, rel=0.01)
    for band in result.bands_info:
        assert (band.minimum, band.maximum, band.mean, band.stddev) == (None,) * 4
        assert band.valid_percent == 0


def test_a_footprint_across_the_antimeridian_has_two_polygons(tmp_path: Path):
    crs = CRS.from_epsg(32601)  # from 180° to 174° W
    origin = from_origin(166_000, 200_000, 100, 100)
    result = write_and_convert(
        tmp_path,
        noise(1, 400, 800),
        crs=crs,
        transform=origin * Affine.translation(-400, 0),
    )
    check_geometry(result)
    assert result.footprint["type"] == "MultiPolygon"
    west, _, east, _ = result.bbox
    assert 179 < west < 180
    assert -180 < east < -179
    sides = {bool(ring[:, 0].min() > 0) for ring in rings(result.footprint)}
    assert sides == {True, False}
    assert area_in_square_metres(result.footprint) == pytest.approx(
        400 * 800 * 100**2, rel=0.01
    )


@pytest.mark.parametrize(
    ("bounds", "bbox"),
    [
        ((-180, -90, 180, 90), (-180, -90, 180, 90)),
        ((0, -90, 360, 90), (-180, -90, 180, 90)),
        ((-180.25, -90.25, 179.75, 90.25), (-180, -90, 180, 90)),
        ((0, -45, 180, 45), (0, -45, 180, 45)),
        ((90, -45, 270, 45), (90, -45, -90, 45)),
    ],
)
def test_longitudes_are_within_180_degrees(
    tmp_path: Path, bounds: tuple[float, ...], bbox: tuple[float, ...]
):
    result = write_and_convert(
        tmp_path,
        noise(1, 300, 600),
        crs=CRS.from_epsg(4326),
        transform=from_bounds(*bounds, 600, 300),
    )
    check_geometry(result)
    assert result.bbox == pytest.approx(bbox)
    degrees = sum(map(signed_area, rings(result.footprint)))
    width, height = min(360, bounds[2] - bounds[0]), bbox[3] - bbox[1]
    assert degrees == pytest.approx(width * height, rel=0.01)


@pytest.mark.parametrize(("code", "sign"), [(3413, 1), (3031, -1)])
def test_a_footprint_contains_its_pole(tmp_path: Path, code: int, sign: int):
    result = write_and_convert(
        tmp_path,
        noise(1, 400, 400),
        crs=CRS.from_epsg(code),
        transform=from_origin(-2_000_000, 2_000_000, 10_000, 10_000),
    )
    check_geometry(result)
    west, south, east, north = result.bbox
    assert (west, east) == (-180, 180)
    assert (north if sign > 0 else south) == 90 * sign
    for longitude in range(-175, 180, 10):
        assert contains(result.footprint, longitude, 85 * sign)
        assert not contains(result.footprint, longitude, 60 * sign)


def test_a_footprint_with_a_corner_at_a_pole(tmp_path: Path):
    result = write_and_convert(
        tmp_path,
        noise(1, 400, 400),
        crs=CRS.from_epsg(3413),
        transform=from_origin(0, 0, 1000, 1000),
    )
    check_geometry(result)
    # The image is the quadrant from 45° W, which points down, to 45° E.
    assert result.bbox[3] == 90
    for longitude in (-40, 0, 40):
        assert contains(result.footprint, longitude, 89.9)
    for longitude in (-50, 50, 170):
        assert not contains(result.footprint, longitude, 89.9)


def test_the_footprint_of_a_full_disk_image_ends_at_the_edge_of_the_earth(
    tmp_path: Path,
):
    crs = CRS.from_proj4("+proj=geos +h=35785831 +lon_0=0 +sweep=y +datum=WGS84")
    edge = 5_500_000
    result = write_and_convert(
        tmp_path,
        noise(1, 550, 550),
        crs=crs,
        transform=from_origin(-edge, edge, 20_000, 20_000),
    )
    check_geometry(result, slack=2)
    west, south, east, north = result.bbox
    assert -82 < west < -70 < 70 < east < 82
    assert -82 < south < -70 < 70 < north < 82
    assert result.warnings == ()
    assert result.crs.startswith("PROJCRS")
    assert result.projjson["type"] == "ProjectedCRS"


def test_an_image_without_a_crs_has_no_location(tmp_path: Path):
    result = write_and_convert(tmp_path, noise(1, 300, 300), "--allow-no-crs", crs=None)
    location = result.crs, result.projjson, result.gsd, result.footprint, result.bbox
    assert location == (None,) * 5
    assert result.bands_info
    assert result.thumbnails


def test_an_image_with_an_engineering_crs_has_no_footprint(tmp_path: Path):
    crs = CRS.from_wkt('LOCAL_CS["building site",UNIT["metre",1]]')
    result = write_and_convert(tmp_path, noise(1, 300, 300), crs=crs)
    assert (result.gsd, result.footprint, result.bbox) == (None, None, None)
    assert any("footprint cannot be computed" in text for text in result.warnings)
    assert "building site" in result.crs


@pytest.mark.parametrize(
    ("crs", "expected"),
    [
        ("EPSG:32633", "EPSG:32633"),
        # Monte Mario with other parameters than those of EPSG:23033, 190 m apart.
        ("+proj=utm +zone=33 +ellps=intl +towgs84=-104.1,-49.1,-9.9", None),
        ("+proj=utm +zone=33 +ellps=GRS80", None),
    ],
)
def test_a_crs_has_a_code_if_it_is_just_that_crs(
    crs: str, expected: str | None, tmp_path: Path
):
    place = from_origin(400_000, 4_600_000, 10, 10)
    result = write_and_convert(tmp_path, noise(1, 30, 30), crs=crs, transform=place)
    with rasterio.open(tmp_path / "cog.tif") as raster:
        assert CRS.from_user_input(result.crs) == raster.crs
    assert (result.crs if expected else None) == expected
    assert (result.projjson is None) == bool(expected)


def test_a_few_valid_pixels_have_a_footprint(tmp_path: Path):
    pixels = numpy.zeros((1, 2000, 2000), "u1")
    pixels[0, 900:904, 900:904] = 7
    result = write_and_convert(tmp_path, pixels, nodata=0)
    check_geometry(result)
    assert area_in_square_metres(result.footprint) < 1e5


def test_ground_control_points_locate_an_image(tmp_path: Path):
    points = [
        GroundControlPoint(row, column, 10 + column / 1000, 50 - row / 1000)
        for row in (0, 300)
        for column in (0, 400)
    ]
    write(tmp_path / "image.tif", noise(1, 300, 400), crs=None, transform=None)
    with rasterio.open(tmp_path / "image.tif", "r+") as raster:
        raster.gcps = points, CRS.from_epsg(4326)
    result = convert_image(tmp_path, 1)
    check_geometry(result)
    assert result.crs == "EPSG:4326"
    assert result.bbox == pytest.approx((10, 49.7, 10.4, 50), abs=1e-4)


def write_with_rpcs(path: Path) -> None:
    """Write an image that RPCs place at 9.8° to 10.2° east, 49.85° to 50.15° north."""
    linear = [0.0] * 20
    # The coefficients apply to the normalized latitude and longitude, in the order of
    # NITF's RPC00B.
    line, sample = linear.copy(), linear.copy()
    line[2], sample[1] = -1.0, 1.0
    one = [1.0, *[0.0] * 19]
    rpcs = RPC(
        **{"height_off": 100, "height_scale": 100},
        **{"lat_off": 50, "lat_scale": 0.15, "long_off": 10, "long_scale": 0.2},
        **{"line_off": 150, "line_scale": 150, "samp_off": 200, "samp_scale": 200},
        **{"line_num_coeff": line, "line_den_coeff": one},
        **{"samp_num_coeff": sample, "samp_den_coeff": one},
        err_bias=None,
        err_rand=None,
    )
    write(path, noise(1, 300, 400), crs=None, transform=None)
    with rasterio.open(path, "r+") as raster:
        raster.rpcs = rpcs


@pytest.mark.parametrize(
    "options", [(), ("--assign-crs", "EPSG:4326", "--profile", "web")]
)
def test_rational_polynomial_coefficients_locate_an_image(
    options: tuple[str, ...], tmp_path: Path
):
    write_with_rpcs(tmp_path / "image.tif")
    result = convert_image(tmp_path, 1, *options)
    check_geometry(result)
    assert result.bbox == pytest.approx((9.8, 49.85, 10.2, 50.15), abs=4e-3)
    assert result.bands_info[0].mean == pytest.approx(127, abs=3)


@pytest.mark.parametrize("code", ["EPSG:3857", "EPSG:4326"])
def test_a_warped_image_keeps_its_location(tmp_path: Path, code: str):
    pixels = noise(1, 600, 600)
    before = write_and_convert(tmp_path, pixels)
    after = convert_image(tmp_path, 1, "--reproject", code)
    check_geometry(after)
    assert after.crs == code
    assert after.bbox == pytest.approx(before.bbox, abs=5e-4)
    assert area_in_square_metres(after.footprint) == pytest.approx(
        area_in_square_metres(before.footprint), rel=0.03
    )


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("side", [200, 1100])
def test_the_statistics_match_the_pixels(tmp_path: Path, dtype: str, side: int):
    y, x = numpy.mgrid[:side, :side]
    smooth = 100 + 60 * numpy.sin(x / 150) + 30 * numpy.cos(y / 99)
    pixels = numpy.stack((smooth, 255 - smooth)).astype(dtype)
    pixels[:, : side // 4] = 0
    result = write_and_convert(tmp_path, pixels, nodata=0)
    for band, values in zip(result.bands_info, pixels, strict=True):
        valid = values[values != 0]
        assert band.data_type == numpy.dtype(dtype).name
        assert band.nodata == 0
        assert band.mean == pytest.approx(valid.mean(), rel=0.01)
        assert band.stddev == pytest.approx(valid.std(), rel=0.02)
        assert band.minimum == pytest.approx(valid.min(), abs=3)
        assert band.maximum == pytest.approx(valid.max(), abs=3)
        assert band.valid_percent == pytest.approx(75, abs=1)
        if side == 200:
            # Without overviews, the statistics are exact.
            assert band.mean == pytest.approx(valid.mean(), rel=1e-6)
            assert band.stddev == pytest.approx(valid.astype("f8").std(), rel=1e-6)
            assert band.minimum == valid.min()


def test_the_metadata_of_a_band_are_in_the_result(tmp_path: Path):
    write(tmp_path / "image.tif", noise(2, 100, 100, dtype="i2"))
    with rasterio.open(tmp_path / "image.tif", "r+") as raster:
        raster.descriptions = ("height", "x" * 500)
        raster.units = ("m", "")
        raster.scales = (0.1, 1.0)
        raster.offsets = (-100.0, 0.0)
    first, second = convert_image(tmp_path, 2).bands_info
    assert (first.description, first.unit) == ("height", "m")
    assert (first.scale, first.offset) == (0.1, -100.0)
    assert first.color_interpretation == "gray"
    assert (second.description, second.unit) == ("x" * 80, None)


def test_a_name_that_is_not_utf_8_costs_a_band_only_its_name(tmp_path: Path):
    image = tmp_path / "image.tif"
    write(image, noise(3, 100, 100), nodata=7)
    with rasterio.open(image, "r+") as raster:
        raster.descriptions = ("red", "XXhe", "Länge")
        raster.units = ("m", "°", "YYd")
    latin_1 = image.read_bytes().replace(b"XX", b"H\xf6").replace(b"YY", b"r\xe4")
    image.write_bytes(latin_1)
    result = convert_image(tmp_path, 3)
    bands = result.bands_info
    assert [band.description for band in bands] == ["red", None, "Länge"]
    assert [band.unit for band in bands] == ["m", "°", None]
    for band in bands:
        assert (band.nodata, band.maximum) == (7, 254)
    assert result.warnings == ()


def test_nan_and_infinity_are_left_out_of_the_statistics(tmp_path: Path):
    pixels = noise(1, 100, 100, dtype="f4")
    pixels[0, :10] = numpy.nan
    pixels[0, 10:20] = numpy.inf
    (band,) = write_and_convert(tmp_path, pixels, nodata=float("nan")).bands_info
    assert band.mean == pytest.approx(pixels[0, 20:].mean())
    assert band.valid_percent == 80
    assert math.isnan(band.nodata)


def test_a_mean_that_would_overflow_is_left_out(tmp_path: Path):
    pixels = numpy.full((1, 64, 64), 1.7e308)
    (band,) = write_and_convert(tmp_path, pixels).bands_info
    assert (band.mean, band.stddev) == (None, None)


@pytest.mark.parametrize("value", [1e200, -numpy.finfo("f8").max])
def test_squares_that_would_overflow_are_left_out(value: float, tmp_path: Path):
    pixels = noise(1, 1200, 1200, dtype="f8")
    pixels[0, :600] = value
    (band,) = write_and_convert(tmp_path, pixels).bands_info
    assert band.stddev is None
    assert value in (band.minimum, band.maximum)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020:02:29 23:59:58", "2020-02-29T23:59:58"),
        ("0000:00:00 00:00:00", None),
        ("2021:02:29 12:00:00", None),
        ("2020:13:45 25:61:61", None),
    ],
)
def test_a_date_is_one_of_the_calendar(text: str, expected: str | None, tmp_path: Path):
    write(tmp_path / "image.tif", noise(1, 9, 9))
    with rasterio.open(tmp_path / "image.tif", "r+") as raster:
        raster.update_tags(TIFFTAG_DATETIME=text)
    assert convert_image(tmp_path, 1).datetime == expected


@pytest.mark.parametrize(("height", "width"), [(1, 1100), (2, 3000), (3000, 1)])
def test_a_thin_image_has_a_footprint(height: int, width: int, tmp_path: Path):
    result = write_and_convert(tmp_path, noise(1, height, width))
    check_geometry(result)
    assert area_in_square_metres(result.footprint) == pytest.approx(
        height * width * 100, rel=0.02
    )


@pytest.mark.parametrize(("across", "down"), [(10, 10), (-10, -10), (-10, 10)])
def test_bounds_go_from_west_to_east_and_from_south_to_north(
    across: int, down: int, tmp_path: Path
):
    place = Affine(across, 0, 500_000, 0, down, 4_000_000)
    result = write_and_convert(tmp_path, noise(1, 30, 20), transform=place)
    xs, ys = (500_000, 500_000 + 20 * across), (4_000_000, 4_000_000 + 30 * down)
    assert result.bounds == (min(xs), min(ys), max(xs), max(ys))


def test_a_transform_without_an_area_is_a_warning(tmp_path: Path):
    place = Affine(0, 0, 500_000, 0, 0, 4_000_000)
    result = write_and_convert(tmp_path, noise(1, 9, 9), transform=place)
    assert (result.footprint, result.gsd) == (None, None)
    (warning,) = result.warnings
    assert "gives different pixels the same place" in warning


def test_only_the_first_of_very_many_bands_are_described(tmp_path: Path):
    pixels = noise(1000, 4, 4)
    result = write_and_convert(tmp_path, pixels, "--co", "BLOCKSIZE=128")
    assert result.bands == 1000
    assert len(result.bands_info) == MAX_BANDS
    assert result.bands_info[-1].mean == pytest.approx(pixels[MAX_BANDS - 1].mean())


def test_complex_numbers_have_no_statistics(tmp_path: Path):
    pixels = noise(1, 300, 300, dtype="c8")
    result = write_and_convert(tmp_path, pixels)
    (band,) = result.bands_info
    assert (band.mean, band.valid_percent) == (None, 100)
    check_geometry(result)
    assert result.thumbnails


@pytest.mark.parametrize("kind", ["palette", "one bit", "white is zero"])
def test_class_values_have_statistics_and_colours(tmp_path: Path, kind: str):
    pixels = numpy.zeros((1, 300, 300), "u1")
    pixels[:, :, 150:] = 1
    profile = {
        "palette": {"photometric": "palette"},
        "one bit": {"nbits": 1},
        "white is zero": {"photometric": "MINISWHITE"},
    }[kind]
    write(tmp_path / "image.tif", pixels, **profile)
    if kind == "palette":
        with rasterio.open(tmp_path / "image.tif", "r+") as raster:
            raster.write_colormap(1, {0: (255, 0, 0), 1: (0, 0, 255)})
    result = convert_image(tmp_path, 1)
    check_geometry(result)
    (band,) = result.bands_info
    assert (band.minimum, band.maximum, band.mean) == (0, 1, 0.5)
    if kind == "palette":
        with Image.open(io.BytesIO(result.thumbnails[0].content())) as thumbnail:
            red, _, blue = thumbnail.getpixel((20, 128))
            assert red > 200 > 50 > blue


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((3, 1500, 1500), ()),
        ((1, 40, 1300), ()),
        ((4, 900, 700), ("--op", "overview_level=0")),
        ((1, 700, 700), ("--co", "BLOCKSIZE=128")),
        ((3, 1, 1), ()),
        ((2, 3, 1025), ()),
    ],
)
def test_thumbnails_are_small_webp_files(
    tmp_path: Path, shape: tuple[int, int, int], options: tuple[str, ...]
):
    # Noise is the worst case for compression.
    pixels = noise(*shape, dtype="u2" if shape[0] == 1 else "u1")
    result = write_and_convert(tmp_path, pixels, *options)
    assert len(result.thumbnails) == 2
    _, height, width = shape
    for thumbnail, (side, size) in zip(
        result.thumbnails, THUMBNAIL_LIMITS, strict=True
    ):
        content = base64.b64decode(thumbnail.webp)
        assert len(content) == thumbnail.bytes <= size
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            assert image.format == "WEBP"
            assert image.size == (thumbnail.width, thumbnail.height)
        assert max(image.size) <= side
        if max(width, height) >= side:
            assert max(image.size) == side


def test_a_thumbnail_looks_like_the_image(tmp_path: Path):
    y, x = numpy.mgrid[:2000, :2000] // 8
    pixels = numpy.stack((x, y, 255 - x)).astype("u1")
    result = write_and_convert(tmp_path, pixels)
    for thumbnail in result.thumbnails:
        with Image.open(io.BytesIO(thumbnail.content())) as image:
            side = thumbnail.width
            for column, row in ((0.2, 0.3), (0.5, 0.5), (0.8, 0.4)):
                at = int(column * side), int(row * side)
                expected = (250 * column, 250 * row, 255 - 250 * column)
                assert image.getpixel(at) == pytest.approx(expected, abs=16)


def test_a_copied_cog_has_a_full_description_too(tmp_path: Path):
    original = write_and_convert(tmp_path, noise(3, 1200, 1200))
    (tmp_path / "cog.tif").rename(tmp_path / "image.tif")
    copy = convert_image(tmp_path, 3, "--copy-valid-cog")
    assert copy.copied
    assert copy.footprint == original.footprint
    assert len(copy.thumbnails) == 2
    assert copy.bands_info[0].mean == pytest.approx(
        original.bands_info[0].mean, rel=0.02
    )
