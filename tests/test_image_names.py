"""An image is found by its name in each form in which people write it."""

import csv
import io
import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest

from bucket import Bucket, S3Endpoint, StoredObject
from dag.images import ImageIndex
from dag.manifest import parse
from dag.names import composed
from state.rows import Row
from tests.support import seaweedfs
from tests.support.archive import ALL, Archive
from tests.support.runs import resolve

SERVER = "s3.example.org:9000"
NFC, NFD = (
    unicodedata.normalize(form, "Zürich/Kärnten.tif") for form in ("NFC", "NFD")
)
MIXED = NFC.partition("/")[0] + "/" + NFD.partition("/")[2]


def found(
    written: str, *keys: str, bucket: str = "maps", endpoint: str = SERVER
) -> Row:
    """Return the row of an image, looked for among the objects with these keys."""
    text = io.StringIO()
    csv.writer(text).writerow([written, "1"])
    stored = [StoredObject(key, 7, "", datetime.now(UTC)) for key in keys]
    (row,) = resolve(parse(text.getvalue().encode()), bucket, stored, endpoint).rows
    assert row.fields == (written, "1")
    return row


@pytest.mark.parametrize(
    ("written", "key"),
    [
        (NFC, NFD),
        (NFD, NFC),
        (NFC, MIXED),
        (MIXED, NFD),
        ("maps/" + NFD, NFC),
        ("\u200emaps/x/a.tif", "x/a.tif"),
        ("\u202amaps/x/a.tif\u202c", "x/a.tif"),
        ("s3://maps/x/a.tif", "x/a.tif"),
        ("S3://maps/x/a.tif", "x/a.tif"),
        ("s3a://maps/x/a.tif", "x/a.tif"),
        ("s3://maps/maps/a.tif", "maps/a.tif"),
        ("s3://maps/map%20of%20Bern.tif", "map of Bern.tif"),
        ("s3://maps/" + NFD, NFC),
        ("arn:aws:s3:::maps/x/a.tif", "x/a.tif"),
        ("/vsis3/maps/x/a.tif", "x/a.tif"),
        ("https://s3.example.org:9000/maps/x/a.tif", "x/a.tif"),
        ("https://S3.Example.org/maps/x/a.tif", "x/a.tif"),
        ("http://s3.example.org:9000/maps/x/a.tif", "x/a.tif"),
        ("https://maps.s3.example.org/x/a.tif", "x/a.tif"),
        ("/vsicurl/https://s3.example.org/maps/x/a.tif", "x/a.tif"),
        ("https://s3.example.org/maps/x%2Fa%20b.tif", "x/a b.tif"),
        ("https://s3.example.org/maps/" + quote(NFC), NFC),
        ("https://s3.example.org/maps/" + quote(NFD), NFC),
        ("https://s3.example.org/maps/a.tif?X-Amz-Expires=9&x=a.tif", "a.tif"),
        ("https://s3.example.org/maps/a.tif?versionId=7#top", "a.tif"),
        ("https://s3.example.org/maps/sheet#1.tif", "sheet#1.tif"),
        ("https://s3.example.org/maps/100%25.tif", "100%.tif"),
        ("https://s3.example.org/maps/map+of+Bern.tif", "map of Bern.tif"),
        ("https://s3.example.org/maps/a+b.tif", "a+b.tif"),
        ("x\\y\\a.tif", "x/y/a.tif"),
        ("maps\\x\\a.tif", "x/a.tif"),
        ("x\\" + NFD, f"x/{NFC}"),
        ("map%20of%20Bern.tif", "map of Bern.tif"),
    ],
)
def test_an_image_is_found_whatever_the_form_of_its_name(written: str, key: str):
    row = found(written, key, "other.tif")
    assert (row.reason, row.key) == (None, key)


@pytest.mark.parametrize(
    ("written", "other"),
    [
        (NFC, NFD),
        (NFD, NFC),
        (MIXED, NFC),
        ("x\\a.tif", "x/a.tif"),
        ("a%20b.tif", "a b.tif"),
        ("s3:a.tif", "a.tif"),
        ("x:y.tif", "y.tif"),
    ],
)
def test_the_object_with_exactly_the_name_comes_first(written: str, other: str):
    for keys in ([written, other], [other, written]):
        row = found(written, *keys)
        assert (row.reason, row.key) == (None, written)


@pytest.mark.parametrize("written", [MIXED, "s3://maps/" + MIXED])
def test_of_two_objects_that_look_the_same_none_is_taken(written: str):
    row = found(written, NFC, NFD)
    assert row.code == "ambiguous"
    assert "2 objects in the bucket maps have this name" in row.reason
    assert "NFC, NFD" in row.reason


def test_two_objects_that_look_the_same_are_both_converted_by_their_names():
    stored = [StoredObject(key, 7, "", datetime.now(UTC)) for key in (NFC, NFD)]
    rows = resolve(parse(f"{NFC},1\n{NFD},1\n".encode()), "maps", stored).rows
    assert [(row.key, row.reason) for row in rows] == [(NFC, None), (NFD, None)]


def test_no_cog_replaces_an_image_of_the_same_manifest():
    index = ImageIndex(parse(b"a.tif,1\nscans/a.tif,1\n"), "maps")
    for key in ("a.tif", "scans/a.tif"):
        index.add(StoredObject(key, 7, "", datetime.now(UTC)))

    first, second = index.resolve("scans/{}".format, keep_images=True).rows

    assert "its COG would replace the image scans/a.tif" in first.reason
    assert second.reason is None


