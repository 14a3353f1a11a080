"""The HTTP client that minio uses. It limits all answers except objects' content."""

import contextlib
import http.client
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import DecodeError, ProtocolError, ReadTimeoutError

from s3.errors import OddAnswer, Overlong

OK, PARTIAL_CONTENT = 200, 206
# A page of a thousand keys of the maximum length has less than 4 MiB. A parsed answer
# can take about thirty times its size in memory.
MAX_ANSWER = 8 * 2**20  # bytes
# An answer without an object's content takes seconds; it takes minutes when a multipart
# upload of many parts is completed.
_MAX_ANSWER_SECONDS = 600
# How often the time of each is looked at.
_CHECK_SECONDS = 1


class Client(urllib3.PoolManager):
    """An HTTP client that limits all answers except objects' content."""

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
        """Send a request, and return an answer that is whole and of limited size.

        The content of an object is returned as it arrives, if ``preload_content`` is
        False.
        """
        retries = self.connection_pool_kw["retries"]
        while True:
            # Redirects are not followed: a signature is valid for one host only.
            answer = super().urlopen(
                method,
                url,
                redirect=False,
                preload_content=False,
                retries=retries,
                **how,
            )
            if answer.status in (OK, PARTIAL_CONTENT) and not preload_content:
                return answer
            try:
                return _whole(answer)
            except (ProtocolError, ReadTimeoutError) as error:
                # The answer was cut off. Try again, as if there had been no answer.
                retries = retries.increment(method, url, error=error)
                retries.sleep()


def _whole(answer: urllib3.BaseHTTPResponse) -> urllib3.BaseHTTPResponse:
    """Read an answer to its end, within the limits of size and time."""
    content = bytearray()
    try:
        with _in_time(answer.shutdown):
            for chunk in answer.stream():
                content += chunk
                if len(content) > MAX_ANSWER:
                    raise OddAnswer(f"more than {MAX_ANSWER >> 20} MiB")
    except DecodeError as error:
        raise OddAnswer("content that does not match its Content-Encoding") from error
    finally:
        answer.close()
    # A DOCTYPE can define entities that fill all memory. S3 sends none.
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


@dataclass(eq=False)
class _Wait:
    """A wait for the end of an answer.

    Attributes:
        ends: when its time is over, by the monotonic clock.
        hang_up: function that ends it.
        is_late: whether its time was over.
    """

    ends: float
    hang_up: Callable[[], object]
    is_late: bool = False


class _Watchdog:
    """One thread that hangs up on all servers that are too slow.

    A timer for each answer would be a thread for each, which takes half of the CPU
    time of a small request.
    """

    def __init__(self) -> None:
        self._waits: set[_Wait] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, wait: _Wait) -> None:
        with self._lock:
            self._waits.add(wait)
            # After a fork, there is no thread.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._watch, daemon=True)
                self._thread.start()

    def remove(self, wait: _Wait) -> None:
        with self._lock:
            self._waits.discard(wait)

    def _watch(self) -> None:
        while True:
            time.sleep(_CHECK_SECONDS)
            now = time.monotonic()
            with self._lock:
                late = [wait for wait in self._waits if wait.ends < now]
                self._waits.difference_update(late)
            for wait in late:
                wait.is_late = True
                # The answer may end, or be closed, at this moment.
                with contextlib.suppress(OSError, ValueError, RuntimeError):
                    wait.hang_up()


_watchdog = _Watchdog()


@contextmanager
def _in_time(hang_up: Callable[[], object]) -> Iterator[None]:
    """Hang up on a server that sends so slowly that its answer never ends."""
    wait = _Wait(time.monotonic() + _MAX_ANSWER_SECONDS, hang_up)
    _watchdog.add(wait)
    try:
        yield
    finally:
        _watchdog.remove(wait)
        if wait.is_late:
            raise OddAnswer(
                f"an answer that did not end within {_MAX_ANSWER_SECONDS} s"
            )


class _Connection(HTTPConnection):
    """A connection that limits the time for headers too."""

    # urllib3 overrides this method of http.client in the same way.
    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        # A connection that is to be closed forgets its socket.
        connected = self.sock
        try:
            with _in_time(lambda: connected.shutdown(socket.SHUT_RDWR)):
                return super().getresponse()
        except http.client.HTTPException as error:
            # Only the metadata of an object can make S3's headers so long.
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
    """The number of tries of a request; an error is not read before the next try."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: urllib3.BaseHTTPResponse | None = None,
        *more: Any,
        **named: Any,
    ) -> "Retry":
        """Count a try that failed, and close its answer.

        urllib3 would read the answer to its end, which may never come. The answer of
        the last try is kept.
        """
        if response is not None and self.total:
            response.close()
        return super().increment(method, url, response, *more, **named)
