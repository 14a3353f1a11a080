"""SeaweedFS, an S3 server with conditional writes, on loopback.

It holds millions of small objects, too, and counts what it is asked: scale/ is
measured on it.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bucket import Bucket, BucketError, S3Endpoint
from pool.distribution import program_of_environment
from pool.s3 import free_port

_READY_SECONDS = 60
_ATTEMPTS = 4


# The servers, by the names of weed's options.
_PORTS = (
    *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc"),
    *("filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc", "metricsPort"),
)


@dataclass(frozen=True)
class SeaweedFS:
    """A running server.

    Attributes:
        directory: folder of all its data.
        ports: ports on 127.0.0.1, by the names of weed's options.
    """

    store: S3Endpoint
    directory: Path
    ports: Mapping[str, int]

    def address(self, part: str) -> str:
        """Return the address of ``master`` or ``filer``, with both its ports."""
        ports = (self.ports[f"{part}.port"], self.ports[f"{part}.port.grpc"])
        return "127.0.0.1:{}.{}".format(*ports)


@contextmanager
def running(directory: Path, keys: S3Endpoint) -> Iterator[S3Endpoint]:
    """Run a server during a ``with`` block, with the keys of a store."""
    with server(directory, replace(keys, secure=False, ca_certs=None)) as started:
        yield started.store


@contextmanager
def server(
    directory: Path,
    like: S3Endpoint,
    certificate: Path | None = None,
    hosts: Sequence[str] = (),
) -> Iterator[SeaweedFS]:
    """Run a server during a ``with`` block.

    Args:
        like: store with the same keys and security.
        certificate: what it shows where that is secure, a file ``….pem`` with a
            ``….key`` beside it.
        hosts: each bucket is also served as BUCKET.HOST.
    """
    credentials = {
        "accessKey": like.access_key.read_text().strip(),
        "secretKey": like.secret_key.read_text().strip(),
    }
    identity = {"name": "tests", "credentials": [credentials], "actions": ["Admin"]}
    config = directory / "s3.json"
    config.touch(mode=0o600)
    config.write_text(json.dumps({"identities": [identity]}))
    more = [f"-s3.config={config}"]
    if certificate:
        key = certificate.with_suffix(".key")
        more += [f"-s3.cert.file={certificate}", f"-s3.key.file={key}"]
    if hosts:
        more.append(f"-s3.domainName={','.join(hosts)}")
    for attempt in range(_ATTEMPTS):
        ports = {name: free_port() for name in _PORTS}
        place = directory / str(attempt)
        process = _start(place, ports, more)
        store = replace(like, endpoint=f"127.0.0.1:{ports['s3.port']}")
        try:
            if _is_ready(store, process):
                yield SeaweedFS(store, place, ports)
                return
        finally:
            process.kill()
            process.wait()
    log = (directory / str(attempt) / "weed.log").read_text()
    raise AssertionError(f"weed was not ready {_ATTEMPTS} times:\n{log[-2000:]}")


def _start(
    directory: Path, ports: Mapping[str, int], more: list[str]
) -> subprocess.Popen:
    directory.mkdir()
    with (directory / "weed.log").open("wb") as log:
        return subprocess.Popen(
            [
                *(str(program_of_environment("weed")), "server", f"-dir={directory}"),
                *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", *more),
                *(f"-{name}={port}" for name, port in ports.items()),
                *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false"),
                *("-master.telemetry=false", "-master.volumeSizeLimitMB=64"),
                f"-s3.localSocket={directory}/s3",
                f"-filer.localSocket={directory}/filer",
                # Each bucket takes seven volumes: allow as many as there is room for.
                "-volume.max=0",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"HOME": str(directory), "PATH": os.defpath},
        )


def _is_ready(store: S3Endpoint, process: subprocess.Popen) -> bool:
    """Wait for the server; return False if it ended or does not become ready.

    Both happen when another program has taken a port.
    """
    deadline = time.monotonic() + _READY_SECONDS
    ready = Bucket(store, "ready")
    # It answers for buckets before it can store objects.
    for step in (ready.create, lambda: ready.write("ready", b"ready")):
        while not _succeeds(step):
            if process.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.2)
    return True


def _succeeds(step: Callable[[], None]) -> bool:
    try:
        step()
    except BucketError:
        return False
    return True
