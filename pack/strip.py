"""Leave the debugging symbols of programs and libraries out: a third of them all."""

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

_MAGIC = b"\x7fELF\x02"  # of 64 bits
_LOAD = 1
_HEADERS_AT, _HEADER_SIZE_AT = 32, 54
# Of an ELF program header: type, flags, offset, address, …, alignment.
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")


def strip(file: Path, scratch: Path) -> Path:
    """A copy of a file without symbols; the file itself where that cannot be had.

    That is where there is no program ``strip``, the file is no ELF file, or a
    package moved parts of it (patchelf, auditwheel), which ``strip`` may not know:
    what it makes of that cannot be loaded.
    """
    program = shutil.which("strip")
    with file.open("rb") as opened:
        if program is None or opened.read(len(_MAGIC)) != _MAGIC:
            return file
    smaller = Path(tempfile.mkdtemp(dir=scratch)) / file.name
    done = subprocess.run(
        [program, "--strip-debug", "-o", smaller, file], capture_output=True
    )
    return smaller if done.returncode == 0 and _can_be_loaded(smaller) else file


def _can_be_loaded(file: Path) -> bool:
    return all(
        (address - offset) % (alignment or 1) == 0
        for offset, address, alignment in _segments(file.read_bytes())
    )


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Offset, address and alignment of what the loader maps into memory."""
    (start,) = struct.unpack_from("<Q", content, _HEADERS_AT)
    size, count = struct.unpack_from("<HH", content, _HEADER_SIZE_AT)
    for number in range(count):
        header = _PROGRAM_HEADER.unpack_from(content, start + number * size)
        kind, _, offset, address, *_, alignment = header
        if kind == _LOAD:
            yield offset, address, alignment
