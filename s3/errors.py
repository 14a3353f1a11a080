"""The errors of an S3 server, with messages for people."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from xml.etree import ElementTree

from minio.error import MinioException, S3Error
from urllib3.exceptions import DecodeError, HTTPError

_MAX_MESSAGE = 300
_CODE = re.compile(r"\w{1,100}", re.ASCII)
CODE_IN_XML = re.compile(r"<Code>(\w+)</Code>")
# The code of a request that the keys have no permission for.
ACCESS_DENIED = "AccessDenied"
_MEANING = {
    ACCESS_DENIED: "these keys have no permission for this",
    "ExpiredToken": "the session token has expired: get new keys",
    "InvalidAccessKeyId": "the access key is unknown there: check the key files",
    "NoSuchBucket": "there is no such bucket",
    "NoSuchKey": "there is no such object",
    "NoSuchUpload": "there is no such multipart upload, or no longer",
    "NotImplemented": "the server does not support this",
    "SignatureDoesNotMatch": "the secret key is wrong: check the key files",
}


class BucketError(Exception):
    """A request to S3 failed; the message says why.

    Attributes:
        code: S3's own code of the error; None if there is none.
    """

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class ObjectMissing(BucketError):
    """The object is not there."""


class BucketMissing(BucketError):
    """The bucket is not there."""


class UploadMissing(BucketError):
    """The multipart upload is not there: completed, aborted, or never started."""


class PermanentS3Error(BucketError):
    """The server refuses the request, and would refuse it again."""


class BadAnswer(BucketError):
    """The server reports success, but its answer does not follow the S3 API."""


class ObjectUnreadable(BucketError):
    """The object is there, but its content cannot be read."""


class ObjectTooLarge(ObjectUnreadable):
    """The object, or its metadata, is larger than the maximum for reading it."""


class OddAnswer(Exception):
    """An answer does not follow the S3 API; the message names what came instead."""


class Overlong(Exception):
    """An object is larger than the maximum for reading it."""


# A server answers with one of these if a request is signed for, or sent to, another
# region.
_OF_ANOTHER_REGION = (
    *(
        "AuthorizationHeaderMalformed",
        "BadRequest",
        "IllegalLocationConstraintException",
    ),
    *("PermanentRedirect", "Redirect", "TemporaryRedirect"),
)
_REGION_HEADER = "x-amz-bucket-region"
_REGION_IN_XML = re.compile(rb"<Region>([\w-]{1,63})</Region>")
_REGION = re.compile(r"[\w-]{1,63}", re.ASCII)
_KINDS = {
    "NoSuchBucket": BucketMissing,
    "NoSuchKey": ObjectMissing,
    "NoSuchUpload": UploadMissing,
    ACCESS_DENIED: PermanentS3Error,
    "EntityTooSmall": PermanentS3Error,
    "InvalidPart": PermanentS3Error,
    "InvalidPartOrder": PermanentS3Error,
    "MethodNotAllowed": PermanentS3Error,
    "NotImplemented": PermanentS3Error,
}


@contextmanager
def translate_errors(subject: str) -> Iterator[None]:
    """Raise a BucketError for each error of a request in a ``with`` block.

    Args:
        subject: the object or the action; the message begins with it.
    """
    try:
        yield
    except OddAnswer as error:
        raise BadAnswer(
            f"{subject}: the server there does not speak S3 (it sent "
            f"{_short(error)}): check the endpoint, and any proxy in front of it"
        ) from error
    except Overlong as error:
        raise ObjectTooLarge(f"{subject}: {error}") from error
    except DecodeError as error:
        raise ObjectUnreadable(
            f"{subject}: its content does not match its Content-Encoding"
        ) from error
    except S3Error as error:
        message = _other_region(error) or error.message or ""
        raise refusal(subject, error.code, message) from error
    except (MinioException, HTTPError, OSError, ValueError) as error:
        # Some servers send XML with a content type that minio does not expect.
        if code := code_of(error):
            raise refusal(subject, code, "") from error
        reason = getattr(error, "reason", None) or error
        raise BucketError(f"{subject}: {_short(reason)}") from error


@contextmanager
def translate_odd_answers() -> Iterator[None]:
    """Raise OddAnswer for what minio raises on an answer that is not S3's."""
    try:
        yield
    except (HTTPError, OSError, UnicodeEncodeError):
        # Some of these are ValueErrors too. The last one is for a key that S3 cannot
        # have.
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
        raise OddAnswer(f"an unreadable answer: {error}") from error


def refusal(subject: str, code: str | None, message: str) -> BucketError:
    """Return the error for one of S3's codes."""
    kind = _KINDS.get(code or "", BucketError)
    code = code if code and _CODE.fullmatch(code) else "no code"
    return kind(f"{subject}: {_short(_MEANING.get(code, message))} ({code})", code)


def _other_region(error: S3Error) -> str | None:
    """Return what to do if a bucket is in another region; None if it is not."""
    if error.code not in _OF_ANOTHER_REGION:
        return None
    region = error.response.headers.get(_REGION_HEADER, "")
    if in_xml := _REGION_IN_XML.search(error.response.data):
        region = in_xml[1].decode()
    if _REGION.fullmatch(region):
        return (
            f"the bucket is in the region {region}: name that one in the endpoint, or "
            "with --region"
        )
    if error.code == "BadRequest":
        return None
    return "the bucket is in another region: name that one with --region"


def code_of(error: Exception) -> str | None:
    """Return S3's own code of an error; None if it has none."""
    if isinstance(error, S3Error):
        return error.code
    code = CODE_IN_XML.search(str(error))
    return code[1] if code else None


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + "…"
