"""Files that are whole or not there at all, and that nobody else can change."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

from state import ownership
from state.errors import OthersCanChange, PipelineError


def write_atomically(path: Path, content: str) -> None:
    """Write ``path`` so that a crash leaves the old content or the new."""
    with writing(path) as file:
        file.write(content)


def write_bytes_atomically(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write ``path`` likewise; ``mode`` is that of a new file."""
    with _replacing(path) as scratch:
        scratch.touch(mode)
        with scratch.open("wb") as file:
            file.write(content)
            _flush(file)


@contextmanager
def writing(path: Path) -> Iterator[TextIO]:
    """Give a file that becomes ``path`` when the ``with`` block ends well.

    A crash leaves the old content or the new; line endings are kept as written.
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
    """Give the path of a file beside ``path``, which takes its place in the end."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield scratch
        scratch.replace(path)
        _flush_directory(path.parent)
    except BaseException:
        # On a disk that is full, what cannot be finished only takes room.
        scratch.unlink(missing_ok=True)
        raise


def check_nobody_else_writes(folder: Path) -> None:
    """Check that a folder and the way to it are the operator's alone.

    Raises:
        OthersCanChange: they are not; the message says how to change that.
        PipelineError: they cannot be looked at.
    """
    _check(folder, ownership.faults(folder))


def check_nobody_else_wrote(folder: Path) -> None:
    """Check a folder that the pipeline made, and all that lies in it, likewise."""
    if folder.is_symlink():
        raise OthersCanChange(f"{folder} is a link, which the pipeline never makes")
    _check(folder, ownership.faults(folder))
    _check(folder, ownership.faults_within(folder))


def _check(folder: Path, faults: Iterator[str]) -> None:
    try:
        fault = next(faults, None)
    except OSError as error:
        raise PipelineError(
            f"{folder} cannot be looked at: {error.strerror}"
        ) from error
    if fault:
        raise OthersCanChange(
            f"{fault}. Until then nothing in {folder} is believed: keys and programs "
            "are chosen by it"
        )
