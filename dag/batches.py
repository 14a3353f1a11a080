"""Batch rows: one job converts the images of a batch, one after the other."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from dag import multipart
from state.keys import jpeg_key, sandbox_name
from state.launch import Launch
from state.rows import Row

# The work of a row is estimated from its size, as docs/scale.md explains.
_SECONDS_PER_ROW, _SECONDS_PER_MIB = 0.2, 0.08
_MIB = 2**20
# With more work, a job gains little by sharing: to start it takes about a second. As
# this limits the size of its images too, it needs no much larger disk than for one.
_MAX_SECONDS = 20
# Pools that start machines on demand may have none now.
_SLOTS_IF_UNKNOWN = 100
_NO_LIMIT = float("inf")


def batch_rows(rows: Sequence[Row], launch: Launch, slots: int) -> Iterator[Row]:
    """Let consecutive rows share a node.

    All their files are in one sandbox, so rows with a file name in common do not share
    a node. A row whose COG may need a multipart upload has a node to itself.

    Args:
        slots: number of jobs that can run at once; 0 if it is not known.
    """
    max_rows, max_seconds = _limits(rows, launch, slots or _SLOTS_IF_UNKNOWN)
    # The rows of the batch, and the refused ones between them.
    batch: list[Row] = []
    names: set[str] = set()
    free_places = 0.0
    seconds_left = max_seconds
    for row in rows:
        if row.reason is None:
            row_seconds, row_names = seconds(row), _names_in_sandbox(row)
            is_alone = row_seconds > max_seconds or multipart.may_be_needed(row, launch)
            # Batches are cut where their work is nearest to a multiple of the limit, so
            # that they have about the same work, and no small one is left at the end.
            is_over = not is_alone and seconds_left < row_seconds / 2
            if is_over:
                seconds_left += max_seconds
            if is_alone or is_over or free_places < 1 or names & row_names:
                yield from _with_group(batch)
                batch, names, free_places = [], set(), max_rows
            names |= row_names
            if is_alone:
                free_places = 0
            else:
                free_places -= 1
                seconds_left -= row_seconds
        batch.append(row)
    yield from _with_group(batch)


def _limits(rows: Sequence[Row], launch: Launch, slots: int) -> tuple[float, float]:
    """Return how many rows a batch has at most, and about how many seconds of work."""
    if launch.rows_per_job is not None:
        return launch.rows_per_job, _NO_LIMIT
    work = [seconds(row) for row in rows if row.reason is None]
    jobs = min(slots, launch.max_idle, launch.max_jobs)
    return _NO_LIMIT, _seconds_per_job(work, jobs)


def seconds(row: Row) -> float:
    """Return an estimate of the time that a row's conversion takes."""
    return _SECONDS_PER_ROW + _SECONDS_PER_MIB * row.size / _MIB


def _seconds_per_job(work: Sequence[float], jobs: int) -> float:
    """Return the work of each job, in seconds, if at least ``jobs`` jobs share it.

    It is at most _MAX_SECONDS. If that makes more jobs than ``jobs``, there are about
    a multiple of it, so that all slots end together.

    >>> _seconds_per_job([1.0] * 10, 10)
    1.0
    >>> _seconds_per_job([1.0] * 10, 2)
    5.0
    >>> _seconds_per_job([9.0, 1.0, 1.0], 2)
    2.0
    >>> _seconds_per_job([1.0] * 120, 2)
    20.0
    """
    rest = sum(work)
    # Rows that are longer than their share have jobs of their own.
    for longest in sorted(work, reverse=True):
        if jobs <= 1 or longest <= rest / jobs:
            break
        rest -= longest
        jobs -= 1
    share = rest / jobs
    return share / max(1, math.ceil(share / _MAX_SECONDS))


def _with_group(batch: list[Row]) -> Iterator[Row]:
    convertible = [row for row in batch if row.reason is None]
    for row in batch:
        shares = row.reason is None and len(convertible) > 1
        yield replace(row, group=convertible[0].line) if shares else row


def _names_in_sandbox(row: Row) -> set[str]:
    keys = (row.key, jpeg_key(row.key), *row.sidecars)
    # GDAL finds sidecar files whatever the case of their names.
    return {sandbox_name(key).lower() for key in keys}
