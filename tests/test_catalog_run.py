"""The catalog of runs on the real pool: asked for at launch, or made afterwards."""

import gzip
import json
import re
import shutil
from pathlib import Path

import pytest

from bucket import Bucket, S3Endpoint
from cli.catalog import catalogs_of
from condor import queue
from state.catalog import CatalogOutcome, load_catalog_outcome
from state.launch import Launch
from state.run import Run, load_run
from tests.support.archive import ALL, Archive, wait_for
from tests.support.catalog import stored_records

# The product that needs least.
CHECKSUMS = ("--catalog", "checksums")
A_JOB_FOR_ALL = ("--rows-per-job", "10")


@pytest.fixture
def images(archive: Archive) -> list[tuple[str, str]]:
    keys = ("east/a.tif", "east/b.tif", "west/a.tif", "west/b.tif")
    rows = [(key, "1") for key in keys]
    for key, _ in rows:
        archive.upload_raster(key, 1)
    return rows


def sums(cogs: Bucket, collection: str, prefix: str = "") -> set[str]:
    """Return the names of the files in the SHA256SUMS of a collection."""
    content = cogs.read(f"{prefix}catalog/{collection}/SHA256SUMS", 10**6).decode()
    return {re.sub(r"^\w{64} [ *](\.\./)*", "", line) for line in content.splitlines()}


def in_mosaic(cogs: Bucket, mosaicid: str) -> set[str]:
    """Return the keys of the images that a mosaic names."""
    mosaic = json.loads(gzip.decompress(cogs.read(f"mosaics/{mosaicid}.json.gz", ALL)))
    urls = {url for assets in mosaic["tiles"].values() for url in assets}
    return {url.removeprefix(f"s3://{cogs.name}/") for url in urls}


def polled(archive: Archive) -> str:
    done = archive.poll()
    assert done.returncode == 0, done.stderr
    return done.stdout


def convert(archive: Archive, name: str, rows: list[tuple[str, ...]]) -> None:
    """Upload a manifest, and poll until the run has its CSVs."""
    archive.upload_manifest(f"{name}-raw.csv", rows)
    polled(archive)
    archive.outcome(f"{name}-")


def only_run(archive: Archive) -> Path:
    (run,) = archive.directory.glob("workflow-run-*")
    return run


def test_a_launch_makes_the_catalog_of_its_runs(
    archive: Archive, images: list[tuple[str, str]]
):
    archive.launch_to_poll_by_hand(*CHECKSUMS, *A_JOB_FOR_ALL)
    lost = ("east/lost.tif", "1")
    archive.upload_manifest("batch-raw.csv", [*images, lost])
    polled(archive)
    processed, ((key, *_),) = archive.outcome("batch-")
    assert (sorted(processed), key) == (sorted(map(list, images)), lost[0])

    output = polled(archive)

    assert "batch-raw.csv: 4 images in 2 collections of the catalog" in output
    assert {name for name in sums(archive.cogs, "east") if name.endswith(".tif")} == {
        *("east/a.tif", "east/b.tif")
    }
    made = json.loads((only_run(archive) / "catalog.json").read_text())
    assert made["products"] == ["checksums"]
    assert made["failures"] == {}
    assert polled(archive).count("catalog") == 0


def test_columns_of_a_manifest_and_patterns_choose_collections_and_dates(
    archive: Archive,
):
    for key in ("1937/a.tif", "1937/b.tif", "c.tif"):
        archive.upload_raster(key, 1)
    pattern = r"^(?P<collection>\d{4})/"
    archive.launch_to_poll_by_hand(
        *("--catalog", "checksums", "--collection-from", pattern),
        *("--datetime-from", "(?P<year>[0-9]{4})/", *A_JOB_FOR_ALL),
        *("--output-prefix", "cogs/"),
    )
    rows = [
        ("image", "bands", "collection", "datetime"),
        ("1937/a.tif", "1", "Dane County", "1938-02/1938-03"),
        ("1937/b.tif", "1", "", ""),
        ("c.tif", "1", "", "soon"),
    ]
    archive.upload_manifest("batch-raw.csv", rows)
    polled(archive)
    assert archive.outcome("batch-") == ([[*row] for row in rows], [])
    output = polled(archive)

    assert "1 cell of the column datetime cannot be read, such as 'soon'," in output
    records = {
        record.key: record for record in stored_records(archive.cogs, "cogs/catalog/")
    }
    assert {key: each.collection for key, each in records.items()} == {
        "cogs/1937/a.tif": records["cogs/1937/a.tif"].collection,
        "cogs/1937/b.tif": "1937",
        "cogs/c.tif": archive.cogs.name,
    }
    assert records["cogs/1937/a.tif"].collection.startswith("Dane-County")
    assert records["cogs/1937/a.tif"].dates == (
        "1938-02-01T00:00:00Z",
        "1938-03-31T23:59:59Z",
    )
    assert records["cogs/1937/b.tif"].dates == (
        "1937-01-01T00:00:00Z",
        "1937-12-31T23:59:59Z",
    )
    assert records["cogs/c.tif"].dates is None


