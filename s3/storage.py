"""Objects in cold storage, which must be restored before they can be read.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html
"""

import re
from collections.abc import Mapping

# What a listing must be asked for, to tell which objects were restored.
RESTORE_STATUS = {"x-amz-optional-object-attributes": "RestoreStatus"}
# A listing does not show which objects of this class are in one of its archive tiers.
TIERED = "INTELLIGENT_TIERING"
_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
_RESTORED = re.compile(r'ongoing-request="?false')


def archive_of(storage_class: str, *, restored: bool) -> str:
    """Return the archive in which a listed object is; empty if it can be read."""
    return storage_class if storage_class in _ARCHIVES and not restored else ""


def archive_in(headers: Mapping[str, str]) -> str:
    """Return the same from the answer to a HEAD request."""
    restored = _RESTORED.search(headers.get("x-amz-restore", "")) is not None
    tier = headers.get("x-amz-archive-status", "")
    storage_class = headers.get("x-amz-storage-class", "")
    return ("" if restored else tier) or archive_of(storage_class, restored=restored)
