#!/usr/bin/env python3
"""The command line of cog_pipeline; see README.md."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from bucket import BucketError, Store
from dag import (
    health as healths,
    journal as journals,
    launch as launching,
    pipeline as pipelines,
    render,
    run as runs,
)
from dag.errors import LookFailed, PipelineError, foreseen
from dag.exits import Exit
from dag.health import State
from dag.journal import Journal
from dag.pipeline import SIGNINGS, Pipeline
from dag.poll import poll as poll_once
from dag.wording import printable
from node import options
from pack import packed
from pack.errors import PackError
from pool.errors import PoolError
from post import cost as costs
from post.reconcile import reconcile as reconcile_run

DEFAULT_KEYS = Path.home() / ".chtc_s3"
DEFAULT_ENDPOINT = "s3dev.chtc.wisc.edu"
# One attempt each --retry-seconds; after that the next poll takes over.
MOST_ATTEMPTS = 60

console = Console(highlight=False)


class _LaunchByDefault(click.Group):
    """``launch`` is what happens when no command is named."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        if not arguments or arguments[0] not in (*self.commands, "--help"):
            arguments = ["launch", *arguments]
        return super().parse_args(context, arguments)

    def invoke(self, context: click.Context) -> object:
        """Let every command end with a sentence and a code of ``Exit``."""
        try:
            return super().invoke(context)
        except click.UsageError as error:
            if error.ctx and error.ctx.command is health:
                # What Exit.MISUSED is to others, monitoring takes for CRITICAL.
                error.exit_code = State.UNKNOWN
            raise
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise
        except (PackError, PoolError) as error:
            raise _Ended(Exit.REFUSED, printable(str(error))) from error
        except KeyboardInterrupt as error:
            sentence = (
                "stopped by Ctrl-C. What was done holds; the same command, or the "
                "next poll, carries on from there"
            )
            raise _Ended(Exit.INTERRUPTED, sentence) from error
        except Exception as error:
            if said := foreseen(error):
                raise _Ended(Exit.REFUSED, printable(said)) from error
            journal = context.obj or Journal(_say)
            raise _Ended(Exit.UNFORESEEN, journal.unforeseen(error)) from error


class _Ended(click.ClickException):
    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.exit_code = code


@click.group(cls=_LaunchByDefault)
def cli() -> None:
    """Turn a bucket of rasters into Cloud Optimized GeoTIFFs, on HTCondor.

    Launch once on an access point (LAUNCH is what happens when no command is
    named); then upload images and a manifest, and read two CSVs:

    \b
      python3 cog_pipeline.py -a access.key -s secret.key -e s3.example.org \\
          --input-bucket maps --output-bucket cogs -p "*raw.csv"

    LAUNCH --help tells all options.  HEALTH is for monitoring.  POLL and
    RECONCILE are what HTCondor calls; people rarely do.
    """
    # Run directories are nobody else's business, whoever starts us.
    os.umask(0o077)


def _submit_option(
    context: click.Context, parameter: click.Parameter, lines: tuple[str, ...]
) -> tuple[str, ...]:
    for line in lines:
        name, equals, _ = line.partition("=")
        named = name.strip().lstrip("+").replace(".", "").replace("_", "")
        if not equals or not named.isalnum() or not line.isprintable():
            raise click.BadParameter(f"{line!r} is not NAME = VALUE")
    return lines


def _node_environment(
    context: click.Context, parameter: click.Parameter, said: str
) -> str:
    kind, _, image = said.partition(":")
    if kind == "container" and image and image.isprintable():
        # A file of this machine; anything else is for a registry to know.
        return f"container:{Path(image).resolve()}" if Path(image).exists() else said
    if said in ("host", "packed"):
        return said
    raise click.BadParameter(
        f"{said!r} is none of 'host', 'packed' and 'container:' with an image behind, "
        "as in container:docker://registry.example.org/cog_pipeline:1"
    )


def _node_options(command: Callable) -> Callable:
    """Add the options that a launch passes on to its nodes."""
    for choice in reversed(options.CHOICES):
        how = {"multiple": choice.many, "metavar": choice.metavar}
        command = click.option(
            choice.flag,
            choice.name,
            is_flag=choice.metavar is None,
            help=f"For the nodes: {choice.help}.",
            **{name: value for name, value in how.items() if value},
        )(command)
    return command


