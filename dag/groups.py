"""Rows whose images one job converts, one after the other."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from dag import uploads
from dag.manifest import Row, jpeg_key, sandbox_name
from dag.pipeline import Pipeline


def share_nodes(rows: Sequence[Row], pipeline: Pipeline) -> tuple[Row, ...]:
    """Let up to ``rows_per_job`` rows that follow each other share a node.

    All their files lie side by side in the node's sandbox: rows whose files have a
    name in common do not share one. Nor does a row whose COG may have to be uploaded
    in parts.
    """
    first_of: dict[int, int] = {}
    names: set[str] = set()
    first, together = None, 0
    for row in rows:
        if row.reason is not None:
            continue
        its_names = _names_in_sandbox(row)
        if (
            first is None
            or together == pipeline.rows_per_job
            or names & its_names
            or any(_may_be_cut(each, pipeline) for each in (first, row))
        ):
            first, together, names = row, 0, set()
        together += 1
        names |= its_names
        first_of[row.number] = first.number
    sharing = Counter(first_of.values())

    def grouped(row: Row) -> Row:
        first = first_of.get(row.number, 0)
        return replace(row, group=first) if sharing[first] > 1 else row

    return tuple(map(grouped, rows))


def _names_in_sandbox(row: Row) -> set[str]:
    return {sandbox_name(key) for key in (row.key, jpeg_key(row.key), *row.sidecars)}


def _may_be_cut(row: Row, pipeline: Pipeline) -> bool:
    return uploads.limits(row, pipeline.largest_put).most_parts > 0