def test_two_forms_of_one_name_are_one_image():
    stored = [StoredObject("x/a.tif", 7, "", datetime.now(UTC))]
    first, second = resolve(parse(b"x/a.tif,1\nx\\a.tif,1\n"), "maps", stored).rows
    assert (first.reason, second.code) == (None, "duplicate")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("s3://other/a.tif", "its URL names the bucket other, not the bucket maps"),
        (
            "https://elsewhere.org/maps/a.tif",
            "bucket or server (elsewhere.org)",
        ),
        ("https://s3.example.org/other/a.tif", "another bucket or server"),
        ("https://other.s3.example.org/a.tif", "another bucket or server"),
        ("https://maps.evil.org/a.tif", "another bucket or server (maps.evil.org)"),
        ("b.tif", "not in the bucket maps"),
        ("s3://maps/b.tif", "not in the bucket maps"),
    ],
)
def test_a_name_of_another_place_says_so(written: str, said: str):
    row = found(written, "a.tif", "maps/a.tif")
    assert row.code == "not-found"
    assert said in row.reason


@pytest.mark.parametrize(
    ("written", "endpoint"),
    [
        ("https://maps.s3.eu-central-1.amazonaws.com/a.tif", "s3.amazonaws.com"),
        ("https://maps.s3.amazonaws.com/a.tif", "s3.eu-central-1.amazonaws.com"),
        ("https://s3-eu-west-1.amazonaws.com/maps/a.tif", "s3.eu-west-1.amazonaws.com"),
    ],
)
def test_the_names_of_aws_are_one_server(written: str, endpoint: str):
    assert found(written, "a.tif", endpoint=endpoint).key == "a.tif"
    other = written.replace("maps", "other")
    assert found(other, "a.tif", endpoint=endpoint).code == "not-found"


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("s3://maps/x/../a.tif", "bad-path"),
        ("https://s3.example.org/maps/%2e%2e/a.tif", "not-found"),
        ("..\\a.tif", "bad-path"),
        ("x\\..\\a.tif", "not-found"),
        ("s3://maps/a.png", "not-a-tiff"),
        ("s3://maps//a.tif", "bad-path"),
        ("a%00.tif", "not-found"),
        ("%2Fa.tif", "not-found"),
        ("s3://maps/" + "a%20" * 300 + ".tif", "name-too-long"),
    ],
)
def test_no_form_of_a_name_leads_out_of_the_bucket(written: str, code: str):
    keys = ("../a.tif", "x/../a.tif", "/a.tif", "a\0.tif", "a.png")
    row = found(written, *keys)
    assert (row.code, row.key) == (code, written)


@pytest.fixture(params=["rclone", "seaweedfs"])
def bucket(
    request: pytest.FixtureRequest, store: S3Endpoint, tmp_path: Path
) -> Iterator[Bucket]:
    """Yield a bucket of a server that finds keys in any form; then of another."""
    with ExitStack() as stack:
        if request.param == "seaweedfs":
            store = stack.enter_context(seaweedfs.running(tmp_path, store))
        made = Bucket(store, f"names-{uuid.uuid4().hex[:8]}")
        made.create()
        yield made


def test_images_are_looked_for_in_all_forms(bucket: Bucket):
    rhone = unicodedata.normalize("NFC", "Genève/Rhône.tif")
    meant = {
        NFC: NFD,
        unicodedata.normalize("NFD", rhone): rhone,
        "far\\x\\a.tif": "far/x/a.tif",
        f"https://{bucket.endpoint}/{bucket.name}/far/a%20b.tif": "far/a b.tif",
    }
    for key in meant.values():
        bucket.write(key, b"x")
    for written in (list(meant), *([name] for name in meant)):
        manifest = parse("".join(f"{name},1\n" for name in written).encode())
        index = ImageIndex(manifest, bucket.name, bucket.endpoint)
        for _ in index.find(bucket, "manifests/"):
            pass
        for name, row in zip(written, index.resolve().rows, strict=True):
            assert row.reason is None, name
            assert composed(row.key) == composed(meant[name])
            assert bucket.read(row.key, ALL) == b"x"


def test_images_in_other_forms_are_converted_and_the_csvs_have_what_was_written(
    archive: Archive,
):
    name = archive.maps.name
    for key in (NFD, "x/y.tif", "map of Bern.tif", "win/a.tif"):
        archive.upload_raster(key, 1)
    rows = [
        *(NFC, f"s3://{name}/x/y.tif", "win\\a.tif"),
        f"https://{archive.store.endpoint}/{name}/{quote('map of Bern.tif')}",
    ]
    archive.upload_manifest("batch-raw.csv", [(row, 1) for row in rows])
    archive.launch()
    processed, failed = archive.outcome("batch-")
    assert (processed, failed) == ([[row, "1"] for row in rows], [])
    cogs = {found.key for found in archive.cogs.list()}
    assert {NFD, "x/y.tif", "map of Bern.tif", "win/a.tif"} <= cogs


def test_a_manifest_waits_for_one_that_names_its_image_in_another_form(
    archive: Archive,
):
    archive.upload_raster(NFD, 1)
    archive.launch_to_poll_by_hand("--submit-option", "hold = true")
    archive.upload_manifest("a-raw.csv", [(NFD, 1)])
    assert "waits for" not in archive.poll().stdout
    archive.upload_manifest("b-raw.csv", [(f"s3://{archive.maps.name}/{NFC}", 1)])
    assert "it waits for a-processing-" in archive.poll().stdout
