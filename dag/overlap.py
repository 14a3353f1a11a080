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
from state.rows import Manifest, load_rows
from state.run import Run
from state.waiting import MAX_WAIT, Waiting, waiting


def run_to_wait_for(
    run: Run,
    manifest: Manifest,
    claimed: Iterable[StoredObject],
    active: Iterable[Run],
    launch: Launch,
    inputs: Bucket,
) -> Waiting | None:
    """Return the earlier run, on any access point, that has one of this run's images.

    If two claimed manifests share images, the one that was renamed first goes first, by
    the store's clock and then by name. So no two runs wait for each other. Each run
    renames its manifest before it looks for others, so none is missed.

    Once a run is known to wait for another one, no manifest is read until that one has
    ended.

    Somebody may remove the manifest of a run from the bucket. So runs of this launch
    whose DAG was submitted are looked at too, for as long as they have not ended.

    Args:
        claimed: the objects that have the names of claimed manifests.
        active: the runs of this launch that may not have ended.

    Returns:
        None if there is no such run, or if this run has waited for MAX_WAIT for one
        that is not among the active ones.
    """
    images = {composed(row.key) for row in manifest.convertible}
    compared: set[str] = set()
    for begun in active:
        if begun.has_begun and not begun.done:
            if _shares_images(begun, images):
                return _wait(run, begun.processing_key, begun.etag)
            compared.add(begun.processing_key)
    others = {stored.key: stored for stored in claimed}
    previous = waiting(run)
    if previous and previous.duration > MAX_WAIT:
        return None
    awaited = others.get(previous.key) if previous else None
    if previous and awaited and awaited.etag == previous.etag:
        return previous
    own = others.pop(run.processing_key, None)
    for other in sorted(others.values(), key=_order):
        if own and _order(other) > _order(own):
            break
        if other.key in compared:
            continue
        if not images.isdisjoint(_images(inputs, launch, other)):
            return _wait(run, other.key, other.etag)
    return None


def _wait(run: Run, key: str, etag: str) -> Waiting:
    """Record which manifest a run waits for, since it began to wait for any."""
    previous = waiting(run)
    since = previous.since if previous else datetime.now(UTC).isoformat()
    wait = Waiting(key, etag, since)
    write_atomically(run.waiting_file, as_json(wait))
    return wait


def _shares_images(other: Run, images: set[str]) -> bool:
    rows = (row for row in load_rows(other) if row.reason is None)
    return any(composed(row.key) in images for row in rows)


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
