"""The daemons of a personal HTCondor pool: configure, start, stop."""

import os
import pwd
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jinja2

from pool import ordinary_user, process
from pool.distribution import Distribution
from pool.errors import PoolError
from pool.ordinary_user import command_prefix, give
from state.text import one_line

_TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
_DOMAIN = "cog-pipeline.pool"
_READY_SECONDS = 60
_STOP_SECONDS = 60


@dataclass(frozen=True)
class Condor:
    """A personal pool in ``directory``, run by the programs of ``distribution``."""

    distribution: Distribution
    directory: Path

    @property
    def config(self) -> Path:
        return self.directory / "condor_config"

    @property
    def pidfile(self) -> Path:
        return self.directory / "condor_master.pid"

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that a shell needs to reach this pool."""
        path = os.environ.get("PATH", os.defpath)
        return {
            "CONDOR_CONFIG": str(self.config),
            "PATH": f"{self.distribution.search_path}{os.pathsep}{path}",
            **ordinary_user.environment(),
        }


def configure(condor: Condor) -> None:
    """Write the configuration and a token, and a signing key if there is none.

    Raises:
        PoolError: the user has no name, or no token could be made.
    """
    for folder in ("log", "spool", "execute", "passwords.d", "tokens.d"):
        (condor.directory / folder).mkdir(mode=0o700, exist_ok=True)
    user = _user()
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    # The first folder of the jobs' PATH is the one of this interpreter: its python3
    # can import all that a node needs. Every Linux has the other folders.
    job_path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    condor.config.write_text(
        templates.get_template("condor_config").render(
            distribution=condor.distribution,
            directory=condor.directory,
            domain=_DOMAIN,
            user=user,
            job_path=job_path,
        )
    )
    signing_key = condor.directory / "passwords.d" / "POOL"
    if not signing_key.exists():
        signing_key.touch(mode=0o600)
        signing_key.write_bytes(secrets.token_bytes(64))
    give(condor.directory)
    identity = f"{user}@{_DOMAIN}"
    _condor(condor, "condor_token_create", "-identity", identity, "-token", "owner")
    # HTCondor reads a token only from a file that its reader owns. The pool's user
    # may be another one, so this user gets a copy.
    tokens = condor.directory / "tokens.d"
    copy = tokens / "client"
    copy.unlink(missing_ok=True)
    copy.touch(mode=0o600)
    copy.write_bytes((tokens / "owner").read_bytes())


def _user() -> str:
    """Return the name of the user that the daemons run as."""
    uid = os.geteuid()
    if uid == 0:
        return "nobody"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError as error:
        raise PoolError(
            f"HTCondor does not start as user id {uid}, which has no entry in "
            f"/etc/passwd: add one with 'useradd --uid {uid} NAME', or use a user that "
            "has one."
        ) from error


def start(condor: Condor, certificates: Path) -> None:
    """Start the daemons and wait until they accept jobs.

    Args:
        certificates: directory of the certificate authorities that file transfers
            trust, prepared by ``openssl rehash``.

    Raises:
        PoolError: the daemons ended, or were not ready in time; the message names the
            log.
    """
    master = condor.distribution.sbin / "condor_master"
    environment = _clean_environment(condor)
    environment["X509_CERT_DIR"] = str(certificates)
    daemon = process.start(
        [*command_prefix(), str(master), "-f", "-pidfile", str(condor.pidfile)],
        environment=environment,
        log=condor.directory / "log" / "master.out",
        pidfile=condor.pidfile,
    )
    deadline = time.monotonic() + _READY_SECONDS
    while not _ready(condor):
        if daemon.poll() is not None:
            raise PoolError(f"condor_master ended immediately: {_last_words(condor)}")
        if time.monotonic() > deadline:
            stop(condor)
            raise PoolError(
                f"the HTCondor daemons were not ready after {_READY_SECONDS} s: "
                f"read the logs in {condor.directory / 'log'}, MasterLog first."
            )
        time.sleep(0.2)


def _last_words(condor: Condor) -> str:
    output = (condor.directory / "log" / "master.out").read_text(errors="replace")
    lines = output.strip().splitlines()
    if lines:
        return one_line(lines[-1])
    return f"read the logs in {condor.directory / 'log'}, MasterLog first."


def running(condor: Condor) -> bool:
    """Return whether the pool's ``condor_master`` runs."""
    return process.alive(condor.pidfile, str(condor.pidfile))


def stop(condor: Condor) -> None:
    """Stop the daemons and their jobs immediately, and wait until they have ended.

    A new pool can use the directory only after the former one has ended.

    Raises:
        PoolError: the daemons did not end in time.
    """
    process.stop(condor.pidfile, str(condor.pidfile), signal.SIGQUIT, _STOP_SECONDS)


def _ready(condor: Condor) -> bool:
    """Return whether the queue answers and a slot is advertised."""
    addresses = ("collector", "schedd", "startd")
    log = condor.directory / "log"
    if not all((log / f".{name}_address").exists() for name in addresses):
        return False
    try:
        _condor(condor, "condor_q", "-totals")
        return "slot" in _condor(condor, "condor_status", "-af", "Name")
    except PoolError:
        return False


def _condor(condor: Condor, program: str, *arguments: str) -> str:
    """Run one of HTCondor's programs and return its output."""
    result = subprocess.run(
        [*command_prefix(), str(condor.distribution.bin / program), *arguments],
        env=_clean_environment(condor),
        capture_output=True,
        text=True,
    )
    if result.returncode != 0:
        output = (result.stderr or result.stdout).strip()
        raise PoolError(f"'{program}' failed: {output}")
    return result.stdout


def _clean_environment(condor: Condor) -> dict[str, str]:
    """Return an environment that has almost nothing of the caller's shell.

    The daemons and their jobs inherit it.
    """
    inherited = ("HOME", "USER", "LOGNAME", "TZ")
    return {
        "LANG": "C.UTF-8",
        **{name: os.environ[name] for name in inherited if name in os.environ},
        **condor.environment,
    }
