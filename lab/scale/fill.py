"""Fill a bucket of SeaweedFS with a million objects in a minute or two.

The requests of S3 would take most of an hour. ``weed shell`` can load metadata that
it has saved, and such a file is quickly written. Each object then has its size, ETag
and date, but no content.
"""

import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bucket import S3Endpoint
from pool.distribution import program_of_environment
from pool.personal import PersonalPool
from tests.support import seaweedfs
from tests.support.seaweedfs import SeaweedFS

_BATCH_SIZE = 200_000
_CONCURRENCY = 128
_FILE_MODE, _FOLDER_MODE = 0o660, 0o20000000770
# Protocol buffers' wire types.
# https://protobuf.dev/programming-guides/encoding/#structure
_VARINT, _BYTES = 0, 2


class FillError(Exception):
    """The server did not load all objects; the message has its output."""


@dataclass(frozen=True)
class Entry:
    """An object to make; ``size`` is in bytes."""

    key: str
    size: int
    md5: bytes


@contextmanager
def server_beside_pool(pool: PersonalPool, place: Path) -> Iterator[SeaweedFS]:
    """Start a server with the keys and certificates of a personal pool.

    It uses HTTPS, as HTCondor signs only URLs with https.
    """
    s3, directory = pool.s3, place / "seaweedfs"
    directory.mkdir()
    store = S3Endpoint(s3.endpoint, s3.access_key, s3.secret_key, ca_certs=s3.ca_certs)
    with seaweedfs.server(directory, store, s3.directory / "server.pem") as server:
        yield server


def fill(server: SeaweedFS, bucket: str, entries: Iterable[Entry]) -> int:
    """Put objects without content into a bucket, and return their number.

    Raises:
        FillError: the server did not load all of them.
    """
    now, count = int(time.time()), 0
    entries = iter(entries)
    file = server.directory / "objects.meta"
    while batch := list(islice(entries, _BATCH_SIZE)):
        with file.open("wb") as metadata:
            metadata.writelines(_entry(bucket, entry, now) for entry in batch)
            # Before the loader makes a folder, it waits for the objects before it.
            # At the end of the file it does not wait, so a folder comes last.
            metadata.write(_folder("/", "loaded", now))
        _load(server, file, len(batch))
        count += len(batch)
    file.unlink(missing_ok=True)
    return count


def _load(server: SeaweedFS, file: Path, count: int) -> None:
    result = subprocess.run(
        [
            *(str(program_of_environment("weed")), "shell"),
            f"-master={server.address('master')}",
            f"-filer={server.address('filer')}",
        ],
        input=f"fs.meta.load -v=false -concurrency={_CONCURRENCY} {file}\n",
        env={"HOME": str(server.directory)},
        capture_output=True,
        text=True,
    )
    if f"total 1 directories, {count} files" not in result.stdout:
        raise FillError(f"weed shell: {(result.stdout + result.stderr)[-2000:]}")


def _entry(bucket: str, entry: Entry, moment: int) -> bytes:
    """Return the record of an object; ``moment`` is in seconds since 1970."""
    folder, _, name = f"/buckets/{bucket}/{entry.key}".rpartition("/")
    return _record(
        folder,
        _bytes(1, name.encode()),
        _bytes(
            4,
            _number(1, entry.size)
            + _number(2, moment)
            + _number(3, _FILE_MODE)
            + _number(6, moment)
            + _bytes(14, entry.md5),
        ),
    )


def _folder(parent: str, name: str, moment: int) -> bytes:
    return _record(
        parent,
        _bytes(1, name.encode()),
        _number(2, 1),
        _bytes(4, _number(2, moment) + _number(3, _FOLDER_MODE) + _number(6, moment)),
    )


def _record(folder: str, *fields: bytes) -> bytes:
    """Return a ``FullEntry`` of SeaweedFS's filer.proto, after its length.

    https://github.com/seaweedfs/seaweedfs/blob/master/weed/pb/filer.proto
    """
    full_entry = _bytes(1, folder.encode()) + _bytes(2, b"".join(fields))
    return len(full_entry).to_bytes(4, "big") + full_entry


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    return bytes(_groups_of_seven_bits(value))


def _groups_of_seven_bits(value: int) -> Iterator[int]:
    while value > 0x7F:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value
