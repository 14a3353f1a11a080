"""Claim a manifest: rename it, so that one access point alone works on it.

S3 has no renaming, and two access points may look at the same moment. So the
manifest is claimed first: an object beside it, ``<manifest>.claim``, names the run
that may rename it. By ``If-None-Match`` a store lets only one of them be written.
Some stores do not know that condition and write in any case; there the claim is
written, left alone for SETTLE_SECONDS, and read back: the last one written holds.

Who may upload may write such an object too. So a claim carries a proof, and a claim
without one, or one that is very old, does not keep a manifest waiting.
"""

import getpass
import json
import socket
import time
from dataclasses import asdict, dataclass
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
from state.run import Run
from state.text import one_line

# How long a claim is left alone where a store knows no conditions. Whoever needs
# more than half of it from looking to having written does not hold the claim.
SETTLE_SECONDS = 4
SUFFIX = ".claim"
# A claim is held for seconds, or until the next poll where one was interrupted.
_STANDS_FOR = timedelta(days=1)
# Of an access point that has other keys: longer than it takes to claim.
_STANDS_UNPROVEN_FOR = timedelta(seconds=30)
_LARGEST = 4096  # bytes


class ClaimUncertain(BucketError):
    """Nobody can tell just now whose the manifest is."""


@dataclass(frozen=True)
class Claim:
    """The content of ``<manifest>.claim``: whose it is, for people, and its token.

    Attributes:
        proof: that an access point wrote it, for this very upload of the manifest.
    """

    user: str
    host: str
    run: str
    token: str
    proof: str = ""


def claim(run: Run, launch: Launch, inputs: Bucket) -> bool:
    """Rename a run's manifest; can be repeated after a crash at any step.

    What was read into the run directory is what is written; a manifest that was
    replaced since is a manifest of its own. One that was too large to be read is
    copied by the store.

    Returns:
        Whether it is this run's; False when it is gone, was replaced, or another
        run was first.

    Raises:
        ClaimUncertain: to be tried again by the next poll.
        BucketError: likewise.
    """
    if not run.claimed_file.exists():
        if not _waits(run, inputs):
            _release(run, inputs)
            return False
        if not _acquire(run, launch, inputs):
            return False
        # Who held the claim before us may have renamed it since we looked.
        if not _waits(run, inputs):
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
    if _waits(run, inputs):
        inputs.remove(run.manifest_key)
    _release(run, inputs)
    return True


def claim_holder(inputs: Bucket, launch: Launch, manifest: StoredObject) -> str | None:
    """Return who holds the claim of a manifest, for people; None if nobody does."""
    held = _held(inputs, manifest.key)
    upload = (manifest.etag, manifest.modified.isoformat())
    if held is None or not _stands(*held, launch, manifest.key, upload):
        return None
    found, _ = held
    return (
        one_line(f"{found.user}@{found.host} in {found.run}") if found else "somebody"
    )


def is_same_upload(run: Run, found: StoredObject) -> bool:
    """Whether an object is the very upload that a run was made for."""
    same = (run.manifest_key, run.etag, run.modified)
    return same == (found.key, found.etag, found.modified.isoformat())


def _waits(run: Run, inputs: Bucket) -> bool:
    # As it was found: a look-up may date it otherwise, to a part of a second.
    listed = inputs.list(run.manifest_key)
    found = next((each for each in listed if each.key == run.manifest_key), None)
    return found is not None and is_same_upload(run, found)


def _acquire(run: Run, launch: Launch, inputs: Bucket) -> bool:
    key = run.manifest_key + SUFFIX
    content = _text(_claim_of(run, launch)).encode()
    began = time.monotonic()
    held = _held(inputs, run.manifest_key)
    if held and not _is_of(run, held):
        upload = (run.etag, run.modified)
        if _stands(*held, launch, run.manifest_key, upload):
            return False
        # Not removed first: another access point may be about to do the same, and
        # would remove ours.
        inputs.write(key, content)
        return _settle(run, inputs, began)
    if not inputs.write_if_absent(key, content):
        # Perhaps by ourselves, before a crash or an answer that was lost.
        return _is_held_by(run, inputs)
    if not inputs.write_if_absent(key, content):
        # The store knows the condition, so it held for the first one as well.
        return _is_held_by(run, inputs)
    # Both writes took place: the second one too may replace another run's claim.
    return _settle(run, inputs, began)


def _settle(run: Run, inputs: Bucket, began: float) -> bool:
    """Return whether a claim that was written without a condition holds."""
    took = time.monotonic() - began
    if took > SETTLE_SECONDS / 2:
        raise ClaimUncertain(
            f"claiming {run.manifest_key} took {took:.0f} s, too long to be sure of it"
        )
    time.sleep(SETTLE_SECONDS)
    return _is_held_by(run, inputs)


def _release(run: Run, inputs: Bucket) -> None:
    if _is_held_by(run, inputs):
        inputs.remove(run.manifest_key + SUFFIX)


Held = tuple[Claim | None, datetime]


def _held(inputs: Bucket, manifest_key: str) -> Held | None:
    """Return the claim of a manifest, and since when it is there.

    The claim itself is None where an object is there that cannot be read as one.

    Raises:
        ClaimUncertain: the store cannot say just now.
    """
    key = manifest_key + SUFFIX
    try:
        since = inputs.stat(key).modified
        content = inputs.read(key, _LARGEST)
    except ObjectMissing:
        return None
    except ObjectUnreadable:
        return None, since
    except BadAnswer as error:
        # As some stores answer while it is being written.
        sentence = f"nobody can tell just now whose {manifest_key} is: {error}"
        raise ClaimUncertain(sentence) from error
    return _read(content), since


def _read(content: bytes) -> Claim | None:
    try:
        found = from_record(Claim, json.loads(content))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    return (
        found if all(isinstance(each, str) for each in vars(found).values()) else None
    )


def _is_of(run: Run, held: Held) -> bool:
    # By the token alone: a run may be carried on by another user, or on a host that
    # was renamed.
    found, _ = held
    return found is not None and found.token == run.token


def _is_held_by(run: Run, inputs: Bucket) -> bool:
    held = _held(inputs, run.manifest_key)
    return held is not None and _is_of(run, held)


def _is_held_by_another(run: Run, inputs: Bucket) -> bool:
    held = _held(inputs, run.manifest_key)
    return held is not None and not _is_of(run, held)


def _stands(
    found: Claim | None,
    since: datetime,
    launch: Launch,
    manifest_key: str,
    upload: tuple[str, str],
) -> bool:
    """Return whether a claim keeps others from a manifest.

    Args:
        upload: ETag and date of the manifest that waits.
    """
    about = ("claim", launch.input_bucket, manifest_key, *upload)
    proven = found is not None and proof.holds(
        launch.store, found.proof, *about, found.token
    )
    age = datetime.now(UTC) - since
    return age < (_STANDS_FOR if proven else _STANDS_UNPROVEN_FOR)


def _claim_of(run: Run, launch: Launch) -> Claim:
    about = ("claim", launch.input_bucket, run.manifest_key, run.etag, run.modified)
    return Claim(
        user=getpass.getuser(),
        host=socket.gethostname(),
        run=run.directory.name,
        token=run.token,
        proof=proof.of(launch.store, *about, run.token),
    )


def _text(made: Claim) -> str:
    # An access point of before version 0.1 refuses a claim with other fields.
    return json.dumps(asdict(made)) + "\n"
