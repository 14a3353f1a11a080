"""The error of packing a node."""


class PackError(Exception):
    """A node cannot be packed; the message is one sentence and has the remedy."""
