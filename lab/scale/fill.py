"""Fill a bucket of SeaweedFS with a million objects in a minute or two.

By S3 it would take most of an hour. But ``weed shell`` loads what it saved of a
server's metadata, and a file of that kind is quickly written: each object is there
with the size, the ETag and the date that it should have, and without content.
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

_AT_ONCE = 200_000
_CONCURRENTLY = 128
_FILE_MODE, _FOLDER_MODE = 0o660, 0o20000000770
# Protocol buffers' wire types.
# https://protobuf.dev/programming-guides/encoding/#structure
_VARINT, _BYTES = 0, 2


class NotFilled(Exception):
    """The server did not take all; the message has what it said."""


@dataclass(frozen=True)
class Entry:
    """An object to be; ``size`` is in bytes."""

    key: str
    size: int
    md5: bytes


@contextmanager
def server_beside(pool: PersonalPool, place: Path) -> Iterator[SeaweedFS]:
    """A server with the keys and certificates of a personal pool's own.

    Https, as HTCondor's signing wants it.
    """
    s3, directory = pool.s3, place / "seaweedfs"
    directory.mkdir()
    like = S3Endpoint(s3.endpoint, s3.access_key, s3.secret_key, ca_certs=s3.ca_certs)
    with seaweedfs.server(directory, like, s3.directory / "server.pem") as started:
        yield started


def fill(server: SeaweedFS, bucket: str, entries: Iterable[Entry]) -> int:
    """Put objects without content into a bucket; returns how many.

    Raises:
        NotFilled: it did not take all of them.
    """
    moment, filled = int(time.time()), 0
    entries = iter(entries)
    file = server.directory / "loaded.meta"
    while batch := list(islice(entries, _AT_ONCE)):
        with file.open("wb") as metadata:
            metadata.writelines(_entry(bucket, each, moment) for each in batch)
            # The loader waits for what is under way before it makes a folder, but
            # not at the end.
            metadata.write(_folder("/", "loaded", moment))
        _load(server, file, len(batch))
        filled += len(batch)
    file.unlink(missing_ok=True)
    return filled


def _load(server: SeaweedFS, file: Path, count: int) -> None:
    done = subprocess.run(
        [
            *(str(program_of_environment("weed")), "shell"),
            f"-master={server.address('master')}",
            f"-filer={server.address('filer')}",
        ],
        input=f"fs.meta.load -v=false -concurrency={_CONCURRENTLY} {file}\n",
        env={"HOME": str(server.directory)},
        capture_output=True,
        text=True,
    )
    if f"total 1 directories, {count} files" not in done.stdout:
        raise NotFilled(f"weed shell: {(done.stdout + done.stderr)[-2000:]}")


def _entry(bucket: str, entry: Entry, moment: int) -> bytes:
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
    """A ``FullEntry`` of SeaweedFS's filer.proto, its length before it.

    https://github.com/seaweedfs/seaweedfs/blob/master/weed/pb/filer.proto
    """
    full = _bytes(1, folder.encode()) + _bytes(2, b"".join(fields))
    return len(full).to_bytes(4, "big") + full


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    return bytes(_groups_of_seven(value))


def _groups_of_seven(value: int) -> Iterator[int]:
    while value > 0x7F:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value
