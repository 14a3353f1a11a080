"""A real PostgreSQL with PostGIS, from Debian's packages, on a Unix socket only."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from pool import debian
from pool.ordinary_user import command_prefix, give

# The owner of the server, the role that owns the tests' databases, a member of it who
# needs a password, and a stranger.
OWNER = "postgres"
ARCHIVE = "archive"
GUARDED = "guarded"
READER = "reader"
RIGHT_PASSWORD = "the right one"  # noqa: S105
_TEMPLATE = "with_postgis"
# The first rule that fits counts.
_HBA = f"local all {GUARDED} scram-sha-256\nlocal all all trust\n"
_ROLES = f"""
    CREATE ROLE {ARCHIVE} LOGIN;
    CREATE ROLE {READER} LOGIN;
    CREATE ROLE {GUARDED} LOGIN PASSWORD '{RIGHT_PASSWORD}' IN ROLE {ARCHIVE};
"""


@dataclass(frozen=True)
class Postgres:
    """A server that runs.

    Attributes:
        socket: folder of its Unix socket, as ``PGHOST`` has it.
        programs: folder of psql and others.
    """

    socket: Path
    programs: Path

    def connect(self, database: str, user: str = OWNER) -> psycopg.Connection:
        """Return a connection that needs no COMMIT."""
        return psycopg.connect(
            host=str(self.socket), dbname=database, user=user, autocommit=True
        )

    def create_database(self, name: str, *, with_postgis: bool = True) -> None:
        """Create a database that belongs to the role of the pipeline."""
        template = _TEMPLATE if with_postgis else "template0"
        with self.connect("postgres") as connection:
            connection.execute(
                f"CREATE DATABASE {name} OWNER {ARCHIVE} TEMPLATE {template}"
            )


def _copy(tree: Path, prefix: Path) -> None:
    for folder in ("lib", "share"):
        # The server finds the one from the other, as long as both are in one folder.
        shutil.copytree(
            tree / "usr" / folder / "postgresql",
            prefix / folder / "postgresql",
            symlinks=True,
            # The compiler for queries needs a library of 105 MB.
            ignore=shutil.ignore_patterns("bitcode", "llvmjit*", "man"),
        )
    shutil.copytree(tree / "usr" / "share" / "proj", prefix / "share" / "proj")
    debian.copy_libraries(tree, prefix / "lib")
    for compiler in (prefix / "lib").glob("libLLVM*"):
        compiler.unlink()
    # An installation makes this link, as an alternative.
    for control in prefix.glob("share/postgresql/*/extension/postgis-?.control"):
        shutil.copy2(control, control.with_name("postgis.control"))


_SOFTWARE = debian.Software(
    name="PostgreSQL with PostGIS",
    folder="postgresql",
    packages=("postgresql-postgis", "postgresql"),
    megabytes=137,
    remedy="leave out the tests of PostGIS",
    copy=_copy,
)


@contextmanager
def running() -> Iterator[Postgres]:
    """Start a server with roles and a database that has PostGIS; stop it afterwards."""
    prefix = debian.find_or_fetch(_SOFTWARE, os.environ.get("POOL_SUITE"), print)
    programs = next(prefix.glob("lib/postgresql/*/bin"))
    projections = str(prefix / "share" / "proj")

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [*command_prefix(), str(programs / program), *arguments],
            cwd=folder,
            env={
                "PATH": os.defpath,
                "LANG": "C",
                "PROJ_DATA": projections,
                "PROJ_LIB": projections,  # before PROJ 9.1
            },
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    # The path of a socket has at most 107 bytes, so a folder of a test may be too deep.
    with tempfile.TemporaryDirectory(prefix="postgres-") as scratch:
        folder = Path(scratch)
        data = folder / "data"
        give(folder)
        run(
            "initdb",
            *("--no-sync", "--no-locale", "--encoding=UTF8", f"--username={OWNER}"),
            *("--auth=trust", str(data)),
        )
        (data / "pg_hba.conf").write_text(_HBA)
        options = (
            f"-c unix_socket_directories={folder} -c listen_addresses= -c fsync=off "
            # Other time zones need files of the machine.
            "-c timezone=GMT -c log_timezone=GMT"
        )
        log = folder / "log"
        run("pg_ctl", "start", "-w", f"-D{data}", f"-l{log}", f"-o{options}")
        try:
            postgres = Postgres(folder, programs)
            _prepare(postgres)
            yield postgres
        finally:
            run("pg_ctl", "stop", "-w", "-mimmediate", f"-D{data}")


def _prepare(postgres: Postgres) -> None:
    with postgres.connect("postgres") as connection:
        connection.execute(_ROLES)
        connection.execute(f"CREATE DATABASE {_TEMPLATE}")
    with postgres.connect(_TEMPLATE) as connection:
        connection.execute("CREATE EXTENSION postgis")
