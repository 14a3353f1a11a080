"""What a machine has run out of, told from the error that followed."""

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
# GDAL, and libraries without exceptions of their own, tell it in words.
_DISK_WORDS = re.compile("|".join(re.escape(os.strerror(each)) for each in _DISK))
# Not "out of memory": so libtiff calls a damaged tag that says it is enormous.
_MEMORY_WORDS = re.compile(
    "cannot allocate|not enough memory|allocation error|failed to map segment",
    re.IGNORECASE,
)
# What libtiff may want at once to read a tile; it does not say when it gets none.
_HEADROOM = 256 * _MIB


def exhaustion(
    error: BaseException, directory: Path, needed: int | None = None
) -> NodeError | None:
    """The error to raise instead where a machine ran out of memory or of disk.

    Args:
        directory: where files were written.
        needed: how many bytes may be needed there in all.

    Returns:
        None where it ran out of neither.
    """
    # The first cause says it best.
    for each in reversed(list(_chain(error))):
        said = in_short(each)
        if _is_of_memory(each):
            return OutOfMemory(_memory_sentence(said))
        if _is_of_disk(each):
            return OutOfDisk(
                f"the disk of its machine is full ({said}; "
                f"{_space(directory, needed)}): ask for more, as in --submit-option "
                "'request_disk = 20GB'"
            )
    foreseen = isinstance(error, NodeError) and error.__cause__ is None
    if not foreseen and not _has_headroom():
        return OutOfMemory(_memory_sentence(in_short(error)))
    return None


def _has_headroom() -> bool:
    try:
        mmap.mmap(-1, _HEADROOM).close()
    except (OSError, MemoryError):
        return False
    return True


def _memory_sentence(said: str) -> str:
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return (
        f"its machine has too little memory for it ({said}; it had taken {taken} "
        "MiB): ask for more, as in --submit-option 'request_memory = 4096'"
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that led to it."""
    seen = set()
    following: BaseException | None = error
    while following and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def _is_of_memory(error: BaseException) -> bool:
    return (
        isinstance(error, MemoryError)
        # By its name: the module that has it cannot be imported on every machine.
        or type(error).__name__ == "CPLE_OutOfMemoryError"
        or getattr(error, "errno", None) == errno.ENOMEM
        or _MEMORY_WORDS.search(str(error)) is not None
    )


def _is_of_disk(error: BaseException) -> bool:
    number = error.errno if isinstance(error, OSError) else None
    return number in _DISK or _DISK_WORDS.search(str(error)) is not None


def _space(directory: Path, needed: int | None) -> str:
    free = shutil.disk_usage(directory).free
    written = sum(file.stat().st_size for file in directory.iterdir())
    said = f"{written // _MIB} MiB written, {free // _MIB} MiB free"
    return said if needed is None else f"{said}, up to {needed // _MIB} MiB needed"
