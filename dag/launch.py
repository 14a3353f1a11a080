"""Launch the pipeline once: check everything, then submit the crondor job."""

import os
import secrets
import shlex
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bucket import ACCESS_DENIED, Bucket, PermanentS3Error, S3Endpoint
from condor import queue
from dag import intake, key_arguments, render, submission
from s3 import aws
from s3.keys import read_access_key, read_key
from state import ownership
from state.errors import OthersCanChange, PipelineError
from state.files import (
    check_nobody_else_writes,
    check_nobody_else_wrote,
    write_atomically,
    write_bytes_atomically,
)
from state.launch import Launch, literal_prefix, save_launch
from state.project import PROJECT
from state.run import locked

_KEPT_KEYS = ("access.key", "secret.key")


class AlreadyRunning(PipelineError):
    """Another crondor job processes the same manifests."""


def launch(launch: Launch, *, keep_keys: bool = False) -> int:
    """Check everything that a run will need, and submit the crondor job.

    Args:
        keep_keys: whether to copy the keys into the launch's folder, because their
            files will not stay.

    Returns:
        The cluster of the job.

    Raises:
        AlreadyRunning: there is such a job already; nothing was submitted.
        BucketError, PipelineError: something is missing; the message says what.
    """
    check(launch)
    _refuse_second(launch)
    launch.home.mkdir(mode=0o700, exist_ok=True)
    # Another launch in this directory waits here, and then finds the job of this one.
    with locked(launch.home, "launch.lock"):
        _refuse_second(launch)
        for name in ("crondor.log", "poll.out", "poll.err"):
            # HTCondor would create it readable for everybody; it keeps existing files.
            (launch.home / name).touch(mode=0o600)
        if keep_keys:
            launch = _keep_keys(launch)
        submission.try_jobs(launch)
        save_launch(launch, launch.file)
        description = render.crondor(launch)
        write_atomically(launch.home / "crondor.sub", description)
        cluster = queue.submit(description)
    # A launch in another directory may have submitted at the same moment. Now each of
    # them sees both jobs, and the later one is removed.
    try:
        _refuse_second(launch, own_cluster=cluster)
    except AlreadyRunning:
        queue.remove(cluster, "another launch was first")
        raise
    return cluster


def with_kept_keys(launch: Launch) -> Launch:
    """Return a launch whose key files are in its own folder."""
    access_key, secret_key = (launch.home / name for name in _KEPT_KEYS)
    store = replace(launch.store, access_key=access_key, secret_key=secret_key)
    return replace(launch, store=store)


def _keep_keys(launch: Launch) -> Launch:
    kept = with_kept_keys(launch)
    write_bytes_atomically(kept.store.access_key, launch.store.access_key.read_bytes())
    write_bytes_atomically(kept.store.secret_key, launch.store.secret_key.read_bytes())
    return kept


def _refuse_second(launch: Launch, own_cluster: int | None = None) -> None:
    running = queue.crondor_job(launch)
    if running is None or running.cluster == own_cluster:
        return
    held = f": {running.hold_reason}" if running.hold_reason else ""
    raise AlreadyRunning(
        f"already running for this endpoint, bucket and pattern: job "
        f"{running.cluster}, of {running.owner}, {running.status}{held}. "
        f"'condor_rm {running.cluster}' stops it"
    )


def check(launch: Launch) -> None:
    """Raise an error for the first thing that would keep a run from working."""
    store = launch.store
    check_keys(store)
    check_endpoint(store)
    check_names(launch.input_bucket, launch.pattern, folder=launch.input_prefix)
    check_names(launch.output_bucket, prefix=launch.output_prefix)
    if not os.access(launch.directory, os.W_OK):
        raise PipelineError(
            f"you cannot write in {launch.directory}: launch in another directory"
        )
    check_nobody_else_writes(launch.directory)
    if launch.home.is_dir():
        check_nobody_else_wrote(launch.home)
    paths = [launch.directory, PROJECT, Path(sys.executable)]
    keys = (store.access_key, store.secret_key, store.session_token)
    render.check_paths([*paths, *filter(None, keys)])
    check_inputs(launch.inputs(), launch.pattern)
    check_permissions(launch.outputs(), launch.output_prefix)
    queue.check()
    if not queue.dagman_accepts(launch.directory):
        raise PipelineError(
            f"DAGMan refuses to write its log under /tmp, as in {launch.directory}: "
            "launch in a directory of another disk, such as your home directory"
        )


