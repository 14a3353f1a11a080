"""The rows of a run, and which nodes they have: ``rows.jsonl`` and ``apart.json``."""

import json
from collections.abc import Iterator
from dataclasses import replace

from dag.files import writing
from dag.manifest import Manifest, Row
from dag.run import Run

_LISTS_OF_A_ROW = {"fields", "options", "sidecars"}


def node_name(number: int | str) -> str:
    """The name of the DAG node of a single row, and of the file of its result."""
    return f"row{number}"


def node_of(row: Row) -> str:
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


def rows_apart(run: Run) -> frozenset[int]:
    """The numbers of the rows that no longer share a node."""
    if not run.apart_file.exists():
        return frozenset()
    return frozenset(json.loads(run.apart_file.read_text()))


def load_rows_as_last_tried(run: Run) -> Iterator[Row]:
    """The rows one by one, those apart without the group that they were in."""
    apart = rows_apart(run)
    for row in load_rows(run):
        yield replace(row, group=0) if row.number in apart else row


def load_rows_with_nodes(run: Run) -> Iterator[tuple[Row, list[str]]]:
    """The rows one by one, and the names of the nodes that each of them has had."""
    apart = rows_apart(run)
    for row in load_rows(run):
        names = [node_of(row)] if row.reason is None else []
        if row.number in apart:
            names.append(node_name(row.number))
        yield row, names


def load_manifest(run: Run) -> Manifest:
    """All of them."""
    return Manifest(tuple(load_rows(run)), load_header(run))
