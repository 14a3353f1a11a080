"""What the crondor job does each time: recover, find, claim, render, submit."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from bucket import MAX_KEY_BYTES, Bucket, StoredObject
from condor import queue
from dag import batches, claim, images, intake, overlap, processing, signing, submission
from dag.manifest import read
from node import options
from post.reconcile import reconcile
from state import results
from state.errors import NotAManifest, PollFailed, user_message
from state.files import check_nobody_else_writes
from state.heartbeat import record_heartbeat
from state.journal import Journal
from state.launch import Launch
from state.rows import Manifest, Refusal, Row, dag_node_of, load_manifest, save_rows
from state.run import (
    Run,
    all_runs,
    create_run,
    discard_run,
    is_processing,
    locked,
    settings_of,
    try_locked,
)


def poll(launch: Launch, journal: Journal) -> list[Run]:
    """Look at the input bucket once and start what is to be started.

    Args:
        journal: the launch's.

    Returns:
        The runs that were begun.

    Raises:
        LookFailed: some runs could not be carried on, or some manifests not be
            started; the journal says which. The others went on nevertheless.
    """
    # Where others can write, they can add runs of their own.
    check_nobody_else_writes(launch.directory)
    errors: list[Exception] = []
    begun = []
    name = launch.input_bucket
    with locked(launch.home), _collected(errors, journal, name):
        known, unreadable = all_runs(launch)
        for error in unreadable:
            # Whatever it is, the others go on; 'health' counts it.
            journal.say("run-unreadable", str(error), "error")
        for run in known:
            if not run.done:
                of_run = journal.of_run(run)
                with _collected(errors, of_run, run.manifest_key):
                    _recover(run, of_run)
        inputs = launch.inputs()
        # Those whose manifests still wait could not be carried on.
        unfinished = [run for run in known if not run.done]
        found = intake.look(inputs, launch)
        for key, why_not in found.refused:
            _say_refused(key, why_not, journal)
        waiting = [
            manifest
            for manifest in found.manifests
            if not any(claim.is_same_upload(run, manifest) for run in unfinished)
        ]
        for manifest in intake.in_turn(waiting, unfinished):
            if why_not := intake.no_room(launch, unfinished, begun, manifest):
                journal.say("no-room", f"{manifest.key} waits: {why_not}", "warning")
                break
            with _collected(errors, journal, manifest.key):
                if holder := claim.claim_holder(inputs, launch, manifest):
                    _say_claimed(manifest, holder, journal)
                elif read := intake.download(manifest, inputs, launch, journal):
                    run = create_run(
                        launch, manifest, read.file, found.taken, read.why_not
                    )
                    begun.append(run)
                    of_run = journal.of_run(run)
                    with _collected(errors, of_run, manifest.key):
                        _carry_on(run, inputs, launch, of_run)
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise PollFailed(
            f"{errors[0]}{more}; the next poll tries again, and {journal.logs[-1]} "
            "tells all"
        )
    record_heartbeat(launch)
    return begun


def _say_claimed(manifest: StoredObject, holder: str, journal: Journal) -> None:
    key = manifest.key
    journal.say(
        "claimed-by-another",
        f"{key} is claimed by {holder}; if that is gone for good, another poll takes "
        f"over within a day, or at once when you remove {key}{claim.SUFFIX}",
        manifest=key,
    )


def _say_refused(key: str, why_not: str, journal: Journal) -> None:
    # The key last: of a long message, the end is not shown.
    sentence = f"a manifest is not taken, since {why_not} ({key})"
    journal.say("manifest-refused", sentence, "warning", manifest=key)


def _recover(run: Run, journal: Journal) -> None:
    """Carry on a run from whatever step it had come to."""
    launch = settings_of(run)
    if not run.has_begun and not _is_in_queue(run):
        _carry_on(run, launch.inputs(), launch, journal)
        return
    job = queue.find(queue.RUN_ATTRIBUTE, str(run.directory))
    if job is None:
        sentence = f"{run.directory.name}: its DAG has left the queue, reconciling"
        journal.say("dag-left-queue", sentence)
        reconcile(run, launch, journal)
        return
    with try_locked(run.directory) as alone:
        # Whoever else is there reconciles the run, and gathers what is left.
        if alone:
            results.gather(run)
    submission.renew_urls(run, launch, journal)
    if job.hold_reason is not None and not job.held_by_hand:
        # As when a file of it could not be written.
        queue.release(job.cluster, "the poll tries again")
        journal.say(
            "dagman-released",
            f"{run.directory.name}: its DAGMan was held, and is released: "
            f"{job.hold_reason}",
            "warning",
            job=job.cluster,
        )
    elif job.hold_reason is not None:
        journal.say(
            "dagman-held",
            f"{run.directory.name}: its DAGMan is held: {job.hold_reason}; "
            f"'condor_release {job.cluster}' lets it go on",
            "warning",
            job=job.cluster,
        )


def _is_in_queue(run: Run) -> bool:
    """As after a submission that a crash kept from being recorded."""
    return queue.find(queue.RUN_ATTRIBUTE, str(run.directory)) is not None


def _carry_on(
    run: Run,
    inputs: Bucket,
    launch: Launch,
    journal: Journal,
) -> None:
    """From a run that exists to a DAG in the queue; every step can be repeated."""
    if not claim.claim(run, launch, inputs):
        journal.say(
            "not-claimed",
            f"{run.manifest_key} was taken, removed or replaced before it was claimed",
        )
        discard_run(run)
        return
    if run.rows_file.exists():
        claimed = processing.listed(inputs, launch)
    else:
        claimed = _check(run, inputs, launch)
    manifest = load_manifest(run)
    convertible = submission.rows_to_convert(run, manifest)
    if not convertible:
        sentence = f"{run.manifest_key}: no row can be converted, see {run.failed_key}"
        journal.say("nothing-to-convert", sentence)
        reconcile(run, launch, journal)
        return
    if wait := overlap.run_to_wait_for(run, manifest, claimed, launch, inputs):
        journal.say(
            "waiting",
            f"{run.manifest_key} has images that are being converted: it waits for "
            f"{wait.key} to end",
        )
        return
    cluster = submission.submit(run, launch, convertible, journal)
    journal.say(
        "submitted",
        f"{run.manifest_key}: {len(manifest.rows)} rows, {len(convertible)} of them "
        f"to convert in {run.directory.name}, job {cluster}",
        rows=len(manifest.rows),
        nodes=sum(1 for _ in itertools.groupby(convertible, dag_node_of)),
        job=cluster,
    )


def _check(run: Run, inputs: Bucket, launch: Launch) -> list[StoredObject]:
    """Read the manifest and find its images; leaves the run's rows file.

    Returns:
        The manifests that runs work on, since one listing can tell of both.
    """
    try:
        if run.unread:
            raise NotAManifest(run.unread)
        manifest = read(run.manifest_file)
    except NotAManifest as error:
        _keep_unreadable(run, inputs)
        reason = f"{error} (it is kept in the bucket, as {run.unreadable_key})"
        line = Row(1, (run.manifest_key, "")).failed(
            Refusal.UNREADABLE_MANIFEST, reason
        )
        save_rows(run, Manifest((line,)))
        return []
    claimed: list[StoredObject] = []

    def stored() -> Iterator[StoredObject]:
        for each in images.look_up(manifest, inputs, launch.literal_prefix):
            if is_processing(each.key) and len(claimed) < processing.MOST:
                claimed.append(each)
            yield each

    resolved = images.resolve(manifest, launch.input_bucket, stored())
    rows = tuple(_refuse_unfit(row, launch) for row in resolved.rows)
    resolved = replace(resolved, rows=rows)
    if launch.rows_per_job > 1:
        shared = batches.batch_rows(resolved.rows, launch)
        resolved = replace(resolved, rows=tuple(shared))
    save_rows(run, resolved)
    return claimed


def _keep_unreadable(run: Run, inputs: Bucket) -> None:
    """Leave a manifest that cannot be read in the bucket, under a name that says so."""
    if run.manifest_file.exists():
        inputs.upload(run.unreadable_key, run.manifest_file)
        return
    stored = inputs.stat(run.processing_key)
    inputs.copy(run.processing_key, run.unreadable_key, stored.etag)


def _refuse_unfit(row: Row, launch: Launch) -> Row:
    """Fail a row that asks for what the launch does not allow."""
    if row.reason is not None:
        return row
    length = len(launch.cog_key(row.key).encode())
    if length > MAX_KEY_BYTES:
        return row.failed(
            Refusal.NAME_TOO_LONG,
            f"with the --output-prefix, the key of its COG has {length} bytes, and "
            f"{MAX_KEY_BYTES} is the maximum: rename the image",
        )
    asked = options.time_limit(row.options)
    if asked > launch.max_time_limit:
        return row.failed(
            Refusal.TIME_LIMIT_TOO_LONG,
            f"its time_limit of {asked} s is above the maximum of "
            f"{launch.max_time_limit} s: change the column, or launch with a larger "
            "--max-time-limit",
        )
    if launch.signing == "shadow" and not signing.shadow_can_sign(launch, row):
        return row.failed(Refusal.CANNOT_SIGN, signing.SHADOW_REFUSES)
    return row


@contextmanager
def _collected(errors: list[Exception], journal: Journal, what: str) -> Iterator[None]:
    """Let one manifest's failure not keep the others waiting."""
    try:
        yield
    except Exception as error:
        errors.append(error)
        if said := user_message(error):
            journal.say("failed", f"{what}: {said}; the next poll tries again", "error")
        else:
            journal.terminal(f"{what}: {journal.internal_error(error)}")
