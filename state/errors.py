"""What can go wrong on the access point; each message says what to do next."""

import errno

from bucket import BucketError

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class PipelineError(Exception):
    """The base of all of them: a sentence for people, never a traceback."""


class NotAManifest(PipelineError):
    """An object has a manifest's name, but no rows can be read from it."""


class SchedulerError(PipelineError):
    """HTCondor refused something or does not answer."""


class OthersCanChange(PipelineError):
    """Another user can change what decides which keys are used and what is run."""


class PollFailed(PipelineError):
    """Some of what a poll had to do could not be done; the journal says what."""


def user_message(error: Exception) -> str | None:
    """What to say of an error that was foreseen; None of one that was not."""
    if isinstance(error, BucketError | PipelineError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        where = f" ({error.filename})" if error.filename else ""
        return (
            f"the disk with the run directories fails: {error.strerror}{where}; make "
            "room there"
        )
    return None
