"""Records on disk: JSON objects that carry the version of their format.

A reader skips fields that it does not know. So it can read the record of a later
version, such as after an upgrade that was undone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

VERSION = 1
Record = TypeVar("Record", bound="DataclassInstance")


def as_json(
    record: DataclassInstance | dict[str, Any], indent: int | None = None
) -> str:
    """Return a record as JSON with the version of its format, and a line ending."""
    content = record if isinstance(record, dict) else asdict(record)
    text = json.dumps({"version": VERSION} | content, indent=indent, default=str)
    return text + "\n"


def from_record(cls: type[Record], saved: dict[str, Any], **values: Any) -> Record:
    """Return the object that a record describes.

    Args:
        saved: the record; fields that ``cls`` does not have are ignored.
        values: values of fields, which take precedence over the record's.

    Raises:
        AttributeError: the record is not a JSON object.
        TypeError: it lacks a field that has no default.
    """
    known = {field.name for field in fields(cls)}
    return cls(**{name: fact for name, fact in saved.items() if name in known} | values)
