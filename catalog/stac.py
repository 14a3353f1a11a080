"""The product ``stac``: a static catalog of Collections and Items.

It follows STAC 1.1.0 (https://stacspec.org). The root links the collections, a
collection links its pages, and a page links its items::

    catalog.json
    COLLECTION/collection.json
    COLLECTION/pages/RUN-1/catalog.json
    COLLECTION/items/IMAGE.json

Items are written first, then the pages, the collection and the root. Files that
are not part of it any more are removed at the end. So readers always find the file that
a link names, except for an item that was removed while they read.

The root and the collection are shared with other access points. They are written if
nobody else has written them meanwhile, and otherwise made again from what is there.
"""

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import orjson

from bucket import ObjectMissing
from catalog import stac_collection, stac_pages as pages
from catalog.record import Record, safe_name
from catalog.records import Records
from catalog.stac_item import (
    GEOJSON,
    ITEMS,
    JSON,
    VERSION,
    item,
    item_name,
    link,
    link_to_self,
)
from catalog.stac_pages import Page, Pages
from catalog.target import Target
from state.errors import PipelineError

_ROOT = "catalog.json"
_WRITERS = 16  # threads
_AT_ONCE = 1000
_TRIES = 20
_TRIES_TO_READ = 6
_MAX_WAIT = 2.0  # seconds
_MAX_FILE = 16 * 2**20  # bytes

_Thing = TypeVar("_Thing")
_Outcome = TypeVar("_Outcome")


class _NotACatalog(PipelineError):
    """A file is not one of STAC, or somebody is just writing it."""


