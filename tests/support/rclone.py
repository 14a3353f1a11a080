"""rclone's S3 server on loopback, over plain http.

It answers a request for a range of bytes with status 200, so it shows what GDAL does
with such a server.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bucket import BucketError, S3Endpoint, check_answers
from pool.distribution import program_of_environment
from pool.s3 import free_port

_READY_SECONDS = 30


@contextmanager
def running(directory: Path, keys: S3Endpoint) -> Iterator[S3Endpoint]:
    """Run a server during a ``with`` block, with the keys of a store."""
    endpoint = f"127.0.0.1:{free_port()}"
    pair = ",".join(
        key.read_text().strip() for key in (keys.access_key, keys.secret_key)
    )
    rclone = str(program_of_environment("rclone"))
    server = subprocess.Popen(
        [rclone, "serve", "s3", str(directory), "--addr", endpoint],
        env=os.environ | {"RCLONE_AUTH_KEY": f'"{pair}"'},
        stderr=subprocess.DEVNULL,
    )
    store = replace(keys, endpoint=endpoint, secure=False, ca_certs=None)
    try:
        _wait_for(store)
        yield store
    finally:
        server.terminate()
        server.wait()


def _wait_for(store: S3Endpoint) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            return check_answers(store)
        except BucketError:
            assert time.monotonic() < deadline, "rclone was not ready in time"
            time.sleep(0.1)
