"""Launch the pipeline once: check everything, then submit the crondor job."""

import os
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from bucket import Bucket, Store
from dag import pipeline as pipelines, render, run as runs, schedd
from dag.errors import OthersCanChange, PipelineError
from dag.files import (
    check_nobody_else_writes,
    check_nobody_else_wrote,
    write_atomically,
)
from dag.pipeline import Pipeline
from state import ownership

# By this attribute, a name that two launches of the same share, a crondor job is
# found in the queue.
_LAUNCH_ATTRIBUTE = "CogPipeline"


class AlreadyRunning(PipelineError):
    """Another crondor job takes the same manifests."""


def launch(pipeline: Pipeline) -> int:
    """Check what a run will need and submit the crondor job.

    Returns:
        The job's cluster.

    Raises:
        AlreadyRunning: there is such a job; nothing was submitted.
        BucketError, PipelineError: something is missing, in one sentence.
    """
    check(pipeline)
    _refuse_second(pipeline)
    pipeline.home.mkdir(mode=0o700, exist_ok=True)
    # Another launch in this directory waits here, and then finds this one's job.
    with runs.alone(pipeline.home, "launch.lock"):
        _refuse_second(pipeline)
        for name in ("crondor.log", "poll.out", "poll.err"):
            # HTCondor would make it for all to read; what is there it leaves.
            (pipeline.home / name).touch(mode=0o600)
        pipelines.save(pipeline, pipeline.file)
        description = render.crondor(pipeline)
        write_atomically(pipeline.home / "crondor.sub", description)
        cluster = schedd.submit(description)
    # One in another directory may have submitted at the same moment. Now each sees
    # both, and the later one goes.
    try:
        _refuse_second(pipeline, but=cluster)
    except AlreadyRunning:
        schedd.remove(cluster, "another launch was first")
        raise
    return cluster


def _refuse_second(pipeline: Pipeline, but: int | None = None) -> None:
    running = crondor_job(pipeline)
    if running is None or running.cluster == but:
        return
    held = f": {running.hold_reason}" if running.hold_reason else ""
    raise AlreadyRunning(
        f"already running for this endpoint, bucket and pattern: job "
        f"{running.cluster}, of {running.owner}, {running.status}{held}. "
        f"'condor_rm {running.cluster}' stops it"
    )


def crondor_job(pipeline: Pipeline) -> schedd.Job | None:
    """The job that polls for a launch of the same name, if the queue has one."""
    return schedd.find(_LAUNCH_ATTRIBUTE, pipeline.home.name)


def check(pipeline: Pipeline) -> None:
    """Raise the first thing that would keep a run from working."""
    store = pipeline.store
    for option, file in (("-a", store.access_key), ("-s", store.secret_key)):
        _check_key(option, file)
    for fault in exposed_keys(store):
        raise OthersCanChange(fault)
    if store.ca_certs and not store.ca_certs.is_file():
        raise PipelineError(f"there is no file {store.ca_certs}: see --ca-certs")
    _check_names(pipeline)
    if not os.access(pipeline.directory, os.W_OK):
        raise PipelineError(f"{pipeline.directory} cannot be written: launch elsewhere")
    check_nobody_else_writes(pipeline.directory)
    if pipeline.home.is_dir():
        check_nobody_else_wrote(pipeline.home)
    paths = [pipeline.directory, render.PROJECT, store.access_key, store.secret_key]
    render.check_paths([*paths, Path(sys.executable)])
    inputs, outputs = pipeline.inputs(), pipeline.outputs()
    for bucket in (inputs, outputs):
        bucket.check()
    _check_writing(inputs)
    schedd.check()


def exposed_keys(store: Store) -> Iterator[str]:
    """Yield what lets other users read or replace a store's keys, and the remedy.

    Also what lets them replace the certificates that it is known by. A launch is
    refused then. A poll goes on: an archive must not stand still for months because of
    a file's mode.
    """
    for file in (store.access_key, store.secret_key):
        if file.exists() and file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            yield f"others can use the key file {file}: chmod 600 {file}"
    for file in (store.access_key, store.secret_key, store.ca_certs):
        if file and file.exists():
            yield from ownership.faults(file)


def _check_key(option: str, file: Path) -> None:
    if not file.is_file():
        raise PipelineError(f"there is no key file {file}: see {option}")
    try:
        key = file.read_text().strip()
    except (OSError, ValueError) as error:
        raise PipelineError(f"the key file {file} cannot be read: {error}") from error
    if not key:
        raise PipelineError(f"the key file {file} is empty")


def _check_names(pipeline: Pipeline) -> None:
    for name in (pipeline.input_bucket, pipeline.output_bucket):
        if not name or set(name) & set("/\\ ,;\"'$"):
            raise PipelineError(f"{name!r} is no name of a bucket")


def _check_writing(bucket: Bucket) -> None:
    probe = f".cog_pipeline-write-check-{secrets.token_hex(8)}"
    bucket.write(probe, b"", "application/octet-stream")
    bucket.remove(probe)
