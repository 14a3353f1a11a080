"""Render a run's DAG and put it into HTCondor's queue."""

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from bucket import S3Endpoint
from condor import queue
from condor.errors import JobRefused
from dag import multipart, node_code, render, signing, submit_options, trial
from dag.signing import TransferUrls
from state.journal import Journal
from state.launch import Launch
from state.multipart import Upload, recorded
from state.rows import Manifest, Row, dag_node_of, load_rows_as_last_tried, solo_rows
from state.run import (
    Run,
    make_folders_of_nodes,
    record_refusal,
    record_submission,
    record_trial,
    was_tried,
)

# In place of a row, to try the jobs of a launch.
_EXAMPLE = Row(1, (), key="example.tif", bands=1)


def rows_to_convert(run: Run, manifest: Manifest) -> Sequence[Row]:
    """Return the rows of the DAG that is to be submitted."""
    retried = run.refused_rows or solo_rows(run)
    if not retried:
        return manifest.convertible
    return [row for row in load_rows_as_last_tried(run) if row.line in retried]


def try_jobs(launch: Launch) -> None:
    """Raise PipelineError unless HTCondor accepts the jobs of a launch's runs."""
    (node,) = _nodes(launch, [_EXAMPLE], {}, queue.version())
    trial.of_launch(launch, node)


def submit(run: Run, launch: Launch, rows: Sequence[Row], journal: Journal) -> int:
    """Submit a DAG of these rows, and return the cluster of its DAGMan.

    Can be repeated after a crash, unless the DAG is in the queue by then.

    Raises:
        JobRefused: HTCondor accepts no such jobs; this is recorded in the run.
        SchedulerError: it accepts none at the moment.
    """
    # A run of an earlier version does not have all of them.
    make_folders_of_nodes(run)
    condor = queue.version()
    try:
        if not was_tried(run):
            # If HTCondor refuses the smallest one, it refuses all.
            smallest = replace(min(rows, key=lambda row: row.size), group=0)
            (node,) = _nodes(launch, [smallest], {}, condor)
            trial.of_node(run, launch, node)
            # The schedd counts the job of the trial for some minutes more. If a limit
            # on jobs leaves room for one, another trial would keep DAGMan out again.
            record_trial(run)
        uploads = multipart.open_all(run, launch, rows, journal)
        nodes = _nodes(launch, rows, uploads, condor)
        render.write_dag(run, launch, nodes, condor, node_code.keep(launch))
        cluster = queue.submit_dag(
            run.dag_file,
            {queue.RUN_ATTRIBUTE: str(run.directory)},
            submit_options.of_all_jobs(launch.submit_options),
            launch.max_jobs,
            launch.max_idle,
        )
    except JobRefused as refusal:
        record_refusal(run, refusal.why)
        raise
    record_submission(run, cluster)
    return cluster


def _nodes(
    launch: Launch,
    rows: Sequence[Row],
    uploads: Mapping[int, Upload],
    condor: tuple[int, int, int],
) -> Iterator[render.Node]:
    signer = signing.shadow(launch, condor, launch.inputs(), launch.outputs())
    presigner = _Presigner(launch, uploads)

    def transfer(row: Row) -> render.RowTransfer:
        # Taken before the URLs are signed: they expire no earlier than this.
        expiry = presigner.expiry()
        by_shadow = signer if signing.shadow_can_sign(launch, row) else None
        if by_shadow:
            urls = signing.shadow_urls(by_shadow, launch, row)
        else:
            urls = presigner.urls(row)
        limits, parts = multipart.limits(row, launch.max_put), presigner.parts(row)
        urls_expire = expiry if parts or not by_shadow else None
        region = by_shadow.region if by_shadow else None
        return render.RowTransfer(row, urls, limits, parts, urls_expire, region)

    for name, batch in itertools.groupby(rows, dag_node_of):
        yield render.node(name, map(transfer, batch), launch.node_options)


class _Presigner:
    """Presigns the URLs that the rows of a run need."""

    def __init__(self, launch: Launch, uploads: Mapping[int, Upload]) -> None:
        self._launch = launch
        self._uploads = uploads
        self._inputs, self._outputs = launch.inputs(), launch.outputs()

    def expiry(self) -> int:
        """Return when a URL that is signed now expires, in seconds since 1970."""
        return int(time.time()) + self._launch.url_seconds

    def urls(self, row: Row) -> TransferUrls:
        """Return presigned URLs for a row's transfers."""
        return signing.presigned_urls(self._inputs, self._outputs, self._launch, row)

    def parts(self, row: Row) -> dict[str, str]:
        """Return presigned URLs for the parts of a row's COG, by file name."""
        if not (upload := self._uploads.get(row.line)):
            return {}
        count = multipart.limits(row, self._launch.max_put).max_parts
        seconds = self._launch.url_seconds
        return multipart.part_urls(self._outputs, upload, count, seconds)


def renew_urls(run: Run, launch: Launch, journal: Journal) -> None:
    """Give new presigned URLs to jobs that wait in the queue with old ones.

    A URL is old if, at the next poll, it could expire too soon for a job to start: see
    urls_valid in templates/convert.dag. It is old, too, if it was signed before the
    keys changed. The new URLs are signed for the rows of the job's node. The URLs in
    the queue only decide where each new one goes.
    """
    now = time.time()
    min_lifetime = launch.url_seconds // 2 + 60 * launch.every
    # When a URL expires that was signed as the keys changed, rounded up.
    first_of_these_keys = min(_keys_changed(launch.store), now) + launch.url_seconds + 1
    expire_before = max(now + min_lifetime, first_of_these_keys)
    jobs = queue.waiting_jobs(str(run.directory), expire_before)
    if not jobs:
        return
    job_of = {job.node: job for job in jobs}
    presigner = _Presigner(launch, recorded(run))
    rows = (row for row in load_rows_as_last_tried(run) if row.reason is None)
    renewed = 0
    for name, batch in itertools.groupby(rows, dag_node_of):
        if job := job_of.get(name):
            expiry = presigner.expiry()
            renewed += queue.renew(_renewed(job, batch, presigner), expiry)
    journal.say(
        "urls-renewed",
        f"{run.directory.name}: {renewed} waiting jobs have new presigned URLs",
        jobs=renewed,
    )


def _keys_changed(store: S3Endpoint) -> float:
    """Return when the files of the keys were last written, in seconds since 1970."""
    files = filter(None, (store.access_key, store.secret_key, store.session_token))
    return max(file.stat().st_mtime for file in files)


def _renewed(
    job: queue.WaitingJob, rows: Iterable[Row], presigner: _Presigner
) -> queue.WaitingJob:
    inputs: list[str] = []
    outputs: list[str] = []
    for row in rows:
        urls = presigner.urls(row)
        inputs += urls.inputs
        outputs += [urls.cog, urls.jpeg, *presigner.parts(row).values()]
    return replace(
        job,
        input_files=signing.renewed(job.input_files, inputs),
        output_remaps=signing.renewed(job.output_remaps, outputs),
    )
