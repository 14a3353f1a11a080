"""Make the rows of a manifest from the headers of its images."""

import fnmatch
import os
import random
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

from bucket import (
    MAX_READERS,
    Bucket,
    ObjectMissing,
    ObjectUnreadable,
    PermanentS3Error,
)
from ingest import headers
from ingest.headers import NotReadable, ReadRange
from ingest.selection import Selection

_NOT_THIS_ONE = (ObjectMissing, ObjectUnreadable, PermanentS3Error, NotReadable)
Item = TypeVar("Item")
# Images whose headers are read before the first of them are given.
_AT_ONCE = 1000


@dataclass(frozen=True)
class Row:
    """An image for a manifest.

    Attributes:
        key: the key of the image.
        bands: its number of bands; None if that cannot be read.
        reason: why it cannot be read.
    """

    key: str
    bands: int | None
    reason: str = ""


def key_for(pattern: str, name: str) -> str | None:
    """Return the key of a manifest of this name that a launch's pattern matches.

    None if the pattern leaves no place for the name.

    >>> key_for("*raw.csv", "convert"), key_for("in/*.csv", "convert")
    ('convert-raw.csv', 'in/convert-raw.csv')
    >>> key_for("july-raw.csv", "convert")
    """
    folder = re.split(r"[*?[]", pattern, maxsplit=1)[0]
    keys = (f"{folder}{name}{end}" for end in ("-raw.csv", ".csv"))
    return next((key for key in keys if fnmatch.fnmatchcase(key, pattern)), None)


def rows_of_bucket(keys: Iterable[str], bucket: Bucket) -> Iterator[Row]:
    """Yield the rows of images, in the order of ``keys``.

    Headers are read in parallel, by one or two requests each.

    Raises:
        BucketError: the server does not answer.
    """
    return _rows(keys, lambda key: partial(bucket.read_range, key))


def rows_of_folder(
    keys: Iterable[str], folder: Path, prefix: str, bucket: Bucket | None
) -> Iterator[Row]:
    """Yield the rows of images that are files of a folder.

    Args:
        keys: keys of images, which begin with ``prefix``.
        prefix: what the keys have before the names in the folder.
        bucket: an image that is not there is not readable; None to trust the folder.
    """

    def reader(key: str) -> ReadRange:
        if bucket and not bucket.exists(key):
            raise NotReadable(f"it is not in the bucket {bucket.name}: upload it first")
        return partial(_read_file, folder / key.removeprefix(prefix))

    return _rows(keys, reader)


def keys_of_folder(folder: Path, prefix: str, selection: Selection) -> Iterator[str]:
    """Yield the keys that the rasters of a folder have in a bucket, in their order."""
    names = (
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.is_file()
    )
    return (
        prefix + name for name in sorted(names) if selection.takes_key(prefix + name)
    )


def sample(items: Iterable[Item], number: int) -> list[Item]:
    """Return a random choice of items, in their order; all if there are fewer.

    Memory holds only the choice. The same number of items gives the same choice.
    Source: algorithm R, J. S. Vitter, Random Sampling with a Reservoir, 1985.
    """
    choice = random.Random(0)
    chosen: list[tuple[int, Item]] = []
    for place, item in enumerate(items):
        if place < number:
            chosen.append((place, item))
        elif (replaced := choice.randrange(place + 1)) < number:
            chosen[replaced] = (place, item)
    return [item for _, item in sorted(chosen, key=itemgetter(0))]


def _rows(keys: Iterable[str], reader: Callable[[str], ReadRange]) -> Iterator[Row]:
    left = iter(keys)
    with ThreadPoolExecutor(MAX_READERS) as threads:
        while some := list(islice(left, _AT_ONCE)):
            yield from threads.map(partial(_row, reader=reader), some)


def _row(key: str, reader: Callable[[str], ReadRange]) -> Row:
    try:
        # The name of a file may have any bytes.
        key.encode()
        return Row(key, headers.bands(reader(key)))
    except UnicodeEncodeError:
        name = os.fsencode(key).decode(errors="backslashreplace")
        return Row(name, None, "its name is not UTF-8, as that of an object: rename it")
    except (*_NOT_THIS_ONE, OSError) as error:
        return Row(key, None, str(error))


def _read_file(file: Path, offset: int, size: int) -> bytes:
    with file.open("rb") as opened:
        # A damaged file may name an offset to which no file can be set.
        if offset >= os.fstat(opened.fileno()).st_size:
            return b""
        opened.seek(offset)
        return opened.read(size)
