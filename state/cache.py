"""The user's cache of files that can be downloaded or built again.

Programs in the cache are run, and sent to jobs. So before an entry is used, it is
checked that no other user can change it.
"""

import os
from itertools import chain
from pathlib import Path

from state.ownership import faults


def cache_directory() -> Path:
    """Return this user's folder for files that can be downloaded or built again."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cog_pipeline"


def make_private(folder: Path) -> None:
    """Create a folder, and missing folders above it, for this user alone.

    ``Path.mkdir`` applies its mode to the last folder only.

    Raises:
        OSError: a folder cannot be created.
    """
    for path in (*reversed(folder.parents), folder):
        path.mkdir(mode=0o700, exist_ok=True)


def why_not(*entries: Path) -> str | None:
    """Return why the cache or one of its entries must not be used, and the remedy.

    Create the cache if there is none. Return None if all can be used.

    Raises:
        OSError: an entry is missing or cannot be inspected.
    """
    cache = cache_directory()
    try:
        make_private(cache)
    except OSError as error:
        return (
            f"the cache {cache} cannot be created ({error.strerror}): set "
            "XDG_CACHE_HOME to a folder that you may write to"
        )
    return next(chain.from_iterable(map(faults, (cache, *entries))), None)
