"""Batch rows: one job converts the images of a batch, one after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from dag import multipart
from state.keys import jpeg_key, sandbox_name
from state.launch import Launch
from state.rows import Row

# With more work, a job gains little by sharing: to start it takes about a second.
_MAX_SECONDS = 30
# The work of a row is estimated from its size, as docs/scale.md explains.
_SECONDS_PER_ROW, _SECONDS_PER_MIB = 0.2, 0.05
_MIB = 2**20
# A job requests several times as much disk as its images take.
_MAX_BYTES = 512 * _MIB
_MAX_ROWS = 100
# Pools that start machines on demand may have none now.
_SLOTS_IF_UNKNOWN = 100


@dataclass(frozen=True)
class _Limits:
    """The limits of a batch: rows, estimated seconds of work, bytes of the images.

    A row that is above a limit has a batch of its own.
    """

    rows: int
    seconds: float = float("inf")
    bytes: float = float("inf")


def _limits(rows: Sequence[Row], launch: Launch, slots: int) -> _Limits:
    """Return the launch's limit of rows, or the limits that keep all slots busy."""
    if launch.rows_per_job is not None:
        return _Limits(launch.rows_per_job)
    work = [_seconds(row) for row in rows if row.reason is None]
    jobs = min(slots, launch.max_idle, launch.max_jobs)
    return _Limits(_MAX_ROWS, _seconds_per_job(work, jobs), _MAX_BYTES)


def batch_rows(rows: Sequence[Row], launch: Launch, slots: int) -> Iterator[Row]:
    """Let consecutive rows share a node.

    All their files are in one sandbox, so rows with a file name in common do not share
    a node. A row whose COG may need a multipart upload has a node to itself.

    Args:
        slots: number of jobs that can run at once; 0 if it is not known.
    """
    limits = _limits(rows, launch, slots or _SLOTS_IF_UNKNOWN)
    # The rows of the batch, and the refused ones between them.
    batch: list[Row] = []
    names: set[str] = set()
    free = _Limits(0)
    for row in rows:
        if row.reason is None:
            needs_own_node = multipart.may_be_needed(row, launch)
            row_names = _names_in_sandbox(row)
            if needs_own_node or names & row_names or not _fits(row, free):
                yield from _with_group(batch)
                batch, names, free = [], set(), limits
            names |= row_names
            free = _Limits(0) if needs_own_node else _without(free, row)
        batch.append(row)
    yield from _with_group(batch)


def _seconds(row: Row) -> float:
    """Return an estimate of the time that a row's conversion takes."""
    return _SECONDS_PER_ROW + _SECONDS_PER_MIB * row.size / _MIB


def _seconds_per_job(work: list[float], jobs: int) -> float:
    """Return the work of each job, in seconds, if at least ``jobs`` jobs share it.

    No job has more than _MAX_SECONDS but for a single row, and if there are more jobs
    than ``jobs``, there are about a multiple of it, so that all slots end together.

    >>> _seconds_per_job([1.0] * 10, 10)
    1.0
    >>> _seconds_per_job([1.0] * 10, 2)
    5.0
    >>> _seconds_per_job([9.0, 1.0, 1.0], 2)
    2.0
    >>> _seconds_per_job([1.0] * 120, 2)
    30.0
    """
    rest = sum(work)
    # Rows that are longer than their share have jobs of their own.
    for longest in sorted(work, reverse=True):
        if jobs <= 1 or longest <= rest / jobs:
            break
        rest -= longest
        jobs -= 1
    share = rest / max(1, jobs)
    return share / max(1, -(-share // _MAX_SECONDS))


def _fits(row: Row, free: _Limits) -> bool:
    # The seconds are sums of fractions, which have rounding errors.
    return (
        free.rows >= 1
        and free.seconds >= _seconds(row) - 1e-6
        and free.bytes >= row.size
    )


def _without(free: _Limits, row: Row) -> _Limits:
    return _Limits(free.rows - 1, free.seconds - _seconds(row), free.bytes - row.size)


def _with_group(batch: list[Row]) -> Iterator[Row]:
    convertible = [row for row in batch if row.reason is None]
    for row in batch:
        shares = row.reason is None and len(convertible) > 1
        yield replace(row, group=convertible[0].line) if shares else row


def _names_in_sandbox(row: Row) -> set[str]:
    keys = (row.key, jpeg_key(row.key), *row.sidecars)
    # GDAL finds sidecar files whatever the case of their names.
    return {sandbox_name(key).lower() for key in keys}
