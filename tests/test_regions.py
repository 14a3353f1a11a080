"""Each request is signed for the region of its bucket, whoever signs it.

The proxy answers as AWS, MinIO and others document it: a request that is signed for
another region is refused, and the answer names the right one.
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

import re
from pathlib import Path

import pytest

from bucket import Bucket, BucketError, S3Endpoint
from dag import signing
from state.launch import Launch
from tests.support.archive import Archive
from tests.support.command_line import BUCKETS, assert_wrong, invoke
from tests.support.faulty_s3 import Fault, FaultyS3

BEFORE = (23, 9, 6)
WRONG = (
    "<Error><Code>AuthorizationHeaderMalformed</Code><Message>The authorization header "
    "is malformed; the region is wrong</Message><Region>{region}</Region></Error>"
)


def in_region(bucket: Bucket, region: str) -> list[Fault]:
    """Return how a bucket answers that is in a region."""
    answer = f"<LocationConstraint>{region}</LocationConstraint>"
    path = rf"^/{bucket.name}[/?]"
    return [
        Fault("GET", rf"{path}.*\blocation=", status=200, body=answer.encode()),
        Fault(
            path=path,
            signed=rf"^(?!.*(?:/|%2F){re.escape(region)}(?:/|%2F)s3(?:/|%2F))",
            status=400,
            body=WRONG.format(region=region).encode(),
            headers={"x-amz-bucket-region": region},
        ),
    ]


def with_an_image(archive: Archive) -> None:
    archive.upload_raster("image.tif", 1, width=90, height=90)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])


@pytest.mark.parametrize(
    ("of_maps", "of_cogs", "options"),
    [
        ("eu-north-1", "eu-north-1", ()),
        ("eu-north-1", "eu-north-1", ("--region", "eu-north-1")),
        # HTCondor has one region for a job.
        ("eu-north-1", "us-west-2", ()),
        # As Ceph's zone groups and Garage may be called.
        ("zone_group_1", "zone_group_1", ()),
        ("zone.group", "zone.group", ()),
    ],
)
def test_a_store_that_checks_the_region_accepts_everything(
    faulty_archive: Archive,
    faulty_s3_server: FaultyS3,
    of_maps: str,
    of_cogs: str,
    options: tuple[str, ...],
):
    with_an_image(faulty_archive)
    faulty_s3_server.faults = [
        *in_region(faulty_archive.maps, of_maps),
        *in_region(faulty_archive.cogs, of_cogs),
    ]
    faulty_archive.launch(*options)
    assert faulty_archive.outcome("batch-") == ([["image.tif", "1"]], [])


def test_a_launch_names_the_region_that_is_right(
    faulty_archive: Archive, faulty_s3_server: FaultyS3
):
    faulty_s3_server.faults = in_region(faulty_archive.maps, "eu-north-1")
    done = faulty_archive.run("--region", "us-west-2")
    assert done.returncode == 1
    assert "the bucket is in the region eu-north-1" in done.stderr
    assert "--region" in done.stderr


@pytest.mark.parametrize(
    ("status", "code", "headers", "words"),
    [
        (301, "PermanentRedirect", {"x-amz-bucket-region": "eu-west-3"}, "eu-west-3"),
        (307, "TemporaryRedirect", {}, "in another region"),
        (400, "AuthorizationHeaderMalformed", {}, "in another region"),
        (301, "PermanentRedirect", {"x-amz-bucket-region": "a\x1b[2Jb"}, "another"),
    ],
)
def test_a_bucket_of_another_region_is_not_an_odd_answer(
    faulty_archive: Archive,
    faulty_s3_server: FaultyS3,
    status: int,
    code: str,
    headers: dict[str, str],
    words: str,
):
    body = f"<Error><Code>{code}</Code><Message>Use another endpoint</Message></Error>"
    bucket = Bucket(faulty_archive.store, faulty_archive.maps.name)
    wrong = Fault(path="", status=status, body=body.encode(), headers=headers)
    faulty_s3_server.faults = [wrong]
    for request in (bucket.check, lambda: bucket.write("a", b"")):
        with pytest.raises(BucketError, match=words) as refusal:
            request()
        assert "--region" in str(refusal.value)
        assert "\x1b" not in str(refusal.value)


def test_a_head_request_names_the_region_too(
    faulty_archive: Archive, faulty_s3_server: FaultyS3
):
    bucket = Bucket(faulty_archive.store, faulty_archive.maps.name)
    bucket.check()
    named = {"x-amz-bucket-region": "eu-west-3"}
    faulty_s3_server.faults = [Fault("HEAD", status=400, headers=named)]
    with pytest.raises(BucketError, match="in the region eu-west-3"):
        bucket.stat("a")


@pytest.mark.parametrize("region", ["eu west", "-eu", "eu-west-1\nqueue 5", "ü", ""])
def test_what_is_no_name_of_a_region_is_refused(region: str):
    assert_wrong(invoke("launch", "--region", region, *BUCKETS), "name of a region")


@pytest.mark.parametrize(
    ("endpoint", "options", "words"),
    [
        ("s3.eu-west-1.amazonaws.com", ("--region", "us-east-1"), "leave one out"),
        ("s3.amazonaws.com.cn", (), "s3.cn-north-1.amazonaws.com.cn"),
        ("maps.s3.eu-west-1.amazonaws.com", (), "not the bucket"),
        ("s3express-usw2-az1.us-west-2.amazonaws.com", (), "no endpoint"),
    ],
)
def test_an_endpoint_of_aws_that_cannot_work_is_refused(
    archive: Archive, endpoint: str, options: tuple[str, ...], words: str
):
    done = archive.run("-e", endpoint, *options)
    assert done.returncode == 1
    assert words in done.stderr


@pytest.mark.parametrize(
    "endpoint",
    ["ec2-1-2-3-4.eu-west-1.compute.amazonaws.com", "x-1.us-east-1.elb.amazonaws.com"],
)
def test_other_stores_on_machines_of_aws_have_presigned_urls(
    keys: tuple[Path, Path], endpoint: str
):
    store = S3Endpoint(endpoint, *keys, region="us-east-1")
    launch = Launch(Path(), store, "maps", "cogs")
    inputs = launch.inputs()
    assert signing.shadow(launch, BEFORE, inputs, launch.outputs()) is None
    assert inputs.url_to_read("a.tif", 60).startswith(f"https://{endpoint}/maps/a.tif?")


def test_a_store_whose_buckets_are_hosts_gets_them(keys: tuple[Path, Path]):
    endpoint = "oss-cn-hangzhou.aliyuncs.com"
    store = S3Endpoint(endpoint, *keys, region="cn-hangzhou")
    launch = Launch(Path(), store, "maps", "cogs")
    inputs = launch.inputs()
    signer = signing.shadow(launch, BEFORE, inputs, launch.outputs())
    assert signer == signing.Signer(
        f"s3://maps.{endpoint}", f"s3://cogs.{endpoint}", "cn-hangzhou"
    )
    assert inputs.url_to_read("a.tif", 60).startswith(f"https://maps.{endpoint}/a.tif?")
