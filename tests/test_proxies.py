"""The proxy of the environment is used as other programs use it."""

import base64

import pytest

from bucket import Bucket, BucketError, S3Endpoint
from tests.support import tunnels
from tests.support.archive import Archive


@pytest.fixture(autouse=True)
def no_proxy_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    "name", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
)
@pytest.mark.parametrize("scheme", ["http://", ""], ids=["url", "address"])
def test_each_variable_is_honoured(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, name: str, scheme: str
):
    with tunnels.running() as proxy:
        monkeypatch.setenv(name, scheme + proxy.address)
        Bucket(archive.store, archive.maps.name).check()
    assert proxy.targets == [archive.store.endpoint]


@pytest.mark.parametrize(
    "exception", ["*", "127.0.0.1", "example.org, 127.0.0.1:{port}", ".0.0.1"]
)
def test_no_proxy_names_hosts_without_one(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, exception: str
):
    port = archive.store.endpoint.rpartition(":")[2]
    with tunnels.running() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
        monkeypatch.setenv("NO_PROXY", exception.format(port=port))
        Bucket(archive.store, archive.maps.name).check()
    assert proxy.targets == []


def test_another_exception_changes_nothing(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
):
    with tunnels.running() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
        monkeypatch.setenv("NO_PROXY", "example.org,127.0.0.2")
        Bucket(archive.store, archive.maps.name).check()
    assert proxy.targets == [archive.store.endpoint]


def test_a_user_and_a_password_are_sent_to_the_proxy(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
):
    with tunnels.running() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:p%40ss@{proxy.address}")
        Bucket(archive.store, archive.maps.name).check()
    encoded = base64.b64encode(b"me:p@ss").decode()
    assert proxy.credentials == [f"Basic {encoded}"]


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://me:s3cr3t@127.0.0.1:1080",
        "http://me:s3cr3t@127.0.0.1:port",
        "http://me:s3cr3t@[::1",
        "http://",
    ],
)
def test_a_proxy_that_cannot_be_used_is_not_quoted(
    store: S3Endpoint, monkeypatch: pytest.MonkeyPatch, proxy: str
):
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(BucketError, match="HTTPS_PROXY") as refusal:
        Bucket(store, "maps")
    assert "s3cr3t" not in str(refusal.value)


def test_a_launch_says_that_the_password_of_a_proxy_can_be_read(archive: Archive):
    with tunnels.running() as proxy:
        done = archive.run(https_proxy=f"http://me:s3cr3t@{proxy.address}")
    assert done.returncode == 0, done.stderr
    assert "has a password in its URL" in done.stderr
    assert "s3cr3t" not in done.stdout + done.stderr


def test_an_unreachable_proxy_is_named(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
):
    with tunnels.running() as proxy:
        pass
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:s3cr3t@{proxy.address}")
    with pytest.raises(BucketError, match="proxy") as refusal:
        Bucket(archive.store, archive.maps.name).check()
    assert "s3cr3t" not in str(refusal.value)
