"""A run without a directory, and the rows of a manifest."""

from collections.abc import Iterable
from pathlib import Path

from bucket import StoredObject
from dag.images import ImageIndex
from state.rows import Manifest
from state.run import Run


def a_run() -> Run:
    named = dict.fromkeys(Run.__dataclass_fields__, "")
    return Run(**named | {"directory": Path("/nowhere"), "manifest_key": "x"})


def resolve(
    manifest: Manifest,
    bucket: str,
    objects: Iterable[StoredObject],
    endpoint: str = "",
) -> Manifest:
    """Find the images of a manifest's rows among some objects."""
    index = ImageIndex(manifest, bucket, endpoint)
    for stored in objects:
        index.add(stored)
    return index.resolve()
