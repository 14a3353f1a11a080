"""``launch``: check everything, submit the crondor job, and poll once."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from bucket import MAX_URL_HOURS, BucketError, S3Endpoint
from catalog import products
from cli import options as shared
from cli.catalog_options import catalog_options
from cli.common import console, fail, say, use_journal, warn
from cli.group import SectionedCommand
from cli.poll import poll_and_report
from condor import queue
from condor.errors import SchedulerError
from dag import launch as launching, signing
from node import options
from pack import packed
from s3 import proxies
from state import ownership
from state.errors import PipelineError, PollFailed
from state.exits import Exit
from state.journal import LOG_NAME, Journal, journal_of
from state.keys import OutputNames
from state.launch import FORMER_ORDERS, RUN_ORDERS, SIGNINGS, URL_HOURS, Launch
from state.project import PROJECT
from state.text import counted

# Options and values that had other names before version 0.1. They still work.
_FORMER_NAMES = {
    "max-running": "max-jobs",
    "order": "run-order",
    "largest-put": "max-put",
    **FORMER_ORDERS,
}
# The first option of each section of --help.
_SECTIONS = {
    "access_key": "The store",
    "input_bucket": "Input and output",
    "every": "Polls and limits",
    "rows_per_job": "Jobs",
    "products": "Catalog",
    "profile": "Conversion",
}


@click.command(
    cls=SectionedCommand,
    sections=_SECTIONS,
    context_settings={
        "show_default": True,
        "token_normalize_func": lambda name: _FORMER_NAMES.get(name, name),
    },
)
@shared.store_options
@click.option(
    "--input-bucket",
    required=True,
    metavar="NAME",
    help="Bucket with the images and the manifests.",
)
@click.option(
    "--output-bucket",
    required=True,
    metavar="NAME",
    help="Bucket for the COGs and JPEGs.",
)
@shared.input_prefix_option
@shared.output_name_options
@click.option(
    "--in-place",
    is_flag=True,
    help="Let the COGs replace the originals, in one bucket.",
)
@click.option(
    "-p",
    "--pattern",
    default=Launch.pattern,
    metavar="PATTERN",
    help="Which keys are manifests. It must end in .csv. '*' also matches '/'.",
)
@click.option(
    "--every",
    type=int,
    default=Launch.every,
    callback=shared.check_period,
    metavar="MINUTES",
    help="Time between two polls.",
)
@click.option(
    "--max-runs",
    type=click.IntRange(min=1),
    default=Launch.max_runs,
    metavar="N",
    help="Maximum number of manifests in progress. Others wait in the bucket.",
)
@click.option(
    "-m",
    "--max-jobs",
    type=click.IntRange(min=1),
    default=Launch.max_jobs,
    metavar="N",
    help="Maximum number of jobs of a run in the queue.",
)
@click.option(
    "--max-idle",
    type=click.IntRange(min=1),
    default=Launch.max_idle,
    metavar="N",
    help="Maximum number of jobs of a run that wait in the queue for a machine.",
)
@click.option(
    "--run-order",
    type=click.Choice(RUN_ORDERS),
    default=Launch.run_order,
    help="Let several runs share the pool (fair), or finish the oldest run first "
    "(fifo).",
)
@click.option(
    "--disk-floor",
    type=click.IntRange(min=0),
    default=Launch.disk_floor // 10**6,
    callback=shared.megabytes,
    metavar="MB",
    help="Start no run while less disk is free where you launch. 0 turns this off.",
)
@click.option(
    "--max-time-limit",
    type=click.IntRange(min=1),
    default=Launch.max_time_limit,
    metavar="SECONDS",
    help="The highest time_limit that a row of a manifest can have.",
)
@click.option(
    "--rows-per-job",
    default="auto",
    callback=shared.check_rows_per_job,
    metavar="auto|N",
    help="Maximum number of images that one job converts. With auto, small images "
    "share a job, as long as all slots of the pool stay busy. If such a job fails as a "
    "whole, each of its images gets a job of its own.",
)
@click.option(
    "--node-environment",
    default=Launch.node_environment,
    callback=shared.check_node_environment,
    metavar="host|packed|container:IMAGE",
    help="Where nodes get Python and their packages: from the machine, from one file "
    "that is sent to it, or from a container image (docker://… or a .sif file).",
)
@click.option(
    "--submit-option",
    "submit_options",
    multiple=True,
    callback=shared.check_submit_options,
    metavar="'NAME = VALUE'",
    help="Extra line for the submit description of nodes. Attributes (+NAME) and "
    "accounting groups go to the crondor job and to DAGMan too. You can repeat it.",
)
@click.option(
    "--node-submit-option",
    "node_submit_options",
    multiple=True,
    callback=shared.check_submit_options,
    metavar="'NAME = VALUE'",
    help="The same for the jobs of nodes alone. You can repeat it.",
)
@click.option(
    "--signing",
    type=click.Choice(SIGNINGS),
    default=Launch.signing,
    help="Who signs S3 transfers: HTCondor's shadow when they start (shadow), or the "
    "poll beforehand, for --url-hours (presigned).",
)
@click.option(
    "--url-hours",
    type=click.IntRange(1, MAX_URL_HOURS),
    metavar="HOURS",
    show_default=f"{URL_HOURS}, or twice --every if that is more",
    help="How long a presigned URL is valid. Polls renew the URLs of waiting jobs.",
)
@click.option(
    "--url-seconds",
    type=click.IntRange(2, 3600 * MAX_URL_HOURS),
    hidden=True,  # for tests, which cannot wait for hours
)
@click.option(
    "--retry-seconds",
    type=click.IntRange(min=1),
    default=Launch.retry_seconds,
    hidden=True,  # for tests, which cannot wait so long
)
@click.option(
    "--max-put",
    type=click.IntRange(min=1),
    default=Launch.max_put,
    hidden=True,  # for tests: no store is known to accept less
)
@catalog_options(
    "--catalog",
    "Products to make of all COGs after each run: stac, geoparquet, mosaicjson, "
    "tileindex, vrt, checksums, postgis, or all.",
)
@shared.node_options
def launch(
    store: S3Endpoint,
    in_place: bool,
    url_hours: int | None,
    url_seconds: int | None,
    **settings: Any,
) -> None:
    """Launch here: poll now, and from then on every few minutes.

    \b
      python3 cog_pipeline.py launch -a access.key -s secret.key \\
          -e s3.example.org --input-bucket maps --output-bucket cogs \\
          -p "*raw.csv"

    Run directories are created in the current directory. To stop, run 'stop --launch'
    there.
    """
    if in_place and settings["rows_per_job"] is None:
        # A shared job that is tried again would convert COGs of the first try.
        settings["rows_per_job"] = 1
    seconds = url_seconds or shared.url_seconds(url_hours, settings["every"])
    launch = Launch(Path.cwd(), store, url_seconds=seconds, **settings)
    _check_combinations(launch, in_place)
    for folder in (PROJECT, Path(sys.prefix)):
        for fault in ownership.faults(folder):
            warn(f"other users can change the code that you run: {fault}")
    _check_catalog(launch)
    try:
        with console.status("checking the endpoint, the buckets and HTCondor"):
            if launch.node_environment == "packed":
                # Before packing, which takes time.
                launching.check(launch)
                launch = _with_packed_node(launch)
            keep_keys = shared.keys_are_borrowed()
            cluster = launching.launch(launch, keep_keys=keep_keys)
    except KeyboardInterrupt:
        fail(Exit.INTERRUPTED, _interrupted(launch))
    if keep_keys:
        launch = launching.with_kept_keys(launch)
    journal = use_journal(journal_of(launch.home, say))
    journal.say(
        "launched",
        f"Launched as job {cluster}: it polls bucket {launch.input_bucket} for "
        f"{launch.pattern!r} every {counted(launch.every, 'minute')}. 'stop --launch' "
        f"ends it, and {launch.home.name}/{LOG_NAME} records what it does.",
        job=cluster,
    )
    warn_if_urls_can_be_read(launch, journal)
    if proxies.have_password():
        warn(
            "a proxy of your environment has a password in its URL. Anyone who can "
            "use this access point can read it in the ad of the job that polls"
        )
    try:
        poll_and_report(launch, journal)
    except PollFailed as error:
        warn(f"the first poll failed: {error}")
    except KeyboardInterrupt:
        message = f"stopped the first poll by Ctrl-C; job {cluster} continues to poll"
        fail(Exit.INTERRUPTED, message)


def _check_combinations(launch: Launch, in_place: bool) -> None:
    """Raise a UsageError for options that do not go together."""
    one_bucket = launch.in_one_bucket
    if one_bucket and not (launch.output_prefix or in_place):
        raise click.UsageError(
            "input and output bucket are the same: add --output-prefix to write the "
            "COGs under a prefix of their own, or --in-place to replace the originals."
        )
    image = f"{launch.input_prefix}image.tif"
    if one_bucket and not in_place and launch.cog_key(image) == image:
        raise click.UsageError(
            "--output-prefix is --input-prefix, so that COGs would replace the "
            "originals: use another one, or --in-place without it."
        )
    if in_place and (launch.output_prefix or not one_bucket):
        raise click.UsageError(
            "--in-place needs the same bucket for both, and no --output-prefix."
        )
    if in_place and launch.output_names != OutputNames():
        raise click.UsageError(
            "--in-place gives a COG the name of its original: leave out "
            "--input-prefix, --strip-prefix and --output-suffix."
        )
    if in_place and launch.rows_per_job != 1:
        raise click.UsageError(
            "--in-place and --rows-per-job do not go together: a second attempt "
            "would convert COGs of the first one, because the originals are gone."
        )
    if options.time_limit(launch.node_options) > launch.max_time_limit:
        raise click.UsageError(
            f"--time-limit is above --max-time-limit ({launch.max_time_limit} s): "
            "raise that limit too."
        )


def _check_catalog(launch: Launch) -> None:
    """Raise an error for a product of the catalog that polls cannot make."""
    if "postgis" in launch.catalog.products and "PGPASSWORD" in os.environ:
        raise click.UsageError(
            "polls have no PGPASSWORD, because others can read the environment of a "
            "job: write the password into ~/.pgpass, and unset PGPASSWORD."
        )
    for name in launch.catalog.products:
        products.check(name)


def warn_if_urls_can_be_read(launch: Launch, journal: Journal) -> None:
    try:
        version = queue.version()
        if signing.shadow(launch, version, launch.inputs(), launch.outputs()):
            return
    except (SchedulerError, BucketError) as error:
        # The job is in the queue. Polls ask again, and report what fails.
        warn(f"who signs the transfers is not known yet: {error}")
        return
    hours = launch.url_seconds / 3600
    journal.say(
        "presigned-urls",
        "All transfers use presigned URLs. Anyone who can read job ads at this access "
        "point can read these URLs in the queue and in the history. Anyone with a URL "
        f"can read that image or overwrite that COG until it expires, {hours:g} hours "
        "after it was signed (--url-hours).",
        "warning",
    )


def _with_packed_node(launch: Launch) -> Launch:
    launch.home.mkdir(mode=0o700, exist_ok=True)
    archive = packed.keep(packed.find_or_make(say), launch.home)
    return replace(launch, packed_node=archive)


def _interrupted(launch: Launch) -> str:
    """Return what to say if Ctrl-C came before it was known whether there is a job."""
    try:
        job = queue.crondor_job(launch)
    except PipelineError as error:
        return f"stopped by Ctrl-C; look for its job with 'condor_q', because {error}"
    if job is None:
        return "stopped by Ctrl-C: nothing was submitted"
    return (
        f"stopped by Ctrl-C, but job {job.cluster} is in the queue and polls for "
        f"manifests: 'condor_rm {job.cluster}' ends it"
    )
