"""Records that name their own directory, after that directory was moved."""

import re
from pathlib import Path
from typing import Any

from state.errors import PipelineError


def moved_from(file: Path, named: Path) -> Path | None:
    """Return the former directory of a record; None if it was not moved.

    Args:
        file: the record.
        named: its directory, as the record has it.

    Raises:
        PipelineError: the record is also where it was, so this one is a copy; or this
            user may not see whether it is.
    """
    former = named / file.name
    try:
        if not former.exists():
            return named
        if former.samefile(file):
            return None
    except OSError as error:
        raise PipelineError(
            f"{file.parent} was {named} before, and you cannot see whether that still "
            f"exists ({error.strerror}): ask its owner to remove it, and to let you "
            "search the folder that it was in"
        ) from error
    raise PipelineError(
        f"{file.parent} is a copy of {named}, which still exists: use that one, and "
        "remove the copy"
    )


def with_new_paths(saved: Any, former: Path, now: Path) -> Any:
    """Return a record in which paths below a former directory are below another."""
    if isinstance(saved, dict):
        return {k: with_new_paths(value, former, now) for k, value in saved.items()}
    if isinstance(saved, list):
        return [with_new_paths(value, former, now) for value in saved]
    if isinstance(saved, str):
        path = rf"(?<![\w./-]){re.escape(str(former))}(?=/|$)"
        return re.sub(path, lambda _: str(now), saved)
    return saved
