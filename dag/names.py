"""Find out which keys the name of an image in a manifest can mean.

People copy names from where they see them: from a listing, with or without the name of
the bucket; from a URL, in which characters are percent-encoded; from a Windows path; or
from macOS, which writes ``é`` as two characters (Unicode NFD) where others write one
(NFC). The objects in the bucket decide which key is meant.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from bucket import MAX_KEY_BYTES
from state.keys import MAX_NAME, TIFF_SUFFIXES, jpeg_key, sandbox_name
from state.rows import Refusal

# Some sidecar files have names that are eight bytes longer: image.tif.aux.xml.
_MAX_KEY = MAX_KEY_BYTES - 8  # bytes
# HTCondor walks the path of a URL, at most 128 levels with the host and the bucket.
_MAX_FOLDERS = 100
# s3a and s3n are Hadoop's, and /vsis3/ and /vsicurl/ are GDAL's.
_URI = re.compile(r"(?:s3[an]?://|/vsis3/|arn:aws[a-z-]*:s3:::)([^/]*)/", re.I)
_URL = re.compile(r"(?:/vsicurl/)?https?://([^/?#]*)/", re.I)
_QUERY = re.compile(r"[?#]")
# Without any of these, a name is a key as it is written.
_SPECIAL = re.compile(r"[\\%:]|^/")
_AWS = (".amazonaws.com", ".amazonaws.com.cn")


@dataclass(frozen=True)
class _Location:
    """Parts of a URL.

    Attributes:
        bucket: the bucket that it names; empty for a URL with http or https.
        host: the host that it names; empty for a URL with another scheme.
        paths: what can follow, before percent-encoded characters are decoded.
    """

    bucket: str
    host: str
    paths: tuple[str, ...]


def refusal(written: str) -> tuple[Refusal, str] | None:
    """Return why no key that a name can mean can be converted; None if one can."""
    paths = [written]
    if _SPECIAL.search(written):
        location = _location(written)
        paths = [*_decoded(location.paths if location else _with_slashes(written))]
    refusals = [_refusal_of_key(path) for path in paths]
    return None if None in refusals else refusals[-1]


def candidate_keys(written: str, bucket: str, endpoint: str = "") -> tuple[str, ...]:
    """Return the keys that a name in a manifest can mean, the more likely one first.

    There is none if the name is a URL of another bucket or server.

    >>> candidate_keys("maps/x/a.tif", "maps")
    ('x/a.tif', 'maps/x/a.tif')
    >>> candidate_keys("s3://maps/x%20y.tif", "maps")
    ('x%20y.tif', 'x y.tif')
    """
    if not _SPECIAL.search(written):
        return tuple(dict.fromkeys((written.removeprefix(f"{bucket}/"), written)))
    location = _location(written)
    if location:
        keys = _keys_of_location(location, bucket, endpoint)
    else:
        keys = [
            key
            for path in _with_slashes(written)
            for key in (path.removeprefix(f"{bucket}/"), path)
        ]
    decoded = dict.fromkeys(_decoded(keys))
    return tuple(key for key in decoded if _refusal_of_key(key) is None)


def elsewhere(written: str, bucket: str, endpoint: str) -> str | None:
    """Return which other bucket or server the URL of an image names; None if none."""
    location = _location(written)
    if location is None or _keys_of_location(location, bucket, endpoint):
        return None
    if location.bucket:
        return f"its URL names the bucket {location.bucket}"
    return f"its URL names another bucket or server ({location.host})"


def composed(key: str) -> str:
    """Return the form that all keys that look the same share (Unicode NFC)."""
    return key if key.isascii() else unicodedata.normalize("NFC", key)


def other_forms(keys: Iterable[str]) -> Iterator[str]:
    """Yield keys in the Unicode forms that are in use, NFC and NFD."""
    for key in keys:
        if not key.isascii():
            for form in (composed(key), unicodedata.normalize("NFD", key)):
                if _refusal_of_key(form) is None:
                    yield form


def _location(written: str) -> _Location | None:
    """Return the parts of a URL; None if a name is none."""
    if uri := _URI.match(written):
        return _Location(uri[1], "", (written[uri.end() :],))
    if url := _URL.match(written):
        path = written[url.end() :]
        # A key can contain these characters, and a URL can have a query. AWS shows a
        # space as a plus sign.
        paths = [path, _QUERY.split(path, maxsplit=1)[0]]
        paths += [path.replace("+", "%20") for path in paths]
        return _Location("", url[1].lower(), tuple(dict.fromkeys(paths)))
    return None


def _keys_of_location(location: _Location, bucket: str, endpoint: str) -> list[str]:
    if location.bucket:
        return list(location.paths) if location.bucket == bucket else []
    host, server = _without_port(location.host), _without_port(endpoint.lower())
    if host.startswith(f"{bucket}.") and host != server:
        is_ours, prefix = _is_same(host.removeprefix(f"{bucket}."), server), ""
    else:
        is_ours, prefix = _is_same(host, server), f"{bucket}/"
    if not is_ours:
        return []
    return [
        path.removeprefix(prefix) for path in location.paths if path.startswith(prefix)
    ]


def _without_port(host: str) -> str:
    return re.sub(r":\d+$", "", host)


def _is_same(host: str, server: str) -> bool:
    # AWS has several names for a store: s3.amazonaws.com, s3.eu-west-1.amazonaws.com.
    is_aws = host.startswith("s3") and host.endswith(_AWS) and server.endswith(_AWS)
    return host == server or is_aws


def _with_slashes(written: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((written, written.replace("\\", "/"))))


def _decoded(paths: Iterable[str]) -> Iterator[str]:
    """Yield each path, and then without percent-encoded characters."""
    for path in paths:
        yield path
        if "%" in path and "\0" not in (decoded := unquote(path)):
            yield decoded


def _refusal_of_key(key: str) -> tuple[Refusal, str] | None:
    """Return why a row's image cannot have this key; None if it can."""
    if not key:
        return Refusal.NO_IMAGE, "no image is named"
    if key.startswith("/"):
        reason = "the image begins with '/': write bucket/path/image.tif"
        return Refusal.BAD_PATH, reason
    if {".", ".."} & set(key.split("/")):
        reason = "the image has '.' or '..' in its path: write the path without them"
        return Refusal.BAD_PATH, reason
    if (folders := key.count("/")) > _MAX_FOLDERS:
        reason = (
            f"the image is {folders} folders deep, and HTCondor accepts "
            f"{_MAX_FOLDERS}: move it"
        )
        return Refusal.BAD_PATH, reason
    if not key.lower().endswith(TIFF_SUFFIXES):
        reason = "not a TIFF by name: it must end in .tif or .tiff"
        return Refusal.NOT_A_TIFF, reason
    if key.rsplit("/", 1)[-1].startswith("."):
        return Refusal.BAD_PATH, "its name begins with '.': rename the image"
    encoded = max(len(sandbox_name(key)), len(sandbox_name(jpeg_key(key))))
    if encoded > MAX_NAME:
        reason = (
            f"the image's name is too long: {encoded} characters when "
            f"percent-encoded, at most {MAX_NAME}"
        )
        return Refusal.NAME_TOO_LONG, reason
    # No store has such an object, and some refuse the whole request.
    if (length := len(key.encode())) > _MAX_KEY:
        reason = f"its key has {length} bytes, and {_MAX_KEY} is the maximum: rename it"
        return Refusal.NAME_TOO_LONG, reason
    return None
