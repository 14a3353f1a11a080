"""Check whether the output bucket has the outputs that runs reported."""

import hashlib
import re
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from itertools import islice
from threading import Event
from typing import TypeVar

from bucket import (
    MAX_READERS,
    Bucket,
    ObjectMissing,
    ObjectUnreadable,
    PermanentS3Error,
    StoredObject,
)
from node.result import Part
from post.reconcile import load_outcome
from state import results
from state.errors import PipelineError
from state.keys import jpeg_key
from state.rows import load_rows
from state.run import Run, settings_of

Item = TypeVar("Item")
_FIELDS = {"ok", "cog", "jpeg"}
# Objects that are checked before the first of them are given.
_AT_ONCE = 1000
_NOT_THIS_ONE = (ObjectMissing, ObjectUnreadable, PermanentS3Error)
# ETags of objects that are not encrypted: uploaded by one PUT, and in parts.
_ETAG = re.compile(r"[0-9a-f]{32}(-\d+)?")
_TABLES = """
    PRAGMA journal_mode = OFF;
    PRAGMA cache_size = -64000;
    CREATE TABLE outputs (
        key TEXT PRIMARY KEY, cog TEXT, run TEXT, size INTEGER, md5 TEXT, etag TEXT,
        sha256 TEXT, found INTEGER DEFAULT 0
    ) WITHOUT ROWID;
    CREATE TABLE rows (line INTEGER PRIMARY KEY, cog TEXT, jpeg TEXT);
    CREATE TABLE results (
        line INTEGER PRIMARY KEY, size INTEGER, md5 TEXT, etag TEXT, sha256 TEXT,
        jpeg_size INTEGER, jpeg_md5 TEXT, jpeg_sha256 TEXT
    );
"""
_TAKE_RESULT = "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_TAKE_COGS = """
    INSERT OR REPLACE INTO outputs (key, cog, run, size, md5, etag, sha256)
    SELECT cog, cog, ?, size, md5, etag, sha256 FROM rows LEFT JOIN results USING (line)
"""
_TAKE_JPEGS = """
    INSERT OR REPLACE INTO outputs (key, cog, run, size, md5, sha256)
    SELECT jpeg, cog, ?, jpeg_size, jpeg_md5, jpeg_sha256
    FROM rows LEFT JOIN results USING (line)
"""
_FORGET = """
    DELETE FROM outputs
    WHERE key IN (SELECT cog FROM rows UNION ALL SELECT jpeg FROM rows)
"""
_SAMPLE = """
    DELETE FROM outputs WHERE cog NOT IN (
        SELECT key FROM outputs WHERE key = cog ORDER BY random() LIMIT ?
    )
