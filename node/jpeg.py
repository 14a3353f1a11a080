"""Write a JPEG strip by strip, in memory for one strip.

libjpeg wants a whole image. But between restart markers a scan is independent of
what was before (ITU-T T.81, section E.1.4), so the scans of JPEGs of the strips,
with a marker between them, are the scan of the whole.
"""

import io
import struct
from typing import BinaryIO

import numpy
from PIL import Image

# Restart markers count to eight, one for each row of blocks, of 16 pixels at
# most: after so many pixels the next strip may begin with the first one again.
STRIP_ROWS = 8 * 16
_START_OF_FRAME, _START_OF_SCAN, _LAST_RESTART = 0xC0, 0xDA, 0xD7


class JpegWriter:
    """A baseline JPEG of one or three bands.

    Args:
        quality: as libjpeg counts it, 1 to 95.
    """

    def __init__(self, file: BinaryIO, width: int, height: int, quality: int) -> None:
        self._file = file
        self._size = width, height
        self._quality = quality
        self._rows = 0

    def add(self, strip: numpy.ndarray) -> None:
        """Write the next rows.

        Args:
            strip: 8-bit, of shape (rows, width) or (rows, width, 3 or 4), where
                of four bands the last is left out. The rows of each strip but
                the last are a multiple of ``STRIP_ROWS``.
        """
        rows, width = strip.shape[:2]
        if strip.ndim == 3 and strip.shape[2] == 4:
            # Pillow's own form of an image: nothing is copied.
            image = Image.frombuffer("RGBX", (width, rows), strip, "raw", "RGBX", 0, 1)
        else:
            image = Image.fromarray(strip)
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=self._quality, restart_marker_rows=1)
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
    """A JPEG's head, saying another height, and its scan without the end."""
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
