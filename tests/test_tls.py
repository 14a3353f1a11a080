"""A server whose certificate has no trusted issuer gets no request."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bucket import Bucket, BucketError, S3Endpoint
from pool import s3
from pool.personal import PersonalPool
from tests.support.archive import Archive


@pytest.fixture(scope="module")
def stranger(pool: PersonalPool, workplace: Path) -> Iterator[s3.S3Server]:
    """Yield a server with the same keys and its own certificate authority."""
    directory = workplace / "stranger"
    directory.mkdir()
    server = s3.S3Server(directory, s3.free_port())
    for name in ("access.key", "secret.key"):
        (directory / name).write_bytes((pool.s3.directory / name).read_bytes())
        (directory / name).chmod(0o600)
    s3.configure(server, pool.condor.distribution.openssl)
    s3.start(server)
    try:
        yield server
    finally:
        s3.stop(server)


def test_a_launch_is_refused(archive: Archive, stranger: s3.S3Server):
    done = archive.run("-e", stranger.endpoint)
    assert done.returncode != 0
    assert "certificate verify failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_poll_is_refused(archive: Archive, stranger: s3.S3Server):
    trusted = archive.directory / "ca.pem"
    trusted.write_bytes(archive.store.ca_certs.read_bytes())
    archive.launch("--ca-certs", str(trusted))
    assert archive.poll().returncode == 0
    # From now on, the server's issuer is not trusted.
    trusted.write_bytes(stranger.ca_certs.read_bytes())
    done = archive.poll()
    assert done.returncode != 0
    assert "certificate verify failed" in done.stderr


def test_a_nodes_transfers_are_refused(archive: Archive, stranger: s3.S3Server):
    # The access point trusts the server; the execution points do not.
    trusted = S3Endpoint(
        stranger.endpoint,
        stranger.access_key,
        stranger.secret_key,
        ca_certs=stranger.ca_certs,
    )
    maps, cogs = Bucket(trusted, archive.maps.name), Bucket(trusted, archive.cogs.name)
    untrusted = Archive(trusted, maps, cogs, archive.directory)
    maps.create()
    cogs.create()
    untrusted.upload_raster("image.tif", 1)
    untrusted.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    untrusted.launch(
        *("--submit-option", "hold_backoff_seconds = 1"),
        *("--submit-option", "max_holds = 0"),
    )

    processed, failed = untrusted.outcome("batch-")

    assert processed == []
    assert "given up while it was held" in failed[0][2]
    assert "certificate" in failed[0][2].lower()
    assert list(cogs.list()) == []


def test_ca_certs_are_trusted_besides_the_usual_ones(store: S3Endpoint, stranger):
    both = Bucket(store, "any")
    with pytest.raises(BucketError, match="certificate verify failed"):
        Bucket(
            S3Endpoint(
                stranger.endpoint,
                store.access_key,
                store.secret_key,
                ca_certs=store.ca_certs,
            ),
            "any",
        ).check()
    context = both._http.connection_pool_kw["ssl_context"]
    subjects = {str(cert["subject"]) for cert in context.get_ca_certs()}
    default_context = Bucket(
        S3Endpoint(store.endpoint, store.access_key, store.secret_key), "any"
    )._http.connection_pool_kw["ssl_context"]
    assert {str(cert["subject"]) for cert in default_context.get_ca_certs()} < subjects


def test_no_environment_variable_turns_the_verification_off(
    archive: Archive, stranger: s3.S3Server
):
    off = {
        "PYTHONHTTPSVERIFY": "0",
        "CURL_CA_BUNDLE": "",
        "REQUESTS_CA_BUNDLE": "",
        "SSL_CERT_FILE": os.devnull,
    }
    assert archive.run("-e", stranger.endpoint, **off).returncode != 0
