"""Render a run's DAG and put it into HTCondor's queue."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from dag import node_code, render, run as runs, schedd, signing, uploads
from dag.files import write_atomically
from dag.journal import Journal
from dag.manifest import Manifest, Row
from dag.pipeline import Pipeline
from dag.rows import node_of, rows_apart
from dag.run import Run
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
    inputs, outputs = pipeline.inputs(), pipeline.outputs()

    def conversion(row: Row) -> render.Conversion:
        if by_shadow and signing.shadow_can_sign(pipeline, row):
            urls = signing.shadow_urls(pipeline, row)
        else:
            prefix = pipeline.output_prefix
            urls = signing.presigned_urls(inputs, outputs, prefix, row)
        limits, parts = uploads.limits(row, pipeline.largest_put), {}
        if upload := begun.get(row.number):
            parts = uploads.part_urls(outputs, upload, limits.most_parts)
        return render.Conversion(row, urls, limits, parts)

    for name, its_rows in itertools.groupby(rows, node_of):
        yield render.node(name, map(conversion, its_rows), pipeline.node_options)
