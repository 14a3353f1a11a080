"""Several access points bring one collection up to date, and some are interrupted."""

import gzip
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import duckdb
import pytest

from bucket import Bucket, BucketError, S3Endpoint
from catalog import checksums, geoparquet, mosaicjson, stac, stored, update as updating
from catalog.collections import Collection, of_folder
from catalog.records import Records
from catalog.target import Target
from catalog.update import read_state, update
from state.project import PROJECT
from tests.support.archive import ALL
from tests.support.catalog import record

ROOT = "catalog/"
SHEETS = of_folder("sheets", "cogs")
PRODUCTS = ("checksums", "geoparquet", "mosaicjson", "stac")


@pytest.fixture
def target(bucket_without_pool: Bucket, tmp_path: Path) -> Target:
    return Target(bucket_without_pool, ROOT, SHEETS, tmp_path)


def add_run(target: Target, run: str, *names: str) -> None:
    """Write the records of a run that has converted images."""
    records = [(SHEETS, record(f"sheets/{name}.tif", run=run)) for name in names]
    stored.write(target.bucket, ROOT, run, records, target.scratch)


def in_checksums(target: Target) -> set[str]:
    content = target.bucket.read(f"{target.prefix}SHA256SUMS", ALL).decode()
    return set(re.findall(r"sheets/(.+)\.tif$", content, re.MULTILINE))


def in_stac(target: Target) -> set[str]:
    items = target.bucket.list(f"{target.prefix}items/")
    contents = (json.loads(target.bucket.read(item.key, ALL)) for item in items)
    return {item["properties"]["title"].removesuffix(".tif") for item in contents}


def in_geoparquet(target: Target) -> set[str]:
    file = target.scratch / "downloaded.parquet"
    target.bucket.download(f"{target.prefix}{geoparquet.NAME}", file, ALL)
    query = "SELECT title FROM read_parquet($1)"
    titles = [title for (title,) in duckdb.execute(query, [str(file)]).fetchall()]
    assert len(titles) == len({*titles})
    return {title.removesuffix(".tif") for title in titles}


def in_mosaic(target: Target) -> set[str]:
    key = mosaicjson.key_of(target.collection.mosaicid, target)
    mosaic = json.loads(gzip.decompress(target.bucket.read(key, ALL)))
    assets = {name for names in mosaic["tiles"].values() for name in names}
    return {Path(asset).stem for asset in assets}


def assert_has_images(target: Target, *names: str) -> None:
    for images in (in_checksums, in_geoparquet, in_mosaic, in_stac):
        assert images(target) == {*names}


def assert_is_complete(target: Target, *names: str) -> None:
    assert_has_images(target, *names)
    state = read_state(target)
    assert {*state.products} == {*PRODUCTS}
    assert state.makers == {}


def test_an_update_changes_only_what_is_new(target: Target):
    add_run(target, "1", "a", "b")
    assert update(target, PRODUCTS) == {}
    assert_is_complete(target, "a", "b")
    before = {found.key: found.modified for found in target.bucket.list(ROOT)}
    assert update(target, PRODUCTS) == {}
    assert {found.key: found.modified for found in target.bucket.list(ROOT)} == before

    add_run(target, "2", "c")
    update(target, PRODUCTS)

    assert_is_complete(target, "a", "b", "c")
    items = f"{target.prefix}items/"
    now = {found.key: found.modified for found in target.bucket.list(items)}
    unchanged = {key: when for key, when in before.items() if key.startswith(items)}
    assert len(unchanged) == 2
    assert unchanged.items() <= now.items()


