"""The only module that speaks S3."""

import io
import itertools
import os
import ssl
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote, unquote_plus
from xml.etree import ElementTree

import certifi
import minio
import urllib3
from minio.error import MinioException, S3Error
from minio.helpers import check_bucket_name
from minio.xml import findall

from s3.answers import (
    VALUE,
    MultipartUpload,
    Page,
    StoredObject,
    UploadedPart,
    check_written,
    content_of,
    date_of,
    document_of,
    etag_of,
    fits,
    last_modified,
    length_of,
    metadata_headers,
    number_of,
    read_page,
    text_of,
    unquoted_etag,
    user_metadata,
)
from s3.client import OK, Client, Retry
from s3.errors import (
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

__all__ = [
    "MAX_KEY_BYTES",
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
    "StoredObject",
    "UploadMissing",
    "UploadedPart",
]

# The type of minio's parameters for headers and for a query.
_Fields = dict[str, str | list[str] | tuple[str]]

# The longest life of a presigned URL that Signature Version 4 allows.
# https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
MAX_URL_HOURS = 7 * 24
# S3 has no longer keys.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
MAX_KEY_BYTES = 1024  # bytes
# For a URL that is used at once, by a clock that may be a little wrong.
_USED_AT_ONCE = 3600  # seconds

_NO_CONTENT = 204
# Precondition Failed, and Conflict: somebody else is writing it just now.
_CONDITION_UNMET = (412, 409)
_NOT_IMPLEMENTED = 501
# The code of the error for a HEAD request that ends in 400.
_NO_KEY_THERE = "BadRequest"
# What is larger goes up in parts: a request for each, which is in memory meanwhile.
_UPLOADED_AT_ONCE = 32 * 2**20  # bytes
# The largest object that S3 copies by one request; of larger ones, parts of this size.
_COPIED_AT_ONCE = 5 * 2**30  # bytes
# How many objects one answer to a listing tells of, at most.
_LISTED_AT_ONCE = 1000
_MAX_WAIT = 60  # seconds, whatever a server asks for
# S3 may give a page without objects in the middle of a listing, but not for ever.
_MAX_EMPTY_PAGES = 1000
# What S3 keeps beside an object's content and its user's metadata.
_KEPT_HEADERS = (
    "Cache-Control",
    "Content-Disposition",
    "Content-Encoding",
    "Content-Language",
    "Content-Type",
    "Expires",
)
# What servers say of a signature that is too old, or not yet valid; they grant a
# quarter of an hour.
_SAID_OF_CLOCKS = ("AccessDenied", "RequestTimeTooSkewed", "SignatureDoesNotMatch")
_CLOCK_TOLERANCE = timedelta(minutes=5)


@dataclass(frozen=True)
class S3Endpoint:
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


class Bucket:
    """One bucket of a store.

    Every method raises BucketError when the store refuses or does not answer.
    """

    def __init__(self, store: S3Endpoint, name: str) -> None:
        self.name = name
        self.endpoint = store.endpoint
        self._secure = store.secure
        with translate_errors(f"the certificates in {store.ca_certs}"):
            verifying = ssl.create_default_context(cafile=certifi.where())
            if store.ca_certs:
                verifying.load_verify_locations(store.ca_certs)
        self._http = Client(
            ssl_context=verifying,
            timeout=urllib3.Timeout(connect=10, read=120),
            retries=Retry(
                total=3,
                backoff_factor=0.5,
                status_forcelist=[500, 502, 503],
                raise_on_status=False,
                retry_after_max=_MAX_WAIT,
            ),
        )
        with translate_errors(f"the bucket {name} at {store.endpoint}"):
            check_bucket_name(name)
        with translate_errors(f"the keys of {store.endpoint}"):
            self._client = minio.Minio(
                store.endpoint,
                access_key=store.access_key.read_text().strip(),
                secret_key=store.secret_key.read_text().strip(),
                secure=store.secure,
                http_client=self._http,
            )

    def check(self) -> None:
        """Raise BucketError unless the bucket is there."""
        with self._translate_errors("the bucket {name}"):
            # Listing is what is needed of it; a key may do that and no more.
            self._page("", None)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the objects whose keys begin with ``prefix``, in the order of keys."""
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
                    raise OddAnswer("a listing that begins again and again")
                seen |= marks
            yield from page.objects
            if page.token is None:
                return
            token = page.token

    def _page(self, prefix: str, token: str | None) -> "Page":
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
        return read_page(document_of(answer, "ListBucketResult"), prefix)

    def stat(self, key: str) -> StoredObject:
        """Look at an object; raises ObjectMissing when there is none."""
        with self._translate_errors("the object {name}/" + key):
            headers = self._ask("HEAD", key).headers
            return StoredObject(
                key, length_of(headers), etag_of(headers), last_modified(headers)
            )

    def metadata(self, key: str) -> dict[str, str]:
        """Return what whoever uploaded an object wrote of it, by names in lower case.

        Raises ObjectMissing when there is none.
        """
        with self._translate_errors("the metadata of {name}/" + key):
            headers = self._ask("HEAD", key).headers
            # A web page has none, which is not to look like an object without.
            etag_of(headers)
            return user_metadata(headers)

    def find_objects(
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
                    raise OddAnswer("content with an empty ETag")
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
        with self._translate_errors("the object {name}/" + key):
            answer = self._ask("GET", key, preload_content=False)
            try:
                if not answer.chunked:
                    # Else nobody could tell whether all of it came.
                    length_of(answer.headers)
                yield content_of(answer, most), etag_of(answer.headers)
            finally:
                answer.close()
                answer.release_conn()

    def write(self, key: str, content: bytes, content_type: str = "text/csv") -> None:
        with self._translate_errors("writing {name}/" + key), translate_odd_answers():
            done = self._client.put_object(
                self.name, key, io.BytesIO(content), len(content), content_type
            )
            check_written(done.etag)

    def write_if_absent(self, key: str, content: bytes) -> bool:
        """Write an object unless there is one.

        A store that does not know the condition writes it in any case.

        Returns:
            Whether it was written.
        """
        # By a signed URL, since minio has no word for the condition.
        url = self.url_to_write(key, _USED_AT_ONCE)
        with self._translate_errors("writing {name}/" + key):
            answer = self._http.request(
                "PUT", url, body=content, headers={"If-None-Match": "*"}
            )
            if answer.status not in (OK, _NOT_IMPLEMENTED, *_CONDITION_UNMET):
                found = CODE_IN_XML.search(answer.data.decode(errors="replace"))
                code = found[1] if found else f"HTTP {answer.status}"
                raise refusal(f"writing {self.name}/{key}", code, "")
            if answer.status == OK:
                etag_of(answer.headers)
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
        headers: _Fields = {**metadata_headers(metadata or {})}
        with self._translate_errors("writing {name}/" + key), translate_odd_answers():
            done = self._client.fput_object(
                self.name,
                key,
                str(path),
                content_type,
                headers,
                part_size=_UPLOADED_AT_ONCE,
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
        """Have the server copy an object, unless it is no longer the one meant.

        Args:
            etag: the ETag that the source must have.
            metadata: takes the place of what was kept with the source; see ``upload``.

        Returns:
            Whether it was copied. False when the source is gone or is another object
            now; what was at the target may be gone then as well.
        """
        with self._translate_errors(f"copying {{name}}/{source} to {target}"):
            found = self._headers_if_there(source)
            if found is None or not etag or etag_of(found) != etag:
                return False
            try:
                self._copy(source, target, found, metadata)
            except MinioException as error:
                if code_of(error) in ("PreconditionFailed", "NoSuchKey"):
                    return False
                raise
            # Some servers know no condition, and copy whatever is there.
            found = self._headers_if_there(source)
            if found is not None and etag_of(found) == etag:
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
            "x-amz-copy-source-if-match": f'"{etag_of(found)}"',
        }
        # Metadata that is sent again is signed, so it must be ASCII.
        as_it_was = {
            name: value
            for name, value in found.items()
            if name.title() in _KEPT_HEADERS and VALUE.fullmatch(value)
        }
        if metadata is None:
            as_found = user_metadata(found).items()
            wanted = {name: value for name, value in as_found if fits(name, value)}
        else:
            wanted = dict(metadata)
        described = as_it_was | metadata_headers(wanted)
        size = length_of(found)
        if size > _COPIED_AT_ONCE:
            self._copy_in_parts(target, size, origin, described)
            return
        if metadata is None:
            self._copy_whole(target, origin)
            return
        described["x-amz-metadata-directive"] = "REPLACE"
        self._copy_whole(target, origin | described)
        if user_metadata(self._ask("HEAD", target).headers) != wanted:
            # Some servers add it to the source's, unless a copy is the source itself.
            origin = {"x-amz-copy-source": quote(f"/{self.name}/{target}")}
            self._copy_whole(target, origin | described)

    def _copy_whole(self, target: str, headers: Mapping[str, str]) -> None:
        # Some servers give no ETag where an object is copied onto itself.
        document_of(self._ask("PUT", target, headers=headers), "CopyObjectResult")

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
                etags.append(unquoted_etag(text_of(document_of(answer), "ETag")))
            self._complete(target, upload, etags)
        except BaseException:
            self.abort_multipart_upload(target, upload)
            raise

    def remove(self, key: str) -> None:
        """Remove an object; no error when it is gone already."""
        with self._translate_errors("removing {name}/" + key):
            self._ask("DELETE", key)

    def create(self) -> None:
        with (
            self._translate_errors("making the bucket {name}"),
            translate_odd_answers(),
        ):
            self._client.make_bucket(self.name)

    def destroy(self) -> None:
        """Remove a bucket, which must be empty."""
        with (
            self._translate_errors("removing the bucket {name}"),
            translate_odd_answers(),
        ):
            self._client.remove_bucket(self.name)

    def url_to_read(self, key: str, seconds: int) -> str:
        """Return a URL that reads the object for so long without keys."""
        with self._translate_errors("signing {name}/" + key), translate_odd_answers():
            life = timedelta(seconds=seconds)
            return self._client.presigned_get_object(self.name, key, life)

    def url_to_write(self, key: str, seconds: int) -> str:
        """Return a URL that writes the object for so long without keys."""
        with self._translate_errors("signing {name}/" + key), translate_odd_answers():
            life = timedelta(seconds=seconds)
            return self._client.presigned_put_object(self.name, key, life)

    def start_multipart_upload(self, key: str, content_type: str) -> str:
        """Begin to upload an object in parts; returns the upload's id.

        Nothing is to be seen of the object, and what is there under its key stays,
        until the upload is completed.
        """
        with self._translate_errors("beginning to upload {name}/" + key):
            return self._begin(key, {"Content-Type": content_type})

    def _begin(self, key: str, headers: Mapping[str, str]) -> str:
        answer = self._ask("POST", key, query={"uploads": ""}, headers=headers)
        return text_of(document_of(answer), "UploadId")

    def url_to_write_part(
        self, key: str, upload: str, number: int, seconds: int
    ) -> str:
        """Return a URL that writes a part, counted from 1, for so long without keys."""
        query: _Fields = {"partNumber": str(number), "uploadId": upload}
        with self._translate_errors("signing {name}/" + key), translate_odd_answers():
            life = timedelta(seconds=seconds)
            return self._client.get_presigned_url(
                "PUT", self.name, key, life, extra_query_params=query
            )

    def list_parts(self, key: str, upload: str) -> tuple[UploadedPart, ...]:
        """The parts that arrived, the first thousand.

        Some stores keep, and tell of, parts that were replaced.

        Raises UploadMissing when there is no such upload.
        """
        query = {"uploadId": upload, "max-parts": str(_LISTED_AT_ONCE)}
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

        Raises UploadMissing when there is no such upload, PermanentS3Error when
            other parts
        arrived.
        """
        with self._translate_errors("putting together {name}/" + key):
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
        """Remove an upload and its parts; no error when it is gone already."""
        try:
            with self._translate_errors("removing parts of {name}/" + key):
                self._ask("DELETE", key, query={"uploadId": upload})
        except (BucketMissing, UploadMissing):
            pass

    def list_multipart_uploads(self, key: str) -> tuple[MultipartUpload, ...]:
        """The uploads in parts of an object that are not complete."""
        query = {
            "uploads": "",
            "prefix": key,
            "delimiter": "",
            "encoding-type": "url",
            "max-uploads": str(_LISTED_AT_ONCE),
        }
        with self._translate_errors("the uploads of {name}/" + key):
            listed = document_of(
                self._ask("GET", query=query), "ListMultipartUploadsResult"
            )
            return tuple(
                MultipartUpload(
                    text_of(found, "UploadId"), date_of(text_of(found, "Initiated"))
                )
                for found in findall(listed, "Upload")
                # Some servers say that keys are encoded, which are not.
                if key in (name := text_of(found, "Key"), unquote_plus(name))
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
        # S3 has nothing to say of what it removed; a web page comes with 200.
        removed = method == "DELETE" and not answer.data
        granted = (OK, _NO_CONTENT) if removed else (OK,)
        if answer.status not in granted:
            raise OddAnswer(f"HTTP status {answer.status}")
        if method == "DELETE" and not removed:
            raise OddAnswer("a text instead of nothing")
        return answer

    @contextmanager
    def _translate_errors(self, what: str) -> Iterator[None]:
        what = what.replace("{name}", self.name, 1) + f" at {self.endpoint}"
        try:
            with translate_errors(what):
                yield
        except BucketError as error:
            # No refusal that stays: a clock that is right is granted the same.
            if error.code in _SAID_OF_CLOCKS and (off := self._how_clock_is_off()):
                raise BucketError(f"{what}: {off} ({error.code})") from error
            raise

    def _how_clock_is_off(self) -> str | None:
        """What is wrong with this machine's clock; None when it is right."""
        url = f"{'https' if self._secure else 'http'}://{self.endpoint}"
        with translate_errors(f"the clock of {self.endpoint}"):
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