def test_the_catalog_of_earlier_runs_is_made_afterwards_and_pruned(
    archive: Archive, images: list[tuple[str, str]]
):
    archive.launch_to_poll_by_hand(*A_JOB_FOR_ALL)
    convert(archive, "batch", images)
    polled(archive)
    assert not (only_run(archive) / "catalog.json").exists()
    without_products = archive.call("catalog")
    assert without_products.returncode == 2
    assert "--products stac,geoparquet" in without_products.stderr

    made = archive.call("catalog", "--products", "checksums", "--json")

    assert made.returncode == 0, made.stderr
    (result,) = json.loads(made.stdout).values()
    assert result["images"] == 4
    assert sums(archive.cogs, "west") >= {"west/a.tif", "west/b.tif"}

    archive.cogs.remove("west/a.tif")
    pruned = archive.call("catalog", "--products", "checksums", "--prune")
    assert pruned.returncode == 0
    assert "1 image left out" in pruned.stderr
    assert "west/a.tif" not in sums(archive.cogs, "west")
    assert "west/b.tif" in sums(archive.cogs, "west")
    # It stays so, whatever is made afterwards.
    assert archive.call("catalog", "--products", "checksums", "--whole").returncode == 0
    assert "west/a.tif" not in sums(archive.cogs, "west")
    # The launch has ended, and somebody has removed its directory.
    archive.call("stop", "--launch")
    (home,) = archive.directory.glob("launch-*")
    shutil.rmtree(home)
    again = archive.call("catalog", "--products", "checksums", "--prune", "--whole")
    assert again.returncode == 0, again.stderr


def test_an_image_that_comes_into_another_collection_leaves_the_former_one(
    archive: Archive, images: list[tuple[str, str]]
):
    shared = ("--mosaicid", "5" * 56)
    products = ("--catalog", "checksums,mosaicjson")
    archive.launch_to_poll_by_hand(*products, *shared, *A_JOB_FOR_ALL)
    convert(archive, "batch", images)
    polled(archive)
    rows = [("image", "bands", "collection"), ("west/a.tif", "1", "east")]
    convert(archive, "again", rows)
    polled(archive)
    assert "west/a.tif" in sums(archive.cogs, "east")
    assert in_mosaic(archive.cogs, shared[1]) == {key for key, _ in images}

    pruned = archive.call("catalog", "--prune")

    assert pruned.returncode == 0, pruned.stderr
    assert "1 image left out" in pruned.stderr
    assert sums(archive.cogs, "east") >= {"east/a.tif", "east/b.tif", "west/a.tif"}
    assert sums(archive.cogs, "west") == {"west/b.tif", "west/b.jpg"}
    # Both collections share the mosaic.
    assert in_mosaic(archive.cogs, shared[1]) == {key for key, _ in images}

    # An interruption came before the image was added again.
    key = f"mosaics/{shared[1]}.json.gz"
    mosaic = json.loads(gzip.decompress(archive.cogs.read(key, ALL)))
    url = f"s3://{archive.cogs.name}/west/a.tif"
    for assets in mosaic["tiles"].values():
        assets[:] = [asset for asset in assets if asset != url]
    archive.cogs.write(key, gzip.compress(json.dumps(mosaic).encode()))
    assert "west/a.tif" not in in_mosaic(archive.cogs, shared[1])
    assert archive.call("catalog", "--prune").returncode == 0
    assert in_mosaic(archive.cogs, shared[1]) == {key for key, _ in images}


def test_a_collection_that_a_run_has_left_is_made_until_it_is_right(
    archive: Archive, images: list[tuple[str, str]]
):
    archive.launch_to_poll_by_hand(*CHECKSUMS, *A_JOB_FOR_ALL)
    convert(archive, "batch", images)
    polled(archive)
    damaged = "catalog/east/records/zzz.jsonl.gz"
    archive.cogs.write(damaged, b"not gzip")
    into_one = ("catalog", "--collection-from", "(?P<collection>tif)$")

    failing = archive.call(*into_one)

    assert failing.returncode == 1
    assert len(sums(archive.cogs, "tif")) == 8
    assert "east/a.tif" in sums(archive.cogs, "east")
    archive.cogs.remove(damaged)
    second = archive.call(*into_one)
    assert second.returncode == 0, second.stderr
    assert sums(archive.cogs, "east") == set()
    outcome = load_catalog_outcome(load_run(only_run(archive)))
    assert outcome is not None
    assert set(outcome.collections) == {"tif"}