def _said(told: dict[str, str | tuple[str, ...] | bool | None]) -> tuple[str, ...]:
    """What was said of the nodes' options, as arguments for them."""
    said: dict[str, list[str]] = {}
    for name, value in told.items():
        if value is True:
            said[name] = ["yes"]
        elif value:
            said[name] = list(value) if isinstance(value, tuple) else [value]
    try:
        return options.arguments(said)
    except options.Misused as error:
        raise click.UsageError(str(error)) from error


def _period(context: click.Context, parameter: click.Parameter, every: int) -> int:
    try:
        render.cron_schedule(every)
    except ValueError as error:
        raise click.BadParameter(
            f"{error}: name one that divides an hour (1, 2, 5, 10, 15, 20, 30, …) "
            "or hours that divide a day (60, 120, 180, …)"
        ) from error
    return every


@cli.command()
@click.option("-a", "--access-key", type=Path, help="File that holds the access key.")
@click.option("-s", "--secret-key", type=Path, help="File that holds the secret key.")
@click.option(
    "-e",
    "--s3-endpoint",
    help="HOST[:PORT] of the S3 server.  With none of -a, -s and -e: "
    f"access.key and secret.key in {DEFAULT_KEYS} and {DEFAULT_ENDPOINT}.",
)
@click.option("--input-bucket", required=True, help="Has the images and manifests.")
@click.option("--output-bucket", required=True, help="Takes the COGs and JPEGs.")
@click.option("--output-prefix", default="", help="To write before every output's key.")
@click.option(
    "--in-place", is_flag=True, help="Let the COGs replace the originals: one bucket."
)
@click.option(
    "-p",
    "--pattern",
    default="*raw.csv",
    show_default=True,
    help="Which objects are manifests; '*' stands for '/' too.",
)
@click.option(
    "-m",
    "--max-running",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    help="How many nodes of a run are in the queue at once.",
)
@click.option(
    "--rows-per-job",
    type=click.IntRange(min=1, max=1000),
    default=1,
    show_default=True,
    help="How many images one job converts at most, each with a result of its own: "
    "more than one for images so small that a job takes longer than they do.",
)
@click.option(
    "--every",
    type=int,
    default=15,
    show_default=True,
    callback=_period,
    metavar="MINUTES",
    help="How often to look for manifests.",
)
@click.option(
    "--signing",
    type=click.Choice(SIGNINGS),
    default="auto",
    show_default=True,
    help="Who signs S3 transfers: HTCondor's shadow when they begin, or the poll "
    "beforehand, for a week.",
)
@click.option(
    "--node-environment",
    default="host",
    show_default=True,
    callback=_node_environment,
    metavar="host|packed|container:IMAGE",
    help="Where nodes have Python and their packages from: the machines that they run "
    "on, one file that is sent to them, or a container, e.g. docker://… or a .sif.",
)
@click.option(
    "--submit-option",
    "submit_options",
    multiple=True,
    callback=_submit_option,
    metavar="'NAME = VALUE'",
    help="A line more for every node's submit description; may be repeated.",
)
@click.option(
    "--retry-seconds",
    type=click.IntRange(min=1),
    default=60,
    hidden=True,  # for the tests, which cannot wait so long
)
@click.option(
    "--ca-certs",
    type=Path,
    help="Certificate authorities to trust besides the usual ones.",
)
@click.option(
    "--insecure-http", is_flag=True, help="Speak plain http, for test endpoints."
)
@click.option(
    "--largest-put",
    type=click.IntRange(min=1),
    default=pipelines.LARGEST_PUT,
    hidden=True,  # for the tests: no store is known to take less
)
@_node_options
def launch(
    access_key: Path | None,
    secret_key: Path | None,
    s3_endpoint: str | None,
    input_bucket: str,
    output_bucket: str,
    output_prefix: str,
    in_place: bool,
    pattern: str,
    max_running: int,
    rows_per_job: int,
    every: int,
    signing: str,
    node_environment: str,
    submit_options: tuple[str, ...],
    retry_seconds: int,
    ca_certs: Path | None,
    insecure_http: bool,
    largest_put: int,
    **node_options: str | tuple[str, ...] | bool | None,
) -> None:
    """Launch the pipeline here: poll at once, and then for ever.

    \b
      python3 cog_pipeline.py -a access.key -s secret.key -e s3.example.org \\
          --input-bucket maps --output-bucket cogs -p "*raw.csv"

    Run directories are made in the current directory.  'condor_rm' with the job
    id that is printed ends it.
    """
    if input_bucket == output_bucket and not (output_prefix or in_place):
        raise click.UsageError(
            "input and output bucket are the same: add --output-prefix to write the "
            "COGs beside the originals, or --in-place to replace the originals."
        )
    if in_place and (output_prefix or input_bucket != output_bucket):
        raise click.UsageError(
            "--in-place wants one bucket for both, and no --output-prefix."
        )
    pipeline = Pipeline(
        directory=Path.cwd(),
        store=_store(access_key, secret_key, s3_endpoint, insecure_http, ca_certs),
        input_bucket=input_bucket,
        output_bucket=output_bucket,
        output_prefix=output_prefix,
        pattern=pattern,
        every=every,
        max_running=max_running,
        rows_per_job=rows_per_job,
        signing=signing,
        node_environment=node_environment,
        retry_seconds=retry_seconds,
        submit_options=submit_options,
        node_options=_said(node_options),
        largest_put=largest_put,
    )
    try:
        with console.status("checking the endpoint, the buckets and HTCondor"):
            if node_environment == "packed":
                # Before time is spent on packing.
                launching.check(pipeline)
                pipeline = _with_packed_node(pipeline)
            cluster = launching.launch(pipeline)
    except KeyboardInterrupt as error:
        raise _Ended(Exit.INTERRUPTED, _stopped(pipeline)) from error
    journal = _journal(pipeline)
    journal.say(
        "launched",
        f"Launched as job {cluster}: every {every} minutes it looks for "
        f"{pattern!r} in {input_bucket}. 'condor_rm {cluster}' ends it, and "
        f"{pipeline.home.name}/{journals.NAME} tells what it did.",
        job=cluster,
    )
    try:
        _look(pipeline, journal)
    except LookFailed as error:
        _warn(f"the first look did not go well: {error}")
    except KeyboardInterrupt as error:
        sentence = f"stopped the first look by Ctrl-C; job {cluster} goes on looking"
        raise _Ended(Exit.INTERRUPTED, sentence) from error


