"""How large the files may be that lie beside an image and tell of it.

Overviews and masks are images themselves, of any size. The others are read whole into
memory, on a machine that has been given some for an image.
"""

# A raster attribute table of 65,536 rows and six columns is 12 MB.
LARGEST_XML = 16 * 2**20  # bytes
# Six lines with a number each.
_LARGEST_WORLD_FILE = 2**16
WORLD_FILES = (".tfw", ".tifw", ".wld")


def fault(name: str, size: int) -> str | None:
    """Return what is wrong with a file beside an image; None if nothing is."""
    largest = size
    if name.endswith(".aux.xml"):
        largest = LARGEST_XML
    elif name.lower().endswith(WORLD_FILES):
        largest = _LARGEST_WORLD_FILE
    if size <= largest:
        return None
    return (
        f"{name} beside it has {size:,} bytes, and {largest:,} is the most: remove it, "
        "or make it smaller"
    )
