"""The tile index shows each image where it is, and opens as one mosaic."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy
import pyogrio
import pytest
import rasterio
import shapely.geometry
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform
from rasterio.windows import from_bounds

from catalog import tileindex
from catalog.record import Dates, Record
from tests.support import rasters, raw_tiff
from tests.support.mosaics import (
    Served,
    masked_pair,
    record_of,
    records_of,
    served,
)
from tests.support.seaweedfs import SeaweedFS

SHAPEFILE = {f"tileindex.{ext}" for ext in ("shp", "shx", "dbf", "prj", "cpg", "qix")}
GPKG, FGB = "catalog/1937/tileindex.gti.gpkg", "catalog/1937/tileindex.fgb"
SHP = "catalog/1937/tileindex.shp"
EAST = from_origin(310_000, 4_800_000, 10, 10)


@pytest.fixture
def s3(tmp_path: Path, weed: SeaweedFS) -> Iterator[Served]:
    with served(tmp_path, weed.store) as running:
        yield running


def write(s3: Served, directory: Path, *records: Record) -> set[str]:
    """Write the tile index; return the names of its files in the bucket."""
    tileindex.write(records_of(records, directory), s3.target(directory / "scratch"))
    folder = "catalog/1937/"
    return {found.key.removeprefix(folder) for found in s3.bucket.list(folder)}


def read(s3: Served, key: str) -> tuple[dict[str, list], list]:
    """Return fields and geometries of a file in the bucket, as pyogrio reads them."""
    meta, _, shapes, values = pyogrio.raw.read(s3.path(key))
    fields = dict(zip(meta["fields"], map(list, values), strict=True))
    return fields, list(shapely.from_wkb(shapes))


def same_as_cog(s3: Served, record: Record, mosaic: rasterio.DatasetReader) -> bool:
    """Return whether a mosaic has the pixels of a COG, in its own grid."""
    window = from_bounds(*record.result.bounds, mosaic.transform)
    pixels = s3.pixels(record)
    shown = mosaic.read(window=window)
    return numpy.array_equal(shown, pixels, equal_nan=pixels.dtype.kind == "f")


@pytest.mark.parametrize("server", ["SeaweedFS", "rclone"])
def test_the_geopackage_opens_as_a_mosaic_with_the_pixels_of_each_cog(
    tmp_path: Path, weed: SeaweedFS, server: str
):
    with served(tmp_path, weed.store, by=server) as s3:
        west = s3.convert("1937/a sheet (1).tif")
        east = s3.convert("1937/b.tif", transform=EAST)
        write(s3, tmp_path, west, east)
        with rasterio.open(s3.path(GPKG)) as mosaic:
            assert (mosaic.driver, mosaic.crs) == ("GTI", CRS.from_epsg(32616))
            assert mosaic.res == (10, 10)
            assert [color.name for color in mosaic.colorinterp] == [
                *("red", "green", "blue")
            ]
            assert same_as_cog(s3, west, mosaic)
            assert same_as_cog(s3, east, mosaic)
            mask = mosaic.dataset_mask()
            assert mask[:, :700].all()
            assert mask[:, 1000:].all()
            assert not mask[:, 700:1000].any()


def test_stored_no_data_stays_no_data(s3: Served, tmp_path: Path):
    file = rasters.write(tmp_path / "a.tif", 1, dtype="float32", nodata=numpy.nan)
    with rasterio.open(file, "r+") as raster:
        pixels = raster.read()
        pixels[:, :300] = numpy.nan
        raster.write(pixels)
    record = s3.convert("nodata/a.tif", 1, file=file)
    write(s3, tmp_path, record)
    with rasterio.open(s3.path(GPKG)) as mosaic:
        assert numpy.isnan(mosaic.nodata)
        assert mosaic.dtypes == ("float32",)
        # The mosaic has the whole image, and the footprint its valid half.
        assert mosaic.shape == (600, 700)
        assert same_as_cog(s3, record, mosaic)
    (footprint,) = read(s3, FGB)[1]
    (extent,) = read(s3, GPKG)[1]
    assert extent.bounds == pytest.approx(record.result.bounds)
    assert footprint.area == pytest.approx(
        shapely.geometry.shape(record.result.footprint).area
    )


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("i8", -9999), ("i8", -(2**63)), ("u8", 2**64 - 1)]
)
def test_where_an_integer_of_64_bits_means_no_data_the_image_below_shows(
    s3: Served, tmp_path: Path, dtype: str, nodata: int
):
    records = []
    for year, value, rows in ((1990, 5, 200), (1980, 6, 100)):
        values = numpy.full((300, 300), value, dtype)
        values[:rows] = nodata
        file = tmp_path / f"{year}.tif"
        raw_tiff.write_integers(file, values, nodata)
        record = s3.convert(f"integers/{file.name}", 1, file=file)
        dates = Dates(f"{year}-01-01T00:00:00Z", f"{year}-12-31T23:59:59Z")
        records.append(replace(record, dates=dates))
    write(s3, tmp_path, *records)
    with rasterio.open(s3.path(GPKG)) as mosaic:
        shown, valid = mosaic.read(1), mosaic.read_masks(1).astype(bool)
    assert not valid[:100].any()
    assert (shown[100:200] == 6).all()
    assert (shown[200:] == 5).all()
    assert valid[100:].all()


def test_an_image_across_the_antimeridian(s3: Served, tmp_path: Path):
    across = from_origin(150_000, 8_200_000, 100, 100)
    record = s3.convert("fiji/a.tif", crs="EPSG:32701", transform=across)
    write(s3, tmp_path, record)
    (footprint,) = read(s3, FGB)[1]
    west, _, east, _ = footprint.bounds
    assert (footprint.geom_type, west, east) == ("MultiPolygon", -180, 180)
    assert len(footprint.geoms) == 2
    with rasterio.open(s3.path(GPKG)) as mosaic:
        assert mosaic.crs == CRS.from_epsg(32701)
        assert same_as_cog(s3, record, mosaic)


def test_images_of_several_crs_make_a_mosaic_in_degrees(s3: Served, tmp_path: Path):
    records = [
        s3.convert("mixed/a.tif"),
        s3.convert(
            "mixed/b.tif", crs="EPSG:3071", transform=from_origin(6e5, 3e5, 20, 20)
        ),
    ]
    write(s3, tmp_path, *records)
    with rasterio.open(s3.path(GPKG)) as mosaic:
        assert mosaic.crs == CRS.from_epsg(4326)
        for record in records:
            assert _agreement(s3, record, mosaic) > 0.9


def _agreement(s3: Served, record: Record, mosaic: rasterio.DatasetReader) -> float:
    """Return the share of some places at which a mosaic shows the COG's value."""
    pixels, result = s3.pixels(record)[0], record.result
    rows, columns = numpy.mgrid[5 : result.height : 40, 5 : result.width : 40]
    a, b, c, d, e, f = result.transform
    x = a * (columns.ravel() + 0.5) + b * (rows.ravel() + 0.5) + c
    y = d * (columns.ravel() + 0.5) + e * (rows.ravel() + 0.5) + f
    places = zip(*transform(result.crs, mosaic.crs, x, y), strict=True)
    shown = [values[0] for values in mosaic.sample(places, indexes=1)]
    return float((numpy.array(shown) == pixels[rows.ravel(), columns.ravel()]).mean())


