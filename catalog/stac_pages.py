"""Pages: the catalogs between a STAC Collection and its Items.

An item is on a page of the run that converted its image, and stays there until a later
run converts the image again. So a run changes its own pages and few others.
"""

import re
from collections.abc import Collection as Several, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from bucket import ObjectMissing
from catalog.record import Record, safe_name
from catalog.stac_item import GEOJSON, VERSION, item_name, link, link_to_self
from catalog.target import Target
from state.errors import PipelineError

FOLDER, GROUPS = "pages/", "groups/"
# With the links to itself, the root and so on, a file has at most 1,000 links.
MAX_CHILDREN = 990
# When a run began, at the beginning of its id.
_BEGAN = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)\d\dZ", re.ASCII)
_MAX_PAGE = 8 * 2**20  # bytes


class Entry(NamedTuple):
    """An item as its page names it."""

    id: str
    title: str


class Page(NamedTuple):
    """A page: the run whose items it has, as ``safe_name`` writes it, and a number."""

    run: str
    number: int

    @property
    def name(self) -> str:
        """Its name, which is that of its folder."""
        return f"{self.run}-{self.number}"

    @property
    def file(self) -> str:
        """Where it is in its collection."""
        return f"{FOLDER}{self.name}/catalog.json"

    @property
    def title(self) -> str:
        """Its title for people.

        >>> Page("20261126T184354Z-25abdca8", 1).title
        'Run of 2026-11-26 18:43, page 1'
        """
        run = self.run
        if began := _BEGAN.match(run):
            run = "{}-{}-{} {}:{}".format(*began.groups())
        return f"Run of {run}, page {self.number}"


Pages = dict[Page, list[Entry]]


def entry(record_id: str, key: str) -> Entry:
    """Return the entry of an image, with the name of its COG as title."""
    return Entry(record_id, key.rpartition("/")[2])


def run_of(record: Record) -> str:
    """Return the run of a record as the names of its pages have it."""
    return safe_name(record.run)


def listed(target: Target) -> Iterator[Page]:
    """Yield the pages that the collection has in the bucket."""
    folder = target.prefix + FOLDER
    for stored in target.bucket.list(folder):
        name, _, file = stored.key.removeprefix(folder).partition("/")
        run, _, number = name.rpartition("-")
        if file == "catalog.json" and run and number.isdecimal():
            yield Page(run, int(number))


def read(target: Target, page: Page) -> list[Entry]:
    """Return the entries of a page in the bucket; none if it is gone.

    Raises:
        PipelineError: the object is not a page.
    """
    key = target.prefix + page.file
    try:
        links = orjson.loads(target.bucket.read(key, _MAX_PAGE))["links"]
        return [
            Entry(
                each["href"].rpartition("/")[2].removesuffix(".json"),
                each.get("title", ""),
            )
            for each in links
            if each["rel"] == "item"
        ]
    except ObjectMissing:
        return []
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise PipelineError(
            f"{target.bucket.name}/{key} is not a page of the catalog any more: make "
            "the product stac again as a whole"
        ) from error


def arranged(
    former: Mapping[Page, list[Entry]],
    gone: Several[str],
    run: str,
    added: Iterable[Entry],
) -> Pages:
    """Return the pages of a run after a change; those that are left may be empty.

    Args:
        former: the pages that it has.
        gone: ids of the items that are not part of the run any more.
        added: the items of the run that are new, or may have changed.
    """
    pages = {
        page: [each for each in entries if each.id not in gone]
        for page, entries in former.items()
    }
    known = {each.id for entries in pages.values() for each in entries}
    new = [each for each in added if each.id not in known]
    begin, number = 0, max((page.number for page in pages), default=1)
    while begin < len(new):
        entries = pages.setdefault(Page(run, number), [])
        room = MAX_CHILDREN - len(entries)
        entries += new[begin : begin + room]
        begin += room
        number += 1
    return pages


def document(target: Target, page: Page, entries: Iterable[Entry]) -> bytes:
    """Return a page as a Catalog."""
    items = (
        link("item", f"../../{item_name(each.id)}", each.title, GEOJSON)
        for each in entries
    )
    return _catalog(
        target, page.file, page.name, page.title, f"Images of the run {page.run}", items
    )


def grouped(target: Target, pages: Several[Page]) -> tuple[list[Any], dict[str, bytes]]:
    """Return the links of the collection to its pages, and the files between them.

    There are such files only if there are many pages. Each is a Catalog of others, and
    has as few links as a page.

    Returns:
        The links, and the files by their names in the collection.
    """
    children = [(page.file, page.title) for page in pages]
    files: dict[str, bytes] = {}
    level = 0
    while len(children) > MAX_CHILDREN:
        level += 1
        groups: list[tuple[str, str]] = []
        for begin in range(0, len(children), MAX_CHILDREN):
            part = children[begin : begin + MAX_CHILDREN]
            name = f"{level}-{len(groups) + 1}"
            file, title = f"{GROUPS}{name}/catalog.json", f"Group {name}"
            links = (link("child", f"../../{child}", called) for child, called in part)
            extent = f"{part[0][1]} to {part[-1][1]}"
            files[file] = _catalog(target, file, f"group-{name}", title, extent, links)
            groups.append((file, title))
        children = groups
    return [link("child", f"./{file}", title) for file, title in children], files


def _catalog(
    target: Target,
    file: str,
    name: str,
    title: str,
    description: str,
    children: Iterable[dict[str, str]],
) -> bytes:
    """Return a Catalog two folders below its collection."""
    content = {
        "type": "Catalog",
        "stac_version": VERSION,
        "id": f"{target.collection.id}-{name}",
        "title": title,
        "description": description,
        "links": [
            *link_to_self(target, target.prefix + file),
            link("root", "../../../catalog.json"),
            link("parent", "../../collection.json", target.collection.title),
            *children,
        ],
    }
    return orjson.dumps(content)
