"""Read the answers of an S3 server: pages, numbers, dates, metadata, content.

The server is trusted with the data, but not to send well-formed answers. An answer that
does not follow the S3 API raises OddAnswer.
https://docs.aws.amazon.com/AmazonS3/latest/API/Welcome.html
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus
from xml.etree import ElementTree

import urllib3
from minio.error import S3Error
from minio.time import from_http_header, from_iso8601utc
from minio.xml import find, findall

from s3.errors import OddAnswer, Overlong
from s3.storage import TIERED, archive_of

METADATA = "x-amz-meta-"
_CHUNK = 2**20  # bytes
_NUMBER = re.compile(r"[0-9]{1,18}")
_SLASHES = re.compile(r"/{2,}")
_NAME = re.compile(r"[a-z0-9-]+")
VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")


@dataclass(frozen=True)
class StoredObject:
    """An object as a listing describes it.

    Attributes:
        key: key of the object.
        size: size of the object, in bytes.
        etag: ETag without quotes; some servers list an object without one while it is
            written.
        modified: when the object was last written.
        archive: the cold storage from which it must be restored before it can be read;
            empty if it can be read.
        is_tiered: whether it may be in an archive, which its description does not tell.
    """

    key: str
    size: int
    etag: str
    modified: datetime
    archive: str = ""
    is_tiered: bool = False


@dataclass(frozen=True)
class UploadedPart:
    """A part of a multipart upload.

    Attributes:
        number: number of the part, from 1.
        size: size of the part, in bytes.
        etag: ETag without quotes.
    """

    number: int
    size: int
    etag: str


@dataclass(frozen=True)
class MultipartUpload:
    """A multipart upload that is neither completed nor aborted.

    Attributes:
        id: its upload ID.
        started: when it was started.
        key: key of the object that it is to become.
    """

    id: str
    started: datetime
    key: str = ""


@dataclass(frozen=True)
class Page:
    """One page of a listing.

    Attributes:
        mark: the first key of the page, even a folder's; None if there is none.
        objects: the objects of the page.
        token: continuation token of the next page; None if there is none.
    """

    mark: str | None
    objects: tuple[StoredObject, ...]
    token: str | None


def read_page(page: ElementTree.Element, prefix: str) -> Page:
    """Return the page of a listing of ``prefix`` that an XML document describes."""
    encoding = find(page, "EncodingType")
    encoded = encoding is not None and encoding.text == "url"
    entries = findall(page, "Contents")
    keys = [text_of(entry, "Key") for entry in entries]
    objects = tuple(
        stored
        for key, entry in zip(keys, entries, strict=True)
        if (stored := _read_entry(_unquoted(key) if encoded else key, entry, prefix))
    )
    goes_on = text_of(page, "IsTruncated").lower() == "true"
    token = text_of(page, "NextContinuationToken") if goes_on else None
    return Page(keys[0] if keys else None, objects, token)


def read_uploads(
    listed: ElementTree.Element, *, decode: bool
) -> tuple[tuple[MultipartUpload, ...], dict[str, str]]:
    """Return the uploads of a page, and the markers of the next page if there is one.

    Args:
        decode: whether keys are decoded if the page says that they are encoded.
    """
    encoded = decode and _optional(listed, "EncodingType") == "url"
    decoded = unquote_plus if encoded else str
    uploads = tuple(
        MultipartUpload(
            text_of(entry, "UploadId"),
            date_of(text_of(entry, "Initiated")),
            decoded(text_of(entry, "Key")),
        )
        for entry in findall(listed, "Upload")
    )
    if _optional(listed, "IsTruncated").lower() != "true":
        return uploads, {}
    return uploads, {
        "key-marker": decoded(text_of(listed, "NextKeyMarker")),
        "upload-id-marker": _optional(listed, "NextUploadIdMarker"),
    }


def _read_entry(
    key: str | None, entry: ElementTree.Element, prefix: str
) -> StoredObject | None:
    """Return the object of an entry of a listing; None if it is to be skipped."""
    # Keys are UTF-8 in S3. No manifest and no request can name any other key.
    if key is None:
        return None
    if not key.startswith(prefix):
        # Some servers treat several slashes as one.
        if key.startswith(_SLASHES.sub("/", prefix)):
            return None
        raise OddAnswer(f"the key {key!a}, which was not asked for")
    # A folder, as some programs create them.
    if key.endswith("/"):
        return None
    return StoredObject(
        key,
        number_of(text_of(entry, "Size")),
        _listed_etag(entry),
        date_of(text_of(entry, "LastModified")),
        **_storage(entry),
    )


def _storage(entry: ElementTree.Element) -> dict[str, Any]:
    """Return where a listed object is stored, as fields of StoredObject."""
    storage_class = _optional(entry, "StorageClass")
    status = find(entry, "RestoreStatus")
    restored = (
        status is not None
        and _optional(status, "IsRestoreInProgress") == "false"
        and _optional(status, "RestoreExpiryDate") != ""
    )
    return {
        "archive": archive_of(storage_class, restored=restored),
        "is_tiered": storage_class == TIERED,
    }


def _optional(entry: ElementTree.Element, name: str) -> str:
    element = find(entry, name)
    return "" if element is None else element.text or ""


def _listed_etag(entry: ElementTree.Element) -> str:
    etag = find(entry, "ETag")
    if etag is None:
        raise OddAnswer("'Contents' without ETag")
    return (etag.text or "").strip('"')


def _unquoted(key: str) -> str | None:
    try:
        return unquote_plus(key, errors="strict")
    except UnicodeDecodeError:
        return None


def document_of(
    answer: urllib3.BaseHTTPResponse, root: str | None = None
) -> ElementTree.Element:
    """Return the XML document of an answer.

    Args:
        root: name that its root element must have.
    """
    try:
        # s3.client rejects answers with a DOCTYPE and very long ones.
        document = ElementTree.fromstring(answer.data.decode())  # noqa: S314
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise OddAnswer(f"invalid XML: {error}") from error
    name = document.tag.rpartition("}")[2]
    if name == "Error":
        # S3 sends status 200 before it has finished, so an error may follow.
        code = text_of(document, "Code")
        message = "the server could not do it now; it may later"
        raise S3Error(answer, code, message, None, None, None)
    if root and name != root:
        raise OddAnswer(f"{name!a} instead of {root}")
    return document


def text_of(element: ElementTree.Element, name: str) -> str:
    """Return the text of an element's child, which must not be empty."""
    child = find(element, name)
    if child is None or not child.text:
        raise OddAnswer(f"{element.tag.rpartition('}')[2]!a} without {name}")
    return child.text


