"""SeaweedFS, an S3 server that knows conditional writes, on loopback."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bucket import Bucket, BucketError, Store
from pool.distribution import program_of_environment
from pool.s3 import free_port

_READY_SECONDS = 60


@contextmanager
def running(directory: Path, keys: Store) -> Iterator[Store]:
    """A server for the length of a ``with`` block, that takes the keys of a store."""
    credentials = {
        "accessKey": keys.access_key.read_text().strip(),
        "secretKey": keys.secret_key.read_text().strip(),
    }
    identity = {"name": "tests", "credentials": [credentials], "actions": ["Admin"]}
    config = directory / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    port = free_port()
    ports = [
        f"-{part}={free_port()}"
        for part in (
            *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc"),
            *("filer.port", "filer.port.grpc", "s3.port.grpc"),
        )
    ]
    with (directory / "weed.log").open("wb") as log:
        server = subprocess.Popen(
            [
                *(str(program_of_environment("weed")), "server", f"-dir={directory}"),
                *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", *ports),
                *(f"-s3.port={port}", f"-s3.config={config}", "-s3.port.iceberg=0"),
                *(f"-s3.localSocket={directory}/s3", "-metricsPort=0"),
                *(f"-filer.localSocket={directory}/filer", "-s3.iam=false"),
                *("-master.telemetry=false", "-master.volumeSizeLimitMB=64"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"HOME": str(directory), "PATH": os.defpath},
        )
        try:
            endpoint = f"127.0.0.1:{port}"
            store = Store(endpoint, keys.access_key, keys.secret_key, secure=False)
            _wait_for(store, server)
            yield store
        finally:
            server.kill()
            server.wait()


def _wait_for(store: Store, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            Bucket(store, "ready").create()
        except BucketError:
            assert server.poll() is None, "weed ended"
            assert time.monotonic() < deadline, "weed was not ready in time"
            time.sleep(0.2)
        else:
            return
