"""Claim a manifest: rename it, so that one access point alone works on it.

S3 has no renaming, and two access points may look at the same moment. So the
manifest is claimed first: an object beside it, ``<manifest>.claim``, names the run
that may rename it. By ``If-None-Match`` a store lets only one of them be written.
Some stores do not know that condition and write in any case; there the claim is
written, left alone for SETTLE_SECONDS, and read back: the last one written holds.
"""

import getpass
import json
import socket
import time
from dataclasses import asdict, dataclass

from bucket import (
    Bucket,
    BucketError,
    ObjectMissing,
    ObjectUnreadable,
    StoredObject,
)
from dag.files import write_atomically
from dag.run import Run

# How long a claim is left alone where a store knows no conditions. Whoever needs
# more than half of it from looking to having written does not hold the claim.
SETTLE_SECONDS = 4
SUFFIX = ".claim"
_LARGEST = 4096  # bytes


class ClaimUncertain(BucketError):
    """Nobody can tell just now whose the manifest is."""


@dataclass(frozen=True)
class Claim:
    """What stands in ``<manifest>.claim``: whose it is, for people, and its token."""

    user: str
    host: str
    run: str
    token: str


def claim(run: Run, inputs: Bucket) -> bool:
    """Rename a run's manifest; can be repeated after a crash at any step.

    What was read into the run directory is what is written; a manifest that was
    replaced since is a manifest of its own.

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
        if not _acquire(run, inputs):
            return False
        # Who held the claim before us may have renamed it since we looked.
        if not _waits(run, inputs):
            _release(run, inputs)
            return False
        write_atomically(run.claimed_file, _claim_text(run))
    if not inputs.exists(run.processing_key):
        inputs.upload(run.processing_key, run.manifest_file, "text/csv")
    if _waits(run, inputs):
        inputs.remove(run.manifest_key)
    _release(run, inputs)
    return True


def claimant(inputs: Bucket, manifest_key: str) -> str | None:
    """Who holds the claim of a manifest, for people; None when nobody does."""
    held = _held(inputs, manifest_key)
    return held and f"{held.user}@{held.host} in {held.run}"


def is_that(run: Run, found: StoredObject) -> bool:
    """Whether an object is the very upload that a run was made for."""
    same = (run.manifest_key, run.etag, run.modified)
    return same == (found.key, found.etag, found.modified.isoformat())


def _waits(run: Run, inputs: Bucket) -> bool:
    # As it was found: a look-up may date it otherwise, to a part of a second.
    listed = inputs.list(run.manifest_key)
    found = next((each for each in listed if each.key == run.manifest_key), None)
    return found is not None and is_that(run, found)


def _acquire(run: Run, inputs: Bucket) -> bool:
    key, text = run.manifest_key + SUFFIX, _claim_text(run)
    began = time.monotonic()
    held = _held(inputs, run.manifest_key)
    if held and held.token != run.token:
        return False
    if not inputs.write_if_absent(key, text.encode()):
        # Perhaps by ourselves, before a crash or an answer that was lost.
        return _is_held_by(run, inputs)
    if not inputs.write_if_absent(key, text.encode()):
        # The store knows the condition, so it held for the first one as well.
        return _is_held_by(run, inputs)
    # Both writes took place: the second one too may replace another run's claim.
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


def _is_held_by(run: Run, inputs: Bucket) -> bool:
    # By the token alone: a run may be carried on by another user, or on a host that
    # was renamed.
    held = _held(inputs, run.manifest_key)
    return held is not None and held.token == run.token


def _claim_text(run: Run) -> str:
    host, user = socket.gethostname(), getpass.getuser()
    return json.dumps(asdict(Claim(user, host, run.directory.name, run.token))) + "\n"


def _held(inputs: Bucket, manifest_key: str) -> Claim | None:
    """The claim of a manifest; None when there is none.

    Raises:
        ClaimUncertain: it cannot be read, as while it is written on some stores.
    """
    key = manifest_key + SUFFIX
    try:
        return Claim(**json.loads(inputs.read(key, _LARGEST)))
    except ObjectMissing:
        return None
    except (ValueError, TypeError, ObjectUnreadable) as error:
        raise ClaimUncertain(
            f"{key} in {inputs.name} is no claim that can be read: should that last, "
            "remove it"
        ) from error
