"""Choose rasters among the objects of a bucket."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from bucket import Bucket, StoredObject
from state.keys import (
    TIFF_SUFFIXES,
    TIFF_SUFFIXES_IN_ANY_CASE,
    OutputNames,
    key_stem,
)
from state.text import counted


@dataclass(frozen=True)
class Selection:
    """A choice of rasters.

    Attributes:
        filters: regular expressions; the key must match one of them somewhere, if
            there are any.
        excludes: regular expressions; the key must match none of them.
        since: the raster was written then or later.
        larger_than: the raster has more bytes than this.
    """

    filters: tuple[re.Pattern[str], ...] = ()
    excludes: tuple[re.Pattern[str], ...] = ()
    since: datetime | None = None
    larger_than: int | None = None

    def takes_key(self, key: str) -> bool:
        """Return whether a key may be that of a raster to take.

        >>> Selection(filters=(re.compile("^a/"),)).takes_key("a/b.TIF")
        True
        >>> Selection(excludes=(re.compile("b"),)).takes_key("a/b.TIF")
        False
        """
        return (
            key.lower().endswith(TIFF_SUFFIXES)
            and (not self.filters or any(each.search(key) for each in self.filters))
            and not any(each.search(key) for each in self.excludes)
        )

    def takes(self, stored: StoredObject) -> bool:
        """Return whether to take an object."""
        return (
            (self.larger_than is None or stored.size > self.larger_than)
            and (self.since is None or stored.modified >= self.since)
            and self.takes_key(stored.key)
        )


def rasters(
    bucket: Bucket, prefix: str, selection: Selection
) -> Iterator[StoredObject]:
    """Yield the rasters under a prefix that are to be taken, in the order of keys."""
    return filter(selection.takes, bucket.list(prefix))


def originals(
    images: Iterable[StoredObject], output_prefix: str
) -> Iterator[StoredObject]:
    """Yield the images that are not COGs, where both are in one bucket.

    Args:
        output_prefix: the prefix of the COGs; not empty.
    """
    return (image for image in images if not image.key.startswith(output_prefix))


def pending(
    images: Iterable[StoredObject],
    outputs: Bucket,
    names: OutputNames,
    prefix: str,
    warn: Callable[[str], None],
) -> Iterator[StoredObject]:
    """Yield the images whose COG is missing or older than the image.

    An image whose JPEG would replace that of another COG is left out. The check of a
    manifest refuses it only beside the image of that COG. The dates of all COGs under
    the prefix are in memory: about 200 bytes each.

    Args:
        warn: function that tells people how many images are left out, and why.
    """
    written = {
        stored.key: stored.modified for stored in outputs.list(names.cog_prefix(prefix))
    }
    left_out = []
    for image in images:
        key = names.cog_key(image.key)
        others = (key_stem(key) + suffix for suffix in TIFF_SUFFIXES_IN_ANY_CASE)
        if key not in written and any(other in written for other in others):
            left_out.append(image.key)
        elif key not in written or written[key] < image.modified:
            yield image
    if left_out:
        warn(
            f"{counted(len(left_out), 'image')} left out, such as {left_out[0]}: its "
            "JPEG would replace that of another image, whose name has another form of "
            ".tif: rename one of them"
        )
