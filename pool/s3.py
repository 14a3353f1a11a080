"""Run an S3 server for one machine: ``rclone serve s3`` over TLS."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pool import process
from pool.distribution import program_of_environment
from pool.errors import PoolError

_READY_SECONDS = 30
_STOP_SECONDS = 15
_OPENSSL_CONFIG = """\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = IP:{address}, DNS:localhost
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


@dataclass(frozen=True)
class S3Server:
    """The server whose buckets, keys and certificates are in ``directory``.

    Attributes:
        port: TCP port.
        address: IP address that it listens on; a loopback address, so that other
            machines cannot reach it.
    """

    directory: Path
    port: int
    address: str = "127.0.0.1"

    @property
    def endpoint(self) -> str:
        return f"{self.address}:{self.port}"

    @property
    def buckets(self) -> Path:
        return self.directory / "buckets"

    @property
    def access_key(self) -> Path:
        return self.directory / "access.key"

    @property
    def secret_key(self) -> Path:
        return self.directory / "secret.key"

    @property
    def certificates(self) -> Path:
        """Return the directory of the certificate authority, for ``X509_CERT_DIR``."""
        return self.directory / "certificates"

    @property
    def ca_certs(self) -> Path:
        """Return the file of the certificate authority, for ``--ca-certs``."""
        return self.certificates / "ca.pem"

    @property
    def client_environment(self) -> dict[str, str]:
        """Return the variables by which ``rclone`` has the server as ``pool:``.

        With the last one, AWS's clients send no checksum after an object's content,
        which the server does not understand.
        """
        remote = "RCLONE_CONFIG_POOL"
        return {
            f"{remote}_TYPE": "s3",
            f"{remote}_PROVIDER": "Rclone",
            f"{remote}_ENDPOINT": f"https://{self.endpoint}",
            f"{remote}_ACCESS_KEY_ID": self.access_key.read_text().strip(),
            f"{remote}_SECRET_ACCESS_KEY": self.secret_key.read_text().strip(),
            "RCLONE_CA_CERT": str(self.ca_certs),
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        }

    @property
    def pidfile(self) -> Path:
        return self.directory / "rclone.pid"


def free_port() -> int:
    """Return a TCP port that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def configure(server: S3Server, openssl: Path) -> None:
    """Make the keys and the certificates that the directory does not have yet."""
    server.buckets.mkdir(mode=0o700, exist_ok=True)
    for key, length in ((server.access_key, 10), (server.secret_key, 20)):
        if not key.exists():
            key.touch(mode=0o600)
            key.write_text(secrets.token_hex(length) + "\n")
    if not server.ca_certs.exists():
        _make_certificates(server, openssl)


def start(server: S3Server, prefix: Sequence[str] = ()) -> None:
    """Start the server and wait until it answers.

    Args:
        prefix: words to put before the server's command.

    Raises:
        PoolError: the server does not answer; the message names the log.
    """
    keys = (server.access_key.read_text(), server.secret_key.read_text())
    log = server.directory / "rclone.log"
    # The keys are in the environment, since every user can read a command line.
    environment = {
        "HOME": os.environ.get("HOME", "/"),
        "PATH": os.environ.get("PATH", os.defpath),
        "RCLONE_CONFIG": str(server.directory / "rclone.conf"),
        # rclone reads a list of pairs here. A pair is quoted, as it has a comma in it.
        "RCLONE_AUTH_KEY": '"' + ",".join(key.strip() for key in keys) + '"',
    }
    process.start(
        [
            *prefix,
            str(program_of_environment("rclone")),
            *("serve", "s3", str(server.buckets)),
            *("--addr", server.endpoint),
            *("--cert", str(server.directory / "server.pem")),
            *("--key", str(server.directory / "server.key")),
        ],
        environment=environment,
        log=log,
        pidfile=server.pidfile,
    )
    deadline = time.monotonic() + _READY_SECONDS
    while not _answers(server) or not running(server):
        if time.monotonic() > deadline or not running(server):
            stop(server)
            raise PoolError(
                f"the S3 server did not start at {server.endpoint}: read {log}."
            )
        time.sleep(0.1)


def running(server: S3Server) -> bool:
    """Return whether the server's process runs."""
    return process.alive(server.pidfile, str(server.buckets))


def stop(server: S3Server) -> None:
    """Stop the server and wait until it has ended."""
    mark = str(server.buckets)
    process.stop(server.pidfile, mark, signal.SIGTERM, _STOP_SECONDS)


def _answers(server: S3Server) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((server.address, server.port)) == 0


def _make_certificates(server: S3Server, openssl: Path) -> None:
    """Make a certificate authority, and the server's certificate signed by it."""
    work = server.directory / "making-certificates"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    config = work / "openssl.cnf"
    config.write_text(_OPENSSL_CONFIG.format(address=server.address))

    def certify(name: str, subject: str, section: str, *more: str) -> None:
        _openssl(
            openssl,
            *("req", "-x509", "-config", str(config), "-extensions", section),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", str(work / f"{name}.key"), "-out", str(work / f"{name}.pem")),
            *("-days", "3650", "-subj", f"/CN={subject}", *more),
        )

    certify("ca", "cog_pipeline personal pool", "authority")
    authority = ("-CA", str(work / "ca.pem"), "-CAkey", str(work / "ca.key"))
    certify("server", server.address, "server", *authority)
    for name in ("server.key", "server.pem"):
        (work / name).replace(server.directory / name)
    # The authority's key is deleted with the folder: it can sign nothing else.
    server.certificates.mkdir(exist_ok=True)
    (work / "ca.pem").replace(server.ca_certs)
    _openssl(openssl, "rehash", str(server.certificates))
    shutil.rmtree(work)


def _openssl(openssl: Path, *arguments: str) -> None:
    result = subprocess.run([str(openssl), *arguments], capture_output=True, text=True)
    if result.returncode != 0:
        raise PoolError(f"openssl {arguments[0]} failed: {result.stderr.strip()}")