"""
# Values of "found".
_FOUND, _DIFFERENT = 1, 2


class Code(StrEnum):
    """The fault of an object, for programs."""

    MISSING = "missing"
    WRONG_SIZE = "wrong-size"
    REPLACED = "replaced"
    NOT_A_COG = "not-a-cog"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Check:
    """An object that was checked.

    Attributes:
        key: its key.
        code: what is wrong with it; None if nothing is.
        reason: the same as a sentence for people.
        run: name of the run that made it; empty if no run is known.
    """

    key: str
    code: Code | None = None
    reason: str = ""
    run: str = ""


@dataclass(frozen=True)
class Depth:
    """The parts of each object that are read.

    Attributes:
        headers: whether the header of each COG is read, to see that it is valid.
        checksums: whether each object is read, to compare its checksum.
    """

    headers: bool = True
    checksums: bool = False


@dataclass(frozen=True)
class _Output:
    """An output as the result of its node describes it; None is not known.

    Attributes:
        key: its key.
        cog: the key of the COG of the same image.
        run: name of the run.
        size: size in bytes.
        md5, sha256: checksums, in hexadecimal digits.
        etag: ETag if it was uploaded in parts.
        archive: the cold storage from which it must be restored first.
    """

    key: str
    cog: str = ""
    run: str = ""
    size: int | None = None
    md5: str | None = None
    etag: str | None = None
    sha256: str | None = None
    archive: str = ""

    @property
    def is_cog(self) -> bool:
        return self.key == self.cog

    def fault(self, code: Code, reason: str) -> Check:
        return Check(self.key, code, reason, self.run)

    def etag_fits(self, stored: str) -> bool | None:
        """Return whether an ETag is that of the content; None if it does not tell."""
        if not (match := _ETAG.fullmatch(stored)):
            return None
        expected = self.md5 if match[1] is None else self.etag
        if expected is None or not expected.endswith(match[1] or ""):
            return None
        return stored == expected


class Records:
    """The records of runs about the outputs in one bucket.

    They are in a temporary file, since there may be millions. If several runs processed
    an image, the last one counts.
    """

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        # SQLite's own temporary file, which no other process sees.
        self._database = sqlite3.connect("")
        self._database.executescript(_TABLES)

    def __len__(self) -> int:
        """Return the number of outputs."""
        return len(_Keys(self._database))

    def take(self, run: Run) -> None:
        """Take what a run that has ended reported."""
        self._load_rows(run)
        self._write("DELETE FROM results")
        self._write_many(_TAKE_RESULT, _successes(run))
        for statement in (_TAKE_COGS, _TAKE_JPEGS):
            self._write(statement, run.directory.name)

    def forget(self, run: Run) -> None:
        """Forget the outputs that a run has replaced since, or may replace now."""
        self._load_rows(run)
        self._write(_FORGET)

    def _load_rows(self, run: Run) -> None:
        self._write("DELETE FROM rows")
        self._write_many("INSERT INTO rows VALUES (?, ?, ?)", _rows_with_outputs(run))

    def sample(self, images: int) -> None:
        """Keep the outputs of some images, chosen at random."""
        self._write(_SAMPLE, images)

    def check(self, depth: Depth) -> Iterator[Check]:
        """Yield each output after it was checked, those that are missing last.

        Raises:
            BucketError: the server does not answer.
        """
        denied: list[str] = []
        keys = _Keys(self._database)
        found = self.bucket.find_objects(keys, lambda key: (), denied.append)
        same = different = 0
        for some in _batches(found):
            fitting: list[_Output] = []
            for stored, output in self._new(some):
                fits = None if depth.checksums else output.etag_fits(stored.etag)
                same += fits is True
                if output.size is not None and stored.size != output.size:
                    yield output.fault(
                        Code.WRONG_SIZE,
                        f"it has {stored.size} bytes, but its node made {output.size}",
                    )
                elif fits is False:
                    different += 1
                    self._mark(_DIFFERENT, [output.key])
                else:
                    fitting.append(
                        replace(output, size=stored.size, archive=stored.archive)
                    )
            yield from _read(self.bucket, fitting, depth)
        for key in denied:
            self._mark(_FOUND, [key])
            yield Check(key, Code.UNREADABLE, "the keys of the store do not allow it")
        yield from self._different(depth, is_replaced=same >= different)
        for output in self._outputs(0):
            yield output.fault(Code.MISSING, "it is not in the output bucket")

    def _new(self, found: Sequence[StoredObject]) -> list[tuple[StoredObject, _Output]]:
        """Return the outputs among objects, and mark them; others are left out."""
        pairs = [
            (stored, output)
            for stored in found
            for output in self._select("key = ? AND found = 0", stored.key)
        ]
        self._mark(_FOUND, [stored.key for stored, _ in pairs])
        return pairs

    def _different(self, depth: Depth, *, is_replaced: bool) -> Iterator[Check]:
        """Yield the outputs with other ETags.

        The ETags of a store that encrypts only look like MD5s, so a difference counts
        only if most ETags are the expected ones.
        """
        outputs = self._outputs(_DIFFERENT)
        if is_replaced:
            for output in outputs:
                yield output.fault(
                    Code.REPLACED,
                    "it is not the object that its node wrote: somebody replaced it",
                )
            return
        for some in _batches(outputs):
            yield from _read(self.bucket, some, depth)

    def _outputs(self, found: int) -> Iterator[_Output]:
        return self._select("found = ?", found)

    def _select(self, condition: str, value: object) -> Iterator[_Output]:
        columns = "key, cog, run, size, md5, etag, sha256"
        rows = self._database.execute(
            f"SELECT {columns} FROM outputs WHERE {condition}",  # noqa: S608
            (value,),
        )
        return (_Output(*row) for row in rows)

    def _mark(self, found: int, keys: Iterable[str]) -> None:
        statement = "UPDATE outputs SET found = ? WHERE key = ?"
        self._write_many(statement, ((found, key) for key in keys))

    def _write(self, statement: str, *values: object) -> None:
        self._write_many(statement, [values])

    def _write_many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        try:
            self._database.executemany(statement, rows)
        except sqlite3.OperationalError as error:
            raise PipelineError(
                f"the disk with temporary files fails: {error}; make room there, or "
                "name another folder in the variable SQLITE_TMPDIR"
            ) from error


class _Keys(Collection[str]):
    """The keys of a table of outputs, without all of them in memory."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __len__(self) -> int:
        (number,) = self._database.execute("SELECT count(*) FROM outputs").fetchone()
        return int(number)

    def __contains__(self, key: object) -> bool:
        found = self._database.execute("SELECT 1 FROM outputs WHERE key = ?", (key,))
        return found.fetchone() is not None

    def __iter__(self) -> Iterator[str]:
        # Page by page, because the table changes meanwhile.
        last = ""
        while True:
            page = self._database.execute(
                "SELECT key FROM outputs WHERE key > ? ORDER BY key LIMIT ?",
                (last, _AT_ONCE),
            ).fetchall()
            if not page:
                return
            yield from (key for (key,) in page)
            (last,) = page[-1]


