"""Do what the crondor job does each time: recover runs, and start new ones."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bucket import MAX_KEY_BYTES, Bucket, StoredObject
from condor import queue
from condor.errors import JobRefused
from dag import (
    batches,
    claim,
    events,
    images,
    intake,
    overlap,
    processing,
    signing,
    submission,
)
from dag.manifest import read
from node import options
from post.reconcile import reconcile
from state import results
from state.errors import NotAManifest, PipelineError, PollFailed, user_message
from state.files import check_nobody_else_writes
from state.heartbeat import record_heartbeat
from state.journal import Journal
from state.launch import Launch
from state.postponed import Postponements
from state.rows import Manifest, Refusal, Row, dag_node_of, load_manifest, save_rows
from state.run import (
    CLAIM_SUFFIX,
    Run,
    all_runs,
    create_run,
    discard_run,
    is_processing,
    locked,
    record_move,
    settings_of,
    try_locked,
)


def poll(launch: Launch, journal: Journal) -> list[Run]:
    """Continue the runs of a launch, and start runs for new manifests.

    Args:
        journal: the launch's journal.

    Returns:
        The runs that were started.

    Raises:
        PollFailed: some runs could not be continued, or some manifests could not be
            started; the journal says which. The others continued nevertheless.
    """
    # Users who can write here can add runs of their own.
    check_nobody_else_writes(launch.directory)
    errors: list[Exception] = []
    begun: list[Run] = []
    with locked(launch.home), _collected(errors, journal, launch.input_bucket):
        known, unreadable = all_runs(launch)
        for error in unreadable:
            journal.record(events.run_unreadable(error))
        active = [run for run in known if not run.done]
        _recover_all(active, journal, errors)
        _start_all(launch, active, begun, journal, errors)
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise PollFailed(
            f"{errors[0]}{more}; the next poll tries again, and {journal.logs[-1]} "
            "has all errors"
        )
    record_heartbeat(launch)
    return begun


def _recover_all(active: list[Run], journal: Journal, errors: list[Exception]) -> None:
    for run in active:
        of_run = journal.of_run(run)
        with _collected(errors, of_run, run.manifest_key):
            _recover(run, active, of_run)


def _start_all(
    launch: Launch,
    active: list[Run],
    begun: list[Run],
    journal: Journal,
    errors: list[Exception],
) -> None:
    """Start runs for the manifests whose turn it is, and add them to ``begun``."""
    inputs = launch.inputs()
    # A manifest that still waits though it has a run: the run could not be carried on.
    unfinished = [run for run in active if not run.done]
    listing = intake.list_manifests(inputs, launch)
    keys = [manifest.key for manifest in listing.manifests]
    refused = [key for key, _ in listing.refused]
    postponements = Postponements(launch, {*keys, *refused})
    for key, reason in listing.refused:
        postponements.add(key, reason)
        journal.record(events.manifest_refused(key, reason))
    if listing.apple_doubles:
        journal.record(events.apple_doubles(listing.apple_doubles))
    waiting = [
        manifest
        for manifest in listing.manifests
        if not any(claim.is_same_upload(run, manifest) for run in unfinished)
    ]
    for manifest in intake.in_turn(waiting, unfinished):
        if shortage := intake.no_room(launch, unfinished, begun, manifest):
            journal.record(events.no_room(manifest.key, shortage))
            break
        with _collected(errors, journal, manifest.key):
            if holder := claim.claim_holder(inputs, launch, manifest):
                claim_key = manifest.key + CLAIM_SUFFIX
                event = events.claimed_by_another(manifest.key, holder, claim_key)
                postponements.add(manifest.key, event.message)
                journal.record(event)
                continue
            download = intake.download(manifest, inputs, launch, postponements, journal)
            if download is None:
                continue
            postponements.remove(manifest.key)
            run = create_run(
                launch, manifest, download.file, listing.taken, download.fault
            )
            begun.append(run)
            of_run = journal.of_run(run)
            with _collected(errors, of_run, manifest.key):
                _carry_on(run, [*active, *begun], inputs, launch, of_run)
    postponements.save()


def _recover(run: Run, active: list[Run], journal: Journal) -> None:
    """Continue a run from the step that it has reached."""
    launch = settings_of(run)
    if run.moved_from:
        _check_left(run.moved_from, run)
        run = record_move(run)
    job = queue.find(queue.RUN_ATTRIBUTE, str(run.directory))
    # A crash may have kept the submission of a DAG in the queue from being recorded.
    if not run.has_begun and job is None:
        _carry_on(run, active, launch.inputs(), launch, journal)
        return
    if job is None:
        journal.record(events.dag_left_queue(run))
        reconcile(run, launch, journal)
        return
    with try_locked(run.directory) as is_locked:
        # Another process that has the lock reconciles the run, and gathers the results.
        if is_locked and not run.done:
            results.gather(run)
            if processing.restore(run, launch):
                journal.record(events.manifest_restored(run))
    if run.stopped:
        # The command that stopped it may not have reached HTCondor.
        queue.remove(job.cluster, run.stopped)
        return
    submission.renew_urls(run, launch, journal)
    if job.hold_reason is None:
        return
    if job.held_by_hand:
        journal.record(events.dagman_held(run, job))
    else:
        # For instance because one of its files could not be written.
        queue.release(job.cluster, "the poll tries again")
        journal.record(events.dagman_released(run, job))


def _check_left(former: Path, run: Run) -> None:
    """Raise PipelineError while the queue has jobs of a run that was moved."""
    job = queue.find(queue.RUN_ATTRIBUTE, str(former))
    nodes = queue.still_there(queue.NODE_ATTRIBUTE, str(former))
    if job or nodes:
        which = f" ('condor_rm {job.cluster}')" if job else ""
        raise PipelineError(
            f"{former} was moved to {run.directory} while its jobs were in the queue, "
            f"and they know only the former place: move it back, or remove them{which} "
            "and the next poll continues the run"
        )


def _carry_on(
    run: Run, active: list[Run], inputs: Bucket, launch: Launch, journal: Journal
) -> None:
    """Take a run to a DAG in the queue; each step can be repeated.

    Args:
        active: the runs of the launch that may not have ended.
    """
    if not claim.claim(run, launch, inputs):
        journal.record(events.not_claimed(run))
        discard_run(run)
        return
    if run.rows_file.exists():
        claimed = processing.listed(inputs, launch)
    else:
        claimed = _check(run, inputs, launch)
    manifest = load_manifest(run)
    rows = submission.rows_to_convert(run, manifest)
    if not rows:
        journal.record(events.nothing_to_convert(run))
        reconcile(run, launch, journal)
        return
    if run.stopped:
        journal.record(events.stopped(run))
        reconcile(run, launch, journal)
        return
    if run.is_held:
        journal.record(events.held(run))
        return
    wait = overlap.run_to_wait_for(run, manifest, claimed, active, launch, inputs)
    if wait:
        journal.record(events.waits(run, wait))
        return
    try:
        cluster = submission.submit(run, launch, rows, journal)
    except JobRefused as refusal:
        journal.record(events.jobs_refused(run, refusal))
        reconcile(run, launch, journal)
        return
    nodes = sum(1 for _ in itertools.groupby(rows, dag_node_of))
    journal.record(events.submitted(run, len(manifest.rows), len(rows), nodes, cluster))


def _check(run: Run, inputs: Bucket, launch: Launch) -> list[StoredObject]:
    """Read the manifest and find its images, and write the run's rows file.

    Returns:
        The manifests that runs process, because the same listing has them.
    """
    try:
        if run.unread:
            raise NotAManifest(run.unread)
        manifest = read(run.manifest_file)
    except NotAManifest as error:
        _keep_unreadable(run, inputs)
        reason = f"{error} (it is kept in the bucket, as {run.unreadable_key})"
        row = Row(1, (run.manifest_key, ""))
        row = row.failed(Refusal.UNREADABLE_MANIFEST, reason)
        save_rows(run, Manifest((row,)))
        return []
    claimed: list[StoredObject] = []
    index = images.ImageIndex(manifest, inputs.name, inputs.endpoint)
    for stored in index.find(inputs, launch.literal_prefix):
        if is_processing(stored.key) and len(claimed) < processing.MAX_OBJECTS:
            claimed.append(stored)
    index.look_into_tiers(inputs)
    keep_images = launch.in_one_bucket and bool(launch.output_prefix)
    resolved = index.resolve(launch.cog_key, keep_images=keep_images)
    rows = tuple(_check_row(row, launch) for row in resolved.rows)
    if launch.rows_per_job != 1:
        # With a fixed number of rows, that of slots has no effect.
        slots = queue.slots() if launch.rows_per_job is None else 0
        rows = tuple(batches.batch_rows(rows, launch, slots))
    save_rows(run, replace(resolved, rows=rows))
    return claimed


def _keep_unreadable(run: Run, inputs: Bucket) -> None:
    """Keep a manifest that cannot be read in the bucket, under a name that says so."""
    if run.manifest_file.exists():
        inputs.upload(run.unreadable_key, run.manifest_file)
        return
    stored = inputs.stat(run.processing_key)
    if not inputs.copy(run.processing_key, run.unreadable_key, stored.etag):
        raise PipelineError(f"{run.processing_key} was replaced while it was copied")


def _check_row(row: Row, launch: Launch) -> Row:
    """Refuse a row that needs something that the launch does not allow."""
    if row.reason is not None:
        return row
    length = len(launch.cog_key(row.key).encode())
    if length > MAX_KEY_BYTES:
        return row.failed(
            Refusal.NAME_TOO_LONG,
            f"with the launch's options, the key of its COG has {length} bytes, and "
            f"{MAX_KEY_BYTES} is the maximum: rename the image",
        )
    time_limit = options.time_limit(row.options)
    if time_limit > launch.max_time_limit:
        return row.failed(
            Refusal.TIME_LIMIT_TOO_LONG,
            f"its time_limit of {time_limit} s is above the maximum of "
            f"{launch.max_time_limit} s: change the column, or launch with a larger "
            "--max-time-limit",
        )
    if launch.signing == "shadow" and not signing.shadow_can_sign(launch, row):
        return row.failed(Refusal.CANNOT_SIGN, signing.SHADOW_REFUSES)
    return row


@contextmanager
def _collected(errors: list[Exception], journal: Journal, what: str) -> Iterator[None]:
    """Keep the failure of one manifest from stopping the others."""
    try:
        yield
    except Exception as error:
        errors.append(error)
        if message := user_message(error):
            journal.record(events.failed(what, message))
        else:
            journal.terminal(f"{what}: {journal.internal_error(error)}")
