"""Write a JPEG strip by strip, in memory for one strip.

libjpeg needs a whole image. But a scan after a restart marker does not depend on what
came before (ITU-T T.81, section E.1.4). So the scans of the strips' JPEGs, with a
marker between them, are the scan of the whole image.
"""

import io
import struct
from typing import Any, BinaryIO

import numpy
from PIL import Image

# There is one restart marker for each row of blocks, of 16 pixels at most, and markers
# count from 0 to 7: after this many rows the next strip may begin with marker 0.
STRIP_ROWS = 8 * 16
_START_OF_FRAME, _START_OF_SCAN, _LAST_RESTART = 0xC0, 0xDA, 0xD7


class JpegWriter:
    """Write a baseline JPEG of one or three bands.

    Args:
        file: file to write to.
        width: width of the image, in pixels.
        height: height of the image, in pixels.
        quality: quality as libjpeg counts it, 1 to 95.
        profile: ICC profile; None if there is none.
    """

    def __init__(
        self,
        file: BinaryIO,
        width: int,
        height: int,
        quality: int,
        profile: bytes | None = None,
    ) -> None:
        self._file = file
        self._size = width, height
        self._quality = quality
        self._profile = profile
        self._rows = 0

    def add(self, strip: numpy.ndarray) -> None:
        """Write the next rows.

        Args:
            strip: 8-bit array of shape (rows, width) or (rows, width, 3 or 4); a
                fourth band is ignored. The number of rows is a multiple of
                ``STRIP_ROWS``, except in the last strip.
        """
        rows, width = strip.shape[:2]
        if strip.ndim == 3 and strip.shape[2] == 4:
            # This is Pillow's own form of an image, so nothing is copied.
            image = Image.frombuffer("RGBX", (width, rows), strip, "raw", "RGBX", 0, 1)
        else:
            image = Image.fromarray(strip)
        encoded = io.BytesIO()
        options: dict[str, Any] = {"restart_marker_rows": 1}
        if self._profile and not self._rows:
            options["icc_profile"] = self._profile
        image.save(encoded, "JPEG", quality=self._quality, **options)
        head, scan = _split(encoded.getbuffer(), self._size[1])
        if self._rows:
            self._file.write(bytes((0xFF, _LAST_RESTART)))
        else:
            self._file.write(head)
        self._file.write(scan)
        self._rows += rows
        if self._rows == self._size[1]:
            self._file.write(b"\xff\xd9")


def _split(encoded: memoryview, height: int) -> tuple[bytes, memoryview]:
    """Return a JPEG's head with another height, and its scan without the end marker."""
    head = bytearray(encoded[:2])
    position = 2
    while True:
        marker = encoded[position + 1]
        (length,) = struct.unpack_from(">H", encoded, position + 2)
        segment = bytearray(encoded[position : position + 2 + length])
        if marker == _START_OF_FRAME:
            struct.pack_into(">H", segment, 5, height)
        head += segment
        position += 2 + length
        if marker == _START_OF_SCAN:
            return bytes(head), encoded[position:-2]