def _with_packed_node(pipeline: Pipeline) -> Pipeline:
    pipeline.home.mkdir(mode=0o700, exist_ok=True)
    kept = packed.keep(packed.find_or_make(_say), pipeline.home)
    return replace(pipeline, packed_node=kept)


def _stopped(pipeline: Pipeline) -> str:
    """What to say when Ctrl-C came before it was known whether there is a job."""
    try:
        job = launching.crondor_job(pipeline)
    except PipelineError as error:
        return f"stopped by Ctrl-C; see 'condor_q' for a job of it, since {error}"
    if job is None:
        return "stopped by Ctrl-C: nothing was submitted"
    return (
        f"stopped by Ctrl-C, but job {job.cluster} is in the queue and looks for "
        f"manifests: 'condor_rm {job.cluster}' ends it"
    )


def _store(
    access_key: Path | None,
    secret_key: Path | None,
    endpoint: str | None,
    insecure_http: bool,
    ca_certs: Path | None,
) -> Store:
    given = {"-a": access_key, "-s": secret_key, "-e": endpoint}
    missing = [option for option, value in given.items() if not value]
    if 0 < len(missing) < len(given):
        raise click.UsageError(
            f"missing: {', '.join(missing)}; name all of -a, -s and -e, or none "
            f"for {DEFAULT_ENDPOINT}."
        )
    if missing:
        access_key = DEFAULT_KEYS / "access.key"
        secret_key = DEFAULT_KEYS / "secret.key"
        endpoint = DEFAULT_ENDPOINT
    scheme, separator, host = endpoint.rpartition("://")
    if separator and scheme != ("http" if insecure_http else "https"):
        raise click.UsageError(
            f"the endpoint {endpoint!r} does not begin with https://; plain http is "
            "for test endpoints, with --insecure-http."
        )
    return Store(
        # In one form, by which two launches are seen to be the same.
        endpoint=host.rstrip("/").lower().removesuffix(":443"),
        access_key=access_key.expanduser().resolve(),
        secret_key=secret_key.expanduser().resolve(),
        secure=not insecure_http,
        ca_certs=ca_certs.expanduser().resolve() if ca_certs else None,
    )


@cli.command()
@click.argument("pipeline_file", type=click.Path(exists=True, path_type=Path))
def poll(pipeline_file: Path) -> None:
    """Look for manifests once (crondor calls this).

    \b
      python3 cog_pipeline.py poll pipeline-maps-1a2b3c4d/pipeline.json
    """
    pipeline = pipelines.load(pipeline_file)
    for fault in launching.exposed_keys(pipeline.store):
        _warn(fault)
    _look(pipeline, _journal(pipeline))


