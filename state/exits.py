"""What the commands exit with; docs/reference.md has the same for people."""

from enum import IntEnum


class Exit(IntEnum):
    """Of every command but ``health``, which exits with a ``health.State``."""

    DONE = 0
    # Something that was foreseen; the sentence says what to do.
    REFUSED = 1
    # What click itself exits with.
    USAGE = 2
    # sysexits.h: EX_SOFTWARE.
    INTERNAL_ERROR = 70
    # sysexits.h: EX_TEMPFAIL. DAGMan runs 'reconcile' again for it alone; no status
    # that Python has for errors of its own.
    TRY_AGAIN = 75
    # As of a program that SIGINT ended, in a shell.
    INTERRUPTED = 130
