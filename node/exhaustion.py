"""Tell from an error whether the machine ran out of memory or disk."""

import errno
import mmap
import os
import re
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from node.errors import NodeError, OutOfDisk, OutOfMemory, in_short

_MIB = 2**20
# EFBIG is what a limit on the size of files gives, and an old file system.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# GDAL, and libraries without exceptions of their own, say it in words.
_DISK_WORDS = re.compile(
    "|".join(
        [
            *(re.escape(os.strerror(number)) for number in _DISK),
            # GDAL does not say why, but nothing else keeps it from writing.
            "Failed to write whole XML document",
        ]
    )
)
# Without "out of memory": libtiff says that of a damaged tag that claims to be huge.
_MEMORY_WORDS = re.compile(
    "cannot allocate|not enough memory|allocation error|failed to map segment",
    re.IGNORECASE,
)
# libtiff may need this much at once to read a tile; it does not report its failure.
_HEADROOM = 256 * _MIB


def exhaustion(
    error: BaseException, directory: Path, needed: int | None = None
) -> NodeError | None:
    """Return the error to raise instead if the machine ran out of memory or disk.

    Args:
        directory: directory that files were written to.
        needed: disk space that may be needed there in all, in bytes.

    Returns:
        The error; None if the machine ran out of neither.
    """
    # The first cause is the clearest.
    for cause in reversed(list(_chain(error))):
        message = in_short(cause)
        if _is_memory_error(cause):
            return OutOfMemory(_memory_sentence(message))
        if _is_disk_error(cause):
            return OutOfDisk(
                f"the disk of its machine is full ({message}; "
                f"{_space(directory, needed)}): ask for more, as in --submit-option "
                "'request_disk = 20GB'"
            )
    explained = isinstance(error, NodeError) and error.__cause__ is None
    if not explained and not _has_headroom():
        return OutOfMemory(_memory_sentence(in_short(error)))
    return None


def _has_headroom() -> bool:
    try:
        mmap.mmap(-1, _HEADROOM).close()
    except (OSError, MemoryError):
        return False
    return True


def _memory_sentence(message: str) -> str:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return (
        f"its machine has too little memory for it ({message}; it had taken {peak} "
        "MiB): ask for more, as in --submit-option 'request_memory = 4096'"
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors that led to it."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def _is_memory_error(error: BaseException) -> bool:
    return (
        isinstance(error, MemoryError)
        # Compare names: the module cannot be imported on every machine.
        or type(error).__name__ == "CPLE_OutOfMemoryError"
        or getattr(error, "errno", None) == errno.ENOMEM
        or _MEMORY_WORDS.search(str(error)) is not None
    )


def _is_disk_error(error: BaseException) -> bool:
    number = error.errno if isinstance(error, OSError) else None
    return number in _DISK or _DISK_WORDS.search(str(error)) is not None


def _space(directory: Path, needed: int | None) -> str:
    free = shutil.disk_usage(directory).free
    written = sum(file.stat().st_size for file in directory.iterdir())
    space = f"{written // _MIB} MiB written, {free // _MIB} MiB free"
    return space if needed is None else f"{space}, up to {needed // _MIB} MiB needed"
