"""What waits in the input bucket: look for it, take it in turn, download it.

Who may upload may upload anything, and as much as they like. So a poll looks at sizes
before it downloads, at the disk before it begins a run, and bounds the live runs.
"""

import fnmatch
import heapq
import random
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bucket import MAX_KEY_BYTES, Bucket, ObjectMissing, ObjectUnreadable, StoredObject
from dag import claim
from dag.manifest import MAX_SIZE, too_large
from state.disk import no_room_for_a_run
from state.journal import Journal
from state.keys import MAX_NAME
from state.launch import Launch
from state.run import Run, sibling_key, timestamp_now, timestamp_of

# Of each kind of what a look keeps. Millions would fill the memory, and a poll begins
# no more runs than --max-runs.
_MOST_FOLDERS = 1000
_MOST_NAMES = 100_000
_MOST_REFUSED = 20
# A store takes a while to copy what is not downloaded, and nobody waits for hours.
_MAX_SIZE_COPIED = 2**30  # bytes


@dataclass(frozen=True)
class Found:
    """What a look into the input bucket found, under the pattern's prefix.

    Attributes:
        manifests: those that wait, the oldest of each folder.
        taken: keys that the pipeline could give to objects of its own from now on.
        refused: the first few manifests that no run may begin for, and why.
    """

    manifests: list[StoredObject]
    taken: set[str]
    refused: list[tuple[str, str]]


def look(inputs: Bucket, launch: Launch) -> Found:
    """Look for manifests, by one listing."""
    return sift(inputs.list(launch.literal_prefix), launch)


def sift(listed: Iterable[StoredObject], launch: Launch) -> Found:
    """Keep of what is listed the manifests whose turn may come."""
    now = timestamp_now()
    folders = _Folders(launch.max_runs)
    taken: set[str] = set()
    refused: list[tuple[str, str]] = []
    for each in listed:
        if timestamp := timestamp_of(each.key):
            if timestamp >= now and len(taken) < _MOST_NAMES:
                taken.add(each.key)
        elif each.key.endswith(claim.SUFFIX):
            continue
        elif fnmatch.fnmatchcase(each.key, launch.pattern):
            if (why_not := _why_no_run(each)) is None:
                folders.add(each)
            elif len(refused) < _MOST_REFUSED:
                refused.append((each.key, why_not))
    return Found(list(folders.manifests()), taken, refused)


def _why_no_run(manifest: StoredObject) -> str | None:
    """Return why a run could not claim a manifest, and would be alive for ever."""
    if manifest.size > _MAX_SIZE_COPIED:
        return f"it is larger than {_MAX_SIZE_COPIED >> 30} GiB: remove it"
    if not _names_can_be_made_of(manifest.key):
        return (
            "its name is too long for what is to be named after it, or has '.' or "
            "'..' in its path: upload it under another name"
        )
    return None


def _names_can_be_made_of(key: str) -> bool:
    """Return whether a store can have what is made of a manifest beside it."""
    longest = sibling_key(key, "unreadable", timestamp_now())
    for made in (longest, key + claim.SUFFIX):
        parts = made.encode().split(b"/")
        # Folders on the way are there already.
        if len(made.encode()) > MAX_KEY_BYTES or len(parts[-1]) > MAX_NAME:
            return False
        # On their way to the store, paths lose these.
        if not {b".", b".."}.isdisjoint(parts):
            return False
    return True


class _Folders:
    """The oldest manifests of each folder; of too many folders, some at random.

    Which ones, nobody can choose (reservoir sampling): at the next poll it is others.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_name: dict[str, list[StoredObject]] = {}
        self._names: list[str] = []
        self._seen = 0

    def add(self, manifest: StoredObject) -> None:
        name = _folder(manifest.key)
        if name not in self._by_name and not self._has_room_for(name):
            return
        its = self._by_name.setdefault(name, [])
        its.append(manifest)
        if len(its) > 2 * self._most:
            del _oldest_first(its)[self._most :]

    def _has_room_for(self, name: str) -> bool:
        self._seen += 1
        if len(self._names) < _MOST_FOLDERS:
            self._names.append(name)
            return True
        place = random.randrange(self._seen)
        if place >= _MOST_FOLDERS:
            return False
        del self._by_name[self._names[place]]
        self._names[place] = name
        return True

    def manifests(self) -> Iterator[StoredObject]:
        for its in self._by_name.values():
            yield from its


def _oldest_first(manifests: list[StoredObject]) -> list[StoredObject]:
    manifests.sort(key=lambda each: (each.modified, each.key))
    return manifests


def in_turn(
    manifests: Iterable[StoredObject], unfinished: Iterable[Run]
) -> Iterator[StoredObject]:
    """Yield the manifests in turn: first of the folder with the fewest live runs.

    Of one folder, the oldest comes first. So whoever uploads many into one folder does
    not keep the other folders waiting.
    """
    alive = Counter(_folder(run.manifest_key) for run in unfinished)
    by_folder: dict[str, deque[StoredObject]] = {}
    for manifest in _oldest_first(list(manifests)):
        by_folder.setdefault(_folder(manifest.key), deque()).append(manifest)
    turns = [
        (alive[folder], its[0].modified, folder) for folder, its in by_folder.items()
    ]
    heapq.heapify(turns)
    while turns:
        ahead, _, folder = heapq.heappop(turns)
        its = by_folder[folder]
        yield its.popleft()
        if its:
            heapq.heappush(turns, (ahead + 1, its[0].modified, folder))


def _folder(key: str) -> str:
    return key.rpartition("/")[0]


def no_room(
    launch: Launch,
    unfinished: Sequence[Run],
    begun: Sequence[Run],
    manifest: StoredObject,
) -> str | None:
    """Return why no run may begin for a manifest now; None if one may."""
    # Those that this poll began count though they may have ended: all have a directory.
    alive = len(unfinished) + len(begun)
    if alive >= launch.max_runs:
        return f"{alive} runs are alive, and --max-runs allows no more at once"
    return no_room_for_a_run(launch, min(manifest.size, MAX_SIZE))


@dataclass(frozen=True)
class Downloaded:
    """A manifest's file, or why it was not downloaded."""

    file: Path | None
    why_not: str = ""


def download(
    manifest: StoredObject, inputs: Bucket, launch: Launch, journal: Journal
) -> Downloaded | None:
    """Return a manifest as it was listed; None when that is gone.

    Who may upload can make it as large as they like. So its size is looked at first.
    """
    key, file = manifest.key, launch.home / "manifest.download"
    if manifest.size > MAX_SIZE:
        return Downloaded(None, too_large(manifest.size))
    try:
        etag = inputs.download(key, file, MAX_SIZE)
    except ObjectMissing:
        sentence = f"{key} was taken or removed since it was listed"
        journal.say("not-claimed", sentence, manifest=key)
        return None
    except ObjectUnreadable as error:
        return Downloaded(None, str(error))
    if etag != manifest.etag:
        sentence = f"{key} is being uploaded; the next poll takes it"
        journal.say("being-uploaded", sentence, manifest=key)
        return None
    return Downloaded(file)
