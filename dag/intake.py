"""Take in what waits in the input bucket: list it, order it, download it.

People who may upload may upload anything, and as much as they like. So a poll checks
the size of a manifest before it downloads it, checks the disk before it starts a run,
and limits the number of active runs. It takes only objects whose keys end in ``.csv``,
because a manifest is renamed, and an image that a pattern matches must stay.
"""

import fnmatch
import heapq
import random
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bucket import MAX_KEY_BYTES, Bucket, ObjectMissing, ObjectUnreadable, StoredObject
from dag import events
from dag.manifest import MAX_SIZE, too_large
from dag.processing import sha256
from state.disk import no_room_for_a_run
from state.journal import Journal
from state.keys import MAX_NAME
from state.launch import Launch
from state.postponed import Postponements
from state.run import CLAIM_SUFFIX, Run, sibling_key, timestamp_now, timestamp_of

# A listing keeps at most this many of each kind. Millions would fill the memory, and a
# poll starts no more runs than --max-runs.
_MAX_FOLDERS = 1000
_MAX_NAMES = 100_000
_MAX_REFUSED = 20
# macOS writes such a file beside each file that it copies to another kind of disk.
_APPLE_DOUBLE = "._"
_SUFFIX = ".csv"
# One character of a shell pattern, or a set of characters.
_PART_OF_PATTERN = re.compile(r"\[!?\]?[^\]]*\]|.", re.DOTALL)
# A store needs time to copy a manifest that is not downloaded; nobody waits for hours.
_MAX_SIZE_COPIED = 2**30  # bytes


@dataclass(frozen=True)
class Listing:
    """The manifests in the input bucket, and names that are in use.

    Attributes:
        manifests: the oldest manifests of each folder.
        taken: keys that the pipeline could give to objects of its own from now on.
        refused: the first manifests for which no run may start, and why.
        apple_doubles: the first keys of files that macOS wrote beside manifests.
    """

    manifests: list[StoredObject]
    taken: set[str]
    refused: list[tuple[str, str]]
    apple_doubles: list[str]


def pattern_fault(pattern: str) -> str | None:
    """Return why a pattern is refused: it can match keys that do not end in ``.csv``.

    >>> pattern_fault("*raw.csv"), pattern_fault("*raw.[cC][sS][vV]")
    (None, None)
    >>> pattern_fault("scenes/*")
    "the pattern 'scenes/*' can match images, and manifests are renamed: end it in .csv"
    """
    ends = _PART_OF_PATTERN.findall(pattern)[-len(_SUFFIX) :]
    if [{*end.strip("[]").lower()} for end in ends] == [{char} for char in _SUFFIX]:
        return None
    return (
        f"the pattern {pattern!r} can match images, and manifests are renamed: end it "
        f"in {_SUFFIX}"
    )


def _is_manifest(key: str, launch: Launch) -> bool:
    # A launch of before version 0.1 may have any pattern.
    matches = fnmatch.fnmatchcase(key, launch.pattern)
    return matches and key.lower().endswith(_SUFFIX)


def is_manifest_key(key: str, launch: Launch) -> bool:
    """Return whether polls of a launch take an object with this key for a manifest."""
    if timestamp_of(key) or _is_apple_double(key):
        return False
    return _is_manifest(key, launch)


def _is_apple_double(key: str) -> bool:
    return key.rpartition("/")[2].startswith(_APPLE_DOUBLE)


def list_manifests(inputs: Bucket, launch: Launch) -> Listing:
    """List what is in the input bucket, under the prefix of the pattern."""
    return sift(inputs.list(launch.literal_prefix), launch)


def sift(objects: Iterable[StoredObject], launch: Launch) -> Listing:
    """Return the manifests among some objects whose turn may come."""
    now = timestamp_now()
    folders = _Folders(launch.max_runs)
    taken: set[str] = set()
    refused: list[tuple[str, str]] = []
    apple_doubles: list[str] = []
    for stored in objects:
        if timestamp := timestamp_of(stored.key):
            if timestamp >= now and len(taken) < _MAX_NAMES:
                taken.add(stored.key)
        elif not _is_manifest(stored.key, launch):
            continue
        elif _is_apple_double(stored.key):
            if len(apple_doubles) < _MAX_REFUSED:
                apple_doubles.append(stored.key)
        elif (refusal := _refusal(stored)) is None:
            folders.add(stored)
        elif len(refused) < _MAX_REFUSED:
            refused.append((stored.key, refusal))
    return Listing(list(folders.manifests()), taken, refused, apple_doubles)


def _refusal(manifest: StoredObject) -> str | None:
    """Return why a run could never claim a manifest, and would stay active for ever."""
    if manifest.size > _MAX_SIZE_COPIED:
        return f"it is larger than {_MAX_SIZE_COPIED >> 30} GiB: remove it"
    if manifest.archive:
        return f"it is in cold storage ({manifest.archive}): restore it"
    if not _can_have_siblings(manifest.key):
        return (
            "its name is too long for the names that are made from it, or has '.' or "
            "'..' in its path: upload it under another name"
        )
    return None


