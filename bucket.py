"""The only module that speaks S3."""

import contextlib
import http.client
import io
import itertools
import os
import re
import socket
import ssl
import threading
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_plus
from xml.etree import ElementTree

import certifi
import minio
import urllib3
from minio.error import MinioException, S3Error
from minio.helpers import check_bucket_name
from minio.time import from_http_header, from_iso8601utc
from minio.xml import find, findall
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    DecodeError,
    HTTPError,
    ProtocolError,
    ReadTimeoutError,
)

# The longest life of a presigned URL that Signature Version 4 allows.
# https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
LONGEST_URL_HOURS = 7 * 24
# S3 has no longer keys.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
LONGEST_KEY = 1024  # bytes
# For a URL that is used at once, by a clock that may be a little wrong.
_USED_AT_ONCE = 3600  # seconds

_OK = 200
_NO_CONTENT = 204
# Precondition Failed, and Conflict: somebody else is writing it just now.
_CONDITION_UNMET = (412, 409)
_NOT_IMPLEMENTED = 501
# The code of the error for a HEAD request that ends in 400.
_NO_KEY_THERE = "BadRequest"
_PART = 2**20  # bytes
# What is larger goes up in parts: a request for each, which is in memory meanwhile.
_UPLOADED_AT_ONCE = 32 * 2**20  # bytes
# The largest object that S3 copies by one request; of larger ones, parts of this size.
_COPIED_AT_ONCE = 5 * 2**30  # bytes
# How many objects one answer to a listing tells of, at most.
_LISTED_AT_ONCE = 1000
# A page of a thousand of the longest keys has less than 4 MiB. Parsed, an answer can
# take some thirty times its size.
_LARGEST_ANSWER = 8 * 2**20  # bytes
# An answer that is no object's content takes seconds, and minutes where an object is
# put together of many parts.
_ANSWER_SECONDS = 600
_LONGEST_WAIT = 60  # seconds, whatever a server asks for
# S3 may give a page without objects in the middle of a listing, but not for ever.
_MOST_EMPTY_PAGES = 1000
_LONGEST_MESSAGE = 300
_METADATA = "x-amz-meta-"
# What S3 keeps beside an object's content and its user's metadata.
_KEPT_HEADERS = (
    "Cache-Control",
    "Content-Disposition",
    "Content-Encoding",
    "Content-Language",
    "Content-Type",
    "Expires",
)
_NUMBER = re.compile(r"[0-9]{1,18}")
_SLASHES = re.compile(r"/{2,}")
_CODE = re.compile(r"\w{1,100}", re.ASCII)
_NAME = re.compile(r"[a-z0-9-]+")
_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")
_CODE_IN_XML = re.compile(r"<Code>(\w+)</Code>")
# What servers say of a signature that is too old, or not yet valid; they grant a
# quarter of an hour.
_SAID_OF_CLOCKS = ("AccessDenied", "RequestTimeTooSkewed", "SignatureDoesNotMatch")
_CLOCK_TOLERANCE = timedelta(minutes=5)
_MEANING = {
    "AccessDenied": "the keys are known, but may not do this",
    "InvalidAccessKeyId": "the access key is not known there: check the key files",
    "NoSuchBucket": "there is no such bucket",
    "NoSuchKey": "there is no such object",
    "NoSuchUpload": "there is no such upload, or no longer",
    "NotImplemented": "the server cannot do this",
    "SignatureDoesNotMatch": "the secret key is wrong: check the key files",
}


class BucketError(Exception):
    """S3 was asked for something and did not give it; the message says why.

    Attributes:
        code: S3's own name of it, where there is one.
    """

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class ObjectMissing(BucketError):
    """The object is not there."""


class BucketMissing(BucketError):
    """The bucket is not there."""


class UploadMissing(BucketError):
    """The upload in parts is not there: completed, aborted, or never begun."""


class Refused(BucketError):
    """The server will not do this, however often it is asked."""


class BadAnswer(BucketError):
    """The server says that it did what it was asked, but its answer is not S3's."""


class ObjectUnreadable(BucketError):
    """The object is there, but what was uploaded cannot be read."""


class ObjectTooLarge(ObjectUnreadable):
    """The object, or its metadata, is larger than what may be read of it."""


