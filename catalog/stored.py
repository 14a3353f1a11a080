"""Records in the output bucket: an object for each run and collection.

No two runs write the same object, so access points that end runs at the same time do
not disturb each other. To make a product, a process reads all objects of the
collection. If several records have the same key, that of the latest run counts.
"""

import gzip
import secrets
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bucket import Bucket
from catalog.collections import Collection
from catalog.record import Record, gone_line, to_line
from catalog.records import Records, collect
from state.errors import PipelineError

_FOLDER = "records/"
_SUFFIX = ".jsonl.gz"
# Lines of one collection that are in memory.
_AT_ONCE = 500
_MAX_OBJECT = 4 * 2**30  # bytes
# The errors of records that nobody wrote whole.
_UNREADABLE = (
    *(ValueError, LookupError, TypeError, AttributeError),
    *(EOFError, gzip.BadGzipFile, zlib.error),
)


@dataclass
class _Writer:
    """The records of a run that belong to one collection, in a local file."""

    file: Path
    lines: list[bytes] = field(default_factory=list)

    def add(self, line: bytes) -> None:
        self.lines.append(line)
        if len(self.lines) == _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        with self.file.open("ab") as file:
            # Several gzip files in a row are one. Without a time, the same records
            # make the same object.
            file.write(gzip.compress(b"".join(self.lines), compresslevel=1, mtime=0))
        self.lines.clear()


def write(
    bucket: Bucket,
    root: str,
    run: str,
    records: Iterable[tuple[Collection, Record]],
    scratch: Path,
) -> dict[Collection, int]:
    """Write the records of a run; return their collections, and how many each has.

    Args:
        root: prefix of the catalog.
        run: id of the run.
        scratch: a local directory for temporary files.
    """
    writers: dict[Collection, _Writer] = {}
    counts: Counter[Collection] = Counter()
    for collection, record in records:
        if collection not in writers:
            writers[collection] = _Writer(scratch / f"records-{len(writers)}.gz")
        writers[collection].add(to_line(record))
        counts[collection] += 1
    for collection, writer in writers.items():
        writer.flush()
        key = f"{root}{collection.id}/{_FOLDER}{run}{_SUFFIX}"
        bucket.upload(key, writer.file, "application/gzip")
        writer.file.unlink()
    return dict(counts)


def write_gone(
    bucket: Bucket, root: str, collection: str, records: Iterable[Record]
) -> None:
    """Record that the COGs of some records are gone."""
    lines = [gone_line(record) for record in records]
    if lines:
        key = f"{root}{collection}/{_FOLDER}gone-{secrets.token_hex(8)}{_SUFFIX}"
        content = gzip.compress(b"".join(lines), mtime=0)
        bucket.write(key, content, "application/gzip")


def remove(bucket: Bucket, root: str, collection: str, run: str) -> None:
    """Remove the records of a run from a collection."""
    bucket.remove(f"{root}{collection}/{_FOLDER}{run}{_SUFFIX}")


def versions(bucket: Bucket, root: str, collection: str) -> dict[str, str]:
    """Return the keys of all objects of a collection, in order, with their ETags."""
    prefix = f"{root}{collection}/{_FOLDER}"
    listed = bucket.list(prefix)
    return {found.key: found.etag for found in listed if found.key.endswith(_SUFFIX)}


def read(
    bucket: Bucket, keys: Mapping[str, bool], scratch: Path
) -> Iterator[tuple[bytes, bool]]:
    """Yield the lines of some objects, each with what is said of its object.

    Args:
        keys: keys of the objects in order, and what is said of each.
    """
    file = scratch / "records.gz"
    for key, fact in keys.items():
        bucket.download(key, file, _MAX_OBJECT)
        with gzip.open(file) as lines:
            for line in lines:
                yield line, fact
    file.unlink(missing_ok=True)


def collected(
    bucket: Bucket, keys: Mapping[str, bool], file: Path, *, from_nothing: bool = True
) -> Records:
    """Return the current records of some objects, which go into a new local file.

    Args:
        keys: keys of the objects in order, and whether the product was last made of
            them.
        from_nothing: see ``collect``.

    Raises:
        BucketError: an object cannot be downloaded.
        PipelineError: objects are not what ``write`` and ``write_gone`` wrote.
    """
    try:
        lines = read(bucket, keys, file.parent)
        return collect(lines, file, from_nothing=from_nothing)
    except _UNREADABLE as error:
        bad = [key for key in keys if not _is_readable(bucket, key, file)]
        places = [f"{bucket.name}/{key}" for key in bad or keys]
        raise PipelineError(
            f"the records {', '.join(places)} cannot be read "
            f"({type(error).__name__}: {error}): 'catalog' with the directories of "
            "their runs writes them again"
        ) from error


def _is_readable(bucket: Bucket, key: str, file: Path) -> bool:
    try:
        collect(read(bucket, {key: True}, file.parent), file)
    except _UNREADABLE:
        return False
    return True
