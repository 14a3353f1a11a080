"""Claim a manifest: rename it, so that only one access point processes it.

S3 cannot rename an object, and two access points may poll at the same moment. So an
access point first writes a claim, the object ``<manifest>.claim``, which names the run
that may rename the manifest. With ``If-None-Match`` a store lets only one of them write
it. Some stores ignore that condition and always write. There, the claim is written,
left for SETTLE_SECONDS, and read back: the last claim that was written is valid.

People who may upload may write such an object too. So a claim carries a proof. A claim
without one, or one that is very old, does not keep a manifest waiting.
"""

import getpass
import json
import socket
import time
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta

from bucket import (
    BadAnswer,
    Bucket,
    BucketError,
    ObjectMissing,
    ObjectUnreadable,
    StoredObject,
)
from dag import processing, proof
from state.files import write_atomically
from state.launch import Launch
from state.records import from_record
from state.run import CLAIM_SUFFIX, Run
from state.text import one_line

# An access point that needs longer than this to check for a claim and to write its own
# does not hold the claim, where a store ignores conditions.
_MAX_SECONDS = 2
# So after this time, each claim that can replace another one is there.
SETTLE_SECONDS = 2.5
# A claim exists for seconds, or until the next poll if one was interrupted.
_VALID_FOR = timedelta(days=1)
# The claim may be that of an access point with other keys. This is longer than claiming
# takes.
_VALID_UNPROVEN_FOR = timedelta(seconds=30)
_MAX_SIZE = 4096  # bytes


class ClaimUncertain(BucketError):
    """It is not certain at the moment which run holds the manifest."""


@dataclass(frozen=True)
class Claim:
    """The content of ``<manifest>.claim``.

    Attributes:
        user, host, run: who claimed the manifest, for people.
        token: the token of the run.
        proof: proof that an access point wrote it, for this upload of the manifest.
    """

    user: str
    host: str
    run: str
    token: str
    proof: str = ""


@dataclass(frozen=True)
class _StoredClaim:
    """The claim of a manifest in the bucket.

    Attributes:
        claim: None if the object cannot be read as a claim.
        since: when it was written.
    """

    claim: Claim | None
    since: datetime

    def is_of(self, run: Run) -> bool:
        """Return whether a run holds this claim.

        Only the token decides: another user may continue a run, or the host may have
        another name.
        """
        return self.claim is not None and self.claim.token == run.token


def claim(run: Run, launch: Launch, inputs: Bucket) -> bool:
    """Rename a run's manifest; can be repeated after a crash at any step.

    The file in the run directory is uploaded under the new name. A manifest that was
    replaced since then is another manifest. The store copies a manifest that was too
    large to be downloaded.

    Returns:
        Whether the manifest belongs to this run. It does not if it is gone, was
        replaced, or another run was first.

    Raises:
        ClaimUncertain: the next poll has to try again.
        BucketError: likewise.
    """
    if not run.claimed_file.exists():
        if not _is_unchanged(run, inputs):
            _release(run, inputs)
            return False
        if not _acquire(run, launch, inputs):
            return False
        # The former holder of the claim may have renamed the manifest in between.
        if not _is_unchanged(run, inputs):
            _release(run, inputs)
            return False
        write_atomically(run.claimed_file, _text(_claim_of(run, launch)))
    if not inputs.exists(run.processing_key):
        if not run.rows_file.exists() and _is_held_by_another(run, inputs):
            # This access point was away for so long that another one took over.
            return False
        if not processing.write(run, launch, inputs):
            _release(run, inputs)
            return False
    if _is_unchanged(run, inputs):
        inputs.remove(run.manifest_key)
    _release(run, inputs)
    return True


def claim_holder(inputs: Bucket, launch: Launch, manifest: StoredObject) -> str | None:
    """Return who holds the claim of a manifest, for people; None if nobody does."""
    stored = _stored_claim(inputs, manifest.key)
    upload = (manifest.etag, manifest.modified.isoformat())
    if stored is None or not _is_valid(stored, launch, manifest.key, upload):
        return None
    if (holder := stored.claim) is None:
        return "somebody"
    return one_line(f"{holder.user}@{holder.host} in {holder.run}")


def is_same_upload(run: Run, manifest: StoredObject) -> bool:
    """Return whether an object is the very upload that a run was created for."""
    upload = (manifest.key, manifest.etag, manifest.modified.isoformat())
    return upload == (run.manifest_key, run.etag, run.modified)


