"""Mosaics say which images a tile of a web map needs, as cogeo-mosaic makes them."""

import gzip
import json
import math
import random
import threading
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import rasterio
from cogeo_mosaic.backends import MosaicBackend
from cogeo_mosaic.mosaic import MosaicJSON
from rasterio.transform import from_origin
from rio_tiler.io import Reader

from bucket import Bucket, ObjectMissing
from catalog import mosaicjson
from catalog.collections import Collection, Provider
from catalog.record import Dates, Record, gone_line, to_line
from catalog.records import collect
from catalog.target import Target
from state.errors import PipelineError
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
)


SHARED = "5" * 56
URL = "https://maps.example"
FIJI = {
    "type": "MultiPolygon",
    "coordinates": [
        [[[179, -18], [180, -18], [180, -17], [179, -17], [179, -18]]],
        [[[-180, -18], [-179, -18], [-179, -17], [-180, -17], [-180, -18]]],
    ],
}


@pytest.fixture
def target(weed_bucket: Bucket, tmp_path: Path) -> Target:
    return target_of(weed_bucket, f"{tmp_path.name}/catalog/", "maps", tmp_path)


def target_of(bucket: Bucket, root: str, name: str, place: Path) -> Target:
    scratch = place / name
    scratch.mkdir()
    providers = (Provider("Smith & Sons"), Provider("Survey"))
    collection = Collection(name, f"The {name}", providers=providers)
    return Target(bucket, root, collection, scratch, URL)


def write(
    target: Target,
    *records: Record,
    former: tuple[Record, ...] = (),
    basis: tuple[Record, ...] = (),
) -> None:
    """Write the mosaics of records, after those of others if there were any.

    Args:
        basis: the records of which it says that it was made, if they are other.
    """
    lines = [(to_line(each), True) for each in former]
    keys = {each.key for each in records}
    for each in former:
        if each.key not in keys:
            lines.append((gone_line(each), False))
    lines += [(to_line(each), False) for each in records if each not in former]
    file = target.scratch / "records"
    collected = collect(lines, file, from_nothing=not former)
    bases = {"basis": digest(basis or records), "former_basis": digest(former)}
    mosaicjson.write(replace(collected, **bases), target)


def digest(records: Iterable[Record]) -> str:
    return str(sorted((each.key, each.run) for each in records))


def mosaic(target: Target, mosaicid: str = "") -> dict[str, Any]:
    key = mosaicjson.key_of(mosaicid or target.collection.mosaicid, target)
    return json.loads(gzip.decompress(target.bucket.read(key, 2**30)))


def assets(target: Target, mosaicid: str = "") -> set[str]:
    found = mosaic(target, mosaicid)["tiles"].values()
    assert all(len(names) == len(set(names)) for names in found)
    return {name.removeprefix(f"{URL}/") for names in found for name in names}


def scattered(number: int, seed: int = 1) -> list[Record]:
    """Return records of polygons with twelve corners, some of which overlap."""
    chance = random.Random(seed)
    made = []
    for n in range(number):
        x, y = chance.uniform(6, 9), chance.uniform(45, 48)
        size = chance.uniform(0.005, 0.05)
        angles = [2 * math.pi * corner / 12 for corner in range(12)]
        ring = [[x + size * math.cos(a), y + size * math.sin(a)] for a in angles]
        footprint = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
        bbox = (x - size, y - size, x + size, y + size)
        made.append(record(f"cogs/sheet-{n}.tif", footprint=footprint, bbox=bbox))
    return made


def test_tiles_are_those_of_cogeo_mosaic(target: Target) -> None:
    records = scattered(300)
    write(target, *records)
    found = mosaic(target)
    features = [
        {
            "type": "Feature",
            "geometry": each.result.footprint,
            "properties": {"path": target.url(each.key)},
        }
        for each in records
    ]
    theirs = MosaicJSON.from_features(features, found["minzoom"], found["maxzoom"])
    wanted = {quadkey: sorted(names) for quadkey, names in theirs.tiles.items()}
    assert len(wanted) > 500
    assert found["tiles"] == wanted
    assert found["quadkey_zoom"] == theirs.quadkey_zoom
    assert found["bounds"] == pytest.approx(theirs.bounds)
    assert found["center"] == pytest.approx(theirs.center)


