"""Write files that are complete or absent, and check who else can change them."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

from state import ownership
from state.errors import OthersCanChange, PipelineError


def write_atomically(path: Path, content: str) -> None:
    """Write a text file; a crash leaves the old content or the new."""
    with writing(path) as file:
        file.write(content)


def write_bytes_atomically(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a binary file in the same way.

    Args:
        mode: mode of the file if it is new.
    """
    with _replacing(path) as scratch:
        scratch.touch(mode)
        with scratch.open("wb") as file:
            file.write(content)
            _flush(file)


@contextmanager
def writing(path: Path) -> Iterator[TextIO]:
    """Give a text file that becomes ``path`` if the ``with`` block raises nothing.

    A crash leaves the old content or the new. Line endings are kept as written.
    """
    with (
        _replacing(path) as scratch,
        scratch.open("w", encoding="utf-8", newline="") as file,
    ):
        yield file
        _flush(file)


def _flush(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_directory(directory: Path) -> None:
    """Make a rename in a directory survive a power failure."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    except OSError as error:
        # Some file systems cannot flush a directory.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(opened)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give the path of a file beside ``path`` that replaces it in the end."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield scratch
        scratch.replace(path)
        _flush_directory(path.parent)
    except BaseException:
        # On a full disk, an incomplete file only takes room.
        scratch.unlink(missing_ok=True)
        raise


def check_nobody_else_writes(folder: Path) -> None:
    """Check that only the operator can change a folder and the folders above it.

    Raises:
        OthersCanChange: others can; the message says how to change that.
        PipelineError: a folder cannot be inspected.
    """
    _check(folder, ownership.faults(folder))


def check_nobody_else_wrote(folder: Path) -> None:
    """Check in the same way a folder that the pipeline made, and its entries."""
    if folder.is_symlink():
        raise OthersCanChange(f"{folder} is a link, which the pipeline never makes")
    _check(folder, ownership.faults(folder))
    _check(folder, ownership.faults_within(folder))


def _check(folder: Path, faults: Iterator[str]) -> None:
    try:
        fault = next(faults, None)
    except OSError as error:
        raise PipelineError(
            f"{folder} cannot be inspected: {error.strerror}"
        ) from error
    if fault:
        raise OthersCanChange(
            f"{fault}. Until then nothing in {folder} is trusted, because it decides "
            "which keys are used and which programs run"
        )
