"""The STAC catalog of a collection, read by pystac and checked by STAC's schemas."""

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import numpy as np
import pystac
import pytest
from pystac.extensions.file import FileExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.stac_io import DefaultStacIO
from pystac.validation import validate_dict

from bucket import Bucket
from catalog import records as all_records, stac, stac_pages
from catalog.collections import Collection, Provider
from catalog.record import Dates, Record, gone_line, to_line
from catalog.records import Records
from catalog.stac_collection import enclosing_longitudes
from catalog.target import Target
from lab.scale.measure import requests
from node.result import Band
from state.errors import PipelineError
from tests.support import rclone
from tests.support.archive import ALL
from tests.support.catalog import record
from tests.support.seaweedfs import SeaweedFS

ROOT = "cogs/catalog/"
AERIAL = Collection(
    "aerial",
    "Aerial photographs",
    "Photographs of *1937*.",
    "CC-BY-4.0",
    "https://creativecommons.org/licenses/by/4.0/",
    (Provider("A library", ("producer", "host"), "https://library.example.org"),),
    ("aerial", "history"),
)
FIRST, SECOND = "20261126T130000Z-a", "20261127T130000Z-b"
Put = Callable[..., None]


@pytest.fixture
def bucket(weed: SeaweedFS, tmp_path: Path) -> Bucket:
    name = tmp_path.name[-40:].strip("-_").lower().replace("_", "-")
    bucket = Bucket(weed.store, name)
    bucket.create()
    return bucket


@pytest.fixture
def target(bucket: Bucket, tmp_path: Path) -> Target:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Target(bucket, ROOT, AERIAL, scratch)


@pytest.fixture
def records_of(tmp_path: Path) -> Callable[..., Records]:
    """Return a function that makes Records of those of before and of new ones.

    A new one that is a text is the key of an image that is gone.
    """

    def collect(
        *new: Record | str, before: tuple[Record, ...] = (), **how: Any
    ) -> Records:
        lines = [(to_line(each), True) for each in before]
        former = {each.key: each for each in before}
        for each in new:
            is_gone = isinstance(each, str)
            line = gone_line(former[each]) if is_gone else to_line(each)
            lines.append((line, False))
        file = tmp_path / "records.jsonl"
        return all_records.collect(lines, file, **how)

    return collect


