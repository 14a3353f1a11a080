"""The error of the embedded pool."""


class PoolError(Exception):
    """The pool cannot be installed, started or stopped; the message has the remedy."""
