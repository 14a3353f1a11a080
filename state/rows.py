"""The rows of a run, and which nodes they have: ``rows.jsonl`` and ``solo.json``."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from urllib.parse import quote

from state.files import writing
from state.run import Run
from state.text import csv_safe

# What Linux file systems allow for a name; the image has its name in the
# sandbox percent-encoded, as its URL does.
MAX_NAME = 255
_LISTS_OF_A_ROW = {"fields", "options", "sidecars"}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a manifest.

    Attributes:
        number: its line in the file, from 1 (of several lines, the first).
        fields: all its fields as they were written.
        key: the image's key in the input bucket.
        bands: how many bands the image is said to have.
        size: of the image in the bucket, in bytes.
        options: for its node, on top of the launch's.
        sidecars: keys of the files beside the image that tell of it.
        group: the number of the first of the rows that share its node, 0 where it
            has a node to itself.
        reason: why it cannot be worked on, None where it can.
    """

    number: int
    fields: tuple[str, ...]
    key: str = ""
    bands: int = 0
    size: int = 0
    options: tuple[str, ...] = ()
    sidecars: tuple[str, ...] = ()
    group: int = 0
    reason: str | None = None

    def failed(self, reason: str) -> "Row":
        return replace(self, reason=csv_safe(reason))


@dataclass(frozen=True)
class Manifest:
    """A manifest's rows and, where it has one, its header row."""

    rows: tuple[Row, ...]
    header: tuple[str, ...] | None = None

    @property
    def convertible(self) -> tuple[Row, ...]:
        """The rows that can be worked on."""
        return tuple(row for row in self.rows if row.reason is None)


def jpeg_key(key: str) -> str:
    """The key of the JPEG beside an image."""
    return key[: key.rindex(".")] + ".jpg"


def sandbox_name(key: str) -> str:
    """The name that HTCondor gives to an image in a node's sandbox.

    It takes the last part of the URL as it stands there, percent-encoded, so a
    key of any content arrives as letters, digits, and ``_.-~%``.
    """
    return quote(key.rsplit("/", 1)[-1], safe="")


def node_name(number: int | str) -> str:
    """The name of the DAG node of a single row, and of the file of its result."""
    return f"row{number}"


def dag_node_of(row: Row) -> str:
    """The name of the DAG node that converts a row's image, perhaps with others."""
    return f"rows{row.group}" if row.group else node_name(row.number)


def save_rows(run: Run, manifest: Manifest) -> None:
    with writing(run.rows_file) as file:
        file.write(json.dumps(manifest.header) + "\n")
        file.writelines(_line(row) for row in manifest.rows)


def _line(row: Row) -> str:
    """A row as JSON, without what it does not say."""
    told = ((name, getattr(row, name)) for name in Row.__slots__)
    return json.dumps({name: fact for name, fact in told if fact}) + "\n"


def load_header(run: Run) -> tuple[str, ...] | None:
    with run.rows_file.open() as file:
        header = json.loads(next(file))
    return None if header is None else tuple(header)


def load_rows(run: Run) -> Iterator[Row]:
    """The rows one by one: there may be a million."""
    with run.rows_file.open() as file:
        next(file)
        for line in file:
            saved = json.loads(line)
            for name in _LISTS_OF_A_ROW & saved.keys():
                saved[name] = tuple(saved[name])
            yield Row(**saved)


def solo_rows(run: Run) -> frozenset[int]:
    """The numbers of the rows that no longer share a node."""
    if not run.solo_file.exists():
        return frozenset()
    return frozenset(json.loads(run.solo_file.read_text()))


def load_rows_as_last_tried(run: Run) -> Iterator[Row]:
    """The rows one by one, those apart without the group that they were in."""
    apart = solo_rows(run)
    for row in load_rows(run):
        yield replace(row, group=0) if row.number in apart else row


def load_rows_with_nodes(run: Run) -> Iterator[tuple[Row, list[str]]]:
    """The rows one by one, and the names of the nodes that each of them has had."""
    apart = solo_rows(run)
    for row in load_rows(run):
        names = [dag_node_of(row)] if row.reason is None else []
        if row.number in apart:
            names.append(node_name(row.number))
        yield row, names


def load_manifest(run: Run) -> Manifest:
    """All of them."""
    return Manifest(tuple(load_rows(run)), load_header(run))
