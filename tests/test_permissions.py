"""Keys need no permission beyond the prefixes in use, and one that is missing is named.

The proxy answers as AWS documents it: what the keys may not do is 403, and so is a
request for an object that is not there, unless they may list the whole bucket.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html
"""

import pytest

from bucket import Bucket, ObjectMissing, PermanentS3Error
from tests.support.archive import Archive
from tests.support.faulty_s3 import Fault, FaultyS3

ABSENT = Fault("GET|HEAD", r"^/[^/?]+/[^?]+$", status=403, instead_of=404)


def limited(bucket: Bucket, *prefixes: str) -> list[Fault]:
    """Return what a bucket answers to keys that are limited to some prefixes."""
    objects = "|".join(prefixes)
    listings = objects.replace("/", "%2F")
    return [
        Fault(path=rf"^/{bucket.name}/(?!{objects})[^?]", status=403),
        Fault("GET", rf"^/{bucket.name}/?\?.*\bprefix=(?!{listings})", status=403),
        # As of GetBucketLocation.
        ABSENT,
    ]


@pytest.fixture
def maps(faulty_archive: Archive) -> Bucket:
    """Return the input bucket behind the proxy."""
    return Bucket(faulty_archive.store, faulty_archive.maps.name)


def test_images_may_be_in_several_folders_with_others_between(
    faulty_archive: Archive, faulty_s3_server: FaultyS3
):
    images = ["drone/2024/a.tif", "drone/2025/b.tif", "scans/c.tif"]
    for key in images:
        faulty_archive.upload_raster(key, 1, width=90, height=90)
    faulty_archive.upload_raster("private/d.tif", 1, width=90, height=90)
    asked = [*images, "scans/none.tif", "private/d.tif"]
    rows = [(key, 1) for key in asked]
    faulty_archive.upload_manifest("manifests/batch-raw.csv", rows)
    faulty_s3_server.faults = [
        *limited(faulty_archive.maps, "manifests/", "drone/", "scans/"),
        *limited(faulty_archive.cogs, "out/"),
    ]
    faulty_archive.launch("-p", "manifests/*raw.csv", "--output-prefix", "out/")

    processed, failed = faulty_archive.outcome("manifests/batch-")

    assert processed == [[key, "1"] for key in images]
    reasons = {row[0]: row[2] for row in failed}
    assert reasons.keys() == {"scans/none.tif", "private/d.tif"}
    assert "upload it" in reasons["scans/none.tif"]
    assert "allow s3:ListBucket and s3:GetObject" in reasons["private/d.tif"]


def test_a_large_folder_is_not_listed_for_a_few_images(
    faulty_archive: Archive, faulty_s3_server: FaultyS3, maps: Bucket
):
    faulty_archive.maps.write("a/1.tif", b"1")
    faulty_archive.maps.write("b/2.tif", b"22")
    faulty_s3_server.faults = limited(maps, "a/", "b/")
    unreachable: list[str] = []
    keys = ["a/1.tif", "b/2.tif", "b/3.tif", "c/4.tif", "5.tif"]
    found = maps.find_objects(keys, lambda key: (), unreachable.append)
    assert {item.key: item.size for item in found} == {"a/1.tif": 1, "b/2.tif": 2}
    assert unreachable == ["5.tif", "c/4.tif"]


def test_keys_that_may_read_but_not_list_find_images(
    faulty_archive: Archive, faulty_s3_server: FaultyS3, maps: Bucket
):
    faulty_archive.maps.write("a/1.tif", b"1")
    faulty_s3_server.faults = [Fault("GET", "list-type", status=403), ABSENT]
    found = maps.find_objects(["a/1.tif", "a/2.tif"], lambda key: ())
    assert [item.key for item in found] == ["a/1.tif"]


def test_an_object_that_is_absent_is_told_from_one_that_is_forbidden(
    faulty_archive: Archive, faulty_s3_server: FaultyS3, maps: Bucket
):
    faulty_archive.maps.write("in/forbidden", b"")
    faulty_s3_server.faults = [Fault(path="/in/forbidden$", status=403), ABSENT]
    for read in (maps.stat, maps.metadata, lambda key: maps.read(key, 1)):
        with pytest.raises(ObjectMissing):
            read("in/absent")
        with pytest.raises(PermanentS3Error, match="no permission"):
            read("in/forbidden")
    assert not maps.exists("in/forbid")


