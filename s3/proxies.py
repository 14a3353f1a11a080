"""The proxy of the environment, as other programs use it."""

from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from s3.client import Client

# A program that starts another one that speaks S3 passes these on.
VARIABLES = (
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
)
_SCHEMES = ("http", "https")


class _ProxyClient(Client, urllib3.ProxyManager):
    """A client that connects through a proxy."""


def client(url: str, **how: Any) -> Client:
    """Return a client for a server, through the environment's proxy if it has one.

    Raises:
        ValueError: the environment names a proxy that cannot be used. The message does
            not contain its URL, which may have a password in it.
    """
    proxy = _proxy_for(url)
    if proxy is None:
        return Client(**how)
    try:
        parts = urlsplit(proxy)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if host is None or parts.scheme not in _SCHEMES:
        raise ValueError(
            "the proxy that the environment names (HTTPS_PROXY, HTTP_PROXY or "
            "ALL_PROXY) is not http://HOST:PORT or https://HOST:PORT"
        )
    return _ProxyClient(proxy_url=proxy, proxy_headers=_credentials(proxy), **how)


def have_password() -> bool:
    """Return whether a proxy of the environment has a password in its URL."""
    return any("@" in proxy for proxy in getproxies().values())


def _proxy_for(url: str) -> str | None:
    """Return the URL of the proxy for a server; None if there is none."""
    server, proxies = urlsplit(url), getproxies()
    proxy = proxies.get(server.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(server.netloc):
        return None
    # As curl reads it.
    return proxy if "://" in proxy else f"http://{proxy}"


def _credentials(proxy: str) -> dict[str, str]:
    """Return the header with the user and the password in a proxy's URL."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return dict(urllib3.make_headers(proxy_basic_auth=words))
