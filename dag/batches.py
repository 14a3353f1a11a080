"""Rows whose images one job converts, one after the other."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from dag import multipart
from state.launch import Launch
from state.rows import Row, jpeg_key, sandbox_name


def batch_rows(rows: Iterable[Row], launch: Launch) -> Iterator[Row]:
    """Let up to ``rows_per_job`` rows that follow each other share a node.

    All their files lie side by side in the node's sandbox: rows whose files have a
    name in common do not share one. Nor does a row whose COG may have to be uploaded
    in parts.
    """
    # With those among them that cannot be converted.
    together: list[Row] = []
    names: set[str] = set()
    room = 0
    for row in rows:
        if row.reason is None:
            alone = multipart.limits(row, launch.max_put).most_parts > 0
            its_names = _names_in_sandbox(row)
            if alone or not room or names & its_names:
                yield from _grouped(together)
                together, names, room = [], set(), launch.rows_per_job
            names |= its_names
            room = 0 if alone else room - 1
        together.append(row)
    yield from _grouped(together)


def _grouped(rows: list[Row]) -> Iterator[Row]:
    usable = [row for row in rows if row.reason is None]
    for row in rows:
        shares = row.reason is None and len(usable) > 1
        yield replace(row, group=usable[0].line) if shares else row


def _names_in_sandbox(row: Row) -> set[str]:
    keys = (row.key, jpeg_key(row.key), *row.sidecars)
    # GDAL takes for an image's what lies beside it, whichever case its name has.
    return {sandbox_name(key).lower() for key in keys}
