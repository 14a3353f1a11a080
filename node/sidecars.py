"""Names and size limits of the files beside an image that describe it.

Overviews and masks are images themselves, of any size. The node reads the others whole
into memory, on a machine whose memory was requested for the image.
"""

# A raster attribute table of 65,536 rows and six columns has 12 MB.
MAX_XML_BYTES = 16 * 2**20
# A world file has six lines with a number each.
_MAX_WORLD_FILE_BYTES = 2**16
WORLD_FILES = (".tfw", ".tifw", ".wld")


def fault(name: str, size: int) -> str | None:
    """Return what is wrong with a file beside an image; None if nothing is.

    Args:
        size: size of the file, in bytes.
    """
    limit = size
    if name.endswith(".aux.xml"):
        limit = MAX_XML_BYTES
    elif name.lower().endswith(WORLD_FILES):
        limit = _MAX_WORLD_FILE_BYTES
    if size <= limit:
        return None
    return (
        f"{name} beside it has {size:,} bytes, but may have {limit:,} at most: remove "
        "it, or make it smaller"
    )


def replaced(name: str) -> str:
    """Return the new name of a file that would override the COG beside it."""
    return f"{name}.replaced"
