"""A launch works at each endpoint of AWS, on a stand-in with AWS's host names."""

import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bucket import Bucket, S3Endpoint
from pool import condor, personal, process
from pool.personal import PersonalPool
from tests.support import aws
from tests.support.archive import Archive, archive_for
from tests.support.aws import Aws

pytestmark = [pytest.mark.pool, pytest.mark.long]


@pytest.fixture(scope="module")
def cloud(
    tmp_path_factory: pytest.TempPathFactory, pool: PersonalPool, store: S3Endpoint
) -> Iterator[Aws]:
    openssl = pool.condor.distribution.openssl
    with aws.running(tmp_path_factory.mktemp("aws"), store, openssl) as stand_in:
        yield stand_in


@pytest.fixture(scope="module")
def pool_behind_a_proxy(cloud: Aws, workplace: Path) -> Iterator[PersonalPool]:
    """Yield a pool whose execution point reaches AWS through the proxy only."""
    start = process.start

    def start_with_proxy(command, environment, **named) -> subprocess.Popen:
        proxied = {"https_proxy": f"http://{cloud.proxy.address}"}
        return start(command, environment=environment | proxied, **named)

    directory = workplace / "behind-a-proxy"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(condor.process, "start", start_with_proxy)
        with personal.running_pool(directory, print) as running:
            certificates = running.s3.certificates
            (certificates / "aws.pem").write_bytes(cloud.authority.read_bytes())
            openssl = str(running.condor.distribution.openssl)
            subprocess.run([openssl, "rehash", str(certificates)], check=True)
            yield running


@pytest.fixture
def archive(
    cloud: Aws,
    pool_behind_a_proxy: PersonalPool,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Archive]:
    """Yield an archive whose buckets the test reaches without AWS's names."""
    for name, value in pool_behind_a_proxy.condor.environment.items():
        monkeypatch.setenv(name, value)
    yield from archive_for(cloud.store, workplace, request.node.name)


def current(endpoint: str) -> str:
    """Return the host that serves what an endpoint names."""
    names = {
        "s3.amazonaws.com": "s3.us-east-1.amazonaws.com",
        "s3-eu-west-1.amazonaws.com": "s3.eu-west-1.amazonaws.com",
    }
    return names.get(endpoint, endpoint)


@pytest.mark.parametrize(
    ("endpoint", "suffix"),
    [
        ("s3.amazonaws.com", ""),
        ("s3.eu-west-1.amazonaws.com", ""),
        ("s3-eu-west-1.amazonaws.com", ""),
        ("s3.eu-west-1.amazonaws.com", ".example.org"),
        ("s3.dualstack.eu-west-1.amazonaws.com", ""),
        ("s3-fips.us-gov-west-1.amazonaws.com", ""),
        ("s3.cn-north-1.amazonaws.com.cn", ""),
    ],
)
def test_an_image_is_converted(
    cloud: Aws,
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
    endpoint: str,
    suffix: str,
):
    if suffix:
        name = f"maps-{uuid.uuid4().hex[:8]}{suffix}"
        archive = replace(archive, maps=Bucket(cloud.store, name))
        archive.maps.create()
    key = "a folder/image 1.tif"
    archive.upload_raster(key, 1)
    archive.upload_manifest("batch-raw.csv", [(key, 1)])
    at_aws = replace(archive, store=cloud.at(endpoint))

    monkeypatch.setenv("https_proxy", f"http://{cloud.proxy.address}")
    at_aws.launch()

    assert archive.outcome("batch-") == ([[key, "1"]], [])
    used = {target.partition(":")[0] for target in cloud.proxy.targets}
    assert f"{archive.cogs.name}.{current(endpoint)}" in used
