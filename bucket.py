"""Read, write and list the objects of a bucket. No other module speaks S3."""

import hashlib
import io
import itertools
import os
import ssl
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote_plus
from xml.etree import ElementTree

import certifi
import minio
import urllib3
from minio.error import MinioException, S3Error
from minio.helpers import check_bucket_name
from minio.xml import findall

from s3 import proxies
from s3.answers import (
    VALUE,
    MultipartUpload,
    Page,
    StoredObject,
    UploadedPart,
    check_written,
    content_of,
    document_of,
    etag_of,
    fits,
    last_modified,
    length_of,
    metadata_headers,
    number_of,
    read_page,
    read_uploads,
    text_of,
    unquoted_etag,
    user_metadata,
)
from s3.client import OK, PARTIAL_CONTENT, Retry
from s3.errors import (
    ACCESS_DENIED,
    CODE_IN_XML,
    BadAnswer,
    BucketError,
    BucketMissing,
    ObjectMissing,
    ObjectTooLarge,
    ObjectUnreadable,
    OddAnswer,
    PermanentS3Error,
    UploadMissing,
    code_of,
    refusal,
    translate_errors,
    translate_odd_answers,
)
from s3.keys import read_access_key, read_key
from s3.storage import RESTORE_STATUS, archive_in

__all__ = [
    "ACCESS_DENIED",
    "MAX_KEY_BYTES",
    "MAX_READERS",
    "MAX_URL_HOURS",
    "BadAnswer",
    "Bucket",
    "BucketError",
    "BucketMissing",
    "MultipartUpload",
    "ObjectMissing",
    "ObjectTooLarge",
    "ObjectUnreadable",
    "PermanentS3Error",
    "S3Endpoint",
    "Server",
    "StoredObject",
    "UploadMissing",
    "UploadedPart",
    "check_answers",
]

# The type of minio's parameters for headers and for a query.
_Fields = dict[str, str | list[str] | tuple[str]]

# The longest life of a presigned URL that Signature Version 4 allows.
# https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
MAX_URL_HOURS = 7 * 24
# The maximum length of a key, in UTF-8.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
MAX_KEY_BYTES = 1024  # bytes
# The number of threads that can read from a bucket without waiting for each other.
MAX_READERS = 32
# The life of a URL that is used immediately, with a clock that may be a little wrong.
_USED_AT_ONCE = 3600  # seconds
# A shorter access key has no secret key in it, and may be a common word.
_MIN_QUOTED = 16  # characters

_ANY_TYPE = "application/octet-stream"
_NO_CONTENT = 204
# Precondition Failed, and Conflict: another client is writing the object.
_CONDITION_UNMET = (412, 409)
_NOT_IMPLEMENTED = 501
# minio's code for the answer 400 to a HEAD request.
_NO_KEY_THERE = "BadRequest"
_NO_SUCH_KEY = "NoSuchKey"
# The object ends before the range that was asked for.
_NOTHING_THERE = "InvalidRange"
# The maximum size of an object.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_MAX_OBJECT = 50 * 2**40  # bytes
# The part size of a multipart upload; a part is in memory while it is sent.
_UPLOAD_PART = 32 * 2**20  # bytes
# The maximum size that S3 copies by one request; larger objects are copied in parts of
# this size.
# https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
_MAX_COPY = 5 * 2**30  # bytes
# The maximum number of entries in one page of a listing.
_PAGE_SIZE = 1000
# The maximum wait before another try, whatever a server asks for.
_MAX_WAIT = 60  # seconds
# S3 may send a page without objects in the middle of a listing, but not endlessly.
_MAX_EMPTY_PAGES = 1000
# The headers that S3 stores with an object, besides user metadata.
_KEPT_HEADERS = (
    "Cache-Control",
    "Content-Disposition",
    "Content-Encoding",
    "Content-Language",
    "Content-Type",
    "Expires",
)
# S3's codes for a signature that is too old or not yet valid. S3 tolerates a difference
# between the clocks of 15 minutes.
_CLOCK_CODES = ("AccessDenied", "RequestTimeTooSkewed", "SignatureDoesNotMatch")
_CLOCK_TOLERANCE = timedelta(minutes=5)


