"""Exit codes of the commands. docs/reference.md explains them to users."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of all commands but ``health``, which has ``health.State``."""

    DONE = 0
    # An expected failure. The message says what to do.
    REFUSED = 1
    # click uses the same code.
    USAGE = 2
    # EX_SOFTWARE of sysexits.h.
    INTERNAL_ERROR = 70
    # EX_TEMPFAIL of sysexits.h. DAGMan runs 'reconcile' again only for this code, which
    # Python does not use for errors of its own.
    TRY_AGAIN = 75
    # The code of a shell for a program that SIGINT ended.
    INTERRUPTED = 130