def test_a_rotated_image_is_in_its_place(s3: Served, tmp_path: Path):
    rotated = rasters.TRANSFORM * Affine.rotation(30)
    record = s3.convert("rotated/a.tif", transform=rotated)
    write(s3, tmp_path, record, s3.convert("rotated/b.tif", transform=EAST))
    with rasterio.open(s3.path(GPKG)) as mosaic:
        assert mosaic.crs == CRS.from_epsg(4326)
        assert _agreement(s3, record, mosaic) > 0.9


def test_a_crs_without_a_code(s3: Served, tmp_path: Path):
    local = CRS.from_proj4(
        "+proj=tmerc +lat_0=46.5 +lon_0=7.3 +k=1 +x_0=600 +y_0=200 +ellps=bessel "
        "+units=m +no_defs"
    )
    record = s3.convert("local/a.tif", crs=local, transform=from_origin(0, 0, 1, 1))
    assert record.result.crs.startswith("PROJCRS")
    write(s3, tmp_path, record)
    for key, form in ((FGB, "PROJCRS"), (GPKG, "PROJCRS"), (SHP, "+proj=tmerc")):
        assert read(s3, key)[0]["src_srs"][0].startswith(form)
    with rasterio.open(s3.path(GPKG)) as mosaic:
        assert mosaic.res == (1, 1)
        assert same_as_cog(s3, record, mosaic)


