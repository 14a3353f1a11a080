"""Why a node could not be packed."""


class PackError(Exception):
    """Says in one sentence what is missing and what to do about it."""
