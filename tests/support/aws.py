"""A stand-in for AWS S3: its host names, a certificate for them, and a real server.

SeaweedFS serves buckets as hosts, and checks each signature. A proxy connects whoever
asks for a host of AWS to that server.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bucket import S3Endpoint
from tests.support import seaweedfs, tunnels

# The endpoints that it knows, and with them the hosts BUCKET.ENDPOINT.
ENDPOINTS = (
    "s3.us-east-1.amazonaws.com",
    "s3.eu-west-1.amazonaws.com",
    "s3.dualstack.eu-west-1.amazonaws.com",
    "s3-fips.us-gov-west-1.amazonaws.com",
    "s3.cn-north-1.amazonaws.com.cn",
)
_CONFIG = """\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
subjectAltName = {names}
"""


@dataclass(frozen=True)
class Aws:
    """The stand-in.

    Attributes:
        store: the server under its own address.
        proxy: the proxy through which the hosts of AWS are reached.
        authority: file of the certificate authority that signed its certificate.
    """

    store: S3Endpoint
    proxy: tunnels.Proxy
    authority: Path

    def at(self, endpoint: str) -> S3Endpoint:
        """Return the store under the name of an endpoint of AWS."""
        return replace(self.store, endpoint=endpoint)


@contextmanager
def running(directory: Path, keys: S3Endpoint, openssl: Path) -> Iterator[Aws]:
    """Run the stand-in during a ``with`` block, with the keys of a store."""
    authority, certificate = _certify(directory, openssl)
    like = replace(keys, ca_certs=authority)
    with (
        seaweedfs.server(directory, like, certificate, ENDPOINTS) as server,
        tunnels.running(to=server.store.endpoint) as proxy,
    ):
        yield Aws(server.store, proxy, authority)


def _certify(directory: Path, openssl: Path) -> tuple[Path, Path]:
    """Make a certificate authority, and a certificate for all hosts, with its key."""
    hosts = [name for host in ENDPOINTS for name in (host, f"*.{host}")]
    names = ["IP:127.0.0.1", *(f"DNS:{host}" for host in hosts)]
    config = directory / "openssl.cnf"
    config.write_text(_CONFIG.format(names=",".join(names)))
    authority, certificate = directory / "aws-ca.pem", directory / "aws.pem"
    by_authority = ("-CA", str(authority), "-CAkey", str(authority.with_suffix(".key")))
    for file, section, more in (
        (authority, "authority", ()),
        (certificate, "server", by_authority),
    ):
        subprocess.run(
            [
                *(str(openssl), "req", "-x509", "-config", str(config)),
                *("-extensions", section, "-days", "30", "-subj", f"/CN={section}"),
                *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
                *("-nodes", "-keyout", str(file.with_suffix(".key"))),
                *("-out", str(file), *more),
            ],
            check=True,
            capture_output=True,
        )
    return authority, certificate