def _can_have_siblings(key: str) -> bool:
    """Return whether a store can have the objects that are named after a manifest."""
    longest = sibling_key(key, "unreadable", timestamp_now())
    for sibling in (longest, key + CLAIM_SUFFIX):
        parts = sibling.encode().split(b"/")
        # The folders exist already.
        if len(sibling.encode()) > MAX_KEY_BYTES or len(parts[-1]) > MAX_NAME:
            return False
        # These disappear from a path on the way to the store.
        if not {b".", b".."}.isdisjoint(parts):
            return False
    return True


class _Folders:
    """The oldest manifests of each folder; of too many folders, a random selection.

    Nobody can choose which folders (reservoir sampling), and the next poll selects
    others.
    """

    def __init__(self, max_manifests: int) -> None:
        self._max_manifests = max_manifests
        self._by_name: dict[str, list[StoredObject]] = {}
        self._names: list[str] = []
        self._count = 0

    def add(self, manifest: StoredObject) -> None:
        """Add a manifest, unless its folder is not selected."""
        name = _folder(manifest.key)
        if name not in self._by_name and not self._select(name):
            return
        manifests = self._by_name.setdefault(name, [])
        manifests.append(manifest)
        if len(manifests) > 2 * self._max_manifests:
            del _oldest_first(manifests)[self._max_manifests :]

    def _select(self, name: str) -> bool:
        self._count += 1
        if len(self._names) < _MAX_FOLDERS:
            self._names.append(name)
            return True
        place = random.randrange(self._count)
        if place >= _MAX_FOLDERS:
            return False
        del self._by_name[self._names[place]]
        self._names[place] = name
        return True

    def manifests(self) -> Iterator[StoredObject]:
        """Yield the manifests of all folders."""
        for manifests in self._by_name.values():
            yield from manifests


def _oldest_first(manifests: list[StoredObject]) -> list[StoredObject]:
    manifests.sort(key=lambda manifest: (manifest.modified, manifest.key))
    return manifests


def in_turn(
    manifests: Iterable[StoredObject], active: Iterable[Run]
) -> Iterator[StoredObject]:
    """Yield the manifests in turn, first of the folder with the fewest active runs.

    The oldest manifest of a folder comes first. So somebody who uploads many manifests
    to one folder does not keep the other folders waiting.
    """
    counts = Counter(_folder(run.manifest_key) for run in active)
    queues: dict[str, deque[StoredObject]] = {}
    for manifest in _oldest_first(list(manifests)):
        queues.setdefault(_folder(manifest.key), deque()).append(manifest)
    turns = [
        (counts[folder], queue[0].modified, folder) for folder, queue in queues.items()
    ]
    heapq.heapify(turns)
    while turns:
        count, _, folder = heapq.heappop(turns)
        queue = queues[folder]
        yield queue.popleft()
        if queue:
            heapq.heappush(turns, (count + 1, queue[0].modified, folder))


def _folder(key: str) -> str:
    return key.rpartition("/")[0]


def no_room(
    launch: Launch,
    unfinished: Sequence[Run],
    begun: Sequence[Run],
    manifest: StoredObject,
) -> str | None:
    """Return why no run may start for a manifest now; None if one may."""
    # Runs that this poll started count even if they have ended: all have a directory.
    active = len(unfinished) + len(begun)
    if active >= launch.max_runs:
        return f"{active} runs are active, and --max-runs allows no more at once"
    return no_room_for_a_run(launch, min(manifest.size, MAX_SIZE))


@dataclass(frozen=True)
class Download:
    """The file of a manifest, or why it was not downloaded."""

    file: Path | None
    fault: str = ""


def download(
    manifest: StoredObject,
    inputs: Bucket,
    launch: Launch,
    postponements: Postponements,
    journal: Journal,
) -> Download | None:
    """Download a manifest as it was listed; return None if it may have changed since.

    Some stores, or proxies in front of them, give an object another ETag than their
    listing does. There, a manifest is taken if a poll finds it as the poll before did.

    Its size is checked first, because people who may upload can make it of any size.
    """
    key, file = manifest.key, launch.home / "manifest.download"
    if manifest.size > MAX_SIZE:
        return Download(None, too_large(manifest.size))
    try:
        etag = inputs.download(key, file, MAX_SIZE)
    except ObjectMissing:
        journal.record(events.manifest_gone(key))
        return None
    except ObjectUnreadable as error:
        return Download(None, str(error))
    if etag == manifest.etag:
        return Download(file)
    listed = (manifest.etag, str(manifest.modified), str(manifest.size))
    seen = " ".join((*listed, sha256(file)))
    if seen == postponements.seen(key):
        return Download(file)
    event = events.may_be_changing(key)
    postponements.add(key, event.message, seen)
    journal.record(event)
    return None
