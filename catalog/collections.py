"""Collections: which images belong together in the catalog, and their descriptions."""

import hashlib
import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from catalog import dates
from catalog.record import safe_name
from state.errors import PipelineError

# As the schema of STAC's Collection has it.
_LICENSE = re.compile(r"[\w.+-]+", re.ASCII)
_TEXTS = ("title", "description", "license", "license_url")
_ROLES = ("licensor", "producer", "processor", "host")


@dataclass(frozen=True)
class Provider:
    """An organisation behind a collection.

    Attributes:
        name: its name.
        roles: what it is: licensor, producer, processor or host.
        url: its home page; empty if not known.
    """

    name: str
    roles: tuple[str, ...] = ()
    url: str = ""


@dataclass(frozen=True)
class Collection:
    """Images that belong together.

    Attributes:
        id: its name, of letters, digits and ``._-`` only.
        title: its title for people.
        description: what it is, in CommonMark.
        license: SPDX licence identifier, or ``other``.
        license_url: where the text of the licence is; empty if not known.
        providers: the organisations behind it.
        keywords: words by which people look for it.
        interval: first and last moment of all its images of unknown date, in UTC, as
            in 1937-01-01T00:00:00Z; empty for an end that is not known.
    """

    id: str
    title: str = ""
    description: str = ""
    license: str = "other"
    license_url: str = ""
    providers: tuple[Provider, ...] = ()
    keywords: tuple[str, ...] = ()
    interval: tuple[str, str] = ("", "")

    @property
    def mosaicid(self) -> str:
        """The id of its mosaic, 56 hexadecimal digits: SHA-224 of its own id."""
        return hashlib.sha224(self.id.encode()).hexdigest()


def of_folder(folder: str, bucket: str) -> Collection:
    """Return the collection of a folder, as long as nobody has described it.

    Args:
        folder: path of the folder under the output prefix, or another name that
            images have in common; empty for the images that are in no folder.
        bucket: name of the output bucket.
    """
    title = folder or bucket
    return collection_of(safe_name(title), title)


def collection_of(name: str, title: str) -> Collection:
    """Return a collection that nobody has described yet."""
    return Collection(name, title, f"Images of {title}, as Cloud Optimized GeoTIFFs.")


def described(collection: Collection, file: Path | None) -> Collection:
    """Return a collection as a file of collections describes it.

    The file is TOML. It has a table for each collection, with its id or its title as
    name, and the table ``default`` for what all have in common.

    Raises:
        PipelineError: the file cannot be read; the message says what is wrong where.
    """
    if file is None:
        return collection
    tables = read_file(file)
    for name in ("default", collection.title, collection.id):
        collection = _with(collection, tables.get(name, {}), f"{file}: [{name}]")
    return collection


def read_file(file: Path) -> dict[str, dict[str, Any]]:
    """Return the tables of a file of collections, after a check of all of them.

    Raises:
        PipelineError: the file cannot be read; the message says what is wrong where.
    """
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PipelineError(f"{file} cannot be read: {error}") from error
    for name, table in tables.items():
        _with(Collection(""), table, f"{file}: [{name}]")
    return tables


def _with(collection: Collection, table: Any, where: str) -> Collection:
    if not isinstance(table, dict):
        raise PipelineError(f"{where} is not a table: write each collection as one")
    values: dict[str, Any] = {}
    for name, value in table.items():
        if name == "license" and not _LICENSE.fullmatch(str(value)):
            raise PipelineError(
                f"{where}: license = {value!r} is not an SPDX identifier, such as "
                "CC-BY-4.0; for any other licence, write 'other' and a license_url"
            )
        if name in _TEXTS and isinstance(value, str) and value:
            values[name] = value
        elif name == "keywords" and _is_list_of_texts(value):
            values[name] = tuple(value)
        elif name == "providers" and isinstance(value, list):
            values[name] = tuple(_provider(each, where) for each in value)
        elif name == "interval" and _is_interval(value):
            values[name] = _interval(*value)
        else:
            raise PipelineError(
                f"{where}: {name} = {value!r} is not understood; a collection has "
                f"{', '.join(_TEXTS)}, keywords, providers and interval, as in "
                "docs/catalog.md"
            )
    return replace(collection, **values)


def _provider(value: Any, where: str) -> Provider:
    known = {"name", "roles", "url"}
    if (
        not isinstance(value, dict)
        or not value.keys() <= known
        or not isinstance(value.get("name"), str)
        or not value["name"]
        or not isinstance(value.get("url", ""), str)
        or not _is_list_of_texts(value.get("roles", []))
        or not set(value.get("roles", [])) <= set(_ROLES)
    ):
        raise PipelineError(
            f"{where}: a provider has a name, a url, and roles out of "
            f"{', '.join(_ROLES)}, not {value!r}"
        )
    return Provider(value["name"], tuple(value.get("roles", ())), value.get("url", ""))


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_interval(value: Any) -> bool:
    return (
        _is_list_of_texts(value)
        and len(value) == 2
        and all(not each or dates.of_text(each) for each in value)
    )


def _interval(first: str, last: str) -> tuple[str, str]:
    start, end = dates.of_text(first), dates.of_text(last)
    return start.start if start else "", end.end if end else ""