def number_of(text: str) -> int:
    """Return a number of at most 18 digits, without a sign."""
    if not _NUMBER.fullmatch(text):
        raise OddAnswer(f"{text!a} instead of a number")
    return int(text)


def date_of(text: str) -> datetime:
    """Return the date of a text in ISO 8601, the format in S3's XML."""
    return _parsed_date(from_iso8601utc, text)


def _parsed_date(parse: Callable[[str], datetime | None], text: str) -> datetime:
    try:
        date = parse(text)
    except ValueError as error:
        raise OddAnswer(f"{text!a} instead of a date") from error
    if date is None:
        raise OddAnswer("an empty date")
    return date


def header_of(headers: Mapping[str, str], name: str) -> str:
    """Return the value of a header, which must not be empty."""
    if not (value := headers.get(name)):
        raise OddAnswer(f"an answer without {name}")
    return value


def etag_of(headers: Mapping[str, str]) -> str:
    """Return the ETag without quotes; it may be empty then."""
    return header_of(headers, "ETag").strip('"')


def unquoted_etag(text: str) -> str:
    """Return an ETag without quotes, which must not be empty."""
    etag = text.strip('"')
    if not etag:
        raise OddAnswer("an empty ETag")
    return etag


def length_of(headers: Mapping[str, str]) -> int:
    """Return the ``Content-Length`` of an answer, in bytes."""
    return number_of(header_of(headers, "Content-Length"))


def last_modified(headers: Mapping[str, str]) -> datetime:
    """Return when an object was last written."""
    return _parsed_date(from_http_header, header_of(headers, "Last-Modified"))


def check_written(etag: str | None) -> None:
    """Check the answer to an upload: S3's has an ETag, a web page has none."""
    if not etag:
        raise OddAnswer("an answer without ETag")


def user_metadata(headers: Mapping[str, str]) -> dict[str, str]:
    """Return an object's user metadata, by names in lower case without the prefix.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html
    """
    return {
        name.lower().removeprefix(METADATA): value
        for name, value in headers.items()
        if name.lower().startswith(METADATA)
    }


def metadata_headers(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return user metadata as headers; raise ValueError if a header cannot hold it."""
    for name, value in metadata.items():
        if not fits(name, value):
            raise ValueError(f"{name}: {value!r} cannot be an object's metadata")
    return {METADATA + name: value for name, value in metadata.items()}


def fits(name: str, value: str) -> bool:
    """Return whether a name and its value can be sent as user metadata unchanged."""
    return bool(_NAME.fullmatch(name) and VALUE.fullmatch(value))


def content_of(answer: urllib3.BaseHTTPResponse, max_bytes: int) -> Iterator[bytes]:
    """Yield the decompressed content of an object, in chunks.

    Raises:
        Overlong: the content has more than ``max_bytes`` bytes.
    """
    reason = f"it has more than {max_bytes} bytes, the maximum here"
    encoded = "Content-Encoding" in answer.headers
    if not (answer.chunked or encoded) and length_of(answer.headers) > max_bytes:
        raise Overlong(reason)
    left = max_bytes
    # urllib3 decompresses no more at once than it is asked for.
    for chunk in answer.stream(min(_CHUNK, max_bytes + 1)):
        left -= len(chunk)
        if left < 0:
            raise Overlong(reason)
        yield chunk