def test_cogeo_mosaic_opens_it(target: Target, tmp_path: Path) -> None:
    write(target, record("cogs/bern.tif"), record("cogs/fiji.tif", footprint=FIJI))
    file = tmp_path / "mosaic.json.gz"
    target.bucket.download(
        f"{tmp_path.name}/mosaics/{target.collection.mosaicid}.json.gz", file, 2**30
    )
    with MosaicBackend(str(file)) as opened:
        assert opened.assets_for_point(7.42, 46.92) == [f"{URL}/cogs/bern.tif"]
        assert opened.assets_for_point(8.5, 46.92) == []
        info = opened.mosaic_def
    assert (info.mosaicjson, info.name) == ("0.0.3", "The maps")
    assert info.attribution == "Smith &amp; Sons, Survey"


def test_an_image_across_the_antimeridian_is_on_both_sides(
    target: Target, tmp_path: Path
) -> None:
    bbox = (179.0, -18.0, -179.0, -17.0)
    write(target, record("cogs/fiji.tif", footprint=FIJI, bbox=bbox, gsd=20.0))
    file = tmp_path / "mosaic.json"
    file.write_text(json.dumps(mosaic(target)))
    with MosaicBackend(str(file)) as opened:
        for longitude in (179.5, -179.5):
            found = opened.assets_for_point(longitude, -17.5)
            assert found == [f"{URL}/cogs/fiji.tif"]
        assert opened.assets_for_point(0, -17.5) == []


@pytest.mark.parametrize(
    ("crs", "left", "top", "gsd", "size"),
    [
        ("EPSG:32632", 400_000, 5_200_000, 1.0, (4000, 5500)),
        ("EPSG:32632", 500_000, 7_500_000, 0.3, (700, 300)),
        ("EPSG:3857", 0, 0, 10.0, (256, 256)),
        ("EPSG:2056", 2_600_000, 1_200_000, 25.0, (3000, 12_000)),
    ],
)
def test_zoom_levels_are_those_of_rio_tiler(
    target: Target,
    tmp_path: Path,
    crs: str,
    left: float,
    top: float,
    gsd: float,
    size: tuple[int, int],
) -> None:
    width, height = size
    file = tmp_path / "image.tif"
    profile = {"count": 1, "dtype": "uint8", "crs": crs, "sparse_ok": True}
    grid = from_origin(left, top, gsd, gsd)
    rasterio.open(file, "w", "GTiff", width, height, transform=grid, **profile).close()
    with Reader(str(file)) as image:
        wanted = (image.minzoom, image.maxzoom)
        bbox = image.get_geographic_bounds("EPSG:4326")
    write(target, record("a.tif", gsd=gsd, width=width, height=height, bbox=bbox))
    found = mosaic(target)
    assert (found["minzoom"], found["maxzoom"]) == wanted


def test_a_large_image_among_small_ones_does_not_make_a_large_mosaic(
    target: Target,
) -> None:
    world = record("world.tif", gsd=20_000.0, width=2000, bbox=(-180, -80, 180, 80))
    write(target, world, *scattered(20))
    found = mosaic(target)
    assert len(found["tiles"]) < 50_000
    assert assets(target) >= {"world.tif", "cogs/sheet-0.tif"}


def test_images_that_no_web_map_can_show_are_left_out(target: Target) -> None:
    write(
        target,
        record("a.tif"),
        record("nowhere.tif", footprint=None, bbox=None),
        record("pole.tif", bbox=(0.0, -90.0, 90.0, -86.0)),
        record("coast.tif", bbox=(0.0, -86.0, 0.1, -85.0)),
    )
    assert assets(target) == {"a.tif", "coast.tif"}
    assert mosaic(target)["bounds"][1] > -85.06


def test_the_same_images_make_the_same_bytes(target: Target) -> None:
    key = mosaicjson.key_of(target.collection.mosaicid, target)
    write(target, *scattered(20))
    first = target.bucket.stat(key).etag
    write(target, *reversed(scattered(20)))
    assert target.bucket.stat(key).etag == first


