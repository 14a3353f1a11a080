"""Errors on the access point. Each message says what to do next."""

import errno

from bucket import BucketError

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class PipelineError(Exception):
    """An expected error; people see its message and no traceback."""


class NotAManifest(PipelineError):
    """An object has the name of a manifest, but no rows can be read from it."""


class OthersCanChange(PipelineError):
    """Another user can change which keys are used and which programs run."""


class PollFailed(PipelineError):
    """A poll could not do all of its work; the journal says what failed."""


def user_message(error: Exception) -> str | None:
    """Return the message for people of an expected error; None for any other error."""
    if isinstance(error, BucketError | PipelineError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        where = f" ({error.filename})" if error.filename else ""
        return (
            f"the disk with the run directories fails: {error.strerror}{where}; make "
            "room there"
        )
    return None