@dataclass(frozen=True)
class S3Endpoint:
    """An S3 endpoint and the files that hold its keys.

    Attributes:
        endpoint: ``HOST`` or ``HOST:PORT``.
        access_key: file that holds the access key.
        secret_key: file that holds the secret key.
        secure: whether to use https; otherwise plain http.
        ca_certs: file of certificate authorities to trust besides the usual ones.
        region: region that requests are signed for; None to ask the server.
        session_token: file that holds the session token of temporary keys.
    """

    endpoint: str
    access_key: Path
    secret_key: Path
    secure: bool = True
    ca_certs: Path | None = None
    region: str | None = None
    session_token: Path | None = None


@cache
def _ssl_context(ca_certs: Path | None) -> ssl.SSLContext:
    """Return a context that trusts the usual authorities, and those of a file."""
    # To read the usual ones takes a tenth of a poll's CPU time, once for each bucket.
    context = ssl.create_default_context(cafile=certifi.where())
    if ca_certs:
        context.load_verify_locations(ca_certs)
    return context


def _client_of(store: S3Endpoint, retries: int = 3) -> urllib3.PoolManager:
    """Return a client for the server, which uses the environment's proxy."""
    with translate_errors(f"the certificates in {store.ca_certs}"):
        verifying = _ssl_context(store.ca_certs)
    with translate_errors(store.endpoint):
        return proxies.client(
            _url_of(store),
            ssl_context=verifying,
            maxsize=MAX_READERS,
            timeout=urllib3.Timeout(connect=10, read=120),
            retries=Retry(
                total=retries,
                backoff_factor=0.5,
                status_forcelist=[500, 502, 503],
                raise_on_status=False,
                retry_after_max=_MAX_WAIT,
            ),
        )


def _url_of(store: S3Endpoint) -> str:
    return f"{'https' if store.secure else 'http'}://{store.endpoint}"


def check_answers(store: S3Endpoint) -> None:
    """Raise BucketError unless a server answers that has a trusted certificate.

    The keys are not used, so their files need not exist.
    """
    with translate_errors(f"the endpoint {store.endpoint}"):
        _client_of(store, retries=0).request("HEAD", _url_of(store))


class Server:
    """An S3 server, and the keys with which it is asked.

    Every method raises BucketError if the server refuses or does not answer.
    """

    def __init__(self, store: S3Endpoint) -> None:
        self.endpoint = store.endpoint
        self._url = _url_of(store)
        self._http = _client_of(store)
        token = store.session_token
        self._access_key = read_access_key(store.access_key)
        with translate_errors(store.endpoint):
            self._client = minio.Minio(
                store.endpoint,
                access_key=self._access_key,
                secret_key=read_key(store.secret_key),
                session_token=read_key(token) if token else None,
                region=store.region,
                secure=store.secure,
                http_client=self._http,
            )

    def bucket_names(self) -> tuple[str, ...]:
        """Return the names of all buckets of these keys.

        Raises:
            PermanentS3Error: the keys may not list them.
        """
        with self._translate_errors("the list of buckets"), translate_odd_answers():
            return tuple(str(found.name) for found in self._client.list_buckets())

    @contextmanager
    def _translate_errors(self, subject: str) -> Iterator[None]:
        """Raise a BucketError that names this server; see ``s3.errors``."""
        subject += f" at {self.endpoint}"
        try:
            with translate_errors(subject):
                yield
        except BucketError as error:
            # Not a permanent error: it ends when the clock is right.
            if error.code in _CLOCK_CODES and (off := self._how_clock_is_off()):
                raise BucketError(f"{subject}: {off} ({error.code})") from error
            raise type(error)(self._without_key(str(error)), error.code) from error

    def _without_key(self, message: str) -> str:
        """Return a message without the access key, which servers quote.

        It is the secret key too, if somebody wrote both into one file.
        """
        quoted = self._access_key if len(self._access_key) >= _MIN_QUOTED else None
        return message.replace(quoted, "…") if quoted else message

    def _how_clock_is_off(self) -> str | None:
        """Return how wrong this machine's clock is; None if it is right."""
        with translate_errors(f"the clock of {self.endpoint}"):
            date = self._http.request("HEAD", self._url).headers.get("Date", "")
        try:
            server_time = parsedate_to_datetime(date)
        except (ValueError, TypeError, OverflowError):
            # The server sends no date. The caller reports its refusal instead.
            return None
        # HTTP dates are in UTC, even if a server names no zone.
        server_time = server_time.replace(tzinfo=server_time.tzinfo or UTC)
        behind = server_time - datetime.now(UTC)
        if abs(behind) < _CLOCK_TOLERANCE:
            return None
        minutes = round(abs(behind) / timedelta(minutes=1))
        relation = "behind" if behind > timedelta() else "ahead of"
        return (
            f"this machine's clock is {minutes} minutes {relation} the store's: set it"
        )


