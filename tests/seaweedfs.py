"""SeaweedFS, an S3 server that knows conditional writes, on loopback."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bucket import Bucket, BucketError, Store
from pool.distribution import program_of_environment
from pool.s3 import free_port

_READY_SECONDS = 60
_ATTEMPTS = 4


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
    for attempt in range(_ATTEMPTS):
        port, server = _start(directory / str(attempt), config)
        store = Store(
            f"127.0.0.1:{port}", keys.access_key, keys.secret_key, secure=False
        )
        try:
            if _is_ready(store, server):
                yield store
                return
        finally:
            server.kill()
            server.wait()
    log = (directory / str(attempt) / "weed.log").read_text()
    raise AssertionError(f"weed ended {_ATTEMPTS} times:\n{log[-2000:]}")


def _start(directory: Path, config: Path) -> tuple[int, subprocess.Popen]:
    directory.mkdir()
    port = free_port()
    ports = [
        f"-{part}={free_port()}"
        for part in (
            *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc"),
            *("filer.port", "filer.port.grpc", "s3.port.grpc"),
        )
    ]
    with (directory / "weed.log").open("wb") as log:
        return port, subprocess.Popen(
            [
                *(str(program_of_environment("weed")), "server", f"-dir={directory}"),
                *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", *ports),
                *(f"-s3.port={port}", f"-s3.config={config}", "-s3.port.iceberg=0"),
                *(f"-s3.localSocket={directory}/s3", "-metricsPort=0"),
                *(f"-filer.localSocket={directory}/filer", "-s3.iam=false"),
                *("-master.telemetry=false", "-master.volumeSizeLimitMB=64"),
                # Each bucket takes seven of them: as many as there is room for.
                "-volume.max=0",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"HOME": str(directory), "PATH": os.defpath},
        )


def _is_ready(store: Store, server: subprocess.Popen) -> bool:
    """Wait for it; False when it ended, as when one of its ports was taken since."""
    deadline = time.monotonic() + _READY_SECONDS
    ready = Bucket(store, "ready")
    # It knows buckets before it has a place for objects.
    for step in (ready.create, lambda: ready.write("ready", b"ready")):
        while not _succeeds(step):
            if server.poll() is not None:
                return False
            assert time.monotonic() < deadline, "weed was not ready in time"
            time.sleep(0.2)
    return True


def _succeeds(step: Callable[[], None]) -> bool:
    try:
        step()
    except BucketError:
        return False
    return True