def assert_same_mosaic(
    target: Target, former: tuple[Record, ...], new: tuple[Record, ...]
) -> None:
    """Make sure that a mosaic after changes is the one that all images make."""
    key = mosaicjson.key_of(target.collection.mosaicid, target)
    write(target, *new)
    whole = target.bucket.read(key, 2**30)
    write(target, *former)
    write(target, *new, former=former)
    assert target.bucket.read(key, 2**30) == whole


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bbox": (179.0, -18.0, -179.0, -17.0), "footprint": FIJI},
        {"footprint": None, "bbox": None},
        {"mosaicid": SHARED},
        # The tiles get another zoom level.
        {"gsd": 0.1},
        {"gsd": 10.0},
        {"gsd": None},
        {"gsd": 20_000.0, "bbox": (-180.0, -80.0, 180.0, 80.0)},
    ],
)
def test_new_images_make_the_mosaic_that_all_images_make(
    target: Target, changes: dict[str, Any]
) -> None:
    former = tuple(scattered(300))
    new = (*former, record("new.tif", **changes))
    assert_same_mosaic(target, former, new)


def test_images_that_are_replaced_or_gone_leave_no_trace(target: Target) -> None:
    former = (*scattered(20), record("far.tif", bbox=(50.0, 50.0, 50.1, 50.1)))
    moved = record(former[0].key, bbox=(20.0, 50.0, 20.1, 50.1))
    new = (moved, *former[1:-1])
    assert_same_mosaic(target, former, new)


def test_images_that_have_not_changed_stay_as_they_are_in_the_mosaic(
    target: Target,
) -> None:
    former = tuple(scattered(20))
    write(target, *former, record("somebody.tif"), basis=former)

    write(target, *former, record("new.tif"), former=former)

    assert assets(target) == {"somebody.tif", "new.tif", *(each.key for each in former)}


@pytest.mark.parametrize("kind", ["no gzip", "damaged", "empty", "other"])
def test_the_mosaic_of_a_collection_that_is_of_no_use_is_made_again(
    target: Target, kind: str
) -> None:
    former = tuple(scattered(20))
    key = mosaicjson.key_of(target.collection.mosaicid, target)
    write(target, *former)
    content = target.bucket.read(key, 2**30)
    contents = {
        "no gzip": b"no gzip",
        "damaged": content[:10] + b"\xff" * 50 + content[60:],
        "empty": gzip.compress(b'{"tiles": {}}'),
    }
    if kind == "other":
        write(target, *former[1:], record("somebody.tif"))
    else:
        target.bucket.write(key, contents[kind])

    write(target, *former, record("new.tif"), former=former)

    assert assets(target) == {"new.tif", *(each.key for each in former)}


def test_a_mosaic_that_does_not_say_how_it_was_made_is_made_again(
    target: Target,
) -> None:
    former = tuple(scattered(20))
    write(target, *former)
    key = mosaicjson.key_of(target.collection.mosaicid, target)
    content = mosaic(target)
    for changes in ({"cog_pipeline": 5}, {"cog_pipeline": {}}, {"version": None}):
        changed = {**content, "tiles": {}, **changes}
        if not changed["version"]:
            del changed["version"], changed["cog_pipeline"]
        target.bucket.write(key, gzip.compress(json.dumps(changed).encode()))
        write(target, *former, record("new.tif"), former=former)
        assert assets(target) == {"new.tif", *(each.key for each in former)}


def test_a_name_with_a_comma_is_one_attribution(target: Target) -> None:
    collection = replace(target.collection, providers=(Provider("Smith, Sons, Ltd"),))
    target = replace(target, collection=collection)
    for key in ("a.tif", "b.tif"):
        write(target, record(key, mosaicid=SHARED))
    assert mosaic(target, SHARED)["attribution"] == "Smith, Sons, Ltd"


def test_a_collection_without_images_has_no_mosaic(target: Target) -> None:
    write(target, record("a.tif"))
    write(target)
    with pytest.raises(ObjectMissing):
        mosaic(target)