class Bucket(Server):
    """A bucket of an S3 server.

    Every method raises BucketError if the server refuses or does not answer.
    """

    def __init__(self, store: S3Endpoint, name: str) -> None:
        with translate_errors(f"the bucket {name} at {store.endpoint}"):
            check_bucket_name(name)
        super().__init__(store)
        self.name = name

    def region(self) -> str:
        """Return the region that requests are signed for.

        It is the endpoint's or the store's, or the server is asked, once. A server may
        name anything.
        """
        with self._translate_errors("the region of {name}"), translate_odd_answers():
            return self._client._get_region(self.name)

    def check(self, prefix: str = "") -> None:
        """Raise BucketError unless the objects under a prefix can be listed."""
        with self._translate_errors("the bucket {name}"):
            # Keys that may list need not be allowed to look at the bucket itself.
            self._page(prefix, None)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the objects whose keys begin with ``prefix``, in key order."""
        token: str | None = None
        empty = 0
        # Hashes of each page's token and first key, since there may be many pages.
        seen: set[int] = set()
        while True:
            with self._translate_errors("the listing of {name}"):
                page = self._page(prefix, token)
                marks = {hash(("token", page.token))} if page.token else set()
                marks |= {hash(("key", page.mark))} if page.mark else set()
                empty = 0 if page.mark else empty + 1
                if empty > _MAX_EMPTY_PAGES or not seen.isdisjoint(marks):
                    raise OddAnswer("a listing that never ends")
                seen |= marks
            yield from page.objects
            if page.token is None:
                return
            token = page.token

    def _page(self, prefix: str, token: str | None) -> "Page":
        """Return one page of a listing.

        Args:
            token: the continuation token in the previous page; None for the first.
        """
        query = {
            "list-type": "2",
            "prefix": prefix,
            "delimiter": "",
            "encoding-type": "url",
            "max-keys": str(_PAGE_SIZE),
        }
        if token is not None:
            query["continuation-token"] = token
        answer = self._ask("GET", query=query, headers=RESTORE_STATUS)
        return read_page(document_of(answer, "ListBucketResult"), prefix)

    def stat(self, key: str) -> StoredObject:
        """Return an object's size, ETag and date; raise ObjectMissing if it is gone."""
        with self._translate_errors("the object {name}/" + key):
            headers = self._ask("HEAD", key).headers
            return StoredObject(
                key,
                length_of(headers),
                etag_of(headers),
                last_modified(headers),
                archive_in(headers),
            )

    def metadata(self, key: str) -> dict[str, str]:
        """Return the user metadata of an object, by names in lower case.

        Raises:
            ObjectMissing: there is no such object.
        """
        with self._translate_errors("the metadata of {name}/" + key):
            headers = self._ask("HEAD", key).headers
            # A web page has no ETag. It must not pass for an object without metadata.
            etag_of(headers)
            return user_metadata(headers)

    def find_objects(
        self,
        keys: Collection[str],
        beside: Callable[[str], Iterable[str]],
        out_of_reach: Callable[[str], object] = lambda key: None,
    ) -> Iterator[StoredObject]:
        """Yield the objects with these keys, and perhaps many others.

        First list the prefix that the keys share, because one answer describes a
        thousand objects. If the listing turns out to need more answers than there are
        keys, ask for each key instead, as for a few images in a bucket of millions.
        If the store's keys may not list that prefix, list the folders under it.

        Args:
            keys: the keys to find.
            beside: function that returns further keys to find for a key; they have
                the same name up to its first dot.
            out_of_reach: called with each key that the store's keys may not look for.
        """
        if not keys:
            return
        # The prefix of strings, not of paths: S3 has no folders.
        shared = os.path.commonprefix([min(keys), max(keys)])  # noqa: RUF071
        folder, slash, name = shared.rpartition("/")
        listed = self.list(folder + slash + name.partition(".")[0])
        may_list = True
        try:
            yield from itertools.islice(listed, _PAGE_SIZE * len(keys))
            if next(listed, None) is None:
                return
        except PermanentS3Error as error:
            if error.code != ACCESS_DENIED:
                raise
            may_list = False
        if not may_list and len(groups := _by_folder(keys, folder + slash)) > 1:
            for group in groups:
                yield from self.find_objects(group, beside, out_of_reach)
            return
        for key in keys:
            for sought in (key, *beside(key)):
                try:
                    yield self.stat(sought)
                except ObjectMissing:
                    continue
                except BucketError as error:
                    # Some servers refuse to look for keys that they cannot have. The
                    # signature is not the reason, because the listing was granted.
                    if error.code == _NO_KEY_THERE:
                        continue
                    is_denied = error.code == ACCESS_DENIED
                    if is_denied and not may_list:
                        out_of_reach(sought)
                        continue
                    if not (is_denied or isinstance(error, ObjectUnreadable)):
                        raise
                    # Its metadata is too large, or may not be read. A listing contains
                    # no metadata, and the first key that begins with this one is this
                    # one.
                    yield from itertools.islice(self.list(sought), 1)

    def exists(self, key: str) -> bool:
        """Return whether there is an object with this key."""
        try:
            self.stat(key)
        except ObjectMissing:
            return False
        except ObjectUnreadable:
            return True
        return True

    def read(self, key: str, max_bytes: int) -> bytes:
        """Return the content of an object.

        ``read`` and ``download`` decompress content that is stored with a
        ``Content-Encoding``, as browsers do.

        Args:
            max_bytes: maximum size of the decompressed content, in bytes.

        Raises:
            ObjectMissing: there is no such object.
            ObjectUnreadable: it is larger, or does not match its Content-Encoding.
        """
        return self.read_version(key, max_bytes)[0]

    def read_version(self, key: str, max_bytes: int) -> tuple[bytes, str]:
        """Return the content of an object as ``read`` does, and its ETag."""
        with self._reading(key, max_bytes) as (chunks, etag):
            return b"".join(chunks), etag

    def download(self, key: str, path: Path, max_bytes: int) -> str:
        """Write the content of an object into a file, in chunks.

        After an error, no file is left.

        Args:
            max_bytes: maximum size of the decompressed content, in bytes.

        Returns:
            The ETag of exactly this content.

        Raises:
            ObjectMissing: there is no such object.
            ObjectUnreadable: it is larger, or does not match its Content-Encoding.
            BucketError: the content did not arrive complete.
        """
        try:
            with (
                self._reading(key, max_bytes) as (chunks, etag),
                path.open("wb") as file,
            ):
                if not etag:
                    raise OddAnswer("content with an empty ETag")
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
                return etag
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def read_range(self, key: str, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes of an object from an offset.

        They are fewer at the end of the object, and none after it.

        Raises:
            ObjectMissing: there is no such object.
        """
        wanted = {"Range": f"bytes={offset}-{offset + size - 1}"}
        with self._translate_errors("the object {name}/" + key):
            try:
                answer = self._ask("GET", key, headers=wanted, preload_content=False)
            except MinioException as error:
                if code_of(error) == _NOTHING_THERE:
                    return b""
                raise
            try:
                # A server that knows no ranges begins with the first byte.
                skipped = 0 if "Content-Range" in answer.headers else offset
                return answer.read(skipped + size, decode_content=False)[skipped:]
            finally:
                # The next request would take unread bytes for its own answer.
                if answer.length_remaining != 0:
                    answer.close()
                answer.release_conn()

    def checksum(
        self, key: str, algorithm: str, stopped: Callable[[], bool] = lambda: False
    ) -> str | None:
        """Return a checksum of the content of an object, in hexadecimal digits.

        Args:
            algorithm: name of it in ``hashlib``, such as ``sha256``.
            stopped: whether nobody waits for the checksum any more. It is None then.

        Raises:
            ObjectMissing: there is no such object.
            ObjectUnreadable: it does not match its Content-Encoding.
            BucketError: the content did not arrive complete.
        """
        digest = hashlib.new(algorithm, usedforsecurity=False)
        with self._reading(key, _MAX_OBJECT) as (chunks, _):
            for chunk in chunks:
                if stopped():
                    return None
                digest.update(chunk)
        return digest.hexdigest()

    @contextmanager
    def _reading(
        self, key: str, max_bytes: int
    ) -> Iterator[tuple[Iterator[bytes], str]]:
        """Start to read an object; give its content, in chunks, and its ETag."""
        with self._translate_errors("the object {name}/" + key):
            answer = self._ask("GET", key, preload_content=False)
            try:
                if not answer.chunked:
                    # Without a length, an answer that was cut off looks complete.
                    length_of(answer.headers)
                yield content_of(answer, max_bytes), etag_of(answer.headers)
            finally:
                answer.close()
                answer.release_conn()

    def write(self, key: str, content: bytes, content_type: str = "text/csv") -> None:
        """Write an object, which replaces any other one with this key."""
        with self._translate_errors("writing {name}/" + key), translate_odd_answers():
            done = self._client.put_object(
                self.name, key, io.BytesIO(content), len(content), content_type
            )
            check_written(done.etag)

    def write_if_absent(
        self, key: str, content: bytes, content_type: str = _ANY_TYPE
    ) -> bool:
        """Write an object unless there is one with this key.

        A server that does not support the condition writes it in any case.

        Returns:
            Whether it was written.
        """
        return self._write_if({"If-None-Match": "*"}, key, content, content_type)

    def write_if_unchanged(
        self, key: str, content: bytes, etag: str, content_type: str = _ANY_TYPE
    ) -> bool:
        """Write an object if the one with this key is the expected one.

        A server that does not support the condition writes it in any case.

        Args:
            etag: ETag that the object must have, without quotes.

        Returns:
            Whether it was written. False if the object is gone or was replaced.
        """
        return self._write_if({"If-Match": f'"{etag}"'}, key, content, content_type)

    def _write_if(
        self, condition: Mapping[str, str], key: str, content: bytes, content_type: str
    ) -> bool:
        # Through a presigned URL, because minio has no parameter for the condition.
        url = self.url_to_write(key, _USED_AT_ONCE)
        headers = {"Content-Type": content_type, **condition}
        with self._translate_errors("writing {name}/" + key):
            answer = self._http.request("PUT", url, body=content, headers=headers)
            if answer.status in _CONDITION_UNMET:
                return False
            if answer.status not in (OK, _NOT_IMPLEMENTED):
                match = CODE_IN_XML.search(answer.data.decode(errors="replace"))
                code = match[1] if match else f"HTTP {answer.status}"
                if code == _NO_SUCH_KEY and "If-Match" in condition:
                    return False
                raise refusal(f"writing {self.name}/{key}", code, "")
            if answer.status == OK:
                etag_of(answer.headers)
        if answer.status == _NOT_IMPLEMENTED:
            self.write(key, content, content_type)
        return True

    def upload(
        self,
        key: str,
        path: Path,
        content_type: str = _ANY_TYPE,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Write the content of a file to an object.

        Args:
            metadata: user metadata of the object: names of a-z, 0-9 and ``-``, and
                values of printable ASCII.
        """
        headers: _Fields = {**metadata_headers(metadata or {})}
        with self._translate_errors("writing {name}/" + key), translate_odd_answers():
            done = self._client.fput_object(
                self.name,
                key,
                str(path),
                content_type,
                headers,
                part_size=_UPLOAD_PART,
                num_parallel_uploads=1,
            )
            check_written(done.etag)

    def copy(
        self,
        source: str,
        target: str,
        etag: str,
        metadata: Mapping[str, str] | None = None,
    ) -> bool:
        """Have the server copy an object, if its content is still the expected one.

        Args:
            etag: ETag that the source must have.
            metadata: user metadata that replaces that of the source; see ``upload``.

        Returns:
            Whether it was copied. False if the source is gone or was replaced; an
            object at the target may be gone then as well.
        """
        with self._translate_errors(f"copying {{name}}/{source} to {target}"):
            headers = self._headers_if_there(source)
            if headers is None or not etag or etag_of(headers) != etag:
                return False
            try:
                self._copy(source, target, headers, metadata)
            except MinioException as error:
                if code_of(error) in ("PreconditionFailed", _NO_SUCH_KEY):
                    return False
                raise
            # Some servers do not support the condition, and copy any object.
            headers = self._headers_if_there(source)
            if headers is not None and etag_of(headers) == etag:
                return True
        self.remove(target)
        return False

    def _headers_if_there(self, key: str) -> Mapping[str, str] | None:
        try:
            return self._ask("HEAD", key).headers
        except S3Error as error:
            if error.code != _NO_SUCH_KEY:
                raise
            return None

    def _copy(
        self,
        source: str,
        target: str,
        source_headers: Mapping[str, str],
        metadata: Mapping[str, str] | None,
    ) -> None:
        """Copy the object at ``source`` that was described by these headers."""
        origin = {
            "x-amz-copy-source": quote(f"/{self.name}/{source}"),
            "x-amz-copy-source-if-match": f'"{etag_of(source_headers)}"',
        }
        # Headers are signed, so they must be ASCII.
        kept_headers = {
            name: value
            for name, value in source_headers.items()
            if name.title() in _KEPT_HEADERS and VALUE.fullmatch(value)
        }
        if metadata is None:
            kept = user_metadata(source_headers).items()
            wanted = {name: value for name, value in kept if fits(name, value)}
        else:
            wanted = dict(metadata)
        target_headers = kept_headers | metadata_headers(wanted)
        size = length_of(source_headers)
        if size > _MAX_COPY:
            self._copy_in_parts(target, size, origin, target_headers)
            return
        if metadata is None:
            self._copy_whole(target, origin)
            return
        target_headers["x-amz-metadata-directive"] = "REPLACE"
        self._copy_whole(target, origin | target_headers)
        if user_metadata(self._ask("HEAD", target).headers) != wanted:
            # Some servers add it to the source's metadata, unless an object is copied
            # onto itself.
            origin = {"x-amz-copy-source": quote(f"/{self.name}/{target}")}
            self._copy_whole(target, origin | target_headers)

    def _copy_whole(self, target: str, headers: Mapping[str, str]) -> None:
        # Some servers send no ETag when an object is copied onto itself.
        document_of(self._ask("PUT", target, headers=headers), "CopyObjectResult")

    def _copy_in_parts(
        self,
        target: str,
        size: int,
        origin: Mapping[str, str],
        target_headers: Mapping[str, str],
    ) -> None:
        upload = self._start(target, target_headers)
        try:
            etags = []
            for number, begin in enumerate(range(0, size, _MAX_COPY), start=1):
                end = min(begin + _MAX_COPY, size) - 1
                part = {**origin, "x-amz-copy-source-range": f"bytes={begin}-{end}"}
                query = {"partNumber": str(number), "uploadId": upload}
                answer = self._ask("PUT", target, query=query, headers=part)
                etags.append(unquoted_etag(text_of(document_of(answer), "ETag")))
            self._complete(target, upload, etags)
        except BaseException:
            self.abort_multipart_upload(target, upload)
            raise

    def remove(self, key: str) -> None:
        """Remove an object; no error if it is gone already."""
        # Some stores answer as to a request to read it.
        with suppress(ObjectMissing), self._translate_errors("removing {name}/" + key):
            self._ask("DELETE", key)

    def create(self) -> None:
        """Create the bucket."""
        with (
            self._translate_errors("making the bucket {name}"),
            translate_odd_answers(),
        ):
            self._client.make_bucket(self.name)

    def destroy(self) -> None:
        """Remove the bucket, which must be empty."""
        with (
            self._translate_errors("removing the bucket {name}"),
            translate_odd_answers(),
        ):
            self._client.remove_bucket(self.name)

    def url_to_read(self, key: str, seconds: int) -> str:
        """Return a URL with which anyone can read the object for so long."""
        with self._translate_errors("signing {name}/" + key), translate_odd_answers():
            life = timedelta(seconds=seconds)
            return self._client.presigned_get_object(self.name, key, life)

    def url_to_write(self, key: str, seconds: int) -> str:
        """Return a URL with which anyone can write the object for so long."""
        with self._translate_errors("signing {name}/" + key), translate_odd_answers():
            life = timedelta(seconds=seconds)
            return self._client.presigned_put_object(self.name, key, life)

    def start_multipart_upload(self, key: str, content_type: str) -> str:
        """Start a multipart upload, and return its ID.

        The object appears, and replaces any other one with this key, when the upload
        is completed.
        """
        with self._translate_errors("starting to upload {name}/" + key):
            return self._start(key, {"Content-Type": content_type})

    def _start(self, key: str, headers: Mapping[str, str]) -> str:
        answer = self._ask("POST", key, query={"uploads": ""}, headers=headers)
        return text_of(document_of(answer), "UploadId")

    def url_to_write_part(
        self, key: str, upload: str, number: int, seconds: int
    ) -> str:
        """Return a URL with which anyone can write a part for so long.

        Args:
            number: number of the part, from 1.
        """
        query: _Fields = {"partNumber": str(number), "uploadId": upload}
        with self._translate_errors("signing {name}/" + key), translate_odd_answers():
            life = timedelta(seconds=seconds)
            return self._client.get_presigned_url(
                "PUT", self.name, key, life, extra_query_params=query
            )

    def list_parts(self, key: str, upload: str) -> tuple[UploadedPart, ...]:
        """Return the first thousand parts of a multipart upload.

        Some servers also list parts that were replaced.

        Raises:
            UploadMissing: there is no such upload.
        """
        query = {"uploadId": upload, "max-parts": str(_PAGE_SIZE)}
        with self._translate_errors("the parts of {name}/" + key):
            listed = document_of(self._ask("GET", key, query=query), "ListPartsResult")
            return tuple(
                UploadedPart(
                    number_of(text_of(part, "PartNumber")),
                    number_of(text_of(part, "Size")),
                    unquoted_etag(text_of(part, "ETag")),
                )
                for part in findall(listed, "Part")
            )

    def complete_multipart_upload(
        self, key: str, upload: str, etags: Sequence[str]
    ) -> None:
        """Make an object of the parts 1, 2, … that have these ETags.

        Raises:
            UploadMissing: there is no such upload.
            PermanentS3Error: the upload has other parts.
        """
        with self._translate_errors("completing the upload of {name}/" + key):
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
        text_of(document_of(answer), "ETag")

    def abort_multipart_upload(self, key: str, upload: str) -> None:
        """Remove a multipart upload and its parts; no error if it is gone already."""
        try:
            with self._translate_errors("removing parts of {name}/" + key):
                self._ask("DELETE", key, query={"uploadId": upload})
        except (BucketMissing, UploadMissing):
            pass

    def list_multipart_uploads(self, key: str) -> tuple[MultipartUpload, ...]:
        """Return the first thousand open multipart uploads of an object."""
        with self._translate_errors("the uploads of {name}/" + key):
            uploads, _ = read_uploads(self._uploads(key, {}), decode=False)
            # Some servers say that keys are encoded when they are not.
            return tuple(
                upload
                for upload in uploads
                if key in (upload.key, unquote_plus(upload.key))
            )

    def multipart_uploads(self, prefix: str) -> Iterator[MultipartUpload]:
        """Yield the open multipart uploads of objects under a prefix."""
        markers: dict[str, str] = {}
        seen: set[tuple[str, ...]] = set()
        while True:
            try:
                with self._translate_errors("the uploads of {name}/" + prefix):
                    listed = self._uploads(prefix, markers)
                    uploads, markers = read_uploads(listed, decode=True)
                    mark = tuple(markers.values())
                    if markers and (mark in seen or not uploads):
                        raise OddAnswer("a listing that never ends")
                    seen.add(mark)
            except UploadMissing:
                return  # rclone's answer until the first upload
            yield from uploads
            if not markers:
                return

    def _uploads(self, prefix: str, markers: Mapping[str, str]) -> ElementTree.Element:
        """Return one page of the listing of open multipart uploads."""
        # Without a delimiter: rclone groups all keys by one that is empty.
        query = {
            "uploads": "",
            "prefix": prefix,
            "encoding-type": "url",
            "max-uploads": str(_PAGE_SIZE),
        }
        answer = self._ask("GET", query=query | dict(markers))
        return document_of(answer, "ListMultipartUploadsResult")

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
        """Send a signed request, and return the answer if it was granted."""
        # minio has no public method for some of these requests, so this uses a private
        # one. pyproject.toml pins minio to the version that was tested.
        try:
            with translate_odd_answers():
                answer = self._client._execute(
                    method,
                    self.name,
                    key,
                    body=body,
                    headers=dict(headers or {}),
                    query_params=dict(query or {}),
                    preload_content=preload_content,
                )
        except S3Error as error:
            is_read = key and method in ("GET", "HEAD") and not query
            if error.code == ACCESS_DENIED and is_read and self._is_absent(str(key)):
                raise error.copy(_NO_SUCH_KEY, "") from error
            raise
        # S3 answers a removal with nothing; a web page comes with 200 and a text.
        removed = method == "DELETE" and not answer.data
        granted = {OK}
        if removed:
            granted.add(_NO_CONTENT)
        if "Range" in (headers or {}):
            granted.add(PARTIAL_CONTENT)
        if answer.status not in granted:
            raise OddAnswer(f"HTTP status {answer.status}")
        if method == "DELETE" and not removed:
            raise OddAnswer("a text instead of nothing")
        return answer

    def _is_absent(self, key: str) -> bool:
        """Return whether a listing shows that there is no object with this key.

        To keys that may list some prefixes only, AWS answers a request for an object
        that is not there as if it were forbidden.
        """
        try:
            page = self._page(key, None)
        except S3Error:
            # The caller reports its own refusal.
            return False
        # The first key that begins with this one is this one.
        return page.mark is None or all(each.key != key for each in page.objects)

    @contextmanager
    def _translate_errors(self, subject: str) -> Iterator[None]:
        """Raise a BucketError that names this bucket, where ``{name}`` is."""
        with super()._translate_errors(subject.replace("{name}", self.name, 1)):
            yield


def _by_folder(keys: Iterable[str], prefix: str) -> list[list[str]]:
    """Return keys by the folder under a prefix that they are in; first those in none.

    >>> _by_folder(["a.tif", "x/b.tif", "x/y/c.tif"], "")
    [['a.tif'], ['x/b.tif', 'x/y/c.tif']]
    """
    groups: dict[str, list[str]] = {}
    for key in sorted(keys, key=lambda key: "/" in key.removeprefix(prefix)):
        folder, slash, _ = key.removeprefix(prefix).partition("/")
        groups.setdefault(folder if slash else "", []).append(key)
    return list(groups.values())