def test_catalogs_of_two_stores_are_two_even_if_their_buckets_have_one_name(
    tmp_path: Path,
):
    runs, outcomes = [], {}
    for name in ("trial", "atlas"):
        run = Run(tmp_path / name, "launch-x", "raw.csv", "", "", "", "")
        store = S3Endpoint(f"{name}.example.org", tmp_path, tmp_path)
        runs.append((run, Launch(tmp_path, store, "maps", "cogs")))
        outcomes[name] = CatalogOutcome(("stac",), {name: name}, 1, {})
    assert [
        (launch.store.endpoint, set(titles))
        for launch, titles in catalogs_of(runs, outcomes)
    ] == [("trial.example.org", {"trial"}), ("atlas.example.org", {"atlas"})]


def test_a_product_that_fails_endangers_nothing_and_is_made_by_a_later_poll(
    archive: Archive, images: list[tuple[str, str]]
):
    archive.launch_to_poll_by_hand(*CHECKSUMS, *A_JOB_FOR_ALL)
    convert(archive, "batch", images)
    # Records that cannot be read keep the collection from being made.
    records_of_another = "catalog/east/records/zzz.jsonl.gz"
    archive.cogs.write(records_of_another, b"not gzip")

    failing = archive.poll()

    assert failing.returncode == 0
    assert (
        "/catalog/east/records/zzz.jsonl.gz cannot be read (BadGzipFile"
        in failing.stdout
    )
    assert load_run(only_run(archive)).done
    for command in ("status", "health"):
        shown = " ".join(archive.call(command).stdout.split())
        assert "the catalog could not be made" in shown
    pruned = archive.call("catalog", "--prune")
    assert pruned.returncode == 1
    assert "zzz.jsonl.gz cannot be read (BadGzipFile" in pruned.stderr
    assert "internal error" not in pruned.stderr

    archive.cogs.remove(records_of_another)
    assert "4 images in 2 collections" in polled(archive)
    assert "could not be made" not in archive.call("status").stdout
    assert "east/a.tif" in sums(archive.cogs, "east")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--catalog", "stack"), "there is no product 'stack'; there are checksums,"),
        (("--collection-from", "("), "is not a regular expression"),
        (("--collection-from", "^([^/]+)/"), "has no group (?P<…>…) named collection"),
        (("--datetime-from", "(?P<month>..)"), "named year or date"),
        (("--public-url", "maps.example.org"), "is not a URL such as https://"),
        (("--mosaicid", "abc"), "is not 56 hexadecimal digits"),
    ],
)
def test_a_launch_refuses_what_no_catalog_can_be_made_with(
    archive: Archive, options: tuple[str, ...], message: str
):
    launched = archive.run(*options)
    assert launched.returncode == 2
    assert message in " ".join(launched.stderr.split())


def test_a_launch_refuses_a_file_of_collections_that_it_does_not_understand(
    archive: Archive,
):
    file = archive.directory / "collections.toml"
    for text, message in {
        "[default]\nlicence = 'CC0-1.0'\n": "[default]: licence = 'CC0-1.0' is not",
        "[x]\nproviders = [{roles = ['owner']}]\n": "a provider has a name, a url",
        "[x]\ninterval = ['soon', '']\n": "interval = ['soon', ''] is not understood",
        "x = 5\n": "[x] is not a table",
        "[x": "cannot be read",
    }.items():
        file.write_text(text)
        launched = archive.run("--collections", str(file))
        assert launched.returncode == 1
        assert message in " ".join(launched.stderr.split())


def test_a_job_of_its_own_makes_the_catalog_of_very_many_images(
    archive: Archive, images: list[tuple[str, str]]
):
    archive.launch_to_poll_by_hand(*CHECKSUMS, *A_JOB_FOR_ALL)
    convert(archive, "batch", images)
    run = load_run(only_run(archive))
    wait_for(lambda: run.done)
    counts = json.loads(run.done_file.read_text())
    run.done_file.write_text(json.dumps(counts | {"processed": 50_001}))

    output = polled(archive)

    assert "makes the catalog, which has very many images" in output
    # A second poll does not submit another one.
    assert "makes the catalog" not in polled(archive)
    wait_for(lambda: (outcome := load_catalog_outcome(run)) and outcome.is_ended)
    assert sums(archive.cogs, "east") >= {"east/a.tif", "east/b.tif"}


def test_clean_knows_the_catalog(archive: Archive, images: list[tuple[str, str]]):
    archive.launch_to_poll_by_hand("--catalog", "checksums,mosaicjson", *A_JOB_FOR_ALL)
    convert(archive, "batch", images)
    run = only_run(archive)
    wait_for(lambda: queue.find(queue.RUN_ATTRIBUTE, str(run)) is None)
    kept = archive.call("clean", "--older-than", "0d", "--delete").stdout
    assert "it is kept, because its images are not in the catalog yet" in kept
    assert run.exists()
    polled(archive)
    assert any(stored.key.startswith("mosaics/") for stored in archive.cogs.list())
    archive.cogs.write("notes.txt", b"?")

    left = archive.call("clean", "--older-than", "0d").stdout

    assert "it has ended, and both CSVs are in the bucket" in left
    assert "notes.txt" in left
    assert "catalog/" not in left
    assert "mosaics/" not in left
