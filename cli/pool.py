"""``pool``: a personal HTCondor pool and an S3 server."""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import click

from cli.common import console
from cli.group import Group
from pool import personal
from pool.personal import PersonalPool
from state.exits import Exit


def _directory_option(command: Callable[[Path], None]) -> Callable[..., None]:
    @click.option(
        "--directory",
        type=click.Path(path_type=Path),
        show_default="one in your state folder",
        help="Directory of the pool.",
    )
    @wraps(command)
    def with_default(directory: Path | None) -> None:
        command(directory or personal.default_directory())

    return with_default


@click.group(cls=Group)
def pool() -> None:
    """Run a personal HTCondor pool and an S3 server on this machine.

    \b
      python3 cog_pipeline.py pool start
      eval "$(python3 cog_pipeline.py pool env)"
      condor_status
      rclone mkdir pool:maps
      python3 cog_pipeline.py pool stop
    """


@pool.command("start")
@_directory_option
def pool_start(directory: Path) -> None:
    """Start the pool. Download HTCondor if it is missing."""
    with console.status("starting") as status:
        running = personal.start(directory, status.update)
    _describe(running)


@pool.command("stop")
@_directory_option
def pool_stop(directory: Path) -> None:
    """Stop the pool and the jobs that run in it."""
    with console.status("stopping"):
        personal.stop(personal.existing_pool(directory))
    console.print("Stopped. The queue and the buckets are kept for the next start.")


@pool.command("status")
@_directory_option
def pool_status(directory: Path) -> None:
    """Report whether the pool runs. The exit code is 1 if it does not."""
    existing = personal.existing_pool(directory)
    if not existing.running:
        console.print(f"The pool in {directory} does not run.", soft_wrap=True)
        sys.exit(Exit.REFUSED)
    _describe(existing)


@pool.command("env")
@_directory_option
def pool_env(directory: Path) -> None:
    """Print shell commands that give access to the pool."""
    click.echo(personal.shell_lines(personal.existing_pool(directory)), nl=False)


def _describe(running: PersonalPool) -> None:
    s3 = running.s3
    click.echo(
        f"HTCondor runs ({running.condor.directory}).\n"
        f"S3 runs at https://{s3.endpoint}. To launch on it:\n"
        f"  -a {s3.access_key} -s {s3.secret_key}\n"
        f"  -e {s3.endpoint} --ca-certs {s3.ca_certs}\n"
        'after  eval "$(python3 cog_pipeline.py pool env)"'
    )
