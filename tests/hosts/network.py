"""The switch that connects hosts: a bridge in a separate network."""

import ipaddress
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from pyroute2 import IPRoute, netns

from tests.hosts.hosts import ENDS_WITH_TESTS, Host, HostError

_BRIDGE = "switch"
_CARD = "eth0"
_NETWORK = ipaddress.ip_network("10.77.0.0/24")


def address(number: int) -> str:
    """Return the address of host ``number``; 1 is the switch."""
    return str(_NETWORK[number])


class Switch:
    """A separate network: each switch may use the same addresses."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [
                *ENDS_WITH_TESTS,
                *("unshare", "--net", "--"),
                *("sh", "-c", "echo on && exec sleep infinity"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        if not self._process.stdout.readline():
            raise HostError("no network of its own can be made for the switch")
        with on_network_of(self._process.pid), IPRoute() as links:
            links.link("add", ifname=_BRIDGE, kind="bridge")
            _set_up(links, _BRIDGE, address(1))
            _set_up(links, "lo")

    @contextmanager
    def plugged_in(self) -> Iterator[None]:
        """Put this thread, and what it starts, on the network of the hosts."""
        with on_network_of(self._process.pid):
            yield

    def connect(self, host: Host, number: int) -> None:
        """Connect a host that was just switched on."""
        port = _port(number)
        with on_network_of(self._process.pid), IPRoute() as links:
            card = {"ifname": _CARD, "net_ns_pid": host.init}
            links.link("add", ifname=port, kind="veth", peer=card)
            (bridge,) = links.link_lookup(ifname=_BRIDGE)
            (index,) = links.link_lookup(ifname=port)
            links.link("set", index=index, master=bridge, state="up")
        with on_network_of(host.init), IPRoute() as links:
            _set_up(links, "lo")
            _set_up(links, _CARD, address(number))

    def pull(self, number: int) -> None:
        """Disconnect a host."""
        with on_network_of(self._process.pid), IPRoute() as links:
            links.link("set", ifname=_port(number), state="down")

    def disconnect(self, number: int) -> None:
        """Remove the connection of a host, with its network card."""
        with on_network_of(self._process.pid), IPRoute() as links:
            links.link("del", ifname=_port(number))

    def power_off(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


@contextmanager
def on_network_of(process: int) -> Iterator[None]:
    """Put this thread, and what it starts, on the network of a process."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(f"/proc/{process}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            netns.setns(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            netns.setns(own)
    finally:
        os.close(own)


def _port(number: int) -> str:
    return f"port{number}"


def _set_up(links: IPRoute, name: str, at: str | None = None) -> None:
    (index,) = links.link_lookup(ifname=name)
    if at:
        links.addr("add", index=index, address=at, prefixlen=_NETWORK.prefixlen)
    links.link("set", index=index, state="up")
