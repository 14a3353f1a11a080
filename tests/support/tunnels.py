"""An HTTP proxy on loopback that tunnels connections (RFC 9110, CONNECT)."""

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Proxy:
    """A running proxy.

    Attributes:
        targets: the hosts and ports that clients wanted connections to.
        credentials: what clients sent as Proxy-Authorization.
    """

    address: str
    targets: list[str] = field(default_factory=list)
    credentials: list[str | None] = field(default_factory=list)


@contextmanager
def running(to: str | None = None) -> Iterator[Proxy]:
    """Run a proxy during a ``with`` block.

    Args:
        to: host and port that all clients are connected to, whatever they ask for.
    """
    proxy = Proxy("")

    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            proxy.targets.append(self.path)
            proxy.credentials.append(self.headers.get("Proxy-Authorization"))
            host, _, port = (to or self.path).rpartition(":")
            with socket.create_connection((host, int(port))) as server:
                self.send_response(200)
                self.end_headers()
                _forward(self.connection, server)

        def log_message(self, *words: object) -> None:
            """Write no log: tests read ``targets``."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    proxy.address = f"127.0.0.1:{listener.server_port}"
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        listener.shutdown()
        listener.server_close()


def _forward(client: socket.socket, server: socket.socket) -> None:
    other = {client: server, server: client}
    # A client hangs up when it wants to.
    with contextlib.suppress(ConnectionError):
        while True:
            for source in select.select(list(other), [], [])[0]:
                if not (block := source.recv(2**16)):
                    return
                other[source].sendall(block)
