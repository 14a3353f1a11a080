"""The real S3 server behind a proxy that injects faults.

It speaks TLS on loopback with the server's own certificate and forwards requests
unchanged, so that signatures stay valid. For some requests, it injects the faults that
a test has chosen.
"""

import http.client
import random
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pool.s3 import S3Server

_BLOCK = 2**14
_ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    "<Error><Code>{code}</Code><Message>as a test wants it</Message></Error>"
)
_CODES = {
    403: "AccessDenied",
    404: "NoSuchKey",
    500: "InternalError",
    503: "SlowDown",
}


@dataclass
class Fault:
    """A fault that happens to requests whose method and path match.

    Attributes:
        method: regular expression for the whole method.
        path: regular expression that is searched in the path with its query.
        signed: regular expression that is searched in the signature's description: the
            Authorization header or the query.
        status: status of an answer that the proxy gives itself.
        body: of that answer; what is no bytes comes without a length, block by block.
        headers: headers to set in the answer; None removes one.
        rewritten: function from the server's body to another one.
        bytes_per_second: speed of bodies in both directions.
        cut_after: drop the connection after so many bytes of a body; at once
            where there is none.
        answer_lost: let the server do it, and drop the connection then.
        instead_of: give that answer only if the server's has this status.
        probability: probability that a matching request has the fault.
        times: how many more requests have the fault; None for all.
    """

    method: str = ".*"
    path: str = ""
    signed: str = ""
    status: int | None = None
    body: bytes | Callable[[], Iterable[bytes]] | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    rewritten: Callable[[bytes], bytes] | None = None
    bytes_per_second: float | None = None
    cut_after: int | None = None
    answer_lost: bool = False
    instead_of: int | None = None
    probability: float = 1
    times: int | None = None

    def befalls(self, method: str, path: str, authorization: str) -> bool:
        if self.times == 0 or not re.fullmatch(self.method, method):
            return False
        signed = authorization or path.partition("?")[2]
        if not re.search(self.signed, signed) or not re.search(self.path, path):
            return False
        if random.random() >= self.probability:
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass
class FaultyS3:
    """The proxy. You can change ``faults`` at any time.

    Attributes:
        requests: method and path of all requests, in their order.
    """

    endpoint: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)

    @contextmanager
    def suffering(self, *faults: Fault) -> Iterator[None]:
        """Inject these faults and no others during a ``with`` block."""
        before, self.faults = self.faults, list(faults)
        try:
            yield
        finally:
            self.faults = before

    def count(self, method: str, path: str = "") -> int:
        return sum(
            re.fullmatch(method, made) is not None
            and re.search(path, where) is not None
            for made, where in list(self.requests)
        )


@contextmanager
def in_front_of(server: S3Server) -> Iterator[FaultyS3]:
    """Run a proxy during a ``with`` block."""
    certificate = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.load_cert_chain(
        server.directory / "server.pem", server.directory / "server.key"
    )
    listener = _Listener(("127.0.0.1", 0), _Handler)
    listener.certificate = certificate
    listener.server = server
    listener.trust = ssl.create_default_context(cafile=server.ca_certs)
    listener.proxy = FaultyS3(f"127.0.0.1:{listener.server_port}")
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield listener.proxy
    finally:
        listener.shutdown()
        listener.server_close()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    certificate: ssl.SSLContext
    trust: ssl.SSLContext
    server: S3Server
    proxy: FaultyS3

    def finish_request(self, request, client_address) -> None:
        # In the thread of the request: a handshake must not block others.
        request.settimeout(300)
        with self.certificate.wrap_socket(request, server_side=True) as secured:
            self.RequestHandlerClass(secured, client_address, self)

    def handle_error(self, request, client_address) -> None:
        """Ignore connections that break: the proxy breaks them."""


