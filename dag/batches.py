"""Batch rows: one job converts the images of a batch, one after the other."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from dag import multipart
from state.keys import jpeg_key, sandbox_name
from state.launch import Launch
from state.rows import Row


def batch_rows(rows: Iterable[Row], launch: Launch) -> Iterator[Row]:
    """Let up to ``rows_per_job`` consecutive rows share a node.

    All their files are in one sandbox, so rows with a file name in common do not share
    a node. A row whose COG may need a multipart upload has a node to itself.
    """
    # The rows of the batch, and the refused ones between them.
    batch: list[Row] = []
    names: set[str] = set()
    free_places = 0
    for row in rows:
        if row.reason is None:
            needs_own_node = multipart.may_be_needed(row, launch)
            row_names = _names_in_sandbox(row)
            if needs_own_node or not free_places or names & row_names:
                yield from _with_group(batch)
                batch, names, free_places = [], set(), launch.rows_per_job
            names |= row_names
            free_places = 0 if needs_own_node else free_places - 1
        batch.append(row)
    yield from _with_group(batch)


def _with_group(batch: list[Row]) -> Iterator[Row]:
    convertible = [row for row in batch if row.reason is None]
    for row in batch:
        shares = row.reason is None and len(convertible) > 1
        yield replace(row, group=convertible[0].line) if shares else row


def _names_in_sandbox(row: Row) -> set[str]:
    keys = (row.key, jpeg_key(row.key), *row.sidecars)
    # GDAL finds sidecar files whatever the case of their names.
    return {sandbox_name(key).lower() for key in keys}
