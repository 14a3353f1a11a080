"""Names that follow from an image's key: of its outputs, and of its file in a node."""

from urllib.parse import quote

# The limit of Linux file systems. An image's name in a node's sandbox is
# percent-encoded, as in its URL.
MAX_NAME = 255  # bytes
# An image's key ends so, in any case.
TIFF_SUFFIXES = (".tif", ".tiff")


def key_stem(key: str) -> str:
    """Return an image's key without its suffix.

    >>> key_stem("maps/v1.2/sheet.tif")
    'maps/v1.2/sheet'
    """
    return key[: key.rindex(".")]


def jpeg_key(key: str) -> str:
    """Return the key of the JPEG beside an image."""
    return key_stem(key) + ".jpg"


def sandbox_name(key: str) -> str:
    """Return the name that HTCondor gives to an image in a node's sandbox.

    This is the last part of its URL, percent-encoded. So any key arrives as letters,
    digits and ``_.-~%``.

    >>> sandbox_name("maps/map of Bern.tif")
    'map%20of%20Bern.tif'
    """
    return quote(key.rsplit("/", 1)[-1], safe="")
