"""All products of a run have the footprints of the valid pixels of the sources."""

import gzip
import json
import posixpath
import secrets
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

import duckdb
import numpy
import pyogrio
import pytest
import rasterio
import shapely
from rasterio.features import shapes
from rasterio.transform import from_origin
from rasterio.warp import transform_geom
from shapely.geometry import box, shape
from shapely.ops import unary_union

from bucket import Bucket
from lab.support.postgres import ARCHIVE, Postgres
from tests.support.archive import ALL, Archive

Footprints = dict[str, shapely.Geometry]
# How much two outlines of the same pixels have in common: a footprint is made of a
# sample of 256 pixels, and has at most 50 vertices.
_ALIKE = 0.95
_COLLECTION = "catalog/sheets/"


def upload(
    archive: Archive, key: str, valid: numpy.ndarray, **grid
) -> shapely.Geometry:
    """Upload an image with valid pixels; return their outline in degrees."""
    file = archive.upload_raster(key, 3, nodata=0, **grid)
    with rasterio.open(file, "r+") as image:
        image.write(numpy.where(valid, numpy.maximum(image.read(), 1), 0))
        outline = shapes(valid.astype("uint8"), valid, transform=image.transform)
        polygons = [transform_geom(image.crs, "EPSG:4326", each) for each, _ in outline]
    archive.maps.upload(key, file)
    return unary_union([shape(polygon) for polygon in polygons])


@pytest.fixture
def expected(archive: Archive) -> Footprints:
    """Upload images, and return the outlines of their valid pixels."""
    rows, columns = numpy.indices((600, 700))
    frame = (rows > 150) & (rows < 500) & (columns > 200) & (columns < 650)
    triangle = columns > rows
    # Both sides of 180 degrees, near Fiji.
    fiji = {"crs": "EPSG:32701", "transform": from_origin(145_700, 8_120_000, 100, 100)}
    return {
        "sheets/frame.tif": upload(archive, "sheets/frame.tif", frame),
        "sheets/triangle.tif": upload(archive, "sheets/triangle.tif", triangle),
        "sheets/fiji.tif": upload(archive, "sheets/fiji.tif", frame, **fiji),
    }


def alike(one: shapely.Geometry, other: shapely.Geometry) -> float:
    """Return the share of two areas that they have in common."""
    return one.intersection(other).area / one.union(other).area


def in_stac(cogs: Bucket) -> Footprints:
    found = {}
    for stored in cogs.list(f"{_COLLECTION}items/"):
        item = json.loads(cogs.read(stored.key, ALL))
        href = unquote(item["assets"]["cog"]["href"])
        folder = posixpath.dirname(stored.key)
        key = posixpath.normpath(posixpath.join(folder, href))
        found[key] = shape(item["geometry"])
    return found


def in_parquet(file: Path, bucket: str) -> Footprints:
    query = "SELECT assets.cog.href, geometry FROM read_parquet(?)"
    rows = duckdb.execute(query, [str(file)]).fetchall()
    place = f"s3://{bucket}/"
    return {href.removeprefix(place): shapely.from_wkb(bytes(w)) for href, w in rows}


def in_tile_index(file: Path, bucket: str) -> Footprints:
    _, _, geometries, (locations,) = pyogrio.raw.read(file, columns=["location"])
    place = f"/vsis3/{bucket}/"
    keys = (location.removeprefix(place) for location in locations)
    return dict(zip(keys, shapely.from_wkb(geometries), strict=True))


def in_database(postgres: Postgres, database: str) -> Footprints:
    query = "SELECT key, ST_AsBinary(footprint) FROM cog_pipeline_images"
    with postgres.connect(database, ARCHIVE) as connection:
        rows = connection.execute(query).fetchall()
    return {key: shapely.from_wkb(bytes(binary)) for key, binary in rows}


def tiles_of(cogs: Bucket) -> Mapping[str, list[shapely.Geometry]]:
    """Return the boxes of the tiles in which the mosaic names each image."""
    (stored,) = cogs.list("mosaics/")
    mosaic = json.loads(gzip.decompress(cogs.read(stored.key, ALL)))
    found: dict[str, list[shapely.Geometry]] = {}
    for quadkey, urls in mosaic["tiles"].items():
        for url in urls:
            tiles = found.setdefault(url.removeprefix(f"s3://{cogs.name}/"), [])
            tiles.append(tile_box(quadkey))
    return found


def tile_box(quadkey: str) -> shapely.Geometry:
    """Return the box of a tile in degrees.

    https://learn.microsoft.com/en-us/bingmaps/articles/bing-maps-tile-system
    """
    side = 2 ** len(quadkey)
    column = int("".join(str(int(digit) & 1) for digit in quadkey), 2)
    row = int("".join(str(int(digit) >> 1) for digit in quadkey), 2)

    def latitude(row: int) -> float:
        return numpy.degrees(numpy.arctan(numpy.sinh(numpy.pi * (1 - 2 * row / side))))

    west, east = (360 * each / side - 180 for each in (column, column + 1))
    return box(west, latitude(row + 1), east, latitude(row))


def test_all_products_have_the_footprints_of_the_valid_pixels(
    archive: Archive, expected: Footprints, postgres: Postgres
):
    database = f"test_{secrets.token_hex(4)}"
    postgres.create_database(database)
    variables = {
        "PGHOST": str(postgres.socket),
        "PGDATABASE": database,
        "PGUSER": ARCHIVE,
    }
    launched = archive.run("--every", "60", "--catalog", "all", **variables)
    assert launched.returncode == 0, launched.stderr
    archive.upload_manifest("batch-raw.csv", [(key, "3") for key in expected])
    assert archive.poll(**variables).returncode == 0
    processed, failed = archive.outcome("batch-")
    assert (len(processed), failed) == (3, [])
    made = archive.poll(**variables)
    assert "3 images in 1 collection of the catalog" in made.stdout, made.stdout

    cogs = archive.cogs
    parquet = archive.fetch(cogs, f"{_COLLECTION}items.parquet")
    index = archive.fetch(cogs, f"{_COLLECTION}tileindex.fgb")
    products = {
        "stac": in_stac(cogs),
        "geoparquet": in_parquet(parquet, cogs.name),
        "tileindex": in_tile_index(index, cogs.name),
        "postgis": in_database(postgres, database),
    }
    for name, footprints in products.items():
        assert footprints.keys() == expected.keys(), name
        for key, footprint in footprints.items():
            assert alike(footprint, expected[key]) > _ALIKE, (name, key)
            assert alike(footprint, products["stac"][key]) > 0.9999, (name, key)
    tiles = tiles_of(cogs)
    assert tiles.keys() == expected.keys()
    for key, footprint in products["stac"].items():
        assert all(tile.intersects(footprint) for tile in tiles[key])
        assert footprint.difference(unary_union(tiles[key])).area < 1e-9
    sides = {footprint.bounds[0] < 0 for footprint in expected["sheets/fiji.tif"].geoms}
    assert sides == {True, False}
