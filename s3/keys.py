"""Read the files that hold the keys of a store. No message quotes their text."""

import re
from pathlib import Path

from s3.errors import BucketError

# Session tokens of AWS are the longest, with up to some kilobytes.
_MAX_SIZE = 65536  # bytes
_WORD = re.compile(rb"[!-~]+")
# No store's access keys contain these; JSON, CSV and settings do.
_IN_OTHER_FORMATS = re.compile(r"[\"',={}]")


def read_key(file: Path) -> str:
    """Return the key in a file: one word of printable ASCII.

    Raises:
        BucketError: the file cannot be read, or it holds something else.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_SIZE).strip()
    except OSError as error:
        reason = f"the key file {file} cannot be read: {error.strerror}"
        raise BucketError(reason) from error
    if not content:
        raise BucketError(f"the key file {file} is empty")
    if not _WORD.fullmatch(content):
        raise _other_format(file)
    return content.decode()


def read_access_key(file: Path) -> str:
    """Return the access key in a file; see ``read_key``.

    It is part of requests, so a file with the secret key beside it must not pass.
    """
    key = read_key(file)
    if _IN_OTHER_FORMATS.search(key):
        raise _other_format(file)
    return key


def _other_format(file: Path) -> BucketError:
    return BucketError(
        f"the key file {file} must hold one key and nothing else. Files in the format "
        "of AWS's tools have several: write each key into a file of its own"
    )
