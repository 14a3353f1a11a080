"""``launch``, and ``poll``, which it has HTCondor do for ever."""

import math
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from bucket import LONGEST_URL_HOURS, Store
from cli import options as checked
from cli.common import Ended, console, in_use, say, warn
from dag import (
    journal as journals,
    launch as launching,
    pipeline as pipelines,
    render,
    schedd,
)
from dag.errors import LookFailed, PipelineError
from dag.exits import Exit
from dag.journal import Journal
from dag.pipeline import Pipeline
from dag.poll import poll as poll_once
from dag.signing import shadow_signs
from node import options
from pack import packed
from post.reconcile import reconcile as reconcile_run
from state import ownership

DEFAULT_KEYS = Path.home() / ".chtc_s3"
DEFAULT_ENDPOINT = "s3dev.chtc.wisc.edu"


@click.command()
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
    "--max-idle",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="How many nodes of a run wait in the queue for a machine at once.",
)
@click.option(
    "--max-runs",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="How many manifests are worked on at once; the others wait in the bucket.",
)
@click.option(
    "--disk-floor",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    metavar="MB",
    help="No run begins while less is free where you launch; 0 for no such bound.",
)
@click.option(
    "--order",
    type=click.Choice(pipelines.ORDERS),
    default="shared",
    show_default=True,
    help="Which of several runs' nodes go first: each run's in turn, or those of the "
    "oldest run.",
)
@click.option(
    "--rows-per-job",
    type=click.IntRange(min=1, max=1000),
    default=1,
    show_default=True,
    help="How many images one job converts at most, each with a result of its own: "
    "more than one for images so small that a job takes longer than they do. Where "
    "that fails as a whole, each is tried in a job of its own.",
)
@click.option(
    "--every",
    type=int,
    default=15,
    show_default=True,
    callback=checked.period,
    metavar="MINUTES",
    help="How often to look for manifests.",
)
@click.option(
    "--signing",
    type=click.Choice(pipelines.SIGNINGS),
    default="auto",
    show_default=True,
    help="Who signs S3 transfers: HTCondor's shadow when they begin, or the poll "
    "beforehand, for --url-hours.",
)
@click.option(
    "--url-hours",
    type=click.IntRange(1, LONGEST_URL_HOURS),
    help="How long a presigned URL can be used; polls renew those of jobs that wait. "
    f"[default: {pipelines.URL_HOURS}, or twice --every if that is more]",
)
@click.option(
    "--url-seconds",
    type=click.IntRange(2, 3600 * LONGEST_URL_HOURS),
    hidden=True,  # for the tests, which cannot wait for hours
)
@click.option(
    "--node-environment",
    default="host",
    show_default=True,
    callback=checked.node_environment,
    metavar="host|packed|container:IMAGE",
    help="Where nodes have Python and their packages from: the machines that they run "
    "on, one file that is sent to them, or a container, e.g. docker://… or a .sif.",
)
@click.option(
    "--submit-option",
    "submit_options",
    multiple=True,
    callback=checked.submit_option,
    metavar="'NAME = VALUE'",
    help="A line more for every node's submit description; may be repeated.",
)
@click.option(
    "--max-time-limit",
    type=click.IntRange(min=1),
    default=pipelines.MAX_TIME_LIMIT,
    show_default=True,
    metavar="SECONDS",
    help="The most that a row of a manifest may say as its time_limit.",
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
@checked.node_options
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
    max_idle: int,
    max_runs: int,
    disk_floor: int,
    order: str,
    rows_per_job: int,
    every: int,
    signing: str,
    url_hours: int | None,
    url_seconds: int | None,
    node_environment: str,
    submit_options: tuple[str, ...],
    max_time_limit: int,
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
    if in_place and rows_per_job > 1:
        raise click.UsageError(
            "--in-place and --rows-per-job do not go together: what is tried again "
            "would convert its neighbours' COGs, since the originals are gone."
        )
    arguments = checked.as_arguments(node_options)
    if options.time_limit(arguments) > max_time_limit:
        raise click.UsageError(
            f"--time-limit is above --max-time-limit ({max_time_limit} s): raise this "
            "one as well."
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
        max_idle=max_idle,
        max_runs=max_runs,
        disk_floor=disk_floor * 10**6,
        order=order,
        rows_per_job=rows_per_job,
        signing=signing,
        url_seconds=url_seconds or _url_seconds(url_hours, every),
        node_environment=node_environment,
        retry_seconds=retry_seconds,
        submit_options=submit_options,
        node_options=arguments,
        max_time_limit=max_time_limit,
        largest_put=largest_put,
    )
    for folder in (render.PROJECT, Path(sys.prefix)):
        for fault in ownership.faults(folder):
            warn(f"the code that runs as you can be changed: {fault}")
    try:
        with console.status("checking the endpoint, the buckets and HTCondor"):
            if node_environment == "packed":
                # Before time is spent on packing.
                launching.check(pipeline)
                pipeline = _with_packed_node(pipeline)
            cluster = launching.launch(pipeline)
    except KeyboardInterrupt as error:
        raise Ended(Exit.INTERRUPTED, _stopped(pipeline)) from error
    journal = _journal(pipeline)
    journal.say(
        "launched",
        f"Launched as job {cluster}: every {every} minutes it looks for "
        f"{pattern!r} in {input_bucket}. 'condor_rm {cluster}' ends it, and "
        f"{pipeline.home.name}/{journals.NAME} tells what it did.",
        job=cluster,
    )
    _tell_who_can_read_urls(pipeline, journal)
    try:
        _look(pipeline, journal)
    except LookFailed as error:
        warn(f"the first look did not go well: {error}")
    except KeyboardInterrupt as error:
        sentence = f"stopped the first look by Ctrl-C; job {cluster} goes on looking"
        raise Ended(Exit.INTERRUPTED, sentence) from error


def _tell_who_can_read_urls(pipeline: Pipeline, journal: Journal) -> None:
    if shadow_signs(pipeline, schedd.version()):
        return
    hours = pipeline.url_seconds / 3600
    journal.say(
        "presigned-urls",
        "All transfers use presigned URLs: whoever may read job ads at this access "
        "point can read them in the queue and the history, and whoever has one can "
        f"read that image or overwrite that COG until it expires, {hours:g} hours "
        "after it was made (--url-hours).",
        "warning",
    )


def _with_packed_node(pipeline: Pipeline) -> Pipeline:
    pipeline.home.mkdir(mode=0o700, exist_ok=True)
    kept = packed.keep(packed.find_or_make(say), pipeline.home)
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


def _url_seconds(hours: int | None, every: int) -> int:
    # Jobs begin with URLs that have half of their life left: they are to be renewed
    # before that is over.
    least = math.ceil(2 * every / 60)
    if hours is None:
        hours = max(pipelines.URL_HOURS, least)
    elif hours < least:
        raise click.UsageError(
            f"--url-hours {hours} and --every {every} do not go together: jobs would "
            f"wait for new URLs; say --url-hours {least} or more, or look more often."
        )
    return 3600 * hours


@click.command()
@click.argument("pipeline_file", type=click.Path(exists=True, path_type=Path))
def poll(pipeline_file: Path) -> None:
    """Look for manifests once (crondor calls this).

    \b
      python3 cog_pipeline.py poll pipeline-maps-1a2b3c4d/pipeline.json
    """
    pipeline = pipelines.load(pipeline_file)
    for fault in launching.exposed_keys(pipeline.store):
        warn(fault)
    _look(pipeline, _journal(pipeline))


def _journal(pipeline: Pipeline) -> Journal:
    return in_use(journals.of_launch(pipeline.home, say))


def _look(pipeline: Pipeline, journal: Journal) -> None:
    begun = poll_once(pipeline, reconcile_run, journal)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    say(f"{now}: looked into {pipeline.input_bucket}, runs begun: {len(begun)}")
