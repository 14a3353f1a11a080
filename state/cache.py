"""The user's cache: what was fetched or made once, and can be again.

Programs in it are run, and sent to jobs. So whoever takes something out of it looks
first who else can change it.
"""

import os
from itertools import chain
from pathlib import Path

from state.ownership import faults


def cache_directory() -> Path:
    """Return the folder of this user for what can be fetched or made again."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cog_pipeline"


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for this user alone.

    ``Path.mkdir`` gives its mode to the last of them only.

    Raises:
        OSError: one of them cannot be made.
    """
    for each in (*reversed(folder.parents), folder):
        each.mkdir(mode=0o700, exist_ok=True)


def why_not(*entries: Path) -> str | None:
    """Return why the cache, or one of its entries, must not be used, and the remedy.

    Makes the cache where there is none.

    Raises:
        OSError: an entry is not there or cannot be looked at.
    """
    cache = cache_directory()
    try:
        make_private(cache)
    except OSError as error:
        return (
            f"the cache {cache} cannot be made ({error.strerror}): set XDG_CACHE_HOME "
            "to a folder that you may write to"
        )
    found = chain.from_iterable(map(faults, (cache, *entries)))
    return next(found, None)
