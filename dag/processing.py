"""The object ``…processing-….csv``: a manifest that a run works on.

It carries a proof in its metadata, since who may upload may write an object of that
name: only one with a proof has other runs wait for it.
"""

import hashlib
import itertools
from pathlib import Path

from bucket import Bucket, ObjectMissing, ObjectUnreadable, StoredObject
from dag import proof
from dag.manifest import MAX_SIZE
from state.launch import Launch
from state.run import Run, is_processing, run_with_processing_key

# How many objects of such a name a poll asks the store about: access points work on
# some hundreds of manifests, and who may upload can write millions.
MOST = 1000
_DIGEST, _PROOF = "sha256", "proof"
# Of a manifest that was not read.
_NOT_READ = "not-read"


def write(run: Run, launch: Launch, inputs: Bucket) -> bool:
    """Write a run's manifest under its new name.

    Returns:
        Whether it is there; False where it was to be copied and has changed since.
    """
    key = run.processing_key
    if not run.manifest_file.exists():
        metadata = _metadata(launch, key, _NOT_READ)
        return inputs.copy(run.manifest_key, key, run.etag, metadata)
    metadata = _metadata(launch, key, _sha256(run.manifest_file))
    inputs.upload(key, run.manifest_file, "text/csv", metadata)
    return True


def listed(inputs: Bucket, launch: Launch) -> list[StoredObject]:
    """Return the objects that have the name of a manifest that a run works on."""
    found = inputs.list(launch.literal_prefix)
    named = (each for each in found if is_processing(each.key))
    return list(itertools.islice(named, MOST))


def read(inputs: Bucket, launch: Launch, found: StoredObject) -> bytes | None:
    """Return the content of such an object; None if no access point wrote it.

    Nor is it returned when its run has ended, or when its manifest was not read.
    """
    if ours := run_with_processing_key(launch, found.key):
        at_work = not ours.done and ours.manifest_file.exists()
        return ours.manifest_file.read_bytes() if at_work else None
    if found.size > MAX_SIZE:
        return None
    try:
        metadata = inputs.metadata(found.key)
        digest = metadata.get(_DIGEST, "")
        if not _is_proven(launch, found.key, digest, metadata.get(_PROOF, "")):
            return None
        content = inputs.read(found.key, MAX_SIZE)
    except (ObjectMissing, ObjectUnreadable):
        return None
    # With the metadata of another upload, it may have a content of its own.
    return content if hashlib.sha256(content).hexdigest() == digest else None


def _metadata(launch: Launch, key: str, digest: str) -> dict[str, str]:
    made = proof.of(launch.store, "processing", launch.input_bucket, key, digest)
    return {_DIGEST: digest, _PROOF: made}


def _is_proven(launch: Launch, key: str, digest: str, made: str) -> bool:
    about = ("processing", launch.input_bucket, key, digest)
    return proof.holds(launch.store, made, *about)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
