"""The object ``…processing-….csv``: a manifest that a run processes.

Its metadata contain a proof, because people who may upload may write an object of that
name. Other runs wait only for one with a proof.
"""

import hashlib
import itertools
from pathlib import Path

from bucket import Bucket, ObjectMissing, ObjectUnreadable, StoredObject
from dag import proof
from dag.manifest import MAX_SIZE
from state.errors import PipelineError
from state.launch import Launch
from state.run import Run, is_processing, run_with_processing_key

# A poll asks the store about this many objects of such a name. Access points process
# some hundreds of manifests, and uploaders can write millions.
MAX_OBJECTS = 1000
_DIGEST, _PROOF = "sha256", "proof"
# The digest of a manifest that was not read.
_NOT_READ = "not-read"


def write(run: Run, launch: Launch, inputs: Bucket) -> bool:
    """Write a run's manifest under its new name.

    Returns:
        Whether it is there. It is not if the store was to copy it and it has changed.
    """
    key = run.processing_key
    if not run.manifest_file.exists():
        metadata = _metadata(launch, key, _NOT_READ)
        return inputs.copy(run.manifest_key, key, run.etag, metadata)
    metadata = _metadata(launch, key, sha256(run.manifest_file))
    inputs.upload(key, run.manifest_file, "text/csv", metadata)
    return True


def restore(run: Run, launch: Launch) -> bool:
    """Write a run's manifest again if somebody removed it; return whether that was so.

    Without it, another access point could convert the same images.
    """
    inputs = launch.inputs()
    if not run.manifest_file.exists() or inputs.exists(run.processing_key):
        return False
    return write(run, launch, inputs)


def listed(inputs: Bucket, launch: Launch) -> list[StoredObject]:
    """Return the objects that have the name of a manifest that a run processes."""
    objects = inputs.list(launch.literal_prefix)
    named = (stored for stored in objects if is_processing(stored.key))
    return list(itertools.islice(named, MAX_OBJECTS))


def read(inputs: Bucket, launch: Launch, stored: StoredObject) -> bytes | None:
    """Return the content of such an object; None if no access point wrote it.

    None is also returned if its run has ended, or if its manifest was not read.
    """
    try:
        run = run_with_processing_key(launch, stored.key)
    except PipelineError:
        # Its directory cannot be read, as polls say. The object still counts.
        run = None
    if run:
        is_active = not run.done and run.manifest_file.exists()
        return run.manifest_file.read_bytes() if is_active else None
    if stored.size > MAX_SIZE:
        return None
    try:
        metadata = inputs.metadata(stored.key)
        digest = metadata.get(_DIGEST, "")
        if not _is_proven(launch, stored.key, digest, metadata.get(_PROOF, "")):
            return None
        content = inputs.read(stored.key, MAX_SIZE)
    except (ObjectMissing, ObjectUnreadable):
        return None
    # Somebody may have copied the metadata to an object with other content.
    return content if hashlib.sha256(content).hexdigest() == digest else None


def _metadata(launch: Launch, key: str, digest: str) -> dict[str, str]:
    facts = ("processing", launch.input_bucket, key, digest)
    return {_DIGEST: digest, _PROOF: proof.of(launch.store, *facts)}


def _is_proven(launch: Launch, key: str, digest: str, written: str) -> bool:
    facts = ("processing", launch.input_bucket, key, digest)
    return proof.is_valid(launch.store, written, *facts)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
