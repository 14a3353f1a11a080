"""Judge what GDAL's decoders say while they read pixels.

When compressed data are damaged, some decoders invent pixels and only warn. They also
warn of old or careless encoders, whose pixels are all there.
"""

import re
from contextlib import suppress
from pathlib import Path

from node import tiff

# Warnings of libtiff and libjpeg after which every pixel is as it was stored.
_HARMLESS = re.compile(
    # Encoders before TIFF 6.0; libtiff has a decoder for them.
    r"Old-style LZW codes"
    r"|old-style JPEG compression mode"
    # Bytes behind the last pixel.
    r"|Discarding \d+ bytes to avoid buffer overrun"
    r"|Too large (strip|tile) byte count"
    # libtiff reads progressive JPEGs, and believes the JPEG where the tags are wrong.
    r"|encoded with progressive mode"
    r"|subsampling inside JPEG data is correct"
    r"|Auto-corrected former TIFF subsampling values"
    r"|Improper JPEG sampling factors \d+,\d+ Apparently should be"
    # Headers inside a JPEG that libtiff does not use.
    r"|unknown JFIF revision number"
    r"|Unknown Adobe color transform code"
    # Tags, such as those of a mask or an overview that GDAL opens while it reads.
    r"|^(TIFFReadDirectory|TIFFFetchNormalTag)\w*:"
)
_BYTES_BEFORE_END = re.compile(r"JPEG data: (\d+) extraneous bytes before marker 0xd9")
_JPEG_END = b"\xff\xd9"
# An encoder that ends one or two bytes late is more likely than damage that does.
_LATE_BYTES = 2
_MAX_PADDING = 4096  # bytes
_MISSING_CODEC = re.compile(r"missing codec (?:of code )?(\w+)")


def loses_pixels(message: str, image: Path) -> bool:
    """Return whether a message of a decoder means that pixels may be lost.

    Args:
        message: the message, on one line.
        image: the file that was read.
    """
    if extraneous := _BYTES_BEFORE_END.search(message):
        # Damage in a JPEG can leave some of its data unread; padding is one value.
        count = int(extraneous[1])
        return count > _LATE_BYTES and count not in _padding(image)
    return not _HARMLESS.search(message)


def _padding(image: Path) -> set[int]:
    """Return how many equal bytes there may be before the end of the image's JPEGs."""
    lengths: set[int] = set()
    # If a file ends early, its padding is not known.
    with image.open("rb") as file, suppress(tiff.NotATiff):
        for block in tiff.ends_of_blocks(file, _MAX_PADDING):
            if block.endswith(_JPEG_END):
                data = block.removesuffix(_JPEG_END)
                length = len(data) - len(data.rstrip(data[-1:]))
                # The last byte of the pixels may have the value of the padding.
                lengths |= {length, length - 1}
    return lengths


def missing_codec(message: str) -> str | None:
    """Return the name of the compression that GDAL says it lacks; None if it has it."""
    found = _MISSING_CODEC.search(message)
    return found[1] if found else None
