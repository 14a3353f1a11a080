"""``pool``: a personal HTCondor pool and an S3 server."""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import click

from cli.common import console
from state.exits import Exit


def _directory_option(command: Callable) -> Callable:
    @click.option(
        "--directory",
        type=Path,
        help="Of the pool; by default the user's state folder.",
    )
    @wraps(command)
    def with_pool_directory(directory: Path | None) -> object:
        from pool import personal

        return command(personal, directory or personal.default_directory())

    return with_pool_directory


@click.group()
def pool() -> None:
    """A personal HTCondor pool and an S3 server, to try things on one machine.

    \b
      python3 cog_pipeline.py pool start
      eval "$(python3 cog_pipeline.py pool env)"
      condor_status
      rclone mkdir pool:maps
      python3 cog_pipeline.py pool stop
    """


@pool.command("start")
@_directory_option
def pool_start(personal, directory: Path) -> None:
    """Start it, after fetching HTCondor if there is none."""
    with console.status("starting") as status:
        started = personal.start(directory, status.update)
    _describe_pool(started)


@pool.command("stop")
@_directory_option
def pool_stop(personal, directory: Path) -> None:
    """Stop it, and the jobs that run in it."""
    with console.status("stopping"):
        personal.stop(personal.existing_pool(directory))
    console.print("Stopped; its queue and its buckets are kept for the next start.")


@pool.command("status")
@_directory_option
def pool_status(personal, directory: Path) -> None:
    """Say whether it runs; the exit status is 1 when it does not."""
    found = personal.existing_pool(directory)
    if not found.running:
        console.print(f"The pool in {directory} does not run.", soft_wrap=True)
        sys.exit(Exit.REFUSED)
    _describe_pool(found)


@pool.command("env")
@_directory_option
def pool_env(personal, directory: Path) -> None:
    """Print what a shell evaluates to reach it."""
    click.echo(personal.shell_lines(personal.existing_pool(directory)), nl=False)


def _describe_pool(found) -> None:
    s3 = found.s3
    click.echo(
        f"HTCondor runs ({found.condor.directory}).\n"
        f"S3 runs at https://{s3.endpoint}; launch the pipeline on it with\n"
        f"  -a {s3.access_key} -s {s3.secret_key}\n"
        f"  -e {s3.endpoint} --ca-certs {s3.ca_certs}\n"
        'after  eval "$(python3 cog_pipeline.py pool env)"'
    )
