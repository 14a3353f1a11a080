"""Rename the files beside images that would override the COGs in their places."""

from collections.abc import Collection
from contextlib import suppress

from bucket import Bucket, ObjectMissing
from node import sidecars
from state import results
from state.keys import sandbox_name
from state.launch import Launch
from state.rows import load_rows
from state.run import Run


def rename_replaced(run: Run, launch: Launch, failed: Collection[int]) -> None:
    """Rename the sidecar files that the nodes of a run named, if COGs are beside them.

    This can be repeated after a crash at any step.

    Args:
        failed: line numbers of the rows that failed.

    Raises:
        BucketError: try again later.
    """
    if not launch.in_one_bucket or launch.output_prefix:
        return
    names = {
        line: set(result.replaced_sidecars)
        for line, result in results.records(run)
        if result.ok and result.replaced_sidecars and line not in failed
    }
    inputs = launch.inputs()
    for row in load_rows(run) if names else ():
        # A node may name anything: only files of its own row count.
        for key in row.sidecars:
            if sandbox_name(key) in names.get(row.line, ()):
                _rename(inputs, key)


def _rename(inputs: Bucket, key: str) -> None:
    with suppress(ObjectMissing):  # It was renamed before a crash.
        stored = inputs.stat(key)
        if inputs.copy(key, sidecars.replaced(key), stored.etag):
            inputs.remove(key)