def test_images_with_and_without_alpha_are_one_mosaic(s3: Served, tmp_path: Path):
    opaque = s3.convert("alpha/a.tif", 3)
    clear = s3.convert("alpha/b.tif", 4, transform=EAST, photometric="RGB", alpha="yes")
    write(s3, tmp_path, opaque, clear)
    with rasterio.open(s3.path(GPKG)) as mosaic:
        assert mosaic.colorinterp[-1].name == "alpha"
        window = from_bounds(*opaque.result.bounds, mosaic.transform)
        pixels = mosaic.read(window=window)
        assert (pixels[:3] == s3.pixels(opaque)).all()
        assert (pixels[3] == 255).all()


def test_an_image_with_a_mask_lets_the_one_below_it_show(s3: Served, tmp_path: Path):
    above, below = masked_pair(s3, tmp_path)
    write(s3, tmp_path, above, below)
    with rasterio.open(s3.path(GPKG)) as mosaic:
        shown = mosaic.read()
        assert (shown[:, :, :340] == s3.pixels(below)[:, :, :340]).all()
        assert (shown[:, :, 360:] == s3.pixels(above)[:, :, 360:]).all()
        assert mosaic.dataset_mask().all()


def test_images_of_other_bands_and_types_share_what_they_have(
    s3: Served, tmp_path: Path
):
    grey = s3.convert("kinds/a.tif", 1, dtype="uint16")
    colour = s3.convert("kinds/b.tif", 3, transform=EAST)
    write(s3, tmp_path, grey, colour)
    with rasterio.open(s3.path(GPKG)) as mosaic:
        assert (mosaic.count, mosaic.dtypes) == (1, ("uint16",))
        assert same_as_cog(s3, grey, mosaic)


def test_palettes_become_colours(s3: Served, tmp_path: Path):
    records = []
    for name, red, place in (("a", 200, rasters.TRANSFORM), ("b", 90, EAST)):
        file = tmp_path / f"{name}.tif"
        profile = {"dtype": "uint8", "count": 1, "width": 300, "height": 300}
        with rasterio.open(
            file, "w", driver="GTiff", crs="EPSG:32616", transform=place, **profile
        ) as raster:
            raster.write(numpy.full((1, 300, 300), 7, "uint8"))
            raster.write_colormap(1, {7: (red, 20, 30, 255)})
        records.append(s3.convert(f"palettes/{name}.tif", 1, file=file))
    write(s3, tmp_path, *records)
    with rasterio.open(s3.path(GPKG)) as mosaic:
        for record, red in zip(records, (200, 90), strict=True):
            window = from_bounds(*record.result.bounds, mosaic.transform)
            pixels = mosaic.read(window=window)
            assert [numpy.unique(band).tolist() for band in pixels] == [
                [red],
                [20],
                [30],
            ]


def test_a_later_image_lies_above_an_earlier_one(s3: Served, tmp_path: Path):
    file = rasters.write(tmp_path / "new.tif", 3)
    with rasterio.open(file, "r+") as raster:
        raster.write(255 - raster.read())
    new = s3.convert("order/new.tif", file=file)
    new = replace(new, dates=Dates("1990-01-01T00:00:00Z", "1990-01-01T00:00:00Z"))
    old = s3.convert("order/old.tif")
    old = replace(old, dates=Dates("1937-01-01T00:00:00Z", "1937-01-01T00:00:00Z"))
    for records in ((new, old), (old, new)):
        write(s3, tmp_path, *records)
        with rasterio.open(s3.path(GPKG)) as mosaic:
            assert same_as_cog(s3, new, mosaic)


def test_the_fields_say_what_a_person_asks_first(s3: Served, tmp_path: Path):
    key = "1937/Zürich 'Süd' \"1\" & <b>.tif"
    written = write(s3, tmp_path, record_of(key))
    assert written == {"tileindex.gti.gpkg", "tileindex.fgb"} | SHAPEFILE
    common = {
        "location": [s3.path(key)],
        "src_srs": ["EPSG:32616"],
        "name": [key.removeprefix("1937/")],
        "bytes": [1000],
        "start": ["1937-01-01T00:00:00Z"],
        "end": ["1937-12-31T23:59:59Z"],
        "bands": [3],
        "gsd": [10],
        "run": ["run-1"],
    }
    more = {"manifest": ["batch-raw.csv"], "key": [key]}
    for file, fields in ((GPKG, common | more), (FGB, common | more), (SHP, common)):
        assert read(s3, file)[0] == fields
    footprint = shapely.geometry.shape(record_of(key).result.footprint)
    for file in (FGB, SHP):
        assert read(s3, file)[1][0].equals(footprint)


def test_what_is_not_known_is_null(s3: Served, tmp_path: Path):
    write(s3, tmp_path, record_of("a.tif", dates=None, gsd=None))
    for file in (FGB, SHP):
        fields = read(s3, file)[0]
        assert fields["start"] == fields["end"] == [None]
        assert numpy.isnan(fields["gsd"]).all()


