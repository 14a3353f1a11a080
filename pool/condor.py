"""The daemons of a personal HTCondor pool: configure, start, stop."""

import getpass
import os
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
        """What a shell needs to reach this pool."""
        path = os.environ.get("PATH", os.defpath)
        return {
            "CONDOR_CONFIG": str(self.config),
            "PATH": f"{self.distribution.search_path}{os.pathsep}{path}",
            **ordinary_user.environment(),
        }


def configure(condor: Condor) -> None:
    """Write the configuration, a signing key and a token, once a directory."""
    for folder in ("log", "spool", "execute", "passwords.d", "tokens.d"):
        (condor.directory / folder).mkdir(mode=0o700, exist_ok=True)
    user = getpass.getuser() if os.geteuid() else "nobody"
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    # The job's PATH begins where this interpreter lies, whose python3 imports
    # all that a node needs; the rest is what every Linux has.
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
    # Everyone reads tokens from files of their own: a copy for us, where the
    # pool's user is another.
    tokens = condor.directory / "tokens.d"
    copy = tokens / "client"
    copy.unlink(missing_ok=True)
    copy.touch(mode=0o600)
    copy.write_bytes((tokens / "owner").read_bytes())


def start(condor: Condor, certificates: Path) -> None:
    """Start the daemons and wait until they take jobs.

    Args:
        certificates: a directory of certificate authorities, as ``openssl
            rehash`` leaves it, which file transfers trust.

    Raises:
        PoolError: they were not ready in time; the message names the log.
    """
    master = condor.distribution.sbin / "condor_master"
    environment = _clean_environment(condor)
    environment["X509_CERT_DIR"] = str(certificates)
    process.start(
        [*command_prefix(), str(master), "-f", "-pidfile", str(condor.pidfile)],
        environment=environment,
        log=condor.directory / "log" / "master.out",
        pidfile=condor.pidfile,
    )
    deadline = time.monotonic() + _READY_SECONDS
    while not _ready(condor):
        if time.monotonic() > deadline:
            stop(condor)
            raise PoolError(
                f"the HTCondor daemons were not ready after {_READY_SECONDS} s: "
                f"look into {condor.directory / 'log'} (MasterLog first)."
            )
        time.sleep(0.2)


def running(condor: Condor) -> bool:
    return process.alive(condor.pidfile, str(condor.pidfile))


def stop(condor: Condor) -> None:
    """Stop the daemons at once, jobs included, and wait until they are gone.

    A directory can be used by a new pool only when the old one has ended.

    Raises:
        PoolError: they did not end.
    """
    process.stop(condor.pidfile, str(condor.pidfile), signal.SIGQUIT, _STOP_SECONDS)


def _ready(condor: Condor) -> bool:
    """Whether the queue answers and a slot has been advertised."""
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
    done = subprocess.run(
        [*command_prefix(), str(condor.distribution.bin / program), *arguments],
        env=_clean_environment(condor),
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise PoolError(f"'{program}' failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _clean_environment(condor: Condor) -> dict[str, str]:
    """Nothing of the caller's shell reaches the daemons or their jobs."""
    kept = ("HOME", "USER", "LOGNAME", "TZ")
    return {
        "LANG": "C.UTF-8",
        **{name: os.environ[name] for name in kept if name in os.environ},
        **condor.environment,
    }
