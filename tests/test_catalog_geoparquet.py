"""A collection's items are one GeoParquet file, of which readers read a part."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import duckdb
import pystac
import pytest
import rustac
import shapely

from bucket import Bucket
from catalog import geoparquet
from catalog.collections import Collection
from catalog.record import Dates, Record, gone_line, to_line
from catalog.records import collect
from catalog.target import Target
from node.result import Cog, Jpeg
from tests.support import catalog

# An image of one metre near Bern.
record = partial(
    catalog.record,
    bbox=(7.4, 46.9, 7.45, 46.95),
    width=4000,
    height=5500,
    gsd=1.0,
    crs="EPSG:2056",
    dates=Dates("2020-07-01T00:00:00Z", "2020-07-01T00:00:00Z"),
    cog=Cog(bytes=1_000_000, md5="0" * 32, sha256="a" * 64),
    jpeg=Jpeg(bytes=10_000, md5="1" * 32, sha256="b" * 64, width=800, height=1100),
)


# On both sides of the antimeridian, near Fiji.
FIJI = {
    "type": "MultiPolygon",
    "coordinates": [
        [[[179, -18], [180, -18], [180, -17], [179, -17], [179, -18]]],
        [[[-180, -18], [-179, -18], [-179, -17], [-180, -17], [-180, -18]]],
    ],
}
AT_THE_ANTIMERIDIAN = {"footprint": FIJI, "bbox": (179.0, -18.0, -179.0, -17.0)}
NOWHERE = {"footprint": None, "bbox": None, "crs": None, "gsd": None}


@pytest.fixture
def target(weed_bucket: Bucket, tmp_path: Path) -> Target:
    # SQL and patterns of names have a meaning for these characters.
    scratch = tmp_path / "it's [1] *"
    scratch.mkdir()
    collection = Collection("maps", "Maps")
    return Target(
        weed_bucket, "cogs/catalog/", collection, scratch, "https://maps.example"
    )


KEY = "cogs/catalog/maps/items.parquet"


def basis(records: Iterable[Record]) -> str:
    return str(sorted((each.key, each.run) for each in records))


def written(target: Target, *records: Record, former: tuple[Record, ...] = ()) -> Path:
    """Write the file, after that of former records if any; return a copy of it."""
    lines = [(to_line(each), True) for each in former]
    lines += [(to_line(each), False) for each in records if each not in former]
    keys = {each.key for each in records}
    lines += [(gone_line(each), False) for each in former if each.key not in keys]
    collected = collect(lines, target.scratch / "records", from_nothing=not former)
    bases = {"basis": basis(records), "former_basis": basis(former)}
    geoparquet.write(replace(collected, **bases), target)
    file = target.scratch.parent / "downloaded.parquet"
    target.bucket.download(KEY, file, 2**30)
    return file


def asked(question: str, file: Path) -> list[tuple]:
    return duckdb.execute(question, {"file": str(file)}).fetchall()


def on_a_grid(side: int) -> Iterator[Record]:
    """Yield records that cover a part of the world, without gaps."""
    for n in range(side * side):
        west, south = n % side, n // side
        bbox = (float(west), float(south), west + 1.0, south + 1.0)
        yield record(f"cogs/sheet-{n}.tif", bbox=bbox)


def test_duckdb_finds_what_a_person_asks(target: Target) -> None:
    file = written(target, record("cogs/1937/bern.tif"))
    (row,) = asked(
        'SELECT id, collection, title, datetime, gsd, "proj:code", "proj:shape", '
        '"cog_pipeline:run", assets.cog.href, assets.cog."file:size", '
        "assets.jpeg.href FROM read_parquet($file)",
        file,
    )
    assert row[:3] == ("cogs--1937--bern", "maps", "bern.tif")
    assert row[3].isoformat() == "2020-07-01T00:00:00+00:00"
    assert row[4:8] == (1.0, "EPSG:2056", [5500, 4000], "20261126T130000Z-maps")
    assert row[8:] == (
        "https://maps.example/cogs/1937/bern.tif",
        1_000_000,
        "https://maps.example/cogs/1937/bern.jpg",
    )


def test_the_footprint_is_what_it_was(target: Target) -> None:
    hole = [[7.41, 46.91], [7.42, 46.92], [7.42, 46.91], [7.41, 46.91]]
    outline = record("a.tif").result.footprint["coordinates"][0]
    ring = {"type": "Polygon", "coordinates": [outline, hole]}
    images = {"a": {"footprint": ring}, "fiji": AT_THE_ANTIMERIDIAN, "x": NOWHERE}
    made = [record(f"{name}.tif", **changes) for name, changes in images.items()]
    found = dict(
        asked("SELECT id, geometry FROM read_parquet($file)", written(target, *made))
    )
    for each in made:
        wanted = each.result.footprint
        read = shapely.from_wkb(found[each.id])
        assert (json.loads(shapely.to_geojson(read)) if read else None) == wanted


def test_metadata_name_the_bounding_boxes_for_geoparquet_readers(
    target: Target,
) -> None:
    file = written(target, record("a.tif"), record("b.tif", **AT_THE_ANTIMERIDIAN))
    found = dict(asked("SELECT key, value FROM parquet_kv_metadata($file)", file))
    geo = json.loads(found[b"geo"])
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    column = geo["columns"]["geometry"]
    assert column["encoding"] == "WKB"
    assert column["geometry_types"] == ["MultiPolygon", "Polygon"]
    assert column["bbox"] == [-180, -18, 180, 46.95]
    assert column["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    assert json.loads(found[b"stac-geoparquet"]) == {"version": "1.0.0"}


def test_a_question_about_a_place_reads_a_part(target: Target) -> None:
    file = written(target, *on_a_grid(70))
    sizes = asked(
        "SELECT DISTINCT row_group_id, row_group_num_rows FROM parquet_metadata($file) "
        "ORDER BY row_group_id",
        file,
    )
    assert [rows for _, rows in sizes] == [1000] * 4 + [900]
    # The statistics of groups, by which a reader chooses those that it fetches.
    (groups,) = asked(
        """
        SELECT count(*) FROM (
            SELECT row_group_id,
                max(stats_min_value::DOUBLE) FILTER (path_in_schema = 'bbox, xmin') w,
                max(stats_min_value::DOUBLE) FILTER (path_in_schema = 'bbox, ymin') s,
                max(stats_max_value::DOUBLE) FILTER (path_in_schema = 'bbox, xmax') e,
                max(stats_max_value::DOUBLE) FILTER (path_in_schema = 'bbox, ymax') n
            FROM parquet_metadata($file)
            WHERE path_in_schema LIKE 'bbox%' GROUP BY row_group_id
        ) WHERE w <= 10.5 AND e >= 10.2 AND s <= 10.5 AND n >= 10.2
        """,
        file,
    )
    assert groups == (1,)
    place = "bbox.xmin <= 10.5 AND bbox.xmax >= 10.2 AND bbox.ymin <= 10.5"
    found = asked(
        f"SELECT id FROM read_parquet($file) WHERE {place} AND bbox.ymax >= 10.2",  # noqa: S608
        file,
    )
    assert found == [("cogs--sheet-710",)]


def test_the_box_of_an_image_across_the_antimeridian_has_both_its_sides(
    target: Target,
) -> None:
    file = written(target, record("fiji.tif", **AT_THE_ANTIMERIDIAN))
    for longitude in (179.5, -179.5):
        found = asked(
            "SELECT id FROM read_parquet($file) "  # noqa: S608
            f"WHERE bbox.xmin <= {longitude} AND bbox.xmax >= {longitude}",
            file,
        )
        assert found == [("fiji",)]


def test_rustac_reads_valid_stac_items(target: Target) -> None:
    file = written(target, record("a.tif"), record("b.tif", dates=None))
    items = rustac.read_sync(str(file))["features"]
    assert len(items) == 2
    for item in items:
        extensions = item.pop("stac_extensions")
        assert [each.split("/")[3] for each in extensions] == ["projection", "file"]
        # The schemas of extensions are not on this machine.
        pystac.Item.from_dict(item | {"stac_extensions": []}).validate()


@pytest.mark.parametrize(
    ("dates", "interval", "wanted"),
    [
        (None, ("", ""), ("1700-01-01T00:00:00Z", "2026-11-26T13:00:00Z")),
        (
            None,
            ("1937-01-01T00:00:00Z", "1939-12-31T23:59:59Z"),
            ("1937-01-01T00:00:00Z", "1939-12-31T23:59:59Z"),
        ),
        (
            Dates("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
            ("", ""),
            ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
        ),
    ],
)
def test_an_uncertain_date_is_a_range(
    target: Target,
    dates: Dates | None,
    interval: tuple[str, str],
    wanted: tuple[str, str],
) -> None:
    target = replace(target, collection=replace(target.collection, interval=interval))
    file = written(target, record("a.tif", dates=dates))
    (found,) = asked(
        "SELECT datetime, start_datetime, end_datetime FROM read_parquet($file)", file
    )
    moments = [each and f"{each:%Y-%m-%dT%H:%M:%SZ}".zfill(20) for each in found]
    assert moments == [None, *wanted]


def test_images_without_a_place_come_last_and_have_nothing(target: Target) -> None:
    file = written(target, record("a.tif", **NOWHERE, cog=None), record("z.tif"))
    found = asked(
        'SELECT id, geometry, bbox, gsd, "proj:code", assets.cog."file:size" '
        "FROM read_parquet($file)",
        file,
    )
    assert [row[0] for row in found] == ["z", "a"]
    assert found[1][1:] == (None,) * 5


def test_columns_do_not_depend_on_the_images(target: Target) -> None:
    columns = "SELECT column_name, column_type FROM (DESCRIBE FROM read_parquet($file))"
    many = asked(columns, written(target, record("a.tif")))
    few = asked(columns, written(target, record("a.tif", **NOWHERE, dates=None)))
    none = asked(columns, written(target))
    assert many == few == none


def test_hostile_names_arrive_as_they_are(target: Target) -> None:
    names = ["it's.tif", 'a"b\n.tif', "é\u202e.tif", "2020-01-01.tif", "\x00null.tif"]
    file = written(target, *(record(f"cogs/{name}") for name in names))
    found = asked("SELECT title FROM read_parquet($file)", file)
    assert sorted(title for (title,) in found) == sorted(names)


def test_a_wkt_crs_has_no_code(target: Target) -> None:
    file = written(target, record("a.tif", crs='LOCAL_CS["drawing"]'))
    assert asked('SELECT "proj:code" FROM read_parquet($file)', file) == [(None,)]


def scattered(count: int) -> tuple[Record, ...]:
    """Return records of many places; some have none or are at the antimeridian."""
    odd = (
        record("cogs/fiji.tif", **AT_THE_ANTIMERIDIAN),
        record("cogs/nowhere.tif", **NOWHERE, dates=None),
        record('cogs/it\'s "odd"\n\x00é.tif', dates=Dates("0001-01-01T00:00:00Z", END)),
    )
    return (*odd, *islice(on_a_grid(90), count))


END = "9999-12-31T23:59:59Z"
EVERYTHING = "SELECT * REPLACE (geometry::VARCHAR AS geometry) FROM read_parquet($file)"


def test_new_images_make_the_file_that_all_images_make(target: Target) -> None:
    former = scattered(2500)
    again = replace(former[7], run="later", converted="2026-11-27T00:00:00Z")
    fiji = record("cogs/zz.tif", **AT_THE_ANTIMERIDIAN)
    new = (*former[:7], again, *former[9:], record("cogs/new.tif"), fiji)
    whole = asked(EVERYTHING, written(target, *new))
    written(target, *former)

    assert asked(EVERYTHING, written(target, *new, former=former)) == whole


def test_rows_that_have_not_changed_are_those_of_the_former_file(
    target: Target,
) -> None:
    old, new = record("old.tif"), record("new.tif")
    written(target, replace(old, manifest="somebody-raw.csv"))

    file = written(target, old, new, former=(old,))

    found = asked('SELECT id, "cog_pipeline:manifest" FROM read_parquet($file)', file)
    assert sorted(found) == [("new", new.manifest), ("old", "somebody-raw.csv")]


@pytest.mark.parametrize(
    "kind", ["missing", "no parquet", "cut", "other records", "other run", "damaged"]
)
def test_a_former_file_that_is_of_no_use_is_made_again(
    target: Target, kind: str
) -> None:
    former = scattered(50)
    whole = written(target, *former, record("new.tif")).read_bytes()
    others = {
        "other records": former[1:],
        # It has as many rows as it should have.
        "other run": (replace(former[0], run="2"), *former[1:]),
    }
    content = written(target, *others.get(kind, former)).read_bytes()
    if kind == "missing":
        target.bucket.remove(KEY)
    elif kind == "cut":
        target.bucket.write(KEY, content[100:])
    elif kind == "no parquet":
        target.bucket.write(KEY, b"no parquet")
    elif kind == "damaged":
        target.bucket.write(KEY, content[:4] + bytes(2000) + content[2004:])

    file = written(target, *former, record("new.tif"), former=former)

    assert file.read_bytes() == whole
