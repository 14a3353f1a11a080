"""AWS and its regions, keys with few permissions, temporary keys, proxies."""

from pathlib import Path

import pytest

from bucket import Bucket, S3Endpoint
from dag import signing
from state.launch import Launch
from tests.support import tunnels
from tests.support.archive import Archive
from tests.support.faulty_s3 import Fault, FaultyS3

BEFORE = (23, 9, 6)


def signer(
    keys: tuple[Path, Path],
    endpoint: str,
    bucket: str = "maps",
    region: str | None = None,
    signing_option: str = "auto",
) -> signing.Signer | None:
    store = S3Endpoint(endpoint, *keys, region=region)
    launch = Launch(Path(), store, bucket, "cogs", signing=signing_option)
    return signing.shadow(launch, BEFORE, launch.inputs(), launch.outputs())


@pytest.mark.parametrize(
    "endpoint",
    ["s3.eu-west-1.amazonaws.com", "s3.amazonaws.com"],
)
def test_htcondor_gets_the_form_that_it_takes_for_aws(keys, endpoint: str):
    assert signer(keys, endpoint, region="eu-west-1") == signing.Signer(
        "s3://maps.s3.eu-west-1.amazonaws.com",
        "s3://cogs.s3.eu-west-1.amazonaws.com",
        "eu-west-1",
    )


def test_aws_in_china_and_its_government_regions(keys):
    china = signer(keys, "s3.cn-north-1.amazonaws.com.cn")
    assert china == signing.Signer(
        "s3://maps.s3.cn-north-1.amazonaws.com.cn",
        "s3://cogs.s3.cn-north-1.amazonaws.com.cn",
        "cn-north-1",
    )
    government = signer(keys, "s3.us-gov-west-1.amazonaws.com")
    assert government is not None
    assert government.inputs == "s3://maps.s3.us-gov-west-1.amazonaws.com"


@pytest.mark.parametrize(
    ("endpoint", "bucket"),
    [
        ("s3.eu-west-1.amazonaws.com", "maps.example.org"),
        ("s3.dualstack.eu-west-1.amazonaws.com", "maps"),
        ("s3-fips.us-gov-west-1.amazonaws.com", "maps"),
        ("s3-fips.dualstack.us-gov-east-1.amazonaws.com", "maps"),
    ],
)
def test_transfers_that_htcondor_cannot_sign_are_presigned(
    keys, endpoint: str, bucket: str
):
    assert signer(keys, endpoint, bucket) is None
    with pytest.raises(signing.CannotSign, match="--signing auto"):
        signer(keys, endpoint, bucket, signing_option="shadow")


def test_a_presigned_url_has_the_host_of_the_region(keys):
    store = S3Endpoint("s3.eu-west-1.amazonaws.com", *keys)
    url = Bucket(store, "maps.example.org").url_to_read("a.tif", 60)
    assert url.startswith("https://s3.eu-west-1.amazonaws.com/maps.example.org/a.tif?")
    assert "%2Feu-west-1%2Fs3%2F" in url


def test_a_region_of_the_launch_spares_the_question(
    faulty_s3_server: FaultyS3, faulty_archive: Archive
):
    refused = Fault(method="GET", path=r"\?location", status=403)
    with faulty_s3_server.suffering(refused):
        done = faulty_archive.run()
        assert done.returncode == 1
        assert "allow s3:GetBucketLocation, or name the region" in done.stderr

        faulty_archive.upload_raster("image.tif", 1)
        faulty_archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
        faulty_s3_server.requests.clear()
        faulty_archive.launch("--region", "eu-central-1")
        assert faulty_archive.outcome("batch-") == ([["image.tif", "1"]], [])
    paths = [path for _, path in faulty_s3_server.requests]
    assert not any("?location" in path for path in paths)
    assert any("%2Feu-central-1%2Fs3" in path for path in paths)


def test_a_proxy_of_the_environment_is_used_by_the_launch_and_its_polls(
    archive: Archive,
):
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    with tunnels.running() as proxy:
        done = archive.run(https_proxy=f"http://{proxy.address}")
        assert done.returncode == 0, done.stderr
        assert archive.outcome("batch-") == ([["image.tif", "1"]], [])
        assert set(proxy.targets) == {archive.store.endpoint}
        submitted = next(archive.directory.glob("launch-*/crondor.sub")).read_text()
        assert "https_proxy" in submitted
        assert proxy.address in submitted

        proxy.targets.clear()
        host = archive.store.endpoint.partition(":")[0]
        archive.poll(https_proxy=f"http://{proxy.address}", no_proxy=host)
        assert proxy.targets == []


def test_a_temporary_key_without_its_token_is_refused(archive: Archive):
    key = archive.directory / "temporary.key"
    key.touch(mode=0o600)
    key.write_text("ASIAIOSFODNN7EXAMPLE")
    done = archive.run("-a", str(key))
    assert done.returncode == 1
    assert "--session-token" in done.stderr


def test_a_session_token_is_in_every_transfer(
    faulty_s3_server: FaultyS3, faulty_archive: Archive
):
    token = faulty_archive.directory / "session.token"
    token.touch(mode=0o600)
    token.write_text("a/token+of=AWS\n")
    faulty_archive.upload_raster("image.tif", 1)
    faulty_archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    faulty_s3_server.requests.clear()
    faulty_archive.launch("--session-token", str(token))
    assert faulty_archive.outcome("batch-") == ([["image.tif", "1"]], [])
    signed = [path for _, path in faulty_s3_server.requests if "X-Amz-Cred" in path]
    transfers = [path for path in signed if ".tif" in path or ".jpg" in path]
    assert len(transfers) >= 3
    assert all("X-Amz-Security-Token=a%2Ftoken%2Bof%3DAWS" in p for p in transfers)
