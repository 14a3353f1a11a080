"""No image is converted by two nodes at once, though it stands in two manifests."""

from collections.abc import Iterable

from bucket import Bucket, ObjectMissing, ObjectUnreadable, StoredObject
from dag import run as runs
from dag.errors import NotAManifest
from dag.images import candidate_keys
from dag.manifest import LARGEST, Manifest, Row, parse
from dag.pipeline import Pipeline
from dag.run import Run


def claimed_manifests(inputs: Bucket, pipeline: Pipeline) -> list[StoredObject]:
    """The manifests that runs, anyone's, work on."""
    listed = inputs.list(pipeline.literal_prefix)
    return [each for each in listed if runs.is_processing(each.key)]


def run_to_wait_for(
    run: Run, manifest: Manifest, claimed: Iterable[StoredObject], inputs: Bucket
) -> str | None:
    """The manifest of an earlier run, anyone's, that has one of this run's images.

    Of two claimed manifests the one that was renamed first, by the store's clock,
    goes first; the names decide between those of the same moment. So no two wait
    for each other, and since each is renamed before it looks, none goes unseen.

    Args:
        claimed: the manifests that were, when this one's had been renamed.

    Returns:
        The key of that run's ``…processing-….csv``, None when there is none.
    """
    found = {each.key: each for each in claimed}
    ours = found.pop(run.processing_key, None)
    ours_since = (ours.modified, ours.key) if ours else None
    images = {row.key for row in manifest.convertible}
    # Of a larger one nothing is converted.
    small = (each for each in found.values() if each.size <= LARGEST)
    for other in sorted(small, key=lambda each: (each.modified, each.key)):
        if ours_since and (other.modified, other.key) > ours_since:
            break
        if not images.isdisjoint(_images(inputs, other.key)):
            return other.key
    return None


def _images(inputs: Bucket, manifest_key: str) -> set[str]:
    try:
        rows: tuple[Row, ...] = parse(inputs.read(manifest_key, LARGEST)).rows
    except (NotAManifest, ObjectMissing, ObjectUnreadable):
        # Nothing of it is converted; or its run has ended since it was listed.
        return set()
    return {key for row in rows for key in candidate_keys(row, inputs.name)}
