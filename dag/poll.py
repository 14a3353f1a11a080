"""What the crondor job does each time: recover, find, claim, render, submit."""

import fcntl
import fnmatch
import json
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from bucket import Bucket, BucketError, StoredObject
from dag import pipeline as pipelines, render, run as runs, schedd, signing, uploads
from dag.errors import NotAManifest, PipelineError
from dag.files import write_atomically
from dag.manifest import (
    Manifest,
    Row,
    candidate_keys,
    parse,
    resolve,
    sidecar_keys,
)
from dag.pipeline import Pipeline
from dag.run import Run
from dag.uploads import Upload

Say = Callable[[str], None]
Reconcile = Callable[[Run, Pipeline], object]
# By this attribute of its DAGMan job a run is found in the queue.
RUN_ATTRIBUTE = "CogPipelineRun"


def poll(pipeline: Pipeline, reconcile: Reconcile, say: Say) -> list[Run]:
    """Look at the input bucket once and start what is to be started.

    Args:
        reconcile: ends a run whose DAG has nothing (more) to do.
        say: takes a sentence for each thing done.

    Returns:
        The runs that were begun.

    Raises:
        Exception: of the runs that could not be carried on and the manifests
            that could not be started, the first one's; a BucketError or a
            PipelineError if it was foreseen. The others went on nevertheless.
    """
    errors: list[Exception] = []
    begun = []
    with _alone(pipeline):
        for run in runs.all_runs(pipeline):
            if not run.done:
                with _collected(errors, say, run.manifest_key):
                    _recover(run, reconcile, say)
        inputs = pipeline.inputs()
        # A manifest whose run could not be carried on waits for that run.
        begun_before = {
            (run.manifest_key, run.etag)
            for run in runs.all_runs(pipeline)
            if not run.done
        }
        for found in find_manifests(inputs, pipeline.pattern):
            if (found.key, found.etag) not in begun_before:
                with _collected(errors, say, found.key):
                    begun.append(_begin(found, inputs, pipeline, reconcile, say))
    if errors:
        raise errors[0]
    return begun


def find_manifests(inputs: Bucket, pattern: str) -> list[StoredObject]:
    """The manifests that wait in a bucket."""
    literal = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    return [
        found
        for found in inputs.list(literal)
        if fnmatch.fnmatchcase(found.key, pattern) and not runs.is_ours(found.key)
    ]


def _begin(
    found: StoredObject,
    inputs: Bucket,
    pipeline: Pipeline,
    reconcile: Reconcile,
    say: Say,
) -> Run:
    content, etag = inputs.read_with_etag(found.key)
    run = runs.create(pipeline, found.key, etag, content)
    _carry_on(run, inputs, pipeline, reconcile, say)
    return run


def _recover(run: Run, reconcile: Reconcile, say: Say) -> None:
    """Carry on a run from whatever step it had come to."""
    pipeline = pipelines.load(run.pipeline_file)
    if run.cluster is None:
        _carry_on(run, pipeline.inputs(), pipeline, reconcile, say)
        return
    job = schedd.find_cluster(run.cluster)
    if job is None:
        say(f"{run.directory.name}: its DAG has left the queue, reconciling")
        reconcile(run, pipeline)
    elif job.hold_reason is not None:
        say(
            f"{run.directory.name}: its DAGMan is held: {job.hold_reason}; "
            f"'condor_release {job.cluster}' lets it go on"
        )


def _carry_on(
    run: Run, inputs: Bucket, pipeline: Pipeline, reconcile: Reconcile, say: Say
) -> None:
    """From a run that exists to a DAG in the queue; every step can be repeated."""
    if not _claim(run, inputs):
        say(f"{run.manifest_key} was removed or replaced before it was claimed")
        uploads.abort_all(run, pipeline)
        runs.finish(run, processed=0, failed=0)
        return
    _check(run, inputs, pipeline)
    manifest = runs.load_rows(run)
    convertible = runs.convertible(manifest.rows)
    if not convertible:
        say(f"{run.manifest_key}: no row can be converted, see {run.failed_key}")
        reconcile(run, pipeline)
        return
    cluster = _submit(run, pipeline, convertible, say)
    say(
        f"{run.manifest_key}: {len(manifest.rows)} rows, {len(convertible)} of them "
        f"to convert in {run.directory.name}, job {cluster}"
    )