class FromBucket(DefaultStacIO):
    """Reads what is under ``http://store/BUCKET/`` from the bucket."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__()
        self.bucket = bucket

    def read_text_from_href(self, href: str) -> str:
        return self.bucket.read(key_of(self.bucket, href), ALL).decode()


def key_of(bucket: Bucket, url: str) -> str:
    """Return the key of an object as a web server finds it."""
    parts = urlsplit(url)
    assert (parts.netloc, parts.query, parts.fragment) == ("store", "", "")
    return unquote(parts.path).removeprefix(f"/{bucket.name}/")


def url_of(bucket: Bucket, key: str) -> str:
    return f"http://store/{bucket.name}/{key}"


def opened(target: Target) -> pystac.Catalog:
    url = url_of(target.bucket, ROOT + "catalog.json")
    return pystac.Catalog.from_file(url, FromBucket(target.bucket))


def collection_of(target: Target) -> pystac.Collection:
    collection = opened(target).get_child(target.collection.id)
    assert isinstance(collection, pystac.Collection)
    return collection


def items_of(target: Target) -> dict[str, pystac.Item]:
    return {item.id: item for item in collection_of(target).get_items(recursive=True)}


def documents(target: Target, folder: str = "") -> dict[str, dict[str, Any]]:
    """Return the files of the catalog, by their keys without the root."""
    return {
        stored.key.removeprefix(ROOT): json.loads(target.bucket.read(stored.key, ALL))
        for stored in target.bucket.list(ROOT + folder)
        if stored.key.endswith(".json")
    }


def etags(target: Target) -> dict[str, tuple[str, Any]]:
    return {
        stored.key.removeprefix(ROOT): (stored.etag, stored.modified)
        for stored in target.bucket.list(ROOT)
    }


def check_links(target: Target) -> None:
    """Check that each file is valid, that links go somewhere, and are few."""
    there = {stored.key for stored in target.bucket.list()}
    for name, content in documents(target).items():
        validate_dict(content, extensions=[])
        assert len(content["links"]) <= 1000
        base = url_of(target.bucket, ROOT + name)
        for link in content["links"]:
            if link["rel"] not in ("license", "self"):
                key = key_of(target.bucket, urljoin(base, link["href"]))
                assert key in there, f"{name}: {link}"


def keys_of_images(target: Target) -> set[str]:
    """Return the keys of the COGs to which the catalog leads a stranger."""
    items = items_of(target).values()
    return {
        key_of(target.bucket, item.assets["cog"].get_absolute_href()) for item in items
    }


def page_of(target: Target, name: str) -> str:
    """Return the page on which the item of an image is, and check that it says so."""
    pages = {
        file: content
        for file, content in documents(target).items()
        if f"../../items/{name}.json" in (link["href"] for link in content["links"])
    }
    (file,) = pages
    item = documents(target)[f"aerial/items/{name}.json"]
    (parent,) = [link["href"] for link in item["links"] if link["rel"] == "parent"]
    assert urljoin(f"http://x/aerial/items/{name}.json", parent) == f"http://x/{file}"
    return file.split("/")[2]


def test_a_stranger_finds_all_images_by_valid_files(
    target: Target, records_of: Callable[..., Records]
):
    made = [record(f"cogs/aerial/{number}.tif", run=FIRST) for number in range(5)]
    stac.write(records_of(*made), target)

    check_links(target)
    assert keys_of_images(target) == {each.key for each in made}
    collection = collection_of(target)
    assert collection.title == "Aerial photographs"
    assert collection.license == "CC-BY-4.0"
    assert collection.get_single_link("license").href == AERIAL.license_url
    (provider,) = collection.providers
    assert (provider.name, provider.roles) == ("A library", ["producer", "host"])
    assert collection.keywords == ["aerial", "history"]
    boxes = np.array([each.result.bbox for each in made])
    (bbox,) = collection.extent.spatial.bboxes
    assert bbox == [*boxes.min(0)[:2], *boxes.max(0)[2:]]
    ((start, end),) = collection.extent.temporal.intervals
    assert f"{start} {end}" == "2020-07-01 00:00:00+00:00 2020-07-01 23:59:59+00:00"
    assert collection.summaries.get_list("proj:code") == ["EPSG:32616"]
    gsd = collection.summaries.get_range("gsd")
    assert (gsd.minimum, gsd.maximum) == (made[0].result.gsd,) * 2
    bands = collection.summaries.get_list("bands")
    assert [each["name"] for each in bands] == ["b1", "b2", "b3"]


def test_an_item_says_what_the_record_knows(
    target: Target, records_of: Callable[..., Records]
):
    bands = (
        Band(
            data_type="float32",
            nodata=float("nan"),
            color_interpretation="red",
            description="Red <1>",
            unit="W",
            scale=0.1,
            offset=-5,
            minimum=0,
            maximum=9.5,
            mean=3,
            stddev=1,
            valid_percent=50,
        ),
        Band(data_type="complex64", color_interpretation="gray", nodata=0, scale=1),
        Band(data_type="bfloat16"),
    )
    made = record("cogs/aerial/7.tif", run=FIRST, gsd=0.5, bands_info=bands)
    stac.write(records_of(made), target)

    item = items_of(target)["cogs--aerial--7"]
    result = made.result
    assert item.geometry == result.footprint
    assert item.bbox == [*result.bbox]
    assert item.properties["title"] == "7.tif"
    assert item.common_metadata.gsd == 0.5
    assert item.common_metadata.created.isoformat() == "2026-11-26T13:00:00+00:00"
    own = {name: item.properties[f"cog_pipeline:{name}"] for name in ("run", "source")}
    assert own == {"run": FIRST, "source": made.source}
    assert item.properties["cog_pipeline:manifest"] == made.manifest

    projection = ProjectionExtension.ext(item)
    assert projection.code == result.crs
    assert projection.shape == [result.height, result.width]
    assert projection.transform == [*result.transform]
    assert projection.bbox == [*result.bounds]
    cog, jpeg = item.assets["cog"], item.assets["jpeg"]
    assert (cog.roles, jpeg.roles) == (["data"], ["overview", "thumbnail"])
    assert cog.media_type == pystac.MediaType.COG
    assert FileExtension.ext(cog).size == result.cog.bytes
    assert FileExtension.ext(cog).checksum == "1220" + result.cog.sha256
    assert key_of(target.bucket, jpeg.get_absolute_href()) == made.jpeg_key
    assert ProjectionExtension.ext(cog).shape == [result.height, result.width]

    red, gray, other = cog.extra_fields["bands"]
    assert red["name"] == "b1"
    assert red["description"] == "Red <1>"
    assert (red["data_type"], red["nodata"], red["unit"]) == ("float32", "nan", "W")
    assert (red["raster:scale"], red["raster:offset"]) == (0.1, -5)
    assert red["eo:common_name"] == "red"
    assert red["statistics"] == {
        "minimum": 0,
        "maximum": 9.5,
        "mean": 3,
        "stddev": 1,
        "valid_percent": 50,
    }
    assert gray == {"name": "b2", "data_type": "cfloat32", "nodata": 0}
    assert other == {"name": "b3", "data_type": "other"}
    used = {url.split("/")[3] for url in item.stac_extensions}
    assert used == {"projection", "raster", "file", "eo"}


def test_the_grid_of_the_jpeg_is_its_own(
    target: Target, records_of: Callable[..., Records]
):
    jpeg = record("a.tif").result.jpeg
    half = type(jpeg)(bytes=1, md5="0" * 32, width=500, height=200)
    grid = (2.0, 0.0, 100.0, 0.0, -2.0, 900.0)
    made = record("cogs/a.tif", jpeg=half, width=1000, height=800, transform=grid)
    stac.write(records_of(made), target)

    projection = ProjectionExtension.ext(items_of(target)["cogs--a"].assets["jpeg"])
    assert projection.shape == [200, 500]
    assert projection.transform == [4.0, 0.0, 100.0, 0.0, -8.0, 900.0]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"crs": None}, {"proj:shape"}),
        ({"crs": None, "width": None}, set()),
        (
            {"crs": 'ENGCRS["site"]', "transform": None, "bounds": None},
            {"proj:shape", "proj:wkt2"},
        ),
        (
            {"crs": 'ENGCRS["site"]', "projjson": {"type": "EngineeringCRS"}},
            {"proj:shape", "proj:projjson", "proj:bbox", "proj:transform"},
        ),
        (
            {"bounds": (float("nan"),) * 4, "transform": (float("inf"),) * 6},
            {"proj:shape", "proj:code"},
        ),
    ],
)
def test_a_crs_without_a_code_is_described(
    target: Target,
    records_of: Callable[..., Records],
    fields: dict[str, Any],
    expected: set[str],
):
    stac.write(records_of(record("cogs/a.tif", **fields)), target)

    check_links(target)
    item = items_of(target)["cogs--a"]
    found = {name for name in item.properties if name.startswith("proj:")}
    assert found == expected
    summaries = collection_of(target).summaries
    assert (summaries.get_list("proj:code") is not None) == ("proj:code" in found)


def test_an_image_without_a_footprint_has_no_geometry(
    target: Target, records_of: Callable[..., Records]
):
    nowhere = {"footprint": None, "bbox": None}
    bare = {"jpeg": None, "bands_info": (), "crs": None, "width": None, "gsd": None}
    stac.write(records_of(record("cogs/a.tif", **nowhere, **bare)), target)

    check_links(target)
    item = items_of(target)["cogs--a"]
    assert item.geometry is None
    assert item.bbox is None
    assert [*item.assets] == ["cog"]
    assert collection_of(target).extent.spatial.bboxes == [[-180, -90, 180, 90]]


def test_images_across_the_antimeridian_have_a_narrow_box(
    target: Target, records_of: Callable[..., Records]
):
    polygons = [
        [[[179, -17], [180, -17], [180, -16], [179, -16], [179, -17]]],
        [[[-180, -17], [-179, -17], [-179, -16], [-180, -16], [-180, -17]]],
    ]
    across = record(
        "cogs/fiji.tif",
        footprint={"type": "MultiPolygon", "coordinates": polygons},
        bbox=(179.0, -17.0, -179.0, -16.0),
    )
    ring = [[177, -19], [178, -19], [178, -18], [177, -18], [177, -19]]
    beside = record(
        "cogs/suva.tif",
        footprint={"type": "Polygon", "coordinates": [ring]},
        bbox=(177.0, -19.0, 178.0, -18.0),
    )
    stac.write(records_of(across, beside), target)

    check_links(target)
    item = items_of(target)["cogs--fiji"]
    assert item.geometry["type"] == "MultiPolygon"
    assert item.bbox == [179, -17, -179, -16]
    assert collection_of(target).extent.spatial.bboxes == [[177, -19, -179, -16]]


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([(10, 20)], (10, 20)),
        ([(170, -170)], (170, -170)),
        ([(30, 40), (10, 20), (12, 13)], (10, 40)),
        ([(170, 180), (-180, -170)], (170, -170)),
        ([(140, 141), (-157, -156)], (140, -156)),
        ([(-180, 180), (3, 4)], (-180, 180)),
        ([(-90, 90), (90, -90)], (-180, 180)),
        ([(170, -100), (-150, -140)], (170, -100)),
        ([(-10, 10), (170, -170)], (-10, -170)),
        ([(0, 170), (160, -10)], (0, -10)),
        ([(0, 0)], (0, 0)),
    ],
)
def test_the_longitudes_of_a_collection_are_as_few_as_they_can_be(
    ranges: list[tuple[float, float]], expected: tuple[float, float]
):
    wests, easts = np.array(ranges, dtype=float).T

    assert enclosing_longitudes(wests, easts) == expected


@pytest.mark.parametrize(
    ("interval", "dates", "item", "collection"),
    [
        (("", ""), ("2020", "2020"), ("2020", "2020"), ("2020", "2020")),
        (("", ""), ("1620", "1640"), ("1620", "1640"), ("1620", "1640")),
        (("1930", "1939"), None, ("1930", "1939"), ("1930", "1939")),
        (("1930", ""), None, ("1930", "2026"), ("1930", "2026")),
        (("", "1939"), None, ("1700", "1939"), (None, "1939")),
        (("", "1650"), None, ("1650", "1650"), ("1650", "1650")),
        (("", ""), None, ("1700", "2026"), (None, "2026")),
        (("2030", ""), None, ("2030", "2030"), ("2030", "2030")),
    ],
)
def test_a_date_that_is_not_known_is_that_of_the_collection(
    bucket: Bucket,
    tmp_path: Path,
    records_of: Callable[..., Records],
    interval: tuple[str, str],
    dates: tuple[str, str] | None,
    item: tuple[str, str],
    collection: tuple[str | None, str],
):
    first, last = (each and f"{each}-01-01T00:00:00Z" for each in interval)
    known = dates and Dates(*(f"{each}-01-01T00:00:00Z" for each in dates))
    target = Target(bucket, ROOT, Collection("c", interval=(first, last)), tmp_path)
    stac.write(records_of(record("a.tif", dates=known, collection="c")), target)

    check_links(target)
    ((start, end),) = collection_of(target).extent.temporal.intervals
    assert (start and str(start.year), str(end.year)) == collection
    found = items_of(target)["a"]
    if item[0] == item[1]:
        assert str(found.datetime.year) == item[0]
        assert "start_datetime" not in found.properties
    else:
        assert found.datetime is None
        moments = (
            found.common_metadata.start_datetime,
            found.common_metadata.end_datetime,
        )
        assert tuple(str(each.year) for each in moments) == item


def test_hrefs_of_hostile_keys_lead_to_their_objects(
    target: Target, records_of: Callable[..., Records]
):
    names = [
        "a b",
        "q\"'",
        "<script>alert(1)</script>",
        "ümlaut ☃",
        "#1",
        "?x=1&y",
        "%20",
    ]
    names += ["a+b", "c:d", "e\\f", "{g}", "h;i,j", ".k", "l--m", "é" * 100]
    made = [record(f"cogs/{name}.tif") for name in names]
    for each in made:
        for key in (each.key, each.jpeg_key):
            target.bucket.write(key, b"content")
    stac.write(records_of(*made), target)

    check_links(target)
    assert keys_of_images(target) == {each.key for each in made}
    for item in items_of(target).values():
        for asset in item.assets.values():
            key = key_of(target.bucket, asset.get_absolute_href())
            assert target.bucket.exists(key)


def test_an_image_that_is_converted_again_moves_to_the_page_of_that_run(
    target: Target, records_of: Callable[..., Records]
):
    old = tuple(record(f"{name}.tif", run=FIRST) for name in "abc")
    stac.write(records_of(*old), target)
    again = record("b.tif", run=SECOND, source="maps/other.tif")
    changes = records_of(again, before=old, from_nothing=False)
    stac.write(changes, target)

    check_links(target)
    assert {name: page_of(target, name) for name in "abc"} == {
        "a": f"{FIRST}-1",
        "b": f"{SECOND}-1",
        "c": f"{FIRST}-1",
    }
    assert items_of(target)["b"].properties["cog_pipeline:source"] == "maps/other.tif"
    before = etags(target)
    stac.write(changes, target)
    assert {name: etag for name, (etag, _) in before.items()} == {
        name: etag for name, (etag, _) in etags(target).items()
    }, "the update, repeated after a crash, came out otherwise"


def test_an_image_that_is_gone_disappears_and_an_empty_page_with_it(
    target: Target, records_of: Callable[..., Records]
):
    old = (*(record(f"{name}.tif", run=FIRST) for name in "ab"),)
    old += (record("c.tif", run=SECOND),)
    stac.write(records_of(*old), target)
    stac.write(records_of("a.tif", "c.tif", before=old, from_nothing=False), target)

    check_links(target)
    assert [*items_of(target)] == ["b"]
    assert [*documents(target)] == [
        "aerial/collection.json",
        "aerial/items/b.json",
        f"aerial/pages/{FIRST}-1/catalog.json",
        "catalog.json",
    ]
    stac.write(records_of("b.tif", before=(old[1],), from_nothing=False), target)
    check_links(target)
    assert [*documents(target)] == ["catalog.json"]
    links = documents(target)["catalog.json"]["links"]
    assert [link for link in links if link["rel"] == "child"] == []

    stac.write(records_of(old[0]), target)
    check_links(target)
    assert [*items_of(target)] == ["a"]


def test_an_update_touches_only_what_changes(
    target: Target, records_of: Callable[..., Records], weed: SeaweedFS
):
    old = tuple(record(f"{number:04}.tif", run=FIRST) for number in range(2100))
    stac.write(records_of(*old), target)
    pages = documents(target, "aerial/pages/").values()
    assert [len(page["links"]) for page in pages] == [992, 992, 122]

    before, asked = etags(target), requests(weed)
    new = [record(f"new/{number}.tif", run=SECOND) for number in range(20)]
    new.append(record("0000.tif", run=SECOND))
    stac.write(records_of(*new, before=old, from_nothing=False), target)

    asked = requests(weed) - asked
    after = etags(target)
    assert {name for name in after if after[name] != before.get(name)} == {
        *(f"aerial/items/new--{number}.json" for number in range(20)),
        "aerial/items/0000.json",
        f"aerial/pages/{FIRST}-1/catalog.json",
        f"aerial/pages/{SECOND}-1/catalog.json",
        "aerial/collection.json",
    }
    assert before.keys() <= after.keys()
    assert asked["PUT"] == 24
    # The collection, the root, the three pages of the first run, and items.parquet.
    assert asked["GET"] == 6
    assert asked["LIST"] < 10
    assert asked["DELETE"] == 0
    assert (
        len(documents(target)[f"aerial/pages/{SECOND}-1/catalog.json"]["links"]) == 23
    )


def test_everything_again_removes_what_is_left_of_before(
    target: Target, records_of: Callable[..., Records]
):
    old = [record(f"{name}.tif", run=FIRST) for name in "abc"]
    stac.write(records_of(*old), target)
    stac.write(records_of(record("a.tif", run=SECOND)), target)

    check_links(target)
    assert [*documents(target)] == [
        "aerial/collection.json",
        "aerial/items/a.json",
        f"aerial/pages/{SECOND}-1/catalog.json",
        "catalog.json",
    ]


def test_many_pages_are_grouped_so_that_no_file_has_many_links(
    target: Target,
    records_of: Callable[..., Records],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(stac_pages, "MAX_CHILDREN", 3)
    old = tuple(record(f"{number:02}.tif", run=FIRST) for number in range(30))
    stac.write(records_of(*old), target)

    check_links(target)
    assert keys_of_images(target) == {each.key for each in old}
    counted = Counter(
        sum(link["rel"] in ("child", "item") for link in content["links"])
        for content in documents(target).values()
    )
    assert max(counted) == 3
    groups = [name for name in documents(target) if "/groups/" in name]
    assert len(groups) == 4 + 2

    gone = [each.key for each in old[3:]]
    stac.write(records_of(*gone, before=old, from_nothing=False), target)
    check_links(target)
    assert not [name for name in documents(target) if "/groups/" in name]
    assert len(keys_of_images(target)) == 3


def test_a_run_that_grows_fills_its_last_page(
    target: Target,
    records_of: Callable[..., Records],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(stac_pages, "MAX_CHILDREN", 3)
    old = tuple(record(f"{number}.tif", run=FIRST) for number in range(4))
    stac.write(records_of(*old), target)
    new = [record(f"{number}.tif", run=FIRST) for number in range(4, 8)]
    stac.write(records_of(*new, before=old, from_nothing=False), target)

    check_links(target)
    numbers = [int(page_of(target, str(number))[-1]) for number in range(8)]
    assert numbers == [1, 1, 1, 2, 2, 2, 3, 3]


def test_runs_whose_names_are_alike_have_pages_of_their_own(
    target: Target, records_of: Callable[..., Records]
):
    runs = ["a", "a-1", "a-1-1", "a/1", "<b>"]
    made = tuple(record(f"{n}.tif", run=run) for n, run in enumerate(runs))
    for number, each in enumerate(made):
        stac.write(
            records_of(each, before=made[:number], from_nothing=number == 0), target
        )
    check_links(target)
    assert len({page_of(target, str(number)) for number in range(5)}) == 5


def test_access_points_that_write_at_once_lose_no_collection(
    bucket: Bucket, tmp_path: Path
):
    def write(number: int) -> None:
        place = tmp_path / str(number)
        place.mkdir()
        made = record(f"{number}.tif", collection=f"c{number}")
        records = all_records.collect([(to_line(made), False)], place / "records")
        target = Target(bucket, ROOT, Collection(f"c{number}"), place)
        stac.write(records, target)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(write, range(6)))

    root = json.loads(bucket.read(ROOT + "catalog.json", ALL))
    children = [link["href"] for link in root["links"] if link["rel"] == "child"]
    assert children == [f"./c{number}/collection.json" for number in range(6)]


def test_a_root_that_people_have_edited_keeps_what_they_wrote(
    target: Target, records_of: Callable[..., Records]
):
    made = records_of(record("a.tif"))
    stac.write(made, target)
    root = json.loads(target.bucket.read(ROOT + "catalog.json", ALL))
    root["title"] = "Our maps"
    root["links"] = [
        {"rel": "root", "href": "./catalog.json"},
        {"rel": "child", "href": "https://example.org/catalog.json"},
    ]
    target.bucket.write(ROOT + "catalog.json", json.dumps(root).encode())
    stac.write(made, target)

    root = json.loads(target.bucket.read(ROOT + "catalog.json", ALL))
    assert root["title"] == "Our maps"
    hrefs = [link["href"] for link in root["links"]]
    assert hrefs[1:] == ["./aerial/collection.json", "https://example.org/catalog.json"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("catalog.json", b"<html>"),
        ("catalog.json", b"[]"),
        ("catalog.json", b'{"links": [1]}'),
        (f"aerial/pages/{FIRST}-1/catalog.json", b'{"links": {}'),
    ],
)
def test_a_file_that_is_not_of_a_catalog_is_named(
    target: Target, records_of: Callable[..., Records], name: str, content: bytes
):
    old = (record("a.tif", run=FIRST),)
    stac.write(records_of(*old), target)
    target.bucket.write(ROOT + name, content)
    new = record("b.tif", run=FIRST)
    with pytest.raises(PipelineError, match=f"{ROOT}{name} is not a"):
        stac.write(records_of(new, before=old, from_nothing=False), target)


def test_a_published_catalog_names_its_own_addresses(
    bucket: Bucket, tmp_path: Path, records_of: Callable[..., Records]
):
    public = f"http://store/{bucket.name}"
    target = Target(bucket, ROOT, AERIAL, tmp_path, public)
    stac.write(records_of(record("cogs/a b.tif")), target)

    check_links(target)
    for name, content in documents(target).items():
        (own,) = [link["href"] for link in content["links"] if link["rel"] == "self"]
        assert own == f"{public}/{ROOT}{name}"
    assert keys_of_images(target) == {"cogs/a b.tif"}


def test_a_server_without_conditional_writes_has_the_catalog_too(
    tmp_path: Path, weed: SeaweedFS, records_of: Callable[..., Records]
):
    data = tmp_path / "data"
    data.mkdir()
    with rclone.running(data, weed.store) as store:
        bucket = Bucket(store, "rclone")
        bucket.create()
        target = Target(bucket, ROOT, AERIAL, tmp_path)
        old = tuple(record(f"{name}.tif", run=FIRST) for name in "abc")
        stac.write(records_of(*old), target)
        new = record("b.tif", run=SECOND)
        stac.write(records_of(new, "c.tif", before=old, from_nothing=False), target)

        check_links(target)
        pages = {name: page_of(target, name) for name in "ab"}
        assert pages == {"a": f"{FIRST}-1", "b": f"{SECOND}-1"}
        assert keys_of_images(target) == {"a.tif", "b.tif"}


def test_the_file_of_all_items_is_an_asset_if_it_is_there(
    target: Target, records_of: Callable[..., Records]
):
    made = records_of(record("a.tif"))
    stac.write(made, target)
    assert not collection_of(target).assets
    target.put("items.parquet", b"PAR1", "application/vnd.apache.parquet")
    stac.write(made, target)

    asset = collection_of(target).assets["items"]
    assert asset.roles == ["collection-mirror"]
    key = key_of(target.bucket, asset.get_absolute_href())
    assert target.bucket.exists(key)
