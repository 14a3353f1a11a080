"""The HTTP client that minio uses; it bounds all answers but objects' content."""

import contextlib
import http.client
import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import DecodeError, ProtocolError, ReadTimeoutError

from s3.errors import OddAnswer, Overlong

OK = 200
# A page of a thousand of the longest keys has less than 4 MiB. Parsed, an answer can
# take some thirty times its size.
MAX_ANSWER = 8 * 2**20  # bytes
# An answer that is no object's content takes seconds, and minutes where an object is
# put together of many parts.
_ANSWER_SECONDS = 600


class Client(urllib3.PoolManager):
    """The HTTP client that minio uses; it bounds all answers but objects' content."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}

    # urllib3 overrides this method of its base class in the same way.
    def urlopen(  # type: ignore[override]
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
            if answer.status == OK and not preload_content:
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
                if len(content) > MAX_ANSWER:
                    raise OddAnswer(f"more than {MAX_ANSWER >> 20} MiB")
    except DecodeError as error:
        raise OddAnswer("what is not encoded as it says") from error
    finally:
        answer.close()
    # What XML can define there, it can repeat until memory ends. S3 defines nothing.
    if b"<!DOCTYPE" in content and answer.status == OK:
        raise OddAnswer("a web page, or XML with a DOCTYPE")
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
            raise OddAnswer(f"an answer that did not end within {_ANSWER_SECONDS} s")


class _Connection(HTTPConnection):
    """A connection on which headers are as bounded as what follows them."""

    # urllib3 overrides this method of http.client in the same way.
    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        # A connection that is to be closed forgets its socket.
        connected = self.sock
        try:
            with _in_time(lambda: connected.shutdown(socket.SHUT_RDWR)):
                return super().getresponse()
        except http.client.HTTPException as error:
            # Only an object's metadata can make S3's headers so long.
            if type(error) in (http.client.HTTPException, http.client.LineTooLong):
                raise Overlong(f"its metadata is too large: {error}") from error
            raise


class _SecureConnection(_Connection, HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class Retry(urllib3.Retry):
    """How often a request is tried; a refusal is not read before the next try."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: urllib3.BaseHTTPResponse | None = None,
        *more: Any,
        **named: Any,
    ) -> "Retry":
        """Count a try that failed, and forget what the server said of it.

        urllib3 would read that to its end, which may never come. What the server said
        of the last try is kept.
        """
        if response is not None and self.total:
            response.close()
        return super().increment(method, url, response, *more, **named)