def _claim(run: Run, inputs: Bucket) -> bool:
    """Rename the manifest, which makes this access point the one to work on it.

    What was read and checked is what is written; a manifest that was replaced
    since is a manifest of its own.

    Returns:
        Whether it is claimed: False when somebody removed or replaced it first.
    """
    waiting = inputs.find([run.manifest_key]).get(run.manifest_key)
    ours = waiting is not None and waiting.etag == run.etag
    if not inputs.exists(run.processing_key):
        if not ours:
            return False
        inputs.write(run.processing_key, run.manifest_file.read_bytes())
    if ours:
        inputs.remove(run.manifest_key)
    return True


def _check(run: Run, inputs: Bucket, pipeline: Pipeline) -> None:
    """Read the manifest and find its images; leaves the run's rows file."""
    if run.rows_file.exists():
        return
    try:
        manifest = parse(run.manifest_file.read_bytes())
    except NotAManifest as error:
        reason = f"{error} (it is kept on the access point: {run.manifest_file})"
        line = Row(1, (run.manifest_key, ""), reason=reason)
        runs.save_rows(run, Manifest((line,)))
        return
    stored = _stored(inputs, runs.convertible(manifest.rows))
    manifest = resolve(manifest, pipeline.input_bucket, stored)
    if pipeline.signing == "shadow":
        manifest = replace(
            manifest,
            rows=tuple(_refuse_unsigned(row, pipeline) for row in manifest.rows),
        )
    runs.save_rows(run, manifest)


def _refuse_unsigned(row: Row, pipeline: Pipeline) -> Row:
    if row.reason is None and not signing.shadow_can_sign(pipeline, row):
        return row.failed(signing.SHADOW_REFUSES)
    return row


def _stored(inputs: Bucket, rows: list[Row]) -> dict[str, StoredObject]:
    """What is stored of the images that rows can mean, and of what tells of them."""
    candidates = [candidate_keys(row, inputs.name) for row in rows]
    # Apart, since keys with and without the bucket's name share no prefix.
    without_bucket = {keys[0] for keys in candidates}
    with_bucket = {keys[-1] for keys in candidates} - without_bucket
    stored = {}
    for images in (without_bucket, with_bucket):
        beside = {other for key in images for other in sidecar_keys(key)}
        stored |= inputs.find(images | beside)
    return stored


def _submit(run: Run, pipeline: Pipeline, rows: list[Row], say: Say) -> int:
    # A crash between the submission and its record must not submit twice.
    submitted = schedd.find(RUN_ATTRIBUTE, str(run.directory))
    if submitted is None:
        begun = uploads.open_all(run, pipeline, rows, say)
        render.write_dag(run, pipeline, _nodes(pipeline, rows, begun))
        cluster = schedd.submit_dag(
            run.dag_file,
            {RUN_ATTRIBUTE: str(run.directory)},
            pipeline.max_running,
        )
    else:
        cluster = submitted.cluster
    write_atomically(run.submitted_file, json.dumps({"cluster": cluster}) + "\n")
    return cluster


def _nodes(
    pipeline: Pipeline, rows: list[Row], begun: Mapping[int, Upload]
) -> Iterator[render.Node]:
    by_shadow = signing.shadow_signs(pipeline, schedd.version())
    inputs, outputs = pipeline.inputs(), pipeline.outputs()
    for row in rows:
        if by_shadow and signing.shadow_can_sign(pipeline, row):
            urls = signing.shadow_urls(pipeline, row)
        else:
            prefix = pipeline.output_prefix
            urls = signing.presigned_urls(inputs, outputs, prefix, row)
        parts = {}
        if row.number in begun:
            parts = uploads.part_urls(outputs, pipeline, row, begun[row.number])
        limits = uploads.limits(row, pipeline.largest_put)
        yield render.node(row, urls, pipeline.node_options, limits, parts)


@contextmanager
def _alone(pipeline: Pipeline) -> Iterator[None]:
    """Wait until no other poll of this launch is under way."""
    with (pipeline.home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _collected(errors: list[Exception], say: Say, what: str) -> Iterator[None]:
    """Let one manifest's failure not keep the others waiting."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, BucketError | PipelineError):
            traceback.print_exc()
        say(f"{what}: {error}; the next poll tries again")
        errors.append(error)