def _journal(pipeline: Pipeline) -> Journal:
    return _in_use(journals.of_launch(pipeline.home, _say))


def _in_use(journal: Journal) -> Journal:
    """From here on, unforeseen errors are written into this journal."""
    click.get_current_context().find_root().obj = journal
    return journal


def _look(pipeline: Pipeline, journal: Journal) -> None:
    begun = poll_once(pipeline, reconcile_run, journal)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    _say(f"{now}: looked into {pipeline.input_bucket}, runs begun: {len(begun)}")


@cli.command()
@click.argument(
    "pipeline_files",
    nargs=-1,
    metavar="[PIPELINE_FILE]…",
    type=click.Path(path_type=Path),
)
@click.option("--json", "as_json", is_flag=True, help="Print it for programs.")
def health(pipeline_files: tuple[Path, ...], as_json: bool) -> None:
    """Say how launches are, a line each, for monitoring.

    \b
      python3 cog_pipeline.py health pipeline-maps-1a2b3c4d/pipeline.json

    Without a file: all launches of the current directory.  The exit code is that
    of monitoring plugins: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
    """
    files = pipeline_files or sorted(Path.cwd().glob("pipeline-*/pipeline.json"))
    try:
        found = [healths.examine(file) for file in files]
    except Exception as error:
        # Monitoring reads what is printed here, and takes other codes as it likes.
        _say(f"{State.UNKNOWN.name}: {Journal(_say).unforeseen(error)}")
        sys.exit(State.UNKNOWN)
    if as_json:
        click.echo(json.dumps([healths.as_json(one) for one in found], indent=2))
    elif found:
        for one in found:
            _say(healths.sentence(one))
    else:
        _say(
            f"{State.UNKNOWN.name}: no launch has been made in {Path.cwd()}; name the "
            "pipeline.json of one"
        )
    sys.exit(healths.worst(one.state for one in found) if found else State.UNKNOWN)


@cli.command()
@click.argument("run_directory", type=click.Path(exists=True, path_type=Path))
def reconcile(run_directory: Path) -> None:
    """End a run: write its two CSVs (DAGMan calls this).

    \b
      python3 cog_pipeline.py reconcile workflow-run-20261120T193637Z
    """
    run = runs.load(run_directory)
    journal = _in_use(Journal(_say).of_run(run))
    try:
        attempt = runs.count_attempt(run)
    except OSError as error:
        # The disk is full, and DAGMan could not even write that this script ended.
        _say(f"{foreseen(error) or error}; tried again soon")
        sys.exit(Exit.TRY_AGAIN)
    try:
        reconcile_run(run, pipelines.load(run.pipeline_file), journal)
    except (BucketError, PipelineError, OSError) as error:
        last = attempt >= MOST_ATTEMPTS
        then = "the next poll tries again" if last else "tried again soon"
        sentence = f"attempt {attempt}: {error}; {then}"
        journal.say("not-reconciled", sentence, "warning", attempt=attempt)
        sys.exit(Exit.REFUSED if last else Exit.TRY_AGAIN)


@cli.command()
@click.argument("run_directory", type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print it for programs.")
def cost(run_directory: Path, as_json: bool) -> None:
    """Say what a run cost, so far or in all: time of machines, CPU, bytes.

    \b
      python3 cog_pipeline.py cost workflow-run-20261120T193637Z

    The average is that of the rows that were worked on.
    """
    spent = costs.cost(runs.load(run_directory))
    if as_json:
        click.echo(json.dumps(asdict(spent), indent=2))
        return
    ended = "still runs"
    if spent.processed is not None:
        ended = f"{spent.processed} processed, {spent.failed} failed"
    shown = Table(title=f"{run_directory.name}: {spent.rows} rows, {ended}", box=SIMPLE)
    shown.add_column("")
    shown.add_column("the run", justify="right")
    shown.add_column("the average row", justify="right")
    for line in costs.table(spent):
        shown.add_row(*line)
    console.print(shown)


def _directory_option(command: Callable) -> Callable:
    @click.option(
        "--directory",
        type=Path,
        help="Of the pool; by default the user's state folder.",
    )
    @wraps(command)
    def with_pool_directory(directory: Path | None) -> object:
        from pool import personal  # not needed, nor its packages, on an access point

        return command(personal, directory or personal.default_directory())

    return with_pool_directory


@cli.group()
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


def _say(sentence: str) -> None:
    click.echo(printable(sentence))


def _warn(sentence: str) -> None:
    click.echo(printable(f"Warning: {sentence}"), err=True)


if __name__ == "__main__":
    cli()