def test_images_with_a_mosaic_of_their_own_go_there(target: Target) -> None:
    write(target, record("a.tif"), record("b.tif", mosaicid=SHARED))
    assert assets(target) == {"a.tif"}
    assert assets(target, SHARED) == {"b.tif"}


def test_an_image_that_is_added_again_is_named_once(target: Target) -> None:
    images = [replace(each, mosaicid=SHARED) for each in scattered(20)]
    for _ in range(2):
        write(target, *images)
    first = mosaic(target, SHARED)
    moved = record(images[0].key, mosaicid=SHARED, bbox=(20.0, 50.0, 20.1, 50.1))
    write(target, moved, *images[1:], former=tuple(images))
    found = mosaic(target, SHARED)
    assert assets(target, SHARED) == {each.key for each in images}
    named = [
        key for key, names in found["tiles"].items() if target.url(moved.key) in names
    ]
    assert named
    assert not {*named} & {*first["tiles"]}
    assert (first["version"], found["version"]) == ("1.0.0", "1.0.1")


def test_a_removed_image_leaves_its_mosaic(target: Target) -> None:
    images = tuple(replace(each, mosaicid=SHARED) for each in scattered(20))
    write(target, *images)
    write(target, *images[5:], former=images)
    assert assets(target, SHARED) == {each.key for each in images[5:]}


def test_an_image_that_changes_its_mosaic_leaves_the_former(target: Target) -> None:
    image = record("a.tif", mosaicid=SHARED)
    other = record("b.tif", mosaicid=SHARED)
    write(target, image, other)
    write(target, replace(image, mosaicid="6" * 56), other, former=(image, other))
    assert assets(target, SHARED) == {"b.tif"}
    assert assets(target, "6" * 56) == {"a.tif"}


def test_collections_share_a_mosaic(target: Target, tmp_path: Path) -> None:
    plans = target_of(target.bucket, target.root, "plans", tmp_path)
    write(target, record("a.tif", mosaicid=SHARED))
    # Its images are so coarse that the first level of the mosaic would not fit.
    write(
        plans,
        record("b.tif", mosaicid=SHARED, gsd=20_000.0, bbox=(-180, -80, 180, 80)),
    )
    assert assets(target, SHARED) == {"a.tif", "b.tif"}
    found = mosaic(target, SHARED)
    assert {len(quadkey) for quadkey in found["tiles"]} == {found["quadkey_zoom"]}
    assert found["attribution"] == "Smith &amp; Sons, Survey"


def test_writers_at_the_same_time_lose_nothing(
    weed_bucket: Bucket, tmp_path: Path
) -> None:
    names = [f"collection-{number}" for number in range(5)]
    root = f"{tmp_path.name}/catalog/"
    targets = [target_of(weed_bucket, root, name, tmp_path) for name in names]
    start = threading.Barrier(len(targets))

    def add(target: Target) -> None:
        start.wait()
        for number in range(3):
            key = f"{target.collection.id}-{number}.tif"
            write(target, record(key, mosaicid=SHARED))

    threads = [threading.Thread(target=add, args=(each,)) for each in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = {f"{name}-{number}.tif" for name in names for number in range(3)}
    assert assets(targets[0], SHARED) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "no gzip",
        "[]",
        '{"tiles": {"0": ["a"]}, "minzoom": 3, "maxzoom": 5}',
        '{"tiles": {}, "minzoom": 99, "maxzoom": 99}',
        '{"tiles": {"": ["a"]}, "minzoom": 0, "maxzoom": 5, "bounds": [0, 0, 1, 1]}',
    ],
)
def test_what_is_no_mosaic_is_not_replaced(target: Target, text: str) -> None:
    key = mosaicjson.key_of(SHARED, target)
    content = text.encode()
    if text != "no gzip":
        content = gzip.compress(content)
    target.bucket.write(key, content)
    with pytest.raises(PipelineError, match="is not a mosaic"):
        write(target, record("a.tif", mosaicid=SHARED))
    assert target.bucket.read(key, 2**20) == content
