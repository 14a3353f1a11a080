"""What can go wrong with an S3 server, and what to say of it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from xml.etree import ElementTree

from minio.error import MinioException, S3Error
from urllib3.exceptions import DecodeError, HTTPError

_MAX_MESSAGE = 300
_CODE = re.compile(r"\w{1,100}", re.ASCII)
CODE_IN_XML = re.compile(r"<Code>(\w+)</Code>")
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


class PermanentS3Error(BucketError):
    """The server will not do this, however often it is asked."""


class BadAnswer(BucketError):
    """The server says that it did what it was asked, but its answer is not S3's."""


class ObjectUnreadable(BucketError):
    """The object is there, but what was uploaded cannot be read."""


class ObjectTooLarge(ObjectUnreadable):
    """The object, or its metadata, is larger than what may be read of it."""


class OddAnswer(Exception):
    """An answer is not S3's; the message says in a few words what it is instead."""


class Overlong(Exception):
    """An object is larger than what may be read of it."""


_KINDS = {
    "NoSuchBucket": BucketMissing,
    "NoSuchKey": ObjectMissing,
    "NoSuchUpload": UploadMissing,
    "AccessDenied": PermanentS3Error,
    "EntityTooSmall": PermanentS3Error,
    "InvalidPart": PermanentS3Error,
    "InvalidPartOrder": PermanentS3Error,
    "MethodNotAllowed": PermanentS3Error,
    "NotImplemented": PermanentS3Error,
}


@contextmanager
def translate_errors(what: str) -> Iterator[None]:
    """Raise BucketError for what goes wrong in a ``with`` block.

    Args:
        what: the object or the action, with which the message begins.
    """
    try:
        yield
    except OddAnswer as error:
        raise BadAnswer(
            f"{what}: what answers there does not speak S3 (it sent "
            f"{_short(error)}): check the endpoint, and what stands before it"
        ) from error
    except Overlong as error:
        raise ObjectTooLarge(f"{what}: {error}") from error
    except DecodeError as error:
        raise ObjectUnreadable(
            f"{what}: its content is not encoded as its Content-Encoding says"
        ) from error
    except S3Error as error:
        raise refusal(what, error.code, error.message or "") from error
    except (MinioException, HTTPError, OSError, ValueError) as error:
        # Some servers give their XML another type than minio expects.
        if code := code_of(error):
            raise refusal(what, code, "") from error
        reason = getattr(error, "reason", None) or error
        raise BucketError(f"{what}: {_short(reason)}") from error


@contextmanager
def translate_odd_answers() -> Iterator[None]:
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
        raise OddAnswer(f"what cannot be read: {error}") from error


def refusal(what: str, code: str | None, message: str) -> BucketError:
    """Return the error for a code of S3's."""
    kind = _KINDS.get(code or "", BucketError)
    code = code if code and _CODE.fullmatch(code) else "no code"
    return kind(f"{what}: {_short(_MEANING.get(code, message))} ({code})", code)


def code_of(error: Exception) -> str | None:
    """Return S3's own name of an error, if it has one."""
    if isinstance(error, S3Error):
        return error.code
    found = CODE_IN_XML.search(str(error))
    return found and found[1]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + "…"
