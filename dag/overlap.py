"""No image is converted by two nodes at once, though it stands in two manifests."""

from collections.abc import Iterable
from datetime import UTC, datetime

from bucket import Bucket, StoredObject
from dag import processing
from dag.images import candidate_keys
from dag.manifest import parse
from state.errors import NotAManifest
from state.files import write_atomically
from state.launch import Launch
from state.records import as_json
from state.rows import Manifest
from state.run import Run
from state.waiting import MAX_WAIT, Waiting, waiting


def run_to_wait_for(
    run: Run,
    manifest: Manifest,
    claimed: Iterable[StoredObject],
    launch: Launch,
    inputs: Bucket,
) -> Waiting | None:
    """Return the earlier run, anyone's, that has one of this run's images.

    Of two claimed manifests the one that was renamed first, by the store's clock,
    goes first; the names decide between those of the same moment. So no two wait
    for each other, and since each is renamed before it looks, none goes unseen.

    Once a run is known to wait for another, no manifest is read until that has ended.

    Args:
        claimed: the objects that have the names of claimed manifests.

    Returns:
        None when there is none, or when this run has waited for MAX_WAIT.
    """
    found = {each.key: each for each in claimed}
    before = waiting(run)
    if before and before.duration > MAX_WAIT:
        return None
    if before and before.key in found and found[before.key].etag == before.etag:
        return before
    ours = found.pop(run.processing_key, None)
    ours_since = (ours.modified, ours.key) if ours else None
    images = {row.key for row in manifest.convertible}
    for other in sorted(found.values(), key=lambda each: (each.modified, each.key)):
        if ours_since and (other.modified, other.key) > ours_since:
            break
        if not images.isdisjoint(_images(inputs, launch, other)):
            since = before.since if before else datetime.now(UTC).isoformat()
            now = Waiting(other.key, other.etag, since)
            write_atomically(run.waiting_file, as_json(now))
            return now
    return None


def _images(inputs: Bucket, launch: Launch, other: StoredObject) -> set[str]:
    content = processing.read(inputs, launch, other)
    if content is None:
        return set()
    try:
        rows = parse(content).rows
    except NotAManifest:
        # Nothing of it is converted.
        return set()
    return {key for row in rows for key in candidate_keys(row, inputs.name)}
