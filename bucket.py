"""The only module that speaks S3."""

import contextlib
import io
import itertools
import os
import re
import ssl
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import certifi
import minio
import urllib3
from minio.datatypes import Part
from minio.error import MinioException, S3Error
from urllib3.exceptions import HTTPError

# The longest life of a presigned URL that Signature Version 4 allows.
# https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
LONGEST_URL_HOURS = 7 * 24
# For a URL that is used at once, by a clock that may be a little wrong.
_USED_AT_ONCE = 3600  # seconds

_OK = 200
# Precondition Failed, and Conflict: somebody else is writing it just now.
_CONDITION_UNMET = (412, 409)
_NOT_IMPLEMENTED = 501
_PART = 2**20  # bytes
# What is larger goes up in parts: a request for each, which is in memory meanwhile.
_UPLOADED_AT_ONCE = 32 * 2**20  # bytes
# How many objects one answer to a listing tells of, at most.
_LISTED_AT_ONCE = 1000
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
    """What a listing tells of an object; ``size`` is in bytes."""

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
        self._http = urllib3.PoolManager(
            ssl_context=verifying,
            timeout=urllib3.Timeout(connect=10, read=120),
            retries=urllib3.Retry(
                total=3,
                backoff_factor=0.5,
                status_forcelist=[500, 502, 503],
                raise_on_status=False,
            ),
        )
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
            next(iter(self._client.list_objects(self.name)), None)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """The objects whose keys begin with ``prefix``, in the order of keys."""
        with self._explained("the listing of {name}"):
            for found in self._client.list_objects(self.name, prefix, recursive=True):
                if not found.is_dir:
                    yield StoredObject(
                        found.object_name,
                        found.size,
                        found.etag.strip('"'),
                        found.last_modified,
                    )

    def stat(self, key: str) -> StoredObject:
        """Raises ObjectMissing when there is none."""
        with self._explained("the object {name}/" + key):
            found = self._client.stat_object(self.name, key)
        return StoredObject(key, found.size, found.etag.strip('"'), found.last_modified)

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
                with contextlib.suppress(ObjectMissing):
                    yield self.stat(each)

    def exists(self, key: str) -> bool:
        try:
            self.stat(key)
        except ObjectMissing:
            return False
        return True

    def read(self, key: str) -> bytes:
        """Raises ObjectMissing when there is none."""
        with self._reading(key) as answer:
            return answer.read()

    def download(self, key: str, path: Path) -> str:
        """Write an object into a file, some of it in memory at a time.

        Returns:
            The ETag of just that content.

        Raises:
            ObjectMissing: there is none.
            BucketError: the file is not whole.
        """
        with self._reading(key) as answer, path.open("wb") as file:
            for part in answer.stream(_PART):
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
            return answer.headers.get("ETag", "").strip('"')

    @contextmanager
    def _reading(self, key: str) -> Iterator[urllib3.BaseHTTPResponse]:
        with self._explained("the object {name}/" + key):
            answer = self._client.get_object(self.name, key)
            try:
                yield answer
            finally:
                answer.close()
                answer.release_conn()

    def write(self, key: str, content: bytes, content_type: str = "text/csv") -> None:
        with self._explained("writing {name}/" + key):
            self._client.put_object(
                self.name, key, io.BytesIO(content), len(content), content_type
            )

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
                said = _CODE_IN_XML.search(answer.data.decode(errors="replace"))
                code = said[1] if said else f"HTTP {answer.status}"
                raise _refusal(f"writing {self.name}/{key}", code, "")
        if answer.status == _NOT_IMPLEMENTED:
            self.write(key, content)
        return answer.status not in _CONDITION_UNMET

    def upload(
        self, key: str, path: Path, content_type: str = "application/octet-stream"
    ) -> None:
        with self._explained("writing {name}/" + key):
            self._client.fput_object(
                self.name,
                key,
                str(path),
                content_type,
                part_size=_UPLOADED_AT_ONCE,
                num_parallel_uploads=1,
            )

    def remove(self, key: str) -> None:
        """Remove an object; no error when it is gone already."""
        with self._explained("removing {name}/" + key):
            self._client.remove_object(self.name, key)

    def create(self) -> None:
        with self._explained("making the bucket {name}"):
            self._client.make_bucket(self.name)

    def destroy(self) -> None:
        """Remove a bucket, which must be empty."""
        with self._explained("removing the bucket {name}"):
            self._client.remove_bucket(self.name)

    def url_to_read(self, key: str, seconds: int) -> str:
        """Return a URL that reads the object for so long without keys."""
        with self._explained("signing {name}/" + key):
            life = timedelta(seconds=seconds)
            return self._client.presigned_get_object(self.name, key, life)

    def url_to_write(self, key: str, seconds: int) -> str:
        """Return a URL that writes the object for so long without keys."""
        with self._explained("signing {name}/" + key):
            life = timedelta(seconds=seconds)
            return self._client.presigned_put_object(self.name, key, life)

    def begin_upload(self, key: str, content_type: str) -> str:
        """Begin to upload an object in parts; returns the upload's id.

        Nothing is to be seen of the object, and what is there under its key stays,
        until the upload is completed.
        """
        with self._explained("beginning to upload {name}/" + key):
            return self._client._create_multipart_upload(
                self.name, key, {"Content-Type": content_type}
            )

    def url_to_write_part(
        self, key: str, upload: str, number: int, seconds: int
    ) -> str:
        """Return a URL that writes a part, counted from 1, for so long without keys."""
        query = {"partNumber": str(number), "uploadId": upload}
        with self._explained("signing {name}/" + key):
            life = timedelta(seconds=seconds)
            return self._client.get_presigned_url(
                "PUT", self.name, key, life, extra_query_params=query
            )

    def parts(self, key: str, upload: str) -> tuple[StoredPart, ...]:
        """The parts that arrived, the first thousand.

        Some stores keep, and tell of, parts that were replaced.

        Raises UploadMissing when there is no such upload.
        """
        with self._explained("the parts of {name}/" + key):
            listed = self._client._list_parts(self.name, key, upload)
        return tuple(
            StoredPart(part.part_number, part.size or 0, part.etag)
            for part in listed.parts
        )

    def complete_upload(self, key: str, upload: str, etags: Sequence[str]) -> None:
        """Make an object of the parts 1, 2, … that have these ETags.

        Raises UploadMissing when there is no such upload, Refused when other parts
        arrived.
        """
        parts = [Part(number, etag) for number, etag in enumerate(etags, start=1)]
        with self._explained("putting together {name}/" + key):
            done = self._client._complete_multipart_upload(
                self.name, key, upload, parts
            )
            # S3 answers before it is done, and may have to say that it failed.
            if not done.etag:
                raise ValueError("the server could not do it; it may later")

    def abort_upload(self, key: str, upload: str) -> None:
        """Remove an upload and its parts; no error when it is gone already."""
        try:
            with self._explained("removing parts of {name}/" + key):
                self._client._abort_multipart_upload(self.name, key, upload)
        except (BucketMissing, UploadMissing):
            pass

    def open_uploads(self, key: str) -> tuple[OpenUpload, ...]:
        """The uploads in parts of an object that are not complete."""
        with self._explained("the uploads of {name}/" + key):
            listed = self._client._list_multipart_uploads(self.name, prefix=key)
        return tuple(
            OpenUpload(found.upload_id, found.initiated_time)
            for found in listed.uploads
            if found.object_name == key
        )

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        what = what.replace("{name}", self.name) + f" at {self.endpoint}"
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
            date = self._http.request("HEAD", url).headers.get("Date")
            theirs = parsedate_to_datetime(date) if date else datetime.now(UTC)
        behind = theirs - datetime.now(UTC)
        if abs(behind) < _CLOCK_TOLERANCE:
            return None
        minutes = round(abs(behind) / timedelta(minutes=1))
        which = "behind" if behind > timedelta() else "ahead of"
        return f"this machine's clock is {minutes} minutes {which} the store's: set it"


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except S3Error as error:
        raise _refusal(what, error.code, error.message or "") from error
    except (MinioException, HTTPError, OSError, ValueError) as error:
        # Some servers give their XML another type than minio expects.
        if code := _CODE_IN_XML.search(str(error)):
            raise _refusal(what, code[1], "") from error
        reason = getattr(error, "reason", None) or error
        raise BucketError(f"{what}: {reason}") from error


def _refusal(what: str, code: str, message: str) -> BucketError:
    kind = _KINDS.get(code, BucketError)
    return kind(f"{what}: {_MEANING.get(code, message)} ({code})", code)


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
