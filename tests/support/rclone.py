"""rclone's S3 server on loopback, without a pool. It ignores conditions of a write."""

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
    """Run a server of plain http during a ``with`` block, with the keys of a store.

    Args:
        directory: folder of its buckets, which exists.
    """
    store = replace(keys, endpoint=f"127.0.0.1:{free_port()}", secure=False)
    pair = ",".join(
        key.read_text().strip() for key in (store.access_key, store.secret_key)
    )
    rclone = str(program_of_environment("rclone"))
    server = subprocess.Popen(
        [rclone, "serve", "s3", str(directory), "--addr", store.endpoint],
        env=os.environ | {"RCLONE_AUTH_KEY": f'"{pair}"'},
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + _READY_SECONDS
        while not _answers(store):
            assert server.poll() is None, "rclone ended"
            assert time.monotonic() < deadline, "rclone was not ready in time"
            time.sleep(0.1)
        yield store
    finally:
        server.terminate()
        server.wait()


def _answers(store: S3Endpoint) -> bool:
    try:
        check_answers(store)
    except BucketError:
        return False
    return True
