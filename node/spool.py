"""Compressed tiles that wait on disk for their place in the file."""

import os
import struct
from pathlib import Path
from typing import BinaryIO

import numpy

# A file of tiles is removed as soon as it was copied, so that no more than this is
# there twice.
_SEGMENT = 64 * 1024 * 1024


class TileSpool:
    """Tiles in the order in which they were added.

    Each stands between its size and its last four bytes once more, as in the file
    that it is for.

    Args:
        directory: for the files, which begin with ``name``.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._stem = str(directory / name)
        self._segments: list[str] = []
        self._open: BinaryIO | None = None
        self._sizes: list[int] = []
        self.length = 0

    @property
    def sizes(self) -> numpy.ndarray:
        """Of the tiles, in bytes."""
        return numpy.array(self._sizes, "u8")

    @property
    def offsets(self) -> numpy.ndarray:
        """Of the tiles, in bytes from the first one's leader."""
        ends = numpy.cumsum(self.sizes + numpy.uint64(8))
        return ends - self.sizes - numpy.uint64(4)

    def add(self, *tiles: bytes) -> None:
        for tile in tiles:
            if self._open is None or self._open.tell() > _SEGMENT:
                self._next_segment()
            self._open.write(struct.pack("<I", len(tile)))
            self._open.write(tile)
            self._open.write(tile[-4:])
            self._sizes.append(len(tile))
            self.length += len(tile) + 8

    def pour_into(self, file: BinaryIO) -> None:
        """Write all tiles to a file and remove them here."""
        if self._open:
            self._open.close()
        file.flush()
        for segment in self._segments:
            with open(segment, "rb") as source:  # noqa: PTH123
                left = os.fstat(source.fileno()).st_size
                while left:
                    # Within the kernel: the bytes need not come by here.
                    left -= os.sendfile(file.fileno(), source.fileno(), None, left)
            os.remove(segment)  # noqa: PTH107
        file.seek(0, os.SEEK_END)

    def _next_segment(self) -> None:
        if self._open:
            self._open.close()
        name = f"{self._stem}-{len(self._segments)}"
        self._segments.append(name)
        self._open = open(name, "wb", buffering=1024 * 1024)  # noqa: PTH123, SIM115
