"""Let no two nodes convert an image at once, even if it is in two manifests."""

from collections.abc import Iterable
from datetime import UTC, datetime

from bucket import Bucket, StoredObject
from dag import processing
from dag.images import candidate_keys
from dag.manifest import parse
from dag.names import composed
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
    """Return the earlier run, on any access point, that has one of this run's images.

    Of two claimed manifests, the one that was renamed first goes first, by the store's
    clock and then by name. So no two runs wait for each other. Each run renames its
    manifest before it looks for others, so none is missed.

    Once a run is known to wait for another one, no manifest is read until that one has
    ended.

    Args:
        claimed: the objects that have the names of claimed manifests.

    Returns:
        None if there is no such run, or if this run has waited for MAX_WAIT.
    """
    others = {stored.key: stored for stored in claimed}
    previous = waiting(run)
    if previous and previous.duration > MAX_WAIT:
        return None
    awaited = others.get(previous.key) if previous else None
    if previous and awaited and awaited.etag == previous.etag:
        return previous
    own = others.pop(run.processing_key, None)
    images = {composed(row.key) for row in manifest.convertible}
    for other in sorted(others.values(), key=_order):
        if own and _order(other) > _order(own):
            break
        if not images.isdisjoint(_images(inputs, launch, other)):
            since = previous.since if previous else datetime.now(UTC).isoformat()
            wait = Waiting(other.key, other.etag, since)
            write_atomically(run.waiting_file, as_json(wait))
            return wait
    return None


def _order(stored: StoredObject) -> tuple[datetime, str]:
    return stored.modified, stored.key


def _images(inputs: Bucket, launch: Launch, other: StoredObject) -> set[str]:
    content = processing.read(inputs, launch, other)
    if content is None:
        return set()
    try:
        rows = parse(content).rows
    except NotAManifest:
        # None of its images is converted.
        return set()
    return {
        composed(key)
        for row in rows
        for key in candidate_keys(row, inputs.name, inputs.endpoint)
    }