def exposed_keys(store: S3Endpoint) -> Iterator[str]:
    """Yield what lets other users read or replace a store's keys, and the remedy.

    Also yield what lets them replace the certificates of the store. This stops a
    launch, but not a poll: an archive must not stand still for months because of the
    mode of a file.
    """
    secrets = [store.access_key, store.secret_key, store.session_token]
    for key in filter(None, secrets):
        if key.exists() and key.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            command = f"chmod 600 {shlex.quote(str(key))}"
            yield f"others can use the key file {key}: {command}"
    for file in filter(None, [*secrets, store.ca_certs]):
        if file.exists():
            yield from ownership.faults(file)


def check_keys(store: S3Endpoint) -> None:
    """Raise an error unless each key file holds a key, and is the operator's alone."""
    files = {
        "-a": store.access_key,
        "-s": store.secret_key,
        "--session-token": store.session_token,
    }
    for option, file in files.items():
        if file and not file.is_file():
            raise PipelineError(f"there is no key file {file}: see {option}")
        if file:
            read_key(file)
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
    if read_access_key(store.access_key).startswith("ASIA") and not store.session_token:
        raise PipelineError(
            f"the key in {store.access_key} is a temporary one of AWS, which needs a "
            "session token: give its file with --session-token"
        )
    for fault in exposed_keys(store):
        raise OthersCanChange(fault)


def check_endpoint(store: S3Endpoint) -> None:
    """Raise an error if no request to the endpoint can succeed; make none."""
    if store.ca_certs and not store.ca_certs.is_file():
        raise PipelineError(f"there is no file {store.ca_certs}: see --ca-certs")
    host = store.endpoint.partition(":")[0]
    if not aws.is_s3(host):
        return
    parsed = aws.parse(host)
    if not parsed and ".vpce." not in host:
        raise PipelineError(
            f"{host} is no endpoint of AWS S3: name the region and not the bucket, as "
            "in s3.eu-west-1.amazonaws.com"
        )
    region = parsed.region if parsed else None
    if region and store.region and region != store.region:
        raise PipelineError(
            f"{host} is in {region}, and --region is {store.region}: leave one out"
        )
    if host.endswith(".cn") and not (region or store.region):
        raise PipelineError(
            f"{host} needs a region: name it, as in s3.cn-north-1.amazonaws.com.cn"
        )


def check_names(
    bucket: str, pattern: str | None = None, prefix: str = "", folder: str = ""
) -> None:
    """Raise an error for what is no name of a bucket, pattern, prefix or folder."""
    if not bucket or set(bucket) & set("/\\ ,;\"'$"):
        raise PipelineError(f"{bucket!r} is not the name of a bucket")
    if pattern is not None and (refusal := intake.pattern_fault(pattern)):
        raise PipelineError(refusal)
    for option, text in {"--output-prefix": prefix, "--input-prefix": folder}.items():
        if refusal := key_arguments.prefix_fault(option, text):
            raise PipelineError(refusal)


def check_inputs(inputs: Bucket, pattern: str) -> None:
    """Raise an error unless the keys may do in the input bucket what a run does."""
    if refusal := key_arguments.pattern_fault(pattern, inputs):
        raise PipelineError(refusal)
    check_permissions(inputs, literal_prefix(pattern))


def check_permissions(bucket: Bucket, prefix: str) -> None:
    """Raise an error unless objects can be listed, written, read and removed."""
    probe = f"{prefix}.cog_pipeline-write-check-{secrets.token_hex(8)}"
    with _permission("s3:GetBucketLocation", "or name the region with --region"):
        bucket.region()
    with _permission("s3:ListBucket"):
        bucket.check(prefix)
    with _permission("s3:PutObject"):
        bucket.write(probe, b"", "application/octet-stream")
    try:
        with _permission("s3:GetObject"):
            bucket.read(probe, max_bytes=1)
    finally:
        with _permission("s3:DeleteObject"):
            bucket.remove(probe)


@contextmanager
def _permission(name: str, other: str = "") -> Iterator[None]:
    """Name the permission that is missing if a request is refused."""
    try:
        yield
    except PermanentS3Error as error:
        allow = f"allow {name}" if error.code == ACCESS_DENIED else ""
        if remedy := ", ".join(filter(None, (allow, other))):
            raise PipelineError(f"{error}: {remedy}") from error
        raise