def test_two_makers_at_once_lose_no_image(
    store_without_pool: S3Endpoint, target: Target, tmp_path: Path
):
    add_run(target, "0", "z")
    update(target, PRODUCTS)
    together = threading.Barrier(2)
    failures: list[BaseException] = []

    def access_point(number: int) -> None:
        try:
            scratch = tmp_path / f"scratch-{number}"
            scratch.mkdir()
            bucket = Bucket(store_without_pool, target.bucket.name)
            own = replace(target, scratch=scratch, bucket=bucket)
            for run in range(3):
                together.wait()
                add_run(own, f"{run + 1}-{number}", f"{number}-{run}")
                assert update(own, PRODUCTS) == {}
        except BaseException as error:
            failures.append(error)
            together.abort()

    threads = [threading.Thread(target=access_point, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    names = [f"{number}-{run}" for number in range(2) for run in range(3)]
    assert_has_images(target, "z", *names)


@pytest.mark.parametrize("content", [b"", b'{"title": "sheets", "prod', b"[]"])
def test_a_state_that_nobody_wrote_to_its_end_is_made_again(
    target: Target, content: bytes
):
    add_run(target, "1", "a", "b")
    update(target, PRODUCTS)
    target.bucket.write(f"{target.prefix}state.json", content)
    target.bucket.remove(f"{target.prefix}SHA256SUMS")

    assert update(target, PRODUCTS) == {}

    assert_is_complete(target, "a", "b")


def test_a_root_that_somebody_is_just_writing_is_read_again(target: Target):
    add_run(target, "1", "a")
    update(target, PRODUCTS)
    root = target.bucket.read("catalog/catalog.json", ALL)
    target.bucket.write("catalog/catalog.json", root[:100])
    end_of_writing = threading.Timer(
        1, target.bucket.write, ("catalog/catalog.json", root)
    )
    add_run(target, "2", "b")
    end_of_writing.start()
    try:
        assert update(target, PRODUCTS) == {}
    finally:
        end_of_writing.join()
    assert_is_complete(target, "a", "b")
    assert target.bucket.read("catalog/catalog.json", ALL) == root


def test_a_root_that_is_no_catalog_stays_as_it_is(target: Target):
    add_run(target, "1", "a")
    target.bucket.write("catalog/catalog.json", b"mine")
    failures = update(target, PRODUCTS)
    assert failures.keys() == {"stac"}
    assert "catalog/catalog.json is not a STAC catalog: remove" in failures["stac"]
    assert target.bucket.read("catalog/catalog.json", ALL) == b"mine"


# Kills itself in the middle of a product.
_MAKER = """
import json, os, signal, sys
from pathlib import Path
from bucket import Bucket, S3Endpoint
from catalog import {product}
from catalog.collections import of_folder
from catalog.target import Target
from catalog.update import update

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

{product}.{step} = die
store = json.loads(sys.argv[1])
keys = {{name: Path(store[name]) for name in ("access_key", "secret_key")}}
bucket = Bucket(S3Endpoint(store["endpoint"], secure=False, **keys), sys.argv[2])
update(Target(bucket, "catalog/", of_folder("sheets", "cogs"), Path(sys.argv[3])),
       {products})
"""


@pytest.mark.parametrize(
    ("product", "step"), [("checksums", "write"), ("stac", "_write_collection")]
)
def test_a_maker_that_is_killed_leaves_nothing_wrong(
    store_without_pool: S3Endpoint,
    target: Target,
    tmp_path: Path,
    product: str,
    step: str,
):
    add_run(target, "1", "a", "b")
    update(target, PRODUCTS)
    add_run(target, "2", "b", "c")
    script = _MAKER.format(product=product, step=step, products=PRODUCTS)
    keys = json.dumps(asdict(store_without_pool), default=str)
    killed = subprocess.run(
        [sys.executable, "-c", script, keys, target.bucket.name, str(tmp_path)],
        cwd=PROJECT,
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(read_state(target).makers) == 1
    # Another access point may have gone on, and one of its images be gone.
    stored.write_gone(target.bucket, ROOT, "sheets", [record("sheets/a.tif", run="1")])
    add_run(target, "3", "d")

    assert update(target, PRODUCTS) == {}

    assert_has_images(target, "b", "c", "d")
    # Who follows does not have to make everything again for ever.
    update(target, PRODUCTS, whole=True)
    assert_is_complete(target, "b", "c", "d")


def test_a_product_that_fails_is_made_by_the_next_update(
    target: Target, monkeypatch: pytest.MonkeyPatch
):
    add_run(target, "1", "a")

    def fail(records: Records, target: Target) -> None:
        raise BucketError("the server is tired")

    with monkeypatch.context() as patch:
        patch.setattr(stac, "write", fail)
        assert update(target, PRODUCTS) == {"stac": "the server is tired"}
    assert in_checksums(target) == {"a"}
    assert in_stac(target) == set()

    assert update(target, PRODUCTS) == {}
    assert_is_complete(target, "a")


def test_everything_is_made_again_if_the_collection_is_described_anew(target: Target):
    add_run(target, "1", "a")
    update(target, PRODUCTS)
    described = Collection(SHEETS.id, "Sheets of 1937")

    update(replace(target, collection=described), PRODUCTS)

    collection = json.loads(target.bucket.read(f"{target.prefix}collection.json", ALL))
    assert collection["title"] == "Sheets of 1937"
    assert read_state(target).title == "Sheets of 1937"


def test_records_that_were_removed_take_their_images_with_them(target: Target):
    add_run(target, "1", "a")
    add_run(target, "2", "b")
    update(target, PRODUCTS)

    stored.remove(target.bucket, ROOT, "sheets", "1")
    update(target, PRODUCTS)

    assert_is_complete(target, "b")


def test_others_that_add_images_all_the_time_do_not_keep_it_from_an_end(
    target: Target, monkeypatch: pytest.MonkeyPatch
):
    add_run(target, "1", "a")
    write = checksums.write
    numbers = iter(range(2, 100))

    def slow(records: Records, target: Target) -> None:
        write(records, target)
        number = next(numbers)
        add_run(target, str(number), f"b{number}")

    with monkeypatch.context() as patch:
        patch.setattr(checksums, "write", slow)
        patch.setattr(updating.time, "sleep", lambda _: None)
        assert update(target, PRODUCTS) == {}
    assert update(target, PRODUCTS) == {}

    assert_is_complete(
        target, "a", *(f"b{number}" for number in range(2, next(numbers)))
    )


def after_the_first_products(
    monkeypatch: pytest.MonkeyPatch, others: Callable[[], None]
) -> None:
    """Let others act once, when a maker has first written its last product.

    The products themselves are the real ones.
    """
    write = stac.write
    actions = iter([others])

    def write_and_let_others_act(records: Records, target: Target) -> None:
        write(records, target)
        next(actions, lambda: None)()

    monkeypatch.setattr(stac, "write", write_and_let_others_act)


def test_records_that_go_while_products_are_made_leave_no_image(
    target: Target, monkeypatch: pytest.MonkeyPatch
):
    add_run(target, "1", "a")
    update(target, PRODUCTS)
    add_run(target, "2", "b")

    def others() -> None:
        stored.remove(target.bucket, ROOT, "sheets", "2")
        add_run(target, "3", "c")

    after_the_first_products(monkeypatch, others)
    assert update(target, PRODUCTS) == {}

    assert_is_complete(target, "a", "c")


def test_a_run_that_comes_late_changes_no_later_image(target: Target):
    add_run(target, "3", "a")
    update(target, PRODUCTS)
    add_run(target, "2", "a", "b")

    assert update(target, PRODUCTS) == {}

    assert_is_complete(target, "a", "b")
    file = target.scratch / "downloaded.parquet"
    query = 'SELECT "cog_pipeline:run" FROM read_parquet($1) ORDER BY title'
    assert duckdb.execute(query, [str(file)]).fetchall() == [("3",), ("2",)]


def test_two_makers_with_other_settings_mix_nothing(
    target: Target, monkeypatch: pytest.MonkeyPatch
):
    add_run(target, "1", "a")
    update(target, PRODUCTS)
    add_run(target, "2", "b")

    def others() -> None:
        update(replace(target, public_url="https://maps.example"), PRODUCTS)
        add_run(target, "3", "c")

    after_the_first_products(monkeypatch, others)
    assert update(target, PRODUCTS) == {}

    assert_is_complete(target, "a", "b", "c")
    file = target.scratch / "downloaded.parquet"
    query = "SELECT assets.cog.href FROM read_parquet($1)"
    hrefs = [href for (href,) in duckdb.execute(query, [str(file)]).fetchall()]
    key = mosaicjson.key_of(target.collection.mosaicid, target)
    mosaic = json.loads(gzip.decompress(target.bucket.read(key, ALL)))
    hrefs += [href for tile in mosaic["tiles"].values() for href in tile]
    assert all(href.startswith("s3://") for href in hrefs)


def test_a_product_that_cannot_be_made_again_is_not_taken_for_made(
    target: Target, monkeypatch: pytest.MonkeyPatch
):
    add_run(target, "1", "a")
    update(target, PRODUCTS)
    target.bucket.remove(f"{target.prefix}SHA256SUMS")

    def fail(records: Records, target: Target) -> None:
        raise BucketError("the server is tired")

    with monkeypatch.context() as patch:
        patch.setattr(checksums, "write", fail)
        assert update(target, PRODUCTS, whole=True).keys() == {"checksums"}
    assert update(target, PRODUCTS) == {}

    assert_is_complete(target, "a")