def records(
    chosen: Collection[Run], all_runs: Iterable[Run], sample: int | None = None
) -> list[Records]:
    """Return what runs reported, a `Records` for each output bucket.

    Args:
        chosen: the runs, which have ended.
        all_runs: these and others, some of which may have replaced their outputs.
        sample: keep the outputs of so many images of each bucket, if not None.

    Raises:
        PipelineError: the records of a run cannot be read.
    """
    named = {run.directory for run in chosen}
    places: dict[tuple[str, str], Records] = {}
    for run in sorted(all_runs, key=lambda run: run.timestamp):
        launch = settings_of(run)
        place = launch.store.endpoint, launch.output_bucket
        if run.directory in named:
            if place not in places:
                places[place] = Records(launch.outputs())
            places[place].take(run)
        elif place in places:
            places[place].forget(run)
    if sample is not None:
        for each in places.values():
            each.sample(sample)
    return list(places.values())


def check_cogs(bucket: Bucket, cogs: Iterable[StoredObject]) -> Iterator[Check]:
    """Yield each COG after its header was read; nothing else is known of it.

    Raises:
        BucketError: the server does not answer.
    """
    for some in _batches(cogs):
        yield from _read(bucket, map(_unknown_cog, some), Depth())


def _unknown_cog(stored: StoredObject) -> _Output:
    key = stored.key
    return _Output(key, cog=key, size=stored.size, archive=stored.archive)


def _rows_with_outputs(run: Run) -> Iterator[tuple[int, str, str]]:
    """Yield the line of each row that may have outputs, and their keys."""
    launch = settings_of(run)
    if not run.rows_file.exists():
        return
    failed = set(load_outcome(run).failed_rows) if run.done else set()
    for row in load_rows(run):
        if row.reason is None and row.line not in failed:
            cog = launch.cog_key(row.key)
            yield row.line, cog, jpeg_key(cog)


def _successes(run: Run) -> Iterator[tuple[object, ...]]:
    """Yield the rows of the table of results. The last success of a row counts."""
    for line, result in results.records(run, _FIELDS):
        if result.ok and (cog := result.cog) and (jpeg := result.jpeg):
            etag = _etag_of_parts(cog.parts)
            yield (
                *(line, cog.bytes, cog.md5, etag, cog.sha256),
                *(jpeg.bytes, jpeg.md5, jpeg.sha256),
            )


def _etag_of_parts(parts: Sequence[Part]) -> str | None:
    """Return the ETag of an object that was uploaded in parts.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html

    >>> _etag_of_parts([Part(bytes=0, md5="d41d8cd98f00b204e9800998ecf8427e")])
    '59adb24ef3cdbe0297f05b395827453f-1'
    """
    if not parts:
        return None
    md5s = b"".join(bytes.fromhex(part.md5) for part in parts)
    digest = hashlib.md5(md5s, usedforsecurity=False).hexdigest()
    return f"{digest}-{len(parts)}"


def _read(bucket: Bucket, outputs: Iterable[_Output], depth: Depth) -> Iterator[Check]:
    """Yield outputs that have their sizes after they were read, in parallel."""
    to_read = []
    for output in outputs:
        if depth.checksums or (depth.headers and output.is_cog):
            to_read.append(output)
        else:
            yield Check(output.key, run=output.run)
    if not to_read:
        return
    stop = Event()
    check = partial(_check_content, bucket, depth, stop.is_set)
    with ThreadPoolExecutor(MAX_READERS) as threads:
        try:
            yield from threads.map(check, to_read)
        finally:
            # After Ctrl-C, nobody waits until large objects are read.
            stop.set()


def _check_content(
    bucket: Bucket, depth: Depth, stopped: Callable[[], bool], output: _Output
) -> Check:
    # Importing rio-cogeo takes a second, which --help does not need.
    from ops.cogs import cog_fault

    if output.archive:
        reason = f"it is in {output.archive}, and must be restored first"
        return output.fault(Code.UNREADABLE, reason)
    reads_header = depth.headers and output.is_cog
    try:
        if depth.checksums and not _has_checksum(bucket, output, stopped):
            reason = "its checksum is not that of its node"
            return output.fault(Code.REPLACED, reason)
        if reads_header and (fault := cog_fault(bucket, output.key, output.size or 0)):
            return output.fault(Code.NOT_A_COG, fault)
    except _NOT_THIS_ONE as error:
        return output.fault(Code.UNREADABLE, str(error))
    return Check(output.key, run=output.run)


def _has_checksum(bucket: Bucket, output: _Output, stopped: Callable[[], bool]) -> bool:
    if output.sha256:
        return bucket.checksum(output.key, "sha256", stopped) == output.sha256
    return not output.md5 or bucket.checksum(output.key, "md5", stopped) == output.md5


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    left = iter(items)
    while some := list(islice(left, _AT_ONCE)):
        yield some