class _Dropped(Exception):
    """The connection is dropped without an answer."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.proxy.requests.append((self.command, self.path))
        faults = [
            fault
            for fault in list(self.server.proxy.faults)
            if fault.befalls(
                self.command, self.path, self.headers.get("Authorization", "")
            )
        ]
        try:
            self._serve(faults)
        except _Dropped:
            return

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815

    def _serve(self, faults: list[Fault]) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        for fault in faults:
            if fault.status is not None and fault.instead_of is None:
                self._answer(fault)
                return
            if fault.cut_after is not None and fault.cut_after == 0:
                raise _Dropped
        with self._forwarded(length, faults) as answer:
            if any(fault.answer_lost for fault in faults):
                answer.read()
                raise _Dropped
            for fault in faults:
                if fault.instead_of == answer.status:
                    answer.read()
                    self._answer(fault, unread=0)
                    return
            headers = dict(answer.getheaders())
            headers.pop("Transfer-Encoding", None)
            size = answer.length or 0
            blocks = iter(lambda: answer.read(_BLOCK), b"")
            for fault in faults:
                if fault.rewritten and self.command != "HEAD":
                    body = fault.rewritten(b"".join(blocks))
                    headers["Content-Length"] = str(len(body))
                    blocks, size = iter([body]), 0
            self._begin(answer.status, headers, faults)
            for block in self._paced(blocks, faults):
                self.wfile.write(block)
            if size and answer.length:
                raise _Dropped

    @contextmanager
    def _forwarded(
        self, length: int, faults: list[Fault]
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPSConnection(
            self.server.server.endpoint, context=self.server.trust, timeout=300
        )
        try:
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders()
            for block in self._paced(self._body(length), faults):
                connection.send(block)
            yield connection.getresponse()
        finally:
            connection.close()

    def _body(self, length: int) -> Iterator[bytes]:
        while length:
            block = self.rfile.read(min(length, _BLOCK))
            if not block:
                raise _Dropped
            length -= len(block)
            yield block

    def _paced(self, blocks: Iterator[bytes], faults: list[Fault]) -> Iterator[bytes]:
        """Yield the blocks slowly, and only as many as the faults let through."""
        left = min(
            (fault.cut_after for fault in faults if fault.cut_after is not None),
            default=None,
        )
        rate = min(
            (fault.bytes_per_second for fault in faults if fault.bytes_per_second),
            default=None,
        )
        step = _BLOCK if rate is None else max(1, min(_BLOCK, int(rate / 10)))
        for block in blocks:
            for begin in range(0, len(block), step):
                piece = block[begin : begin + step]
                if left is not None and len(piece) >= left:
                    yield piece[:left]
                    raise _Dropped
                if left is not None:
                    left -= len(piece)
                if rate is not None:
                    time.sleep(len(piece) / rate)
                yield piece

    def _answer(self, fault: Fault, unread: int | None = None) -> None:
        """Give the answer of a fault in place of the server.

        Args:
            unread: number of bytes of the request's body that were not read; None for
                the whole body.
        """
        if unread is None:
            unread = int(self.headers.get("Content-Length") or 0)
        # Closing with an unread body would reset the connection.
        for _ in self._body(unread):
            pass
        body = fault.body
        if body is None:
            body = _ERROR.format(code=_CODES.get(fault.status, "Refused")).encode()
        headers = {"Content-Type": "application/xml"}
        if isinstance(body, bytes):
            headers["Content-Length"] = str(len(body))
        self._begin(fault.status, headers, [fault])
        if self.command != "HEAD":
            blocks = [body] if isinstance(body, bytes) else body()
            for block in self._paced(iter(blocks), [fault]):
                self.wfile.write(block)

    def _begin(
        self, status: int, headers: Mapping[str, str], faults: list[Fault]
    ) -> None:
        changed = {name.title(): value for name, value in headers.items()}
        for fault in faults:
            changed |= {name.title(): value for name, value in fault.headers.items()}
        self.send_response_only(status)
        for name, value in (changed | {"Connection": "close"}).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Write no log: tests read ``requests``."""
