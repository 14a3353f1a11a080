"""Keep compressed tiles on disk until their place in the COG is known."""

import os
import struct
from pathlib import Path
from typing import BinaryIO

import numpy

# A file of tiles is removed as soon as it is copied, so that no more than this is on
# disk twice.
_SEGMENT = 64 * 1024 * 1024  # bytes


class TileSpool:
    """Hold tiles in the order in which they are added.

    Each tile is stored as in the COG: after its size and before a copy of its last four
    bytes.

    Args:
        directory: directory for the files.
        name: beginning of the files' names.

    Attributes:
        length: size of all tiles as they are stored, in bytes.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._stem = str(directory / name)
        self._segments: list[str] = []
        self._open: BinaryIO | None = None
        self._sizes: list[int] = []
        self.length = 0

    @property
    def sizes(self) -> numpy.ndarray:
        """Sizes of the tiles, in bytes."""
        return numpy.array(self._sizes, "u8")

    @property
    def offsets(self) -> numpy.ndarray:
        """Offsets of the tiles from the beginning of the spool, in bytes."""
        ends = numpy.cumsum(self.sizes + numpy.uint64(8))
        return ends - self.sizes - numpy.uint64(4)

    def add(self, *tiles: bytes) -> None:
        """Append tiles."""
        for tile in tiles:
            file = self._open
            if file is None or file.tell() > _SEGMENT:
                file = self._next_segment()
            file.write(struct.pack("<I", len(tile)))
            file.write(tile)
            file.write(tile[-4:])
            self._sizes.append(len(tile))
            self.length += len(tile) + 8

    def pour_into(self, file: BinaryIO) -> None:
        """Append all tiles to a file and remove them here."""
        if self._open:
            self._open.close()
        file.flush()
        for segment in self._segments:
            with open(segment, "rb") as source:  # noqa: PTH123
                remaining = os.fstat(source.fileno()).st_size
                while remaining:
                    # The kernel copies the bytes, so that this process need not.
                    remaining -= os.sendfile(
                        file.fileno(), source.fileno(), None, remaining
                    )
            os.remove(segment)  # noqa: PTH107
        file.seek(0, os.SEEK_END)

    def _next_segment(self) -> BinaryIO:
        if self._open:
            self._open.close()
        name = f"{self._stem}-{len(self._segments)}"
        self._segments.append(name)
        self._open = open(name, "wb", buffering=1024 * 1024)  # noqa: PTH123, SIM115
        return self._open
