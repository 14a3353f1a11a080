"""Writing files that are whole or not there at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


def write_atomically(path: Path, content: str) -> None:
    """Write ``path`` so that a crash leaves the old content or the new."""
    with writing(path) as file:
        file.write(content)


@contextmanager
def writing(path: Path) -> Iterator[TextIO]:
    """A file that becomes ``path`` when the ``with`` block ends well.

    A crash leaves the old content or the new; line endings are kept as written.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        # On a disk that is full, what cannot be finished only takes room.
        scratch.unlink(missing_ok=True)
        raise
