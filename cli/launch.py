"""``launch``, and ``poll``, which it has HTCondor do for ever."""

import math
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from bucket import LONGEST_URL_HOURS, S3Endpoint
from cli import options as checked
from cli.common import Ended, console, in_use, say, warn
from condor import queue
from condor.queue import crondor_job
from dag import launch as launching
from dag.poll import poll as poll_once
from dag.signing import shadow_signs
from node import options
from pack import packed
from state import ownership
from state.errors import PipelineError, PollFailed
from state.exits import Exit
from state.journal import LOG_NAME, Journal, journal_of
from state.launch import (
    FORMER_ORDERS,
    MAX_PUT,
    MAX_TIME_LIMIT,
    RUN_ORDERS,
    SIGNINGS,
    URL_HOURS,
    Launch,
    load_launch,
)
from state.project import PROJECT

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
    "--max-jobs",
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
    "--run-order",
    type=click.Choice(RUN_ORDERS),
    default="fair",
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
    type=click.Choice(SIGNINGS),
    default="auto",
    show_default=True,
    help="Who signs S3 transfers: HTCondor's shadow when they begin, or the poll "
    "beforehand, for --url-hours.",
)
@click.option(
    "--url-hours",
    type=click.IntRange(1, LONGEST_URL_HOURS),
    help="How long a presigned URL can be used; polls renew those of jobs that wait. "
    f"[default: {URL_HOURS}, or twice --every if that is more]",
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
    default=MAX_TIME_LIMIT,
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
    "--max-put",
    type=click.IntRange(min=1),
    default=MAX_PUT,
    hidden=True,  # for the tests: no store is known to take less
)
@checked.former_name("--order", "run_order", FORMER_ORDERS.get)
@checked.former_name("--max-running", "max_jobs", int)
@checked.former_name("--largest-put", "max_put", int)
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
    max_jobs: int,
    max_idle: int,
    max_runs: int,
    disk_floor: int,
    run_order: str,
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
    max_put: int,
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
    launch = Launch(
        directory=Path.cwd(),
        store=_store(access_key, secret_key, s3_endpoint, insecure_http, ca_certs),
        input_bucket=input_bucket,
        output_bucket=output_bucket,
        output_prefix=output_prefix,
        pattern=pattern,
        every=every,
        max_jobs=max_jobs,
        max_idle=max_idle,
        max_runs=max_runs,
        disk_floor=disk_floor * 10**6,
        run_order=run_order,
        rows_per_job=rows_per_job,
        signing=signing,
        url_seconds=url_seconds or _url_seconds(url_hours, every),
        node_environment=node_environment,
        retry_seconds=retry_seconds,
        submit_options=submit_options,
        node_options=arguments,
        max_time_limit=max_time_limit,
        max_put=max_put,
    )
    for folder in (PROJECT, Path(sys.prefix)):
        for fault in ownership.faults(folder):
            warn(f"the code that runs as you can be changed: {fault}")
    try:
        with console.status("checking the endpoint, the buckets and HTCondor"):
            if node_environment == "packed":
                # Before time is spent on packing.
                launching.check(launch)
                launch = _with_packed_node(launch)
            cluster = launching.launch(launch)
    except KeyboardInterrupt as error:
        raise Ended(Exit.INTERRUPTED, _stopped(launch)) from error
    journal = _journal(launch)
    journal.say(
        "launched",
        f"Launched as job {cluster}: every {every} minutes it looks for "
        f"{pattern!r} in {input_bucket}. 'condor_rm {cluster}' ends it, and "
        f"{launch.home.name}/{LOG_NAME} tells what it did.",
        job=cluster,
    )
    _tell_who_can_read_urls(launch, journal)
    try:
        _look(launch, journal)
    except PollFailed as error:
        warn(f"the first look did not go well: {error}")
    except KeyboardInterrupt as error:
        sentence = f"stopped the first look by Ctrl-C; job {cluster} goes on looking"
        raise Ended(Exit.INTERRUPTED, sentence) from error


def _tell_who_can_read_urls(launch: Launch, journal: Journal) -> None:
    if shadow_signs(launch, queue.version()):
        return
    hours = launch.url_seconds / 3600
    journal.say(
        "presigned-urls",
        "All transfers use presigned URLs: whoever may read job ads at this access "
        "point can read them in the queue and the history, and whoever has one can "
        f"read that image or overwrite that COG until it expires, {hours:g} hours "
        "after it was made (--url-hours).",
        "warning",
    )


def _with_packed_node(launch: Launch) -> Launch:
    launch.home.mkdir(mode=0o700, exist_ok=True)
    kept = packed.keep(packed.find_or_make(say), launch.home)
    return replace(launch, packed_node=kept)


def _stopped(launch: Launch) -> str:
    """What to say when Ctrl-C came before it was known whether there is a job."""
    try:
        job = crondor_job(launch)
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
) -> S3Endpoint:
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
    return S3Endpoint(
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
        hours = max(URL_HOURS, least)
    elif hours < least:
        raise click.UsageError(
            f"--url-hours {hours} and --every {every} do not go together: jobs would "
            f"wait for new URLs; say --url-hours {least} or more, or look more often."
        )
    return 3600 * hours


@click.command()
@click.argument("launch_file", type=click.Path(exists=True, path_type=Path))
def poll(launch_file: Path) -> None:
    """Look for manifests once (crondor calls this).

    \b
      python3 cog_pipeline.py poll launch-maps-1a2b3c4d/launch.json
    """
    launch = load_launch(launch_file)
    for fault in launching.exposed_keys(launch.store):
        warn(fault)
    _look(launch, _journal(launch))


def _journal(launch: Launch) -> Journal:
    return in_use(journal_of(launch.home, say))


def _look(launch: Launch, journal: Journal) -> None:
    begun = poll_once(launch, journal)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    say(f"{now}: looked into {launch.input_bucket}, runs begun: {len(begun)}")