@dataclass(frozen=True)
class Store:
    """An S3 endpoint and the files that hold its keys.

    Attributes:
        endpoint: ``HOST`` or ``HOST:PORT``.
        secure: https, or else plain http.
        ca_certs: certificate authorities to trust besides the usual ones.
    """

    endpoint: str
    access_key: Path
    secret_key: Path
    secure: bool = True
    ca_certs: Path | None = None


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
class StoredPart:
    """A part of an upload that is not complete; ``size`` is in bytes."""

    number: int
    size: int
    etag: str


@dataclass(frozen=True)
class OpenUpload:
    """An upload in parts that is not complete."""

    id: str
    begun: datetime


class Bucket:
    """One bucket of a store.

    Every method raises BucketError when the store refuses or does not answer.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.name = name
        self.endpoint = store.endpoint
        self._secure = store.secure
        with _explained(f"the certificates in {store.ca_certs}"):
            verifying = ssl.create_default_context(cafile=certifi.where())
            if store.ca_certs:
                verifying.load_verify_locations(store.ca_certs)
        self._http = _Http(
            ssl_context=verifying,
            timeout=urllib3.Timeout(connect=10, read=120),
            retries=_Retry(
                total=3,
                backoff_factor=0.5,
                status_forcelist=[500, 502, 503],
                raise_on_status=False,
                retry_after_max=_LONGEST_WAIT,
            ),
        )
        with _explained(f"the bucket {name} at {store.endpoint}"):
            check_bucket_name(name)
        with _explained(f"the keys of {store.endpoint}"):
            self._client = minio.Minio(
                store.endpoint,
                access_key=store.access_key.read_text().strip(),
                secret_key=store.secret_key.read_text().strip(),
                secure=store.secure,
                http_client=self._http,
            )

    def check(self) -> None:
        """Raise BucketError unless the bucket is there."""
        with self._explained("the bucket {name}"):
            # Listing is what is needed of it; a key may do that and no more.
            self._page("", None)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the objects whose keys begin with ``prefix``, in the order of keys."""
        token: str | None = None
        empty = 0
        # Hashes of each page's token and first key, since there may be many pages.
        seen: set[int] = set()
        while True:
            with self._explained("the listing of {name}"):
                page = self._page(prefix, token)
                marks = {hash(("token", page.token))} if page.token else set()
                marks |= {hash(("key", page.mark))} if page.mark else set()
                empty = 0 if page.mark else empty + 1
                if empty > _MOST_EMPTY_PAGES or not seen.isdisjoint(marks):
                    raise _Odd("a listing that begins again and again")
                seen |= marks
            yield from page.objects
            if page.token is None:
                return
            token = page.token

    def _page(self, prefix: str, token: str | None) -> "_Page":
        """Ask for one page of a listing; ``token`` is that of the page before."""
        query = {
            "list-type": "2",
            "prefix": prefix,
            "delimiter": "",
            "encoding-type": "url",
            "max-keys": str(_LISTED_AT_ONCE),
        }
        if token is not None:
            query["continuation-token"] = token
        answer = self._ask("GET", query=query)
        return _read_page(_document(answer, "ListBucketResult"), prefix)

    def stat(self, key: str) -> StoredObject:
        """Look at an object; raises ObjectMissing when there is none."""
        with self._explained("the object {name}/" + key):
            headers = self._ask("HEAD", key).headers
            return StoredObject(
                key, _length(headers), _etag(headers), _last_modified(headers)
            )

    def metadata(self, key: str) -> dict[str, str]:
        """Return what whoever uploaded an object wrote of it, by names in lower case.

        Raises ObjectMissing when there is none.
        """
        with self._explained("the metadata of {name}/" + key):
            headers = self._ask("HEAD", key).headers
            # A web page has none, which is not to look like an object without.
            _etag(headers)
            return _user_metadata(headers)

    def look_for(
        self, keys: Collection[str], beside: Callable[[str], Iterable[str]]
    ) -> Iterator[StoredObject]:
        """What is stored under these keys, and perhaps much else.

        By listing the prefix that they share, since one answer tells of a thousand
        objects; or by asking for each, once it is seen that this is fewer answers,
        as for a few images in a bucket of millions.

        Args:
            beside: what else is looked for besides each key; of the same name up
                to its first dot.
        """
        if not keys:
            return
        # Of strings, not of paths: S3 knows no folders.
        shared = os.path.commonprefix([min(keys), max(keys)])  # noqa: RUF071
        folder, slash, name = shared.rpartition("/")
        listed = self.list(folder + slash + name.partition(".")[0])
        yield from itertools.islice(listed, _LISTED_AT_ONCE * len(keys))
        if next(listed, None) is None:
            return
        for key in keys:
            for each in (key, *beside(key)):
                try:
                    yield self.stat(each)
                except ObjectMissing:
                    continue
                except BucketError as error:
                    # Some servers refuse to look for keys that they cannot have. Our
                    # keys and our clock are right, since they granted the listing.
                    if error.code == _NO_KEY_THERE:
                        continue
                    if not isinstance(error, ObjectUnreadable):
                        raise
                    # Its metadata is too large, of which a listing does not tell. The
                    # first key that begins with this one is this one.
                    yield from itertools.islice(self.list(each), 1)

    def exists(self, key: str) -> bool:
        try:
            self.stat(key)
        except ObjectMissing:
            return False
        except ObjectUnreadable:
            return True
        return True

    def read(self, key: str, most: int) -> bytes:
        """Return the content of an object.

        Content that is stored compressed, with a ``Content-Encoding``, is
        decompressed, as browsers do: here and when it is downloaded.

        Args:
            most: how many bytes that may be, decompressed.

        Raises:
            ObjectMissing: there is none.
            ObjectUnreadable: it is larger, or not encoded as it says.
        """
        with self._reading(key, most) as (parts, _):
            return b"".join(parts)

    def download(self, key: str, path: Path, most: int) -> str:
        """Write an object into a file, some of it in memory at a time.

        Where this fails, no file is left.

        Args:
            most: how many bytes that may be, decompressed.

        Returns:
            The ETag of just that content.

        Raises:
            ObjectMissing: there is none.
            ObjectUnreadable: it is larger, or not encoded as it says.
            BucketError: the file would not be whole.
        """
        try:
            with self._reading(key, most) as (parts, etag), path.open("wb") as file:
                if not etag:
                    raise _Odd("content with an empty ETag")
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
                return etag
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    @contextmanager
    def _reading(self, key: str, most: int) -> Iterator[tuple[Iterator[bytes], str]]:
        """Begin to read an object; gives its content, part by part, and its ETag."""
        with self._explained("the object {name}/" + key):
            answer = self._ask("GET", key, preload_content=False)
            try:
                if not answer.chunked:
                    # Else nobody could tell whether all of it came.
                    _length(answer.headers)
                yield _content(answer, most), _etag(answer.headers)
            finally:
                answer.close()
                answer.release_conn()

    def write(self, key: str, content: bytes, content_type: str = "text/csv") -> None:
        with self._explained("writing {name}/" + key), _understood():
            done = self._client.put_object(
                self.name, key, io.BytesIO(content), len(content), content_type
            )
            _written(done.etag)

    def write_if_absent(self, key: str, content: bytes) -> bool:
        """Write an object unless there is one.

        A store that does not know the condition writes it in any case.

        Returns:
            Whether it was written.
        """
        # By a signed URL, since minio has no word for the condition.
        url = self.url_to_write(key, _USED_AT_ONCE)
        with self._explained("writing {name}/" + key):
            answer = self._http.request(
                "PUT", url, body=content, headers={"If-None-Match": "*"}
            )
            if answer.status not in (_OK, _NOT_IMPLEMENTED, *_CONDITION_UNMET):
                found = _CODE_IN_XML.search(answer.data.decode(errors="replace"))
                code = found[1] if found else f"HTTP {answer.status}"
                raise _refusal(f"writing {self.name}/{key}", code, "")
            if answer.status == _OK:
                _etag(answer.headers)
        if answer.status == _NOT_IMPLEMENTED:
            self.write(key, content)
        return answer.status not in _CONDITION_UNMET

    def upload(
        self,
        key: str,
        path: Path,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Write a file into an object.

        Args:
            metadata: kept with the object; names of a-z, 0-9 and ``-``, and values of
                printable ASCII.
        """
        headers = _metadata_headers(metadata or {})
        with self._explained("writing {name}/" + key), _understood():
            done = self._client.fput_object(
                self.name,
                key,
                str(path),
                content_type,
                headers,
                part_size=_UPLOADED_AT_ONCE,
                num_parallel_uploads=1,
            )
            _written(done.etag)

    def copy(
        self,
        source: str,
        target: str,
        etag: str,
        metadata: Mapping[str, str] | None = None,
    ) -> bool:
        """Have the server copy an object, unless it is no longer the one meant.

        Args:
            etag: the ETag that the source must have.
            metadata: takes the place of what was kept with the source; see ``upload``.

        Returns:
            Whether it was copied. False when the source is gone or is another object
            now; what was at the target may be gone then as well.
        """
        with self._explained(f"copying {{name}}/{source} to {target}"):
            found = self._headers_if_there(source)
            if found is None or not etag or _etag(found) != etag:
                return False
            try:
                self._copy(source, target, found, metadata)
            except MinioException as error:
                if _code_of(error) in ("PreconditionFailed", "NoSuchKey"):
                    return False
                raise
            # Some servers know no condition, and copy whatever is there.
            found = self._headers_if_there(source)
            if found is not None and _etag(found) == etag:
                return True
        self.remove(target)
        return False

    def _headers_if_there(self, key: str) -> Mapping[str, str] | None:
        try:
            return self._ask("HEAD", key).headers
        except S3Error as error:
            if error.code != "NoSuchKey":
                raise
            return None

    def _copy(
        self,
        source: str,
        target: str,
        found: Mapping[str, str],
        metadata: Mapping[str, str] | None,
    ) -> None:
        """Copy the object that was found, with these headers, at ``source``."""
        origin = {
            "x-amz-copy-source": quote(f"/{self.name}/{source}"),
            "x-amz-copy-source-if-match": f'"{_etag(found)}"',
        }
        # Metadata that is sent again is signed, so it must be ASCII.
        as_it_was = {
            name: value
            for name, value in found.items()
            if name.title() in _KEPT_HEADERS and _VALUE.fullmatch(value)
        }
        if metadata is None:
            as_found = _user_metadata(found).items()
            wanted = {name: value for name, value in as_found if _fits(name, value)}
        else:
            wanted = dict(metadata)
        described = as_it_was | _metadata_headers(wanted)
        size = _length(found)
        if size > _COPIED_AT_ONCE:
            self._copy_in_parts(target, size, origin, described)
            return
        if metadata is None:
            self._copy_whole(target, origin)
            return
        described["x-amz-metadata-directive"] = "REPLACE"
        self._copy_whole(target, origin | described)
        if _user_metadata(self._ask("HEAD", target).headers) != wanted:
            # Some servers add it to the source's, unless a copy is the source itself.
            origin = {"x-amz-copy-source": quote(f"/{self.name}/{target}")}
            self._copy_whole(target, origin | described)

    def _copy_whole(self, target: str, headers: Mapping[str, str]) -> None:
        # Some servers give no ETag where an object is copied onto itself.
        _document(self._ask("PUT", target, headers=headers), "CopyObjectResult")

    def _copy_in_parts(
        self,
        target: str,
        size: int,
        origin: Mapping[str, str],
        described: Mapping[str, str],
    ) -> None:
        upload = self._begin(target, described)
        try:
            etags = []
            for number, begin in enumerate(range(0, size, _COPIED_AT_ONCE), start=1):
                end = min(begin + _COPIED_AT_ONCE, size) - 1
                part = {**origin, "x-amz-copy-source-range": f"bytes={begin}-{end}"}
                query = {"partNumber": str(number), "uploadId": upload}
                answer = self._ask("PUT", target, query=query, headers=part)
                etags.append(_unquoted_etag(_text(_document(answer), "ETag")))
            self._complete(target, upload, etags)
        except BaseException:
            self.abort_upload(target, upload)
            raise

    def remove(self, key: str) -> None:
        """Remove an object; no error when it is gone already."""
        with self._explained("removing {name}/" + key):
            self._ask("DELETE", key)

    def create(self) -> None:
        with self._explained("making the bucket {name}"), _understood():
            self._client.make_bucket(self.name)

    def destroy(self) -> None:
        """Remove a bucket, which must be empty."""
        with self._explained("removing the bucket {name}"), _understood():
            self._client.remove_bucket(self.name)

    def url_to_read(self, key: str, seconds: int) -> str:
        """Return a URL that reads the object for so long without keys."""
        with self._explained("signing {name}/" + key), _understood():
            life = timedelta(seconds=seconds)
            return self._client.presigned_get_object(self.name, key, life)

    def url_to_write(self, key: str, seconds: int) -> str:
        """Return a URL that writes the object for so long without keys."""
        with self._explained("signing {name}/" + key), _understood():
            life = timedelta(seconds=seconds)
            return self._client.presigned_put_object(self.name, key, life)

    def begin_upload(self, key: str, content_type: str) -> str:
        """Begin to upload an object in parts; returns the upload's id.

        Nothing is to be seen of the object, and what is there under its key stays,
        until the upload is completed.
        """
        with self._explained("beginning to upload {name}/" + key):
            return self._begin(key, {"Content-Type": content_type})

    def _begin(self, key: str, headers: Mapping[str, str]) -> str:
        answer = self._ask("POST", key, query={"uploads": ""}, headers=headers)
        return _text(_document(answer), "UploadId")

    def url_to_write_part(
        self, key: str, upload: str, number: int, seconds: int
    ) -> str:
        """Return a URL that writes a part, counted from 1, for so long without keys."""
        query = {"partNumber": str(number), "uploadId": upload}
        with self._explained("signing {name}/" + key), _understood():
            life = timedelta(seconds=seconds)
            return self._client.get_presigned_url(
                "PUT", self.name, key, life, extra_query_params=query
            )

    def parts(self, key: str, upload: str) -> tuple[StoredPart, ...]:
        """The parts that arrived, the first thousand.

        Some stores keep, and tell of, parts that were replaced.

        Raises UploadMissing when there is no such upload.
        """
        query = {"uploadId": upload, "max-parts": str(_LISTED_AT_ONCE)}
        with self._explained("the parts of {name}/" + key):
            listed = _document(self._ask("GET", key, query=query), "ListPartsResult")
            return tuple(
                StoredPart(
                    _number(_text(part, "PartNumber")),
                    _number(_text(part, "Size")),
                    _unquoted_etag(_text(part, "ETag")),
                )
                for part in findall(listed, "Part")
            )

    def complete_upload(self, key: str, upload: str, etags: Sequence[str]) -> None:
        """Make an object of the parts 1, 2, … that have these ETags.

        Raises UploadMissing when there is no such upload, Refused when other parts
        arrived.
        """
        with self._explained("putting together {name}/" + key):
            self._complete(key, upload, etags)

    def _complete(self, key: str, upload: str, etags: Sequence[str]) -> None:
        whole = ElementTree.Element("CompleteMultipartUpload")
        for number, etag in enumerate(etags, start=1):
            part = ElementTree.SubElement(whole, "Part")
            ElementTree.SubElement(part, "PartNumber").text = str(number)
            ElementTree.SubElement(part, "ETag").text = f'"{etag}"'
        answer = self._ask(
            "POST",
            key,
            query={"uploadId": upload},
            headers={"Content-Type": "application/xml"},
            body=ElementTree.tostring(whole),
        )
        _text(_document(answer), "ETag")

    def abort_upload(self, key: str, upload: str) -> None:
        """Remove an upload and its parts; no error when it is gone already."""
        try:
            with self._explained("removing parts of {name}/" + key):
                self._ask("DELETE", key, query={"uploadId": upload})
        except (BucketMissing, UploadMissing):
            pass

    def open_uploads(self, key: str) -> tuple[OpenUpload, ...]:
        """The uploads in parts of an object that are not complete."""
        query = {
            "uploads": "",
            "prefix": key,
            "delimiter": "",
            "encoding-type": "url",
            "max-uploads": str(_LISTED_AT_ONCE),
        }
        with self._explained("the uploads of {name}/" + key):
            listed = _document(
                self._ask("GET", query=query), "ListMultipartUploadsResult"
            )
            return tuple(
                OpenUpload(_text(found, "UploadId"), _date(_text(found, "Initiated")))
                for found in findall(listed, "Upload")
                # Some servers say that keys are encoded, which are not.
                if key in (name := _text(found, "Key"), unquote_plus(name))
            )

    def _ask(
        self,
        method: str,
        key: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        preload_content: bool = True,
    ) -> urllib3.BaseHTTPResponse:
        """Send a signed request; returns the answer of one that was granted."""
        with _understood():
            answer = self._client._execute(
                method,
                self.name,
                key,
                body=body,
                headers=dict(headers or {}),
                query_params=dict(query or {}),
                preload_content=preload_content,
            )
        # S3 has nothing to say of what it removed; a web page comes with 200.
        removed = method == "DELETE" and not answer.data
        granted = (_OK, _NO_CONTENT) if removed else (_OK,)
        if answer.status not in granted:
            raise _Odd(f"HTTP status {answer.status}")
        if method == "DELETE" and not removed:
            raise _Odd("a text instead of nothing")
        return answer

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        what = what.replace("{name}", self.name, 1) + f" at {self.endpoint}"
        try:
            with _explained(what):
                yield
        except BucketError as error:
            # No refusal that stays: a clock that is right is granted the same.
            if error.code in _SAID_OF_CLOCKS and (off := self._how_clock_is_off()):
                raise BucketError(f"{what}: {off} ({error.code})") from error
            raise

    def _how_clock_is_off(self) -> str | None:
        """What is wrong with this machine's clock; None when it is right."""
        url = f"{'https' if self._secure else 'http'}://{self.endpoint}"
        with _explained(f"the clock of {self.endpoint}"):
            date = self._http.request("HEAD", url).headers.get("Date", "")
        try:
            theirs = parsedate_to_datetime(date)
        except (ValueError, TypeError, OverflowError):
            # It tells nothing of the time; what the server refused is to be told.
            return None
        # HTTP knows no other zone, though a server may name none.
        behind = theirs.replace(tzinfo=theirs.tzinfo or UTC) - datetime.now(UTC)
        if abs(behind) < _CLOCK_TOLERANCE:
            return None
        minutes = round(abs(behind) / timedelta(minutes=1))
        which = "behind" if behind > timedelta() else "ahead of"
        return f"this machine's clock is {minutes} minutes {which} the store's: set it"


class _Odd(Exception):
    """An answer is not S3's; says in a few words what it is instead."""


class _Overlong(Exception):
    """An object is larger than what may be read; says what is."""


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except _Odd as error:
        raise BadAnswer(
            f"{what}: what answers there does not speak S3 (it sent "
            f"{_short(error)}): check the endpoint, and what stands before it"
        ) from error
    except _Overlong as error:
        raise ObjectTooLarge(f"{what}: {error}") from error
    except DecodeError as error:
        raise ObjectUnreadable(
            f"{what}: its content is not encoded as its Content-Encoding says"
        ) from error
    except S3Error as error:
        raise _refusal(what, error.code, error.message or "") from error
    except (MinioException, HTTPError, OSError, ValueError) as error:
        # Some servers give their XML another type than minio expects.
        if code := _code_of(error):
            raise _refusal(what, code, "") from error
        reason = getattr(error, "reason", None) or error
        raise BucketError(f"{what}: {_short(reason)}") from error


@contextmanager
def _understood() -> Iterator[None]:
    """Translate what minio raises when it reads an answer that is not S3's."""
    try:
        yield
    except (HTTPError, OSError, UnicodeEncodeError):
        # Some of these are ValueErrors as well; the last is a key that S3 cannot have.
        raise
    except (
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        ArithmeticError,
        ElementTree.ParseError,
        RecursionError,
    ) as error:
        raise _Odd(f"what cannot be read: {error}") from error


def _refusal(what: str, code: str | None, message: str) -> BucketError:
    kind = _KINDS.get(code, BucketError)
    code = code if code and _CODE.fullmatch(code) else "no code"
    return kind(f"{what}: {_short(_MEANING.get(code, message))} ({code})", code)


def _code_of(error: Exception) -> str | None:
    """Return S3's own name of an error, if it has one."""
    if isinstance(error, S3Error):
        return error.code
    found = _CODE_IN_XML.search(str(error))
    return found and found[1]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_MESSAGE else text[:_LONGEST_MESSAGE] + "…"


@dataclass(frozen=True)
class _Page:
    """One page of a listing.

    Attributes:
        mark: the first key that it tells of, be it a folder's.
        token: what asks for the next page.
    """

    mark: str | None
    objects: tuple[StoredObject, ...]
    token: str | None


def _read_page(page: ElementTree.Element, prefix: str) -> _Page:
    encoding = find(page, "EncodingType")
    encoded = encoding is not None and encoding.text == "url"
    entries = findall(page, "Contents")
    keys = [_text(entry, "Key") for entry in entries]
    objects = tuple(
        stored
        for key, entry in zip(keys, entries, strict=True)
        if (stored := _read_entry(_unquoted(key) if encoded else key, entry, prefix))
    )
    goes_on = _text(page, "IsTruncated").lower() == "true"
    token = _text(page, "NextContinuationToken") if goes_on else None
    return _Page(keys[0] if keys else None, objects, token)


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
        raise _Odd(f"the key {key!a}, which was not asked for")
    # A folder, as some programs leave them.
    if key.endswith("/"):
        return None
    return StoredObject(
        key,
        _number(_text(entry, "Size")),
        _listed_etag(entry),
        _date(_text(entry, "LastModified")),
    )


def _listed_etag(entry: ElementTree.Element) -> str:
    found = find(entry, "ETag")
    if found is None:
        raise _Odd("'Contents' without ETag")
    return (found.text or "").strip('"')


def _unquoted(key: str) -> str | None:
    try:
        return unquote_plus(key, errors="strict")
    except UnicodeDecodeError:
        return None


def _document(
    answer: urllib3.BaseHTTPResponse, root: str | None = None
) -> ElementTree.Element:
    """Parse the XML of an answer; ``root`` is what its name must be."""
    try:
        # No DOCTYPE comes as far as this, and answers have a size.
        document = ElementTree.fromstring(answer.data.decode())  # noqa: S314
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise _Odd(f"what is no XML: {error}") from error
    name = document.tag.rpartition("}")[2]
    if name == "Error":
        # S3 begins to answer before it is done, and may have to say that it failed.
        code = _text(document, "Code")
        message = "the server could not do it; it may later"
        raise S3Error(answer, code, message, None, None, None)
    if root and name != root:
        raise _Odd(f"{name!a} instead of {root}")
    return document


def _text(element: ElementTree.Element, name: str) -> str:
    found = find(element, name)
    if found is None or not found.text:
        raise _Odd(f"{element.tag.rpartition('}')[2]!a} without {name}")
    return found.text


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise _Odd(f"{text!a} for a number")
    return int(text)


def _date(text: str) -> datetime:
    try:
        return from_iso8601utc(text)
    except ValueError as error:
        raise _Odd(f"{text!a} for a date") from error


def _header(headers: Mapping[str, str], name: str) -> str:
    if not (value := headers.get(name)):
        raise _Odd(f"an answer without {name}")
    return value


def _etag(headers: Mapping[str, str]) -> str:
    return _header(headers, "ETag").strip('"')


def _unquoted_etag(text: str) -> str:
    etag = text.strip('"')
    if not etag:
        raise _Odd("an empty ETag")
    return etag


def _length(headers: Mapping[str, str]) -> int:
    return _number(_header(headers, "Content-Length"))


def _last_modified(headers: Mapping[str, str]) -> datetime:
    text = _header(headers, "Last-Modified")
    try:
        return from_http_header(text)
    except ValueError as error:
        raise _Odd(f"{text!a} for a date") from error


def _written(etag: str | None) -> None:
    """Check the answer to what was written: S3 gives an ETag, a web page does not."""
    if not etag:
        raise _Odd("an answer without ETag")


def _user_metadata(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        name.lower().removeprefix(_METADATA): value
        for name, value in headers.items()
        if name.lower().startswith(_METADATA)
    }


def _metadata_headers(metadata: Mapping[str, str]) -> dict[str, str]:
    for name, value in metadata.items():
        if not _fits(name, value):
            raise ValueError(f"{name}: {value!r} cannot be an object's metadata")
    return {_METADATA + name: value for name, value in metadata.items()}


def _fits(name: str, value: str) -> bool:
    """Tell whether this can be sent as metadata as it is."""
    return bool(_NAME.fullmatch(name) and _VALUE.fullmatch(value))


def _content(answer: urllib3.BaseHTTPResponse, most: int) -> Iterator[bytes]:
    """Yield the decompressed content of an object; raise _Overlong beyond ``most``."""
    reason = f"it has more than {most} bytes, and no more are read of it"
    encoded = "Content-Encoding" in answer.headers
    if not (answer.chunked or encoded) and _length(answer.headers) > most:
        raise _Overlong(reason)
    left = most
    # urllib3 decompresses no more at once than was asked for.
    for part in answer.stream(min(_PART, most + 1)):
        left -= len(part)
        if left < 0:
            raise _Overlong(reason)
        yield part


class _Http(urllib3.PoolManager):
    """The HTTP client that minio uses; it bounds all answers but objects' content."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}

    def urlopen(
        self,
        method: str,
        url: str,
        redirect: bool = True,
        *,
        preload_content: bool = True,
        **how: Any,
    ) -> urllib3.BaseHTTPResponse:
        retries = self.connection_pool_kw["retries"]
        while True:
            # No redirect is followed: a signature holds for one host alone.
            answer = super().urlopen(
                method,
                url,
                redirect=False,
                preload_content=False,
                retries=retries,
                **how,
            )
            if answer.status == _OK and not preload_content:
                return answer
            try:
                return _whole(answer)
            except (ProtocolError, ReadTimeoutError) as error:
                # Cut off: asked again, as where no answer comes at all.
                retries = retries.increment(method, url, error=error)
                retries.sleep()


def _whole(answer: urllib3.BaseHTTPResponse) -> urllib3.BaseHTTPResponse:
    """Read all of an answer, if it is of a size and an age that S3's have."""
    content = bytearray()
    try:
        with _in_time(answer.shutdown):
            for part in answer.stream():
                content += part
                if len(content) > _LARGEST_ANSWER:
                    raise _Odd(f"more than {_LARGEST_ANSWER >> 20} MiB")
    except DecodeError as error:
        raise _Odd("what is not encoded as it says") from error
    finally:
        answer.close()
    # What XML can define there, it can repeat until memory ends. S3 defines nothing.
    if b"<!DOCTYPE" in content and answer.status == _OK:
        raise _Odd("a web page, or XML with a DOCTYPE")
    return urllib3.HTTPResponse(
        io.BytesIO(content),
        answer.headers,
        answer.status,
        reason=answer.reason,
        decode_content=False,
        enforce_content_length=False,
    )


@contextmanager
def _in_time(hang_up: Callable[[], object]) -> Iterator[None]:
    """Hang up on a server that sends a byte now and then, and never comes to an end."""
    late = threading.Event()

    def give_up() -> None:
        late.set()
        # It may have ended, or been closed, at this very moment.
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            hang_up()

    timer = threading.Timer(_ANSWER_SECONDS, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if late.is_set():
            raise _Odd(f"an answer that did not end within {_ANSWER_SECONDS} s")


class _Connection(HTTPConnection):
    """A connection on which headers are as bounded as what follows them."""

    def getresponse(self) -> urllib3.HTTPResponse:
        # A connection that is to be closed forgets its socket.
        connected = self.sock
        try:
            with _in_time(lambda: connected.shutdown(socket.SHUT_RDWR)):
                return super().getresponse()
        except http.client.HTTPException as error:
            # Only an object's metadata can make S3's headers so long.
            if type(error) in (http.client.HTTPException, http.client.LineTooLong):
                raise _Overlong(f"its metadata is too large: {error}") from error
            raise


class _SecureConnection(_Connection, HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Retry(urllib3.Retry):
    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: urllib3.BaseHTTPResponse | None = None,
        *more: Any,
        **named: Any,
    ) -> "_Retry":
        """Count a try that failed, and forget what the server said of it.

        urllib3 would read that to its end, which may never come. What the server said
        of the last try is kept.
        """
        if response is not None and self.total:
            response.close()
        return super().increment(method, url, response, *more, **named)


_KINDS = {
    "NoSuchBucket": BucketMissing,
    "NoSuchKey": ObjectMissing,
    "NoSuchUpload": UploadMissing,
    "AccessDenied": Refused,
    "EntityTooSmall": Refused,
    "InvalidPart": Refused,
    "InvalidPartOrder": Refused,
    "MethodNotAllowed": Refused,
    "NotImplemented": Refused,
}
