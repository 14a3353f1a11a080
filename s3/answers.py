"""Read what an S3 server answers: pages, numbers, dates, metadata, content.

The server is trusted for what it stores, not for well-formed answers. Whatever is not
as S3 has it raises OddAnswer.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import cast
from urllib.parse import unquote_plus
from xml.etree import ElementTree

import urllib3
from minio.error import S3Error
from minio.time import from_http_header, from_iso8601utc
from minio.xml import find, findall

from s3.errors import OddAnswer, Overlong

METADATA = "x-amz-meta-"
_PART = 2**20  # bytes
_NUMBER = re.compile(r"[0-9]{1,18}")
_SLASHES = re.compile(r"/{2,}")
_NAME = re.compile(r"[a-z0-9-]+")
VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")


@dataclass(frozen=True)
class StoredObject:
    """What a listing tells of an object.

    Attributes:
        size: in bytes.
        etag: empty for an object that is being written, on some servers.
    """

    key: str
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True)
class UploadedPart:
    """A part of an upload that is not complete; ``size`` is in bytes."""

    number: int
    size: int
    etag: str


@dataclass(frozen=True)
class MultipartUpload:
    """A multipart upload that is neither completed nor aborted."""

    id: str
    started: datetime


@dataclass(frozen=True)
class Page:
    """One page of a listing.

    Attributes:
        mark: the first key that it tells of, be it a folder's.
        token: what asks for the next page.
    """

    mark: str | None
    objects: tuple[StoredObject, ...]
    token: str | None


def read_page(page: ElementTree.Element, prefix: str) -> Page:
    """Return a page of the listing of ``prefix``."""
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


def _read_entry(
    key: str | None, entry: ElementTree.Element, prefix: str
) -> StoredObject | None:
    """Read what a listing tells of an object; None of what is none for us."""
    # Keys are UTF-8 in S3: what is not can be named by no manifest and no request.
    if key is None:
        return None
    if not key.startswith(prefix):
        # Some servers take several slashes for one.
        if key.startswith(_SLASHES.sub("/", prefix)):
            return None
        raise OddAnswer(f"the key {key!a}, which was not asked for")
    # A folder, as some programs leave them.
    if key.endswith("/"):
        return None
    return StoredObject(
        key,
        number_of(text_of(entry, "Size")),
        _listed_etag(entry),
        date_of(text_of(entry, "LastModified")),
    )


def _listed_etag(entry: ElementTree.Element) -> str:
    found = find(entry, "ETag")
    if found is None:
        raise OddAnswer("'Contents' without ETag")
    return (found.text or "").strip('"')


def _unquoted(key: str) -> str | None:
    try:
        return unquote_plus(key, errors="strict")
    except UnicodeDecodeError:
        return None


def document_of(
    answer: urllib3.BaseHTTPResponse, root: str | None = None
) -> ElementTree.Element:
    """Parse the XML of an answer; ``root`` is what its name must be."""
    try:
        # No DOCTYPE comes as far as this, and answers have a size.
        document = ElementTree.fromstring(answer.data.decode())  # noqa: S314
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise OddAnswer(f"what is no XML: {error}") from error
    name = document.tag.rpartition("}")[2]
    if name == "Error":
        # S3 begins to answer before it is done, and may have to say that it failed.
        code = text_of(document, "Code")
        message = "the server could not do it; it may later"
        raise S3Error(answer, code, message, None, None, None)
    if root and name != root:
        raise OddAnswer(f"{name!a} instead of {root}")
    return document


def text_of(element: ElementTree.Element, name: str) -> str:
    """Return the text of an element's child, which must have some."""
    found = find(element, name)
    if found is None or not found.text:
        raise OddAnswer(f"{element.tag.rpartition('}')[2]!a} without {name}")
    return found.text


def number_of(text: str) -> int:
    """Return a number of at most 18 digits, without a sign."""
    if not _NUMBER.fullmatch(text):
        raise OddAnswer(f"{text!a} for a number")
    return int(text)


def date_of(text: str) -> datetime:
    """Return a date in ISO 8601, as S3's XML has it."""
    try:
        # It returns None only for None.
        return cast(datetime, from_iso8601utc(text))
    except ValueError as error:
        raise OddAnswer(f"{text!a} for a date") from error


def header_of(headers: Mapping[str, str], name: str) -> str:
    """Return a header, which must be there and not be empty."""
    if not (value := headers.get(name)):
        raise OddAnswer(f"an answer without {name}")
    return value


def etag_of(headers: Mapping[str, str]) -> str:
    """Return the ETag without its quotes, which may be empty."""
    return header_of(headers, "ETag").strip('"')


def unquoted_etag(text: str) -> str:
    """Return an ETag without its quotes, which must not be empty."""
    etag = text.strip('"')
    if not etag:
        raise OddAnswer("an empty ETag")
    return etag


def length_of(headers: Mapping[str, str]) -> int:
    """Return the length of an answer, in bytes."""
    return number_of(header_of(headers, "Content-Length"))


def last_modified(headers: Mapping[str, str]) -> datetime:
    """Return when an object was written."""
    text = header_of(headers, "Last-Modified")
    try:
        return from_http_header(text)
    except ValueError as error:
        raise OddAnswer(f"{text!a} for a date") from error


def check_written(etag: str | None) -> None:
    """Check the answer to what was written: S3 gives an ETag, a web page does not."""
    if not etag:
        raise OddAnswer("an answer without ETag")


def user_metadata(headers: Mapping[str, str]) -> dict[str, str]:
    """Return an object's user metadata, by names in lower case without the prefix."""
    return {
        name.lower().removeprefix(METADATA): value
        for name, value in headers.items()
        if name.lower().startswith(METADATA)
    }


def metadata_headers(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return user metadata as headers; raise ValueError where no header can hold it."""
    for name, value in metadata.items():
        if not fits(name, value):
            raise ValueError(f"{name}: {value!r} cannot be an object's metadata")
    return {METADATA + name: value for name, value in metadata.items()}


def fits(name: str, value: str) -> bool:
    """Tell whether this can be sent as metadata as it is."""
    return bool(_NAME.fullmatch(name) and VALUE.fullmatch(value))


def content_of(answer: urllib3.BaseHTTPResponse, most: int) -> Iterator[bytes]:
    """Yield the decompressed content of an object; raise Overlong beyond ``most``."""
    reason = f"it has more than {most} bytes, and no more are read of it"
    encoded = "Content-Encoding" in answer.headers
    if not (answer.chunked or encoded) and length_of(answer.headers) > most:
        raise Overlong(reason)
    left = most
    # urllib3 decompresses no more at once than was asked for.
    for part in answer.stream(min(_PART, most + 1)):
        left -= len(part)
        if left < 0:
            raise Overlong(reason)
        yield part
