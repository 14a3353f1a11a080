"""What the crondor job does each time: recover, find, claim, render, submit."""

import fnmatch
import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bucket import Bucket, BucketError, ObjectMissing, StoredObject
from dag import (
    claim,
    overlap,
    pipeline as pipelines,
    render,
    run as runs,
    schedd,
    signing,
)
from dag.errors import NotAManifest, PipelineError
from dag.files import write_atomically
from dag.manifest import (
    Manifest,
    Row,
    candidate_keys,
    read,
    resolve,
    sidecar_keys,
)
from dag.pipeline import Pipeline
from dag.run import Run

Say = Callable[[str], None]
Reconcile = Callable[[Run, Pipeline], object]


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
    with runs.alone(pipeline.home):
        for run in runs.all_runs(pipeline):
            if not run.done:
                with _collected(errors, say, run.manifest_key):
                    _recover(run, reconcile, say)
        inputs = pipeline.inputs()
        # Those whose manifests still wait could not be carried on.
        unfinished = [run for run in runs.all_runs(pipeline) if not run.done]
        found = look(inputs, pipeline)
        for manifest in found.manifests:
            if any(claim.is_that(run, manifest) for run in unfinished):
                continue
            with _collected(errors, say, manifest.key):
                if manifest.key + claim.SUFFIX in found.claims:
                    _say_claimed(manifest, inputs, say)
                elif downloaded := _download(manifest, inputs, pipeline, say):
                    run = runs.create(pipeline, manifest, downloaded, found.ours)
                    begun.append(run)
                    _carry_on(run, inputs, pipeline, reconcile, say)
    if errors:
        raise errors[0]
    return begun


@dataclass(frozen=True)
class Found:
    """What a look into the input bucket found, under the pattern's prefix.

    Attributes:
        manifests: those that wait.
        claims: the keys of what claims them.
        ours: the keys of what the pipeline made of earlier ones.
    """

    manifests: list[StoredObject]
    claims: set[str]
    ours: set[str]


def look(inputs: Bucket, pipeline: Pipeline) -> Found:
    """Look for manifests, by one listing."""
    found = Found([], set(), set())
    for each in inputs.list(pipeline.literal_prefix):
        if runs.is_ours(each.key):
            found.ours.add(each.key)
        elif each.key.endswith(claim.SUFFIX):
            found.claims.add(each.key)
        elif fnmatch.fnmatchcase(each.key, pipeline.pattern):
            found.manifests.append(each)
    return found


def _download(
    manifest: StoredObject, inputs: Bucket, pipeline: Pipeline, say: Say
) -> Path | None:
    """A manifest as it was listed, or None when it has gone or changed since."""
    file = pipeline.home / "manifest.download"
    try:
        etag = inputs.download(manifest.key, file)
    except ObjectMissing:
        say(f"{manifest.key} was taken or removed since it was listed")
        return None
    if etag != manifest.etag:
        say(f"{manifest.key} is being uploaded; the next poll takes it")
        return None
    return file


def _say_claimed(manifest: StoredObject, inputs: Bucket, say: Say) -> None:
    if holder := claim.claimant(inputs, manifest.key):
        say(
            f"{manifest.key} is claimed by {holder}; should that be gone for good, "
            f"remove {manifest.key}{claim.SUFFIX} from the bucket"
        )


def _recover(run: Run, reconcile: Reconcile, say: Say) -> None:
    """Carry on a run from whatever step it had come to."""
    pipeline = pipelines.load(run.pipeline_file)
    if run.cluster is None and not _was_submitted(run):
        _carry_on(run, pipeline.inputs(), pipeline, reconcile, say)
        return
    job = schedd.find(schedd.RUN_ATTRIBUTE, str(run.directory))
    if job is None:
        say(f"{run.directory.name}: its DAG has left the queue, reconciling")
        reconcile(run, pipeline)
    elif job.hold_reason is not None:
        say(
            f"{run.directory.name}: its DAGMan is held: {job.hold_reason}; "
            f"'condor_release {job.cluster}' lets it go on"
        )


def _was_submitted(run: Run) -> bool:
    """Whether a submission was made that a crash kept from being recorded."""
    if run.dagman_log.exists():
        return True
    return schedd.find(schedd.RUN_ATTRIBUTE, str(run.directory)) is not None


def _carry_on(
    run: Run, inputs: Bucket, pipeline: Pipeline, reconcile: Reconcile, say: Say
) -> None:
    """From a run that exists to a DAG in the queue; every step can be repeated."""
    if not claim.claim(run, inputs):
        say(f"{run.manifest_key} was taken, removed or replaced before it was claimed")
        runs.discard(run)
        return
    _check(run, inputs, pipeline)
    manifest = runs.load_rows(run)
    convertible = runs.convertible(manifest.rows)
    if not convertible:
        say(f"{run.manifest_key}: no row can be converted, see {run.failed_key}")
        reconcile(run, pipeline)
        return
    if first := overlap.run_to_wait_for(run, manifest, pipeline, inputs):
        say(
            f"{run.manifest_key} has images that are being converted: it waits for "
            f"{first} to end"
        )
        return
    cluster = _submit(run, pipeline, convertible)
    say(
        f"{run.manifest_key}: {len(manifest.rows)} rows, {len(convertible)} of them "
        f"to convert in {run.directory.name}, job {cluster}"
    )


def _check(run: Run, inputs: Bucket, pipeline: Pipeline) -> None:
    """Read the manifest and find its images; leaves the run's rows file."""
    if run.rows_file.exists():
        return
    try:
        manifest = read(run.manifest_file)
    except NotAManifest as error:
        reason = f"{error} (it is kept on the access point: {run.manifest_file})"
        line = Row(1, (run.manifest_key, "")).failed(reason)
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


def _submit(run: Run, pipeline: Pipeline, rows: list[Row]) -> int:
    render.write_dag(run, pipeline, _nodes(pipeline, rows))
    cluster = schedd.submit_dag(
        run.dag_file,
        {schedd.RUN_ATTRIBUTE: str(run.directory)},
        pipeline.max_running,
    )
    write_atomically(run.submitted_file, json.dumps({"cluster": cluster}) + "\n")
    return cluster


def _nodes(pipeline: Pipeline, rows: list[Row]) -> Iterator[render.Node]:
    by_shadow = signing.shadow_signs(pipeline, schedd.version())
    inputs, outputs = pipeline.inputs(), pipeline.outputs()
    for row in rows:
        if by_shadow and signing.shadow_can_sign(pipeline, row):
            urls = signing.shadow_urls(pipeline, row)
        else:
            prefix = pipeline.output_prefix
            urls = signing.presigned_urls(inputs, outputs, prefix, row)
        yield render.node(row, urls, pipeline.node_options)


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