def _is_unchanged(run: Run, inputs: Bucket) -> bool:
    """Return whether the upload that a run was created for is still in the bucket."""
    # A listing, as when it was found: a HEAD request may give another part of a second.
    return any(is_same_upload(run, listed) for listed in inputs.list(run.manifest_key))


def _acquire(run: Run, launch: Launch, inputs: Bucket) -> bool:
    key = run.manifest_key + CLAIM_SUFFIX
    content = _text(_claim_of(run, launch)).encode()
    began = time.monotonic()
    stored = _stored_claim(inputs, run.manifest_key)
    if stored and not stored.is_of(run):
        if _is_valid(stored, launch, run.manifest_key, (run.etag, run.modified)):
            return False
        # It is not removed first: another access point may be about to do the same, and
        # would remove this run's claim.
        inputs.write(key, content)
        return _settle(run, inputs, began)
    if not inputs.write_if_absent(key, content):
        # This run may have written it, before a crash or if an answer was lost.
        return _is_held_by(run, inputs)
    if not inputs.write_if_absent(key, content):
        # The store observes the condition, so it did so for the first write too.
        return _is_held_by(run, inputs)
    # Both writes took place: the second one may also have replaced another run's claim.
    return _settle(run, inputs, began)


def _settle(run: Run, inputs: Bucket, began: float) -> bool:
    """Return whether a run holds a claim that it wrote without a condition."""
    duration = time.monotonic() - began
    if duration > _MAX_SECONDS:
        raise ClaimUncertain(
            f"claiming {run.manifest_key} took {duration:.0f} s, too long to be sure "
            "of it"
        )
    time.sleep(SETTLE_SECONDS)
    return _is_held_by(run, inputs)


def _release(run: Run, inputs: Bucket) -> None:
    if _is_held_by(run, inputs):
        inputs.remove(run.manifest_key + CLAIM_SUFFIX)


def _stored_claim(inputs: Bucket, manifest_key: str) -> _StoredClaim | None:
    """Return the claim of a manifest, if there is one.

    Raises:
        ClaimUncertain: the store cannot answer at the moment.
    """
    key = manifest_key + CLAIM_SUFFIX
    try:
        since = inputs.stat(key).modified
        content = inputs.read(key, _MAX_SIZE)
    except ObjectMissing:
        return None
    except ObjectUnreadable:
        return _StoredClaim(None, since)
    except BadAnswer as error:
        # Some stores answer like this while the object is being written.
        sentence = f"it is not certain yet who claims {manifest_key}: {error}"
        raise ClaimUncertain(sentence) from error
    return _StoredClaim(_read(content), since)


def _read(content: bytes) -> Claim | None:
    try:
        claim = from_record(Claim, json.loads(content))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    values = (getattr(claim, field.name) for field in fields(claim))
    return claim if all(isinstance(value, str) for value in values) else None


def _is_held_by(run: Run, inputs: Bucket) -> bool:
    stored = _stored_claim(inputs, run.manifest_key)
    return stored is not None and stored.is_of(run)


def _is_held_by_another(run: Run, inputs: Bucket) -> bool:
    stored = _stored_claim(inputs, run.manifest_key)
    return stored is not None and not stored.is_of(run)


def _is_valid(
    stored: _StoredClaim, launch: Launch, manifest_key: str, upload: tuple[str, str]
) -> bool:
    """Return whether a claim keeps other runs from a manifest.

    Args:
        upload: the ETag and the date of the manifest that waits.
    """
    claim = stored.claim
    facts = ("claim", launch.input_bucket, manifest_key, *upload)
    proven = claim is not None and proof.is_valid(
        launch.store, claim.proof, *facts, claim.token
    )
    age = datetime.now(UTC) - stored.since
    return age < (_VALID_FOR if proven else _VALID_UNPROVEN_FOR)


def _claim_of(run: Run, launch: Launch) -> Claim:
    facts = ("claim", launch.input_bucket, run.manifest_key, run.etag, run.modified)
    return Claim(
        user=getpass.getuser(),
        host=socket.gethostname(),
        run=run.directory.name,
        token=run.token,
        proof=proof.of(launch.store, *facts, run.token),
    )


def _text(claim: Claim) -> str:
    # It has no version: an access point of an earlier version refuses unknown fields.
    return json.dumps(asdict(claim)) + "\n"
