"""What waits in the input bucket: look for it, take it in turn, download it.

Who may upload may upload anything, and as much as they like. So a poll looks at sizes
before it downloads, at the disk before it begins a run, and bounds the live runs.
"""

import fnmatch
import heapq
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bucket import Bucket, ObjectMissing, ObjectUnreadable, StoredObject
from dag import claim, health, run as runs
from dag.journal import Journal
from dag.manifest import LARGEST, too_large
from dag.pipeline import Pipeline
from dag.run import Run


@dataclass(frozen=True)
class Found:
    """What a look into the input bucket found, under the pattern's prefix.

    Attributes:
        manifests: those that wait.
        claims: the keys of what claims them.
        ours: the keys of what the pipeline made of earlier ones.
    """

    manifests: list[StoredObject]
    claims: set[str]
    ours: set[str]


def look(inputs: Bucket, pipeline: Pipeline) -> Found:
    """Look for manifests, by one listing."""
    found = Found([], set(), set())
    for each in inputs.list(pipeline.literal_prefix):
        if runs.is_ours(each.key):
            found.ours.add(each.key)
        elif each.key.endswith(claim.SUFFIX):
            found.claims.add(each.key)
        elif fnmatch.fnmatchcase(each.key, pipeline.pattern):
            found.manifests.append(each)
    return found


def in_turn(
    manifests: Iterable[StoredObject], unfinished: Iterable[Run]
) -> Iterator[StoredObject]:
    """Yield the manifests in turn: first of the folder with the fewest live runs.

    Of one folder, the oldest comes first. So whoever uploads many into one folder does
    not keep the other folders waiting.
    """
    alive = Counter(_folder(run.manifest_key) for run in unfinished)
    by_folder: dict[str, deque[StoredObject]] = {}
    for manifest in sorted(manifests, key=lambda each: (each.modified, each.key)):
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
    pipeline: Pipeline,
    unfinished: Sequence[Run],
    begun: Sequence[Run],
    manifest: StoredObject,
) -> str | None:
    """Return why no run may begin for a manifest now; None if one may."""
    # Those that this poll began count though they may have ended: all have a directory.
    alive = len(unfinished) + len(begun)
    if alive >= pipeline.max_runs:
        return f"{alive} runs are alive, and --max-runs allows no more at once"
    return health.room_for_a_run(pipeline, min(manifest.size, LARGEST))


@dataclass(frozen=True)
class Downloaded:
    """A manifest's file, or why it was not downloaded."""

    file: Path | None
    why_not: str = ""


def download(
    manifest: StoredObject, inputs: Bucket, pipeline: Pipeline, journal: Journal
) -> Downloaded | None:
    """Return a manifest as it was listed; None when that is gone.

    Who may upload can make it as large as they like. So its size is looked at first.
    """
    key, file = manifest.key, pipeline.home / "manifest.download"
    if manifest.size > LARGEST:
        return Downloaded(None, too_large(manifest.size))
    try:
        etag = inputs.download(key, file, LARGEST)
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
