"""Remove the debugging symbols of programs and libraries, a third of their size."""

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

# https://man7.org/linux/man-pages/man5/elf.5.html
_MAGIC = b"\x7fELF\x02"  # a file of 64 bits
_LOAD = 1
_HEADERS_AT, _HEADER_SIZE_AT = 32, 54
# The fields of a program header: type, flags, offset, address, …, alignment.
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")


def strip(file: Path, scratch: Path) -> Path:
    """Return a copy of a file without symbols, or the file itself.

    It is the file itself if there is no program ``strip``, if the file is no ELF
    file, or if the result cannot be loaded. The last happens where patchelf or
    auditwheel moved parts of the file, which some versions of ``strip`` do not
    understand.
    """
    program = shutil.which("strip")
    with file.open("rb") as opened:
        if program is None or opened.read(len(_MAGIC)) != _MAGIC:
            return file
    smaller = Path(tempfile.mkdtemp(dir=scratch)) / file.name
    result = subprocess.run(
        [program, "--strip-debug", "-o", smaller, file], capture_output=True
    )
    return smaller if result.returncode == 0 and _can_be_loaded(smaller) else file


def _can_be_loaded(file: Path) -> bool:
    """Return whether address and offset of each segment agree in their alignment."""
    return all(
        (address - offset) % (alignment or 1) == 0
        for offset, address, alignment in _segments(file.read_bytes())
    )


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield offset, address and alignment of each segment to load into memory."""
    (start,) = struct.unpack_from("<Q", content, _HEADERS_AT)
    size, count = struct.unpack_from("<HH", content, _HEADER_SIZE_AT)
    for number in range(count):
        header = _PROGRAM_HEADER.unpack_from(content, start + number * size)
        kind, _, offset, address, *_, alignment = header
        if kind == _LOAD:
            yield offset, address, alignment