def test_debians_gdal_finds_images_by_place(s3: Served, tmp_path: Path):
    def sheet(number: int) -> Record:
        west, north = number * 0.1, 50
        box = [west, north, west + 0.05, north + 0.05]
        footprint = shapely.geometry.mapping(shapely.box(*box))
        return record_of(f"{number}.tif", footprint=footprint, bbox=tuple(box))

    write(s3, tmp_path, *map(sheet, range(50)))
    around_7 = ("-spat", "0.71", "50.01", "0.72", "50.02")
    for key in (SHP, FGB):
        found = s3.run("ogrinfo", "-ro", "-al", *around_7, s3.path(key))
        assert "Feature Count: 1\n" in found
        assert "name (String) = 7.tif\n" in found
    # It is the index of the Shapefile that MapServer uses.
    assert s3.bucket.stat("catalog/1937/tileindex.qix").size > 100


def test_images_without_a_place_are_left_out(s3: Served, tmp_path: Path):
    nowhere = record_of("nowhere.tif", footprint=None, bbox=None, crs=None)
    no_crs = record_of("no-crs.tif", crs=None)
    write(s3, tmp_path, nowhere, no_crs, record_of("somewhere.tif"))
    for key in (FGB, SHP, GPKG):
        assert read(s3, key)[0]["name"] == ["somewhere.tif"]


def test_an_image_with_control_points_has_a_footprint_only(s3: Served, tmp_path: Path):
    corners = ((0, 0), (0, 700), (600, 700), (600, 0))
    points = [
        GroundControlPoint(row, column, 300_000 + 10 * column, 4_800_000 - 10 * row)
        for row, column in corners
    ]
    file = rasters.write(tmp_path / "a.tif", 3, crs=None, transform=Affine.identity())
    with rasterio.open(file, "r+") as raster:
        raster.gcps = points, CRS.from_epsg(32616)
    record = s3.convert("points/a.tif", file=file)
    other = s3.convert("points/b.tif", transform=EAST)
    write(s3, tmp_path, record, other)
    assert sorted(read(s3, FGB)[0]["name"]) == ["a.tif", "b.tif"]
    assert read(s3, GPKG)[0]["name"] == ["b.tif"]


def test_a_location_is_never_cut(
    s3: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    written = write(s3, tmp_path, record_of("short.tif"))
    assert written >= SHAPEFILE
    key = "ü" * 120 + ".tif"
    with caplog.at_level(logging.WARNING):
        written = write(s3, tmp_path, record_of("short.tif"), record_of(key))
    assert written == {"tileindex.gti.gpkg", "tileindex.fgb"}
    size = len(s3.path(key).encode())
    assert f"a location has {size} bytes, and it holds 254" in caplog.text
    assert s3.path(key) in read(s3, FGB)[0]["location"]


def test_an_index_of_nothing_is_removed(s3: Served, tmp_path: Path):
    assert write(s3, tmp_path, record_of("a.tif"))
    assert write(s3, tmp_path) == set()


def test_a_hostile_result_makes_no_file_that_gdal_cannot_open(
    s3: Served, tmp_path: Path
):
    good = s3.convert("hostile/good.tif")
    band = replace(good.result.bands_info[0], color_interpretation="x,y\0")
    hostile = [
        record_of("a.tif", transform=(0.0,) * 6),
        record_of("b.tif", transform=(1e300, 0.0, 1e300, 0.0, -1e300, 0.0)),
        record_of("c.tif", bands=2**63, bands_info=()),
        record_of("d.tif", data_type="Byte,Byte"),
        record_of("e.tif", bands_info=(band,) * 3),
        record_of("f.tif", gsd=1e-9, crs="EPSG:3857"),
        record_of("g.tif", width=2**63),
        record_of("h.tif", crs="http://127.0.0.1:1/crs"),
        record_of("i.tif", crs="EPSG:1"),
    ]
    write(s3, tmp_path, good, *hostile)
    with rasterio.open(s3.path(GPKG)) as mosaic:
        assert mosaic.count == 3


def test_the_web_address_of_a_public_bucket_is_the_location(s3: Served, tmp_path: Path):
    target = s3.target(tmp_path / "scratch", "https://maps.example.org")
    tileindex.write(records_of([record_of("1937/a b.tif")], tmp_path), target)
    locations = read(s3, FGB)[0]["location"]
    assert locations == ["/vsicurl/https://maps.example.org/1937/a%20b.tif"]