@dataclass
class _Changes:
    """The files that change.

    Attributes:
        records: the records whose items are written.
        added: key and id of these images, by run.
        gone: ids of items that are not of a run any more, by run.
        stale: names of files that are there; those that are written or stay are taken
            out, and those that are left are removed at the end.
    """

    records: Records
    added: dict[str, list[tuple[str, str]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    gone: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    stale: set[str] = field(default_factory=set)


def write(records: Records, target: Target) -> None:
    """Write the Collection and its Items, and name it in the root of the catalog.

    If ``records.changed`` is None, everything is written, and what is not part of it is
    removed. Otherwise only the items that changed and the pages of their runs are. A
    Collection without Items is removed.

    Raises:
        PipelineError: a file of the catalog is not one of STAC, or others write it all
            the time.
    """
    summary, changes = _survey(records, target)
    with ThreadPoolExecutor(_WRITERS) as threads:
        each = partial(_each, threads)
        former = _former_pages(records, target, changes, threads)
        current = _current_pages(former, changes)
        page_of = {
            entry.id: page.name
            for page, entries in current.items()
            for entry in entries
        }

        def write_item(record: Record) -> str:
            name = item_name(record.id)
            content = orjson.dumps(item(record, page_of[record.id], target))
            target.put(name, content, GEOJSON)
            return name

        def write_page(page: Page) -> str:
            if current[page] != former.get(page):
                content = pages.document(target, page, current[page])
                target.put(page.file, content, JSON)
            return page.file

        filled = (page for page, entries in current.items() if entries)
        for name in each(write_item, changes.records):
            changes.stale.discard(name)
        for name in each(write_page, filled):
            changes.stale.discard(name)
        if len(records):
            _write_collection(summary, target, changes.stale)
        else:
            changes.stale.add(stac_collection.FILE)
        root = partial(_root, target, has_items=len(records) > 0)
        _amend(target, target.root + _ROOT, root)
        for _ in each(target.remove, changes.stale):
            pass


def _each(
    threads: ThreadPoolExecutor,
    action: Callable[[_Thing], _Outcome],
    things: Iterable[_Thing],
) -> Iterator[_Outcome]:
    """Yield what an action returns for each of many things; only some are in memory."""
    left = iter(things)
    while some := list(islice(left, _AT_ONCE)):
        yield from threads.map(action, some)


def _survey(
    records: Records, target: Target
) -> tuple[stac_collection.Summary, _Changes]:
    """Read all records once; return what they have in common, and what changes."""
    summary = stac_collection.Summary(target.collection)
    is_changed = np.zeros(len(records), dtype=bool)
    changes = _Changes(records)
    for number, record in enumerate(records):
        summary.add(record)
        if records.is_changed(record):
            is_changed[number] = True
            changes.added[pages.run_of(record)].append((record.key, record.id))
    changes.records = replace(records, positions=records.positions[is_changed])
    for record in records.removed:
        changes.gone[pages.run_of(record)].add(record.id)
        changes.stale.add(item_name(record.id))
    for run, added in changes.added.items():
        changes.gone[run].difference_update(name for _, name in added)
    folders = [pages.GROUPS]
    if records.changed is None:
        folders += [ITEMS, pages.FOLDER]
    for folder in folders:
        found = target.bucket.list(target.prefix + folder)
        # The folder may also be one of the archive.
        names = (each.key.removeprefix(target.prefix) for each in found)
        changes.stale.update(name for name in names if name.endswith(".json"))
    return summary, changes


def _former_pages(
    records: Records, target: Target, changes: _Changes, threads: ThreadPoolExecutor
) -> Pages:
    """Return the pages of the runs that change; none if all are made again."""
    if records.changed is None:
        return {}
    there = [page for page in pages.listed(target) if page.run in changes.gone]
    changes.stale.update(page.file for page in there)
    read = threads.map(partial(pages.read, target), there)
    return dict(zip(there, read, strict=True))


def _current_pages(former: Pages, changes: _Changes) -> Pages:
    """Return the pages of the runs that change as they are to be."""
    current: Pages = {}
    for run, gone in changes.gone.items():
        of_run = {page: former[page] for page in former if page.run == run}
        added = sorted(changes.added.get(run, ()))
        new = [pages.entry(record_id, key) for key, record_id in added]
        current |= pages.arranged(of_run, gone, run, new)
    return current


def _write_collection(
    summary: stac_collection.Summary, target: Target, stale: set[str]
) -> None:
    def collection(_: bytes | None) -> bytes:
        # All pages in the bucket count: another access point may have written some.
        there = sorted(page for page in pages.listed(target) if page.file not in stale)
        links, groups = pages.grouped(target, there)
        for name, content in groups.items():
            target.put(name, content, JSON)
            stale.discard(name)
        return stac_collection.document(summary, target, links)

    _amend(target, target.prefix + stac_collection.FILE, collection)


def _root(target: Target, former: bytes | None, *, has_items: bool) -> bytes:
    """Return the root of the catalog, with a link to the collection if it has items.

    Raises:
        _NotACatalog: what is there is not a catalog.
    """
    key = target.root + _ROOT
    name = target.bucket.name
    try:
        root = orjson.loads(former) if former else _new_root(target)
        children = {
            each["href"]: each for each in root["links"] if each["rel"] == "child"
        }
        others = [each for each in root["links"] if each["rel"] != "child"]
    except (ValueError, LookupError, TypeError) as error:
        raise _NotACatalog(
            f"{name}/{key} is not a STAC catalog: remove or rename it, and make the "
            "product stac again"
        ) from error
    href = f"./{target.collection.id}/{stac_collection.FILE}"
    title = target.collection.title or target.collection.id
    if has_items:
        children[href] = link("child", href, title)
    else:
        children.pop(href, None)
    root["links"] = others + [children[each] for each in sorted(children)]
    return orjson.dumps(root)


def _new_root(target: Target) -> dict[str, Any]:
    key, bucket = target.root + _ROOT, target.bucket.name
    return {
        "type": "Catalog",
        "stac_version": VERSION,
        "id": safe_name(f"{bucket}/{target.root}".rstrip("/")),
        "title": f"Images in {bucket}",
        "description": f"Cloud Optimized GeoTIFFs in the bucket {bucket}.",
        "links": [*link_to_self(target, key), link("root", f"./{_ROOT}")],
    }


def _amend(target: Target, key: str, amended: Callable[[bytes | None], bytes]) -> None:
    """Change an object that others may change at the same time.

    Args:
        amended: function of its former content, None if it is not there, that returns
            the new content.

    Raises:
        PipelineError: others write it all the time, or it is not a file of STAC.
    """
    bucket = target.bucket
    for attempt in range(1, _TRIES + 1):
        try:
            former, etag = bucket.read_version(key, _MAX_FILE)
            content = amended(former)
            if content == former or bucket.write_if_unchanged(key, content, etag, JSON):
                return
        except ObjectMissing:
            if bucket.write_if_absent(key, amended(None), JSON):
                return
        except _NotACatalog:
            # On some stores, others see an object before it is written to its end.
            if attempt >= _TRIES_TO_READ:
                raise
        time.sleep(random.uniform(0, _MAX_WAIT))
    raise PipelineError(
        f"{bucket.name}/{key} changes all the time, because others write it: make the "
        "product stac again when they have finished"
    )
