"""Render a run's DAG and put it into HTCondor's queue."""

import itertools
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from dag import node_code, render, run as runs, schedd, signing, uploads
from dag.files import write_atomically
from dag.journal import Journal
from dag.manifest import Manifest, Row
from dag.pipeline import Pipeline
from dag.rows import load_rows_as_last_tried, node_of, rows_apart
from dag.run import Run
from dag.signing import Urls
from dag.uploads import Upload


def rows_to_convert(run: Run, manifest: Manifest) -> Sequence[Row]:
    """The rows of the DAG that is to be submitted."""
    if not run.apart_file.exists():
        return manifest.convertible
    apart = rows_apart(run)
    return [replace(row, group=0) for row in manifest.rows if row.number in apart]


def submit(run: Run, pipeline: Pipeline, rows: Sequence[Row], journal: Journal) -> int:
    """Submit a DAG of these rows; returns DAGMan's cluster.

    Can be repeated after a crash, unless its DAG is in the queue by then.
    """
    # A run that an earlier version began has not all of them.
    runs.make_folders_of_nodes(run)
    begun = uploads.open_all(run, pipeline, rows, journal)
    condor = schedd.version()
    nodes = _nodes(pipeline, rows, begun, condor)
    render.write_dag(run, pipeline, nodes, condor, node_code.keep(pipeline))
    cluster = schedd.submit_dag(
        run.dag_file,
        {schedd.RUN_ATTRIBUTE: str(run.directory)},
        pipeline.max_running,
        pipeline.max_idle,
    )
    submitted = {"dag": run.dag_file.name, "cluster": cluster}
    write_atomically(run.submitted_file, json.dumps(submitted) + "\n")
    return cluster


def _nodes(
    pipeline: Pipeline,
    rows: Sequence[Row],
    begun: Mapping[int, Upload],
    condor: tuple[int, int, int],
) -> Iterator[render.Node]:
    by_shadow = signing.shadow_signs(pipeline, condor)
    presigner = _Presigner(pipeline, begun)

    def conversion(row: Row) -> render.Conversion:
        # Before they are signed: they live for a moment longer than is said.
        expire = presigner.expire()
        if shadow := by_shadow and signing.shadow_can_sign(pipeline, row):
            urls = signing.shadow_urls(pipeline, row)
        else:
            urls = presigner.urls(row)
        limits, parts = uploads.limits(row, pipeline.largest_put), presigner.parts(row)
        presigned = parts or not shadow
        return render.Conversion(
            row, urls, limits, parts, expire if presigned else None
        )

    for name, its_rows in itertools.groupby(rows, node_of):
        yield render.node(name, map(conversion, its_rows), pipeline.node_options)


class _Presigner:
    """Presigns what the rows of a run need."""

    def __init__(self, pipeline: Pipeline, begun: Mapping[int, Upload]) -> None:
        self._pipeline = pipeline
        self._begun = begun
        self._inputs, self._outputs = pipeline.inputs(), pipeline.outputs()

    def expire(self) -> int:
        """Return when what is signed now expires, in seconds since 1970."""
        return int(time.time()) + self._pipeline.url_seconds

    def urls(self, row: Row) -> Urls:
        prefix, seconds = self._pipeline.output_prefix, self._pipeline.url_seconds
        return signing.presigned_urls(self._inputs, self._outputs, prefix, row, seconds)

    def parts(self, row: Row) -> dict[str, str]:
        """Return where parts of its COG go, by the names of the files."""
        if not (upload := self._begun.get(row.number)):
            return {}
        count = uploads.limits(row, self._pipeline.largest_put).most_parts
        seconds = self._pipeline.url_seconds
        return uploads.part_urls(self._outputs, upload, count, seconds)


def renew_urls(run: Run, pipeline: Pipeline, journal: Journal) -> None:
    """Give new presigned URLs to jobs that wait in the queue with old ones.

    Old is what, at the next poll, could be too old for a job to begin: see urls_live
    in templates/convert.dag. What a job gets is signed for the rows of its node. What
    stands in the queue only says where it goes.
    """
    least = pipeline.url_seconds // 2 + 60 * pipeline.every
    jobs = schedd.waiting_jobs(str(run.directory), time.time() + least)
    if not jobs:
        return
    job_of = {job.node: job for job in jobs}
    presigner = _Presigner(pipeline, uploads.recorded(run))
    rows = (row for row in load_rows_as_last_tried(run) if row.reason is None)
    renewed = 0
    for name, its_rows in itertools.groupby(rows, node_of):
        if job := job_of.get(name):
            expire = presigner.expire()
            renewed += schedd.renew(_renewed(job, its_rows, presigner), expire)
    journal.say(
        "urls-renewed",
        f"{run.directory.name}: {renewed} jobs that wait have new presigned URLs",
        jobs=renewed,
    )


def _renewed(
    job: schedd.WaitingJob, rows: Iterable[Row], presigner: _Presigner
) -> schedd.WaitingJob:
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
