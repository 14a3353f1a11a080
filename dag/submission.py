"""Render a run's DAG and put it into HTCondor's queue."""

import itertools
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from condor import queue
from dag import multipart, node_code, render, signing
from dag.signing import TransferUrls
from state import multipart as state_multipart
from state.files import write_atomically
from state.journal import Journal
from state.launch import Launch
from state.multipart import Upload
from state.rows import Manifest, Row, dag_node_of, load_rows_as_last_tried, solo_rows
from state.run import Run, make_folders_of_nodes


def rows_to_convert(run: Run, manifest: Manifest) -> Sequence[Row]:
    """The rows of the DAG that is to be submitted."""
    if not run.solo_file.exists():
        return manifest.convertible
    apart = solo_rows(run)
    return [replace(row, group=0) for row in manifest.rows if row.line in apart]


def submit(run: Run, launch: Launch, rows: Sequence[Row], journal: Journal) -> int:
    """Submit a DAG of these rows; returns DAGMan's cluster.

    Can be repeated after a crash, unless its DAG is in the queue by then.
    """
    # A run that an earlier version began has not all of them.
    make_folders_of_nodes(run)
    begun = multipart.open_all(run, launch, rows, journal)
    condor = queue.version()
    nodes = _nodes(launch, rows, begun, condor)
    render.write_dag(run, launch, nodes, condor, node_code.keep(launch))
    cluster = queue.submit_dag(
        run.dag_file,
        {queue.RUN_ATTRIBUTE: str(run.directory)},
        launch.max_jobs,
        launch.max_idle,
    )
    submitted = {"dag": run.dag_file.name, "cluster": cluster}
    write_atomically(run.submitted_file, json.dumps(submitted) + "\n")
    return cluster


def _nodes(
    launch: Launch,
    rows: Sequence[Row],
    begun: Mapping[int, Upload],
    condor: tuple[int, int, int],
) -> Iterator[render.Node]:
    by_shadow = signing.shadow_signs(launch, condor)
    presigner = _Presigner(launch, begun)

    def conversion(row: Row) -> render.RowTransfer:
        # Before they are signed: they live for a moment longer than is said.
        expire = presigner.expire()
        if shadow := by_shadow and signing.shadow_can_sign(launch, row):
            urls = signing.shadow_urls(launch, row)
        else:
            urls = presigner.urls(row)
        limits, parts = (
            multipart.limits(row, launch.max_put),
            presigner.parts(row),
        )
        presigned = parts or not shadow
        return render.RowTransfer(
            row, urls, limits, parts, expire if presigned else None
        )

    for name, its_rows in itertools.groupby(rows, dag_node_of):
        yield render.node(name, map(conversion, its_rows), launch.node_options)


class _Presigner:
    """Presigns what the rows of a run need."""

    def __init__(self, launch: Launch, begun: Mapping[int, Upload]) -> None:
        self._pipeline = launch
        self._begun = begun
        self._inputs, self._outputs = launch.inputs(), launch.outputs()

    def expire(self) -> int:
        """Return when what is signed now expires, in seconds since 1970."""
        return int(time.time()) + self._pipeline.url_seconds

    def urls(self, row: Row) -> TransferUrls:
        prefix, seconds = self._pipeline.output_prefix, self._pipeline.url_seconds
        return signing.presigned_urls(self._inputs, self._outputs, prefix, row, seconds)

    def parts(self, row: Row) -> dict[str, str]:
        """Return where parts of its COG go, by the names of the files."""
        if not (upload := self._begun.get(row.line)):
            return {}
        count = multipart.limits(row, self._pipeline.max_put).most_parts
        seconds = self._pipeline.url_seconds
        return multipart.part_urls(self._outputs, upload, count, seconds)


def renew_urls(run: Run, launch: Launch, journal: Journal) -> None:
    """Give new presigned URLs to jobs that wait in the queue with old ones.

    Old is what, at the next poll, could be too old for a job to begin: see urls_live
    in templates/convert.dag. What a job gets is signed for the rows of its node. What
    stands in the queue only says where it goes.
    """
    least = launch.url_seconds // 2 + 60 * launch.every
    jobs = queue.waiting_jobs(str(run.directory), time.time() + least)
    if not jobs:
        return
    job_of = {job.node: job for job in jobs}
    presigner = _Presigner(launch, state_multipart.recorded(run))
    rows = (row for row in load_rows_as_last_tried(run) if row.reason is None)
    renewed = 0
    for name, its_rows in itertools.groupby(rows, dag_node_of):
        if job := job_of.get(name):
            expire = presigner.expire()
            renewed += queue.renew(_renewed(job, its_rows, presigner), expire)
    journal.say(
        "urls-renewed",
        f"{run.directory.name}: {renewed} jobs that wait have new presigned URLs",
        jobs=renewed,
    )


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