PROBE = r"/{bucket}/.*write-check"


@pytest.mark.parametrize("bucket", ["maps", "cogs"])
@pytest.mark.parametrize(
    ("method", "path", "permission"),
    [
        ("GET", r"/{bucket}[^/]*\?.*list-type", "s3:ListBucket"),
        ("PUT", PROBE, "s3:PutObject"),
        ("GET", PROBE, "s3:GetObject"),
        ("DELETE", PROBE, "s3:DeleteObject"),
    ],
)
def test_a_launch_names_what_is_not_permitted(
    faulty_archive: Archive,
    faulty_s3_server: FaultyS3,
    bucket: str,
    method: str,
    path: str,
    permission: str,
):
    name = getattr(faulty_archive, bucket).name
    faulty_s3_server.faults = [Fault(method, path.format(bucket=name), status=403)]
    done = faulty_archive.run()
    assert done.returncode == 1
    assert f"allow {permission}" in done.stderr
    assert name in done.stderr
    if permission == "s3:GetObject":
        assert list(faulty_archive.maps.list()) == []


def test_a_launch_tries_the_output_bucket_under_the_prefix_only(
    faulty_archive: Archive, faulty_s3_server: FaultyS3
):
    name = faulty_archive.cogs.name
    faulty_s3_server.faults = [Fault("PUT", rf"/{name}/cogs/2024/", status=403)]
    done = faulty_archive.run("--output-prefix", "cogs/2024/")
    assert "allow s3:PutObject" in done.stderr
    done = faulty_archive.run("--output-prefix", "cogs/2025/")
    assert done.returncode == 0, done.stderr
    assert list(faulty_archive.cogs.list()) == []


@pytest.mark.parametrize("status", [403, 501, 405])
def test_a_region_that_cannot_be_asked_for_has_a_remedy(
    faulty_archive: Archive, faulty_s3_server: FaultyS3, status: int
):
    code = {403: "AccessDenied", 501: "NotImplemented", 405: "MethodNotAllowed"}[status]
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    refused = Fault("GET", r"\?location", status=status, body=body)
    with faulty_s3_server.suffering(refused):
        done = faulty_archive.run()
        assert done.returncode == 1
        assert "name the region with --region" in done.stderr
        assert ("s3:GetBucketLocation" in done.stderr) == (status == 403)
        assert faulty_archive.run("--region", "eu-west-1").returncode == 0


@pytest.mark.long
@pytest.mark.parametrize("path", [r"/{cogs}/.*tif", r"/{cogs}/.*jpg"])
def test_an_upload_that_is_refused_is_tried_seven_times(
    faulty_archive: Archive, faulty_s3_server: FaultyS3, path: str
):
    faulty_archive.upload_raster("image.tif", 1, width=90, height=90)
    faulty_archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    path = path.format(cogs=faulty_archive.cogs.name)
    faulty_s3_server.faults = [Fault("PUT", path, status=403)]
    faulty_archive.launch("--submit-option", "hold_backoff_seconds = 1")

    processed, failed = faulty_archive.outcome("batch-")

    assert processed == []
    assert "403" in failed[0][2]
    assert faulty_s3_server.count("PUT", path) == 7


@pytest.mark.long
def test_a_permission_that_is_given_later_helps(
    faulty_archive: Archive, faulty_s3_server: FaultyS3
):
    faulty_archive.upload_raster("image.tif", 1, width=90, height=90)
    faulty_archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    path = rf"/{faulty_archive.cogs.name}/.*tif"
    faulty_s3_server.faults = [Fault("PUT", path, status=403, times=3)]
    faulty_archive.launch("--submit-option", "hold_backoff_seconds = 1")
    assert faulty_archive.outcome("batch-") == ([["image.tif", "1"]], [])
