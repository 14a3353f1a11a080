"""Start and stop the personal pool: HTCondor and an S3 server in one directory."""

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from pool import condor, s3
from pool.condor import Condor
from pool.distribution import Distribution, Say, find_or_fetch
from pool.errors import PoolError
from pool.ordinary_user import gives_away
from pool.s3 import S3Server
from state.cache import make_private
from state.ownership import faults

_PORT_FILE = "s3-port"
_PROGRAMS_FILE = "programs.json"


@dataclass(frozen=True)
class PersonalPool:
    """HTCondor and the S3 server beside it."""

    condor: Condor
    s3: S3Server

    @property
    def running(self) -> bool:
        """Return whether both run."""
        return condor.running(self.condor) and s3.running(self.s3)


def default_directory() -> Path:
    """Return the directory of the pool of this user."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "cog_pipeline" / "pool"


def _prepare(directory: Path, say: Say) -> PersonalPool:
    """Make the directory of a pool, and find or fetch an HTCondor for it."""
    make_private(Path(os.path.abspath(directory)))
    _check(directory)
    for folder in (directory / "s3", directory / "condor"):
        folder.mkdir(mode=0o700, exist_ok=True)
    port_file, programs_file = directory / _PORT_FILE, directory / _PROGRAMS_FILE
    # The port is saved, so that a pool that is started again has the same address.
    if not port_file.exists():
        port_file.touch(mode=0o600)
        port_file.write_text(str(s3.free_port()))
    # So is the place of HTCondor, so that the pool is stopped by the same programs
    # that run it.
    programs = asdict(find_or_fetch(say))
    programs_file.unlink(missing_ok=True)
    programs_file.touch(mode=0o600)
    programs_file.write_text(json.dumps(programs, default=str))
    return existing_pool(directory)


def _check(*paths: Path) -> None:
    """Raise PoolError if other users can change one of the paths.

    The files there decide which programs are run.
    """
    for fault in chain.from_iterable(map(faults, paths)):
        raise PoolError(fault)


def existing_pool(directory: Path) -> PersonalPool:
    """Return the pool that was started in ``directory`` before, running or not.

    Raises:
        PoolError: there is none, or other users can change its files.
    """
    if not (directory / _PROGRAMS_FILE).exists():
        raise PoolError(
            f"there is no pool in {directory}: 'cog_pipeline.py pool start' makes one."
        )
    _check(*(directory / name for name in (_PROGRAMS_FILE, _PORT_FILE, "s3")))
    if not gives_away():
        _check(directory / "condor")
    directory = directory.resolve()
    programs = json.loads((directory / _PROGRAMS_FILE).read_text())
    folders = {name: Path(path) for name, path in programs.items()}
    distribution = Distribution(**folders)
    return PersonalPool(
        condor=Condor(distribution, directory / "condor"),
        s3=S3Server(directory / "s3", int((directory / _PORT_FILE).read_text())),
    )


def start(directory: Path, say: Say) -> PersonalPool:
    """Start those parts of the pool that do not run yet.

    If one of them does not start, stop the pool.

    Raises:
        PoolError: the pool cannot be installed or started.
    """
    pool = _prepare(directory, say)
    try:
        s3.configure(pool.s3, pool.condor.distribution.openssl)
        if not s3.running(pool.s3):
            say("starting the S3 server")
            s3.start(pool.s3)
        if not condor.running(pool.condor):
            say("starting HTCondor")
            condor.configure(pool.condor)
            condor.start(pool.condor, pool.s3.certificates)
    except BaseException:
        stop(pool)
        raise
    return pool


def stop(pool: PersonalPool) -> None:
    """Stop the pool, HTCondor first: its last transfers still need the S3 server."""
    condor.stop(pool.condor)
    s3.stop(pool.s3)


@contextmanager
def running_pool(directory: Path, say: Say) -> Iterator[PersonalPool]:
    """Start a pool for a ``with`` block, and stop it however the block ends."""
    pool = start(directory, say)
    try:
        yield pool
    finally:
        stop(pool)


def shell_lines(pool: PersonalPool) -> str:
    """Return the lines that a shell evaluates to reach the pool.

    With them, ``rclone`` reaches the pool's buckets as ``pool:``.
    """
    variables = pool.condor.environment | pool.s3.client_environment
    return "".join(
        f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()
    )
