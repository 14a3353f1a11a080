"""The rows of a run, and which nodes they have: ``rows.jsonl`` and ``solo.json``."""

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from state.files import writing
from state.launch import load_node_options
from state.records import as_json
from state.run import Run
from state.text import csv_safe

# Most rows of a million have none: they share this one.
_NO_OPTIONS: Mapping[str, tuple[str, ...]] = {}
_LISTS_OF_A_ROW = {"fields", "sidecars"}
# One field may fill a manifest, whose size has a limit of its own. The default limit of
# csv is 131,072 characters.
csv.field_size_limit(sys.maxsize)


class Refusal(StrEnum):
    """Codes of rows that get no node; docs/reference.md has a table of them."""

    NOT_CSV = "not-csv"
    LATE_HEADER = "late-header"
    NO_IMAGE = "no-image-named"
    BAD_PATH = "bad-path"
    NOT_A_TIFF = "not-a-tiff"
    NAME_TOO_LONG = "name-too-long"
    BAD_BANDS = "bad-bands"
    BAD_OPTION = "bad-option"
    TIME_LIMIT_TOO_LONG = "time-limit-too-long"
    NOT_FOUND = "not-found"
    AMBIGUOUS = "ambiguous"
    IN_COLD_STORAGE = "in-cold-storage"
    BAD_SIDECAR = "bad-sidecar"
    DUPLICATE = "duplicate"
    OUTPUT_COLLISION = "output-collision"
    CANNOT_SIGN = "cannot-sign"
    UNREADABLE_MANIFEST = "unreadable-manifest"
    # In records of before version 0.1, which have no codes.
    UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a manifest.

    Attributes:
        line: its line number in the file, from 1; the first one of several lines.
        fields: all its fields, as written.
        key: the image's key: as written until the image is found in the input
            bucket, then as stored.
        bands: the number of bands that the manifest gives.
        size: the size of the image and its sidecar files, in bytes.
        options: options for its node, which come after the launch's: the values of
            each, by name.
        sidecars: the keys of the image's sidecar files.
        group: the line number of the first row of its batch; 0 if the row has a node
            to itself.
        reason: why the row cannot be converted; None if it can.
        code: the reason's name for programs; None if the row can be converted.
    """

    line: int
    fields: tuple[str, ...]
    key: str = ""
    bands: int = 0
    size: int = 0
    options: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _NO_OPTIONS)
    sidecars: tuple[str, ...] = ()
    group: int = 0
    reason: str | None = None
    code: str | None = None

    def failed(self, code: str, reason: str) -> "Row":
        """Return this row as one that cannot be converted."""
        return replace(self, code=code, reason=csv_safe(reason))


@dataclass(frozen=True)
class Manifest:
    """A manifest's rows and, where it has one, its header row."""

    rows: tuple[Row, ...]
    header: tuple[str, ...] | None = None

    @property
    def convertible(self) -> tuple[Row, ...]:
        """The rows that can be converted."""
        return tuple(row for row in self.rows if row.reason is None)


def node_name(line: int) -> str:
    """Return the name of a single row's DAG node, which its result file has too."""
    return f"row{line}"


def dag_node_of(row: Row) -> str:
    """Return the name of the DAG node that converts a row, maybe with other rows."""
    return f"rows{row.group}" if row.group else node_name(row.line)


def result_name(line: int, attempt: str | None = None) -> str:
    """Return the name of a row's result file.

    Args:
        attempt: which try of the node wrote it, where rows share the node.
    """
    name = node_name(line)
    return f"{name}.json" if attempt is None else f"{name}.{attempt}.json"


def log_name(node: str) -> str:
    """Return the name of the file with the output of a node."""
    return f"{node}.log"


def save_rows(run: Run, manifest: Manifest) -> None:
    """Write the rows of a run, one a line, after a line with the header row."""
    with writing(run.rows_file) as file:
        file.write(as_json({"header": manifest.header}))
        file.writelines(_line(row) for row in manifest.rows)


def _line(row: Row) -> str:
    """Return a row as JSON, without its empty fields."""
    values = ((name, getattr(row, name)) for name in Row.__slots__)
    return json.dumps({name: value for name, value in values if value}) + "\n"


def load_header(run: Run) -> tuple[str, ...] | None:
    """Return the header row of a run's manifest; None if it has none."""
    with run.rows_file.open() as file:
        first = json.loads(next(file))
    # Before version 0.1, the line was the header row itself.
    header = first["header"] if isinstance(first, dict) else first
    return None if header is None else tuple(header)


def load_rows(run: Run) -> Iterator[Row]:
    """Yield the rows of a run, one at a time: there may be a million."""
    with run.rows_file.open() as file:
        next(file)
        for line in file:
            yield _row(json.loads(line))


def count_rows(run: Run) -> int:
    """Return the number of rows of a run; 0 as long as its manifest is not read."""
    if not run.rows_file.exists():
        return 0
    with run.rows_file.open("rb") as file:
        # The first line is the header.
        return sum(1 for _ in file) - 1


def _row(saved: dict[str, Any]) -> Row:
    """Return the row of a record; fields of later versions are left out."""
    if "number" in saved:
        # The field's name before version 0.1.
        saved["line"] = saved.pop("number")
    if "reason" in saved:
        # A record of before version 0.1 has no code.
        saved.setdefault("code", Refusal.UNUSABLE)
    for name in _LISTS_OF_A_ROW & saved.keys():
        saved[name] = tuple(saved[name])
    if "options" in saved:
        saved["options"] = load_node_options(saved["options"])
    return Row(**{name: saved[name] for name in Row.__slots__ if name in saved})


def solo_rows(run: Run) -> frozenset[int]:
    """Return the line numbers of the rows that no longer share a node."""
    if not run.solo_file.exists():
        return frozenset()
    return frozenset(json.loads(run.solo_file.read_text()))


def load_rows_as_last_tried(run: Run) -> Iterator[Row]:
    """Yield the rows one at a time; those that are retried alone have no group."""
    solo = solo_rows(run)
    for row in load_rows(run):
        yield replace(row, group=0) if row.line in solo else row


def load_rows_with_nodes(run: Run) -> Iterator[tuple[Row, list[str]]]:
    """Yield the rows one at a time, each with the names of the nodes it has had."""
    solo = solo_rows(run)
    for row in load_rows(run):
        names = [dag_node_of(row)] if row.reason is None else []
        if row.line in solo:
            names.append(node_name(row.line))
        yield row, names


def load_manifest(run: Run) -> Manifest:
    """Return the manifest of a run with all its rows."""
    return Manifest(tuple(load_rows(run)), load_header(run))
