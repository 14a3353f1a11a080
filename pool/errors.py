"""What can go wrong with the embedded pool; each message says what to do next."""


class PoolError(Exception):
    """The pool could not be installed, started or stopped."""
