"""Checksums of a collection, for people and for libraries.

``SHA256SUMS`` is what ``sha256sum -c`` reads. ``bag/`` is a bag of BagIt (RFC 8493)
without its payload: ``fetch.txt`` names where each file is.
"""

import hashlib
import posixpath
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from catalog import dates
from catalog.record import Record
from catalog.records import Records
from catalog.target import Target, relative
from node.result import Cog, Jpeg

_SUMS = "SHA256SUMS"
_BAG = "bag/"
_TEXT = "text/plain; charset=utf-8"
_MANIFEST, _FETCH = "manifest-sha256.txt", "fetch.txt"
_INFO, _DECLARATION = "bag-info.txt", "bagit.txt"
_BAGIT = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n"})
# RFC 8493, 2.1.3: only these characters of a path are percent-encoded.
_PERCENT = str.maketrans({"%": "%25", "\n": "%0A", "\r": "%0D"})


@dataclass(frozen=True)
class _File:
    """A file of a collection: a COG or a JPEG."""

    key: str
    bytes: int
    sha256: str


def write(records: Records, target: Target) -> None:
    """Write ``SHA256SUMS`` and the bag of a collection.

    They have the COGs and the JPEGs. Those of runs that computed no SHA-256 are left
    out, and ``bag-info.txt`` says how many.

    Raises:
        BucketError: the bucket refuses a file.
    """
    folder = target.scratch
    count = size = unknown = 0
    with ExitStack() as stack:
        sums, manifest, fetch = (
            # Line endings as they are, on any machine.
            stack.enter_context((folder / name).open("w", encoding="utf-8", newline=""))
            for name in (_SUMS, _MANIFEST, _FETCH)
        )
        for file in _files(records):
            if file is None:
                unknown += 1
                continue
            count, size = count + 1, size + file.bytes
            path = unquote(relative(file.key, target.prefix + _SUMS))
            sums.write(_line_of_coreutils(file.sha256, path))
            payload = f"data/{file.key.translate(_PERCENT)}"
            manifest.write(f"{file.sha256}  {payload}\n")
            fetch.write(f"{_url(file.key, target)} {file.bytes} {payload}\n")
    if unknown:
        target.warn(
            f"{unknown} files of the collection {target.collection.id} are not in the "
            "lists of checksums, because they have no SHA-256 or no clean path. To add "
            "them, convert the images again"
        )
    (folder / _INFO).write_text(_bag_info(target, count, size, unknown), "utf-8")
    (folder / _DECLARATION).write_text(_BAGIT, "utf-8")
    tags = (_FETCH, _MANIFEST, _INFO, _DECLARATION)
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in tags]
    for name in tags:
        target.put(_BAG + name, folder / name, _TEXT)
    target.put(_BAG + "tagmanifest-sha256.txt", "".join(lines).encode(), _TEXT)
    target.put(_SUMS, folder / _SUMS, _TEXT)


def _files(records: Records) -> Iterator[_File | None]:
    """Yield the files of a collection; None for one that cannot be listed."""
    for record in records.by_key:
        for key, part in _objects(record):
            if part and part.sha256 and _is_path(key):
                yield _File(key, part.bytes, part.sha256)
            else:
                yield None


def _objects(record: Record) -> Iterator[tuple[str, Cog | Jpeg | None]]:
    yield record.key, record.result.cog
    yield record.jpeg_key, record.result.jpeg


def _is_path(key: str) -> bool:
    """Return whether a file system can have a file of this name in a folder.

    A bag must not write beside its folder.
    """
    return "\0" not in key and posixpath.normpath(f"/{key}") == f"/{key}"


def _line_of_coreutils(digest: str, path: str) -> str:
    escaped = path.translate(_ESCAPES)
    # A backslash before the digest says that the name is escaped.
    mark = "" if escaped == path else "\\"
    return f"{mark}{digest}  {escaped}\n"


def _url(key: str, target: Target) -> str:
    # A line of fetch.txt ends its URL at the first space.
    if target.public_url:
        return target.url(key)
    return f"s3://{target.bucket.name}/{quote(key)}"


def _bag_info(target: Target, count: int, size: int, unknown: int) -> str:
    collection = target.collection
    organisations = [provider.name for provider in collection.providers]
    fields = [
        *(("Source-Organization", name) for name in organisations),
        ("External-Identifier", collection.id),
        ("External-Description", collection.description or collection.title),
        ("Bagging-Date", dates.now()[:10]),
        ("Bag-Software-Agent", "cog_pipeline"),
        ("Payload-Oxum", f"{size}.{count}"),
    ]
    if unknown:
        note = f"{unknown} files have no SHA-256 and are not in this bag"
        fields.append(("Internal-Sender-Description", note))
    # A line break in a value would begin another field.
    return "".join(f"{name}: {' '.join(v.split())}\n" for name, v in fields if v)


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
