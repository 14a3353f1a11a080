"""Make the catalog of finished runs, and record its outcome in their directories."""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from catalog import stored
from catalog.collections import Collection, collection_of, described
from catalog.join import records_of
from catalog.products import product
from catalog.records import Records
from catalog.target import Target
from catalog.update import update
from state.catalog import (
    CatalogOutcome,
    catalog_fault,
    is_pending,
    load_catalog_outcome,
)
from state.errors import PipelineError, user_message
from state.files import write_atomically
from state.journal import Journal
from state.keys import CATALOG_FOLDER
from state.launch import UNREADABLE, Launch
from state.records import as_json
from state.run import Run, all_runs, locked, settings_of
from state.text import counted

_LOCK = "catalog.lock"
_MOSAICS = "mosaicjson"
# An output bucket, the prefix of the catalog in it, and a collection.
_Place = tuple[str, str, str]
# Images whose catalog takes about a minute.
_MANY = 50_000


def pending(launch: Launch, journal: Journal) -> list[tuple[Run, Launch]]:
    """Return the finished runs of a launch whose products are still to be made.

    Returns:
        Each with its settings, the oldest first.
    """
    waiting = []
    for run in all_runs(launch)[0]:
        try:
            if run.done and is_pending(run, settings := settings_of(run)):
                waiting.append((run, settings))
        except (PipelineError, *UNREADABLE) as error:
            text = f"{run.directory.name} is not in the catalog: {error}"
            journal.say("catalog-failed", text, "error")
    return waiting


def is_heavy(launch: Launch, runs: Sequence[tuple[Run, Launch]]) -> bool:
    """Return whether to make the products of some runs outside of a poll.

    Each product is made from all images of a collection. Those of a launch may all be
    in one.
    """
    outcomes = filter(None, map(load_catalog_outcome, all_runs(launch)[0]))
    images = sum(outcome.images for outcome in outcomes)
    images += sum(json.loads(run.done_file.read_text())["processed"] for run, _ in runs)
    return images > _MANY


def make(
    runs: Sequence[tuple[Run, Launch]], journal: Journal, *, whole: bool = False
) -> dict[str, CatalogOutcome]:
    """Make the products of the collections of some runs, with all their images.

    Args:
        runs: finished runs of one launch, in order, each with its settings; those of
            the catalog are the present ones.
        whole: whether to make everything again, as if there were nothing yet.

    Returns:
        The outcome of each run, by the name of its directory.

    Raises:
        PipelineError: a run has not ended, or packages are not installed.
    """
    for name in {name for _, launch in runs for name in launch.catalog.products}:
        product(name)
    for run, _ in runs:
        if not run.done:
            raise PipelineError(
                f"{run.directory.name} has not ended: 'status' shows how far it is"
            )
    if not runs:
        return {}
    home = runs[0][1].home
    with locked(home, _LOCK), _scratch(home) as scratch:
        outcomes: dict[str, CatalogOutcome] = {}
        titles: dict[str, dict[str, str]] = {}
        tasks: dict[_Place, _Task] = {}
        for run, launch in runs:
            former = load_catalog_outcome(run)
            left = dict(former.collections) if former else {}
            outcome = _write_records(run, launch, left, scratch, journal)
            outcomes[run.directory.name] = outcome
            all_of_them = {**left, **outcome.collections}
            titles[run.directory.name] = all_of_them
            # After a crash, the next call knows the collections.
            _save(run, replace(outcome, collections=all_of_them))
            for name, title in all_of_them.items():
                tasks[_place(launch, name)] = _Task(collection_of(name, title), launch)
        failures = {
            place: _update(task, scratch, journal, whole=whole)
            for place, task in tasks.items()
        }
        for run, launch in runs:
            outcome = outcomes[run.directory.name]
            failed = dict(outcome.failures)
            known = dict(outcome.collections)
            for name, title in titles[run.directory.name].items():
                if faults := failures[_place(launch, name)]:
                    failed |= faults
                    # If the run has left it, the next call makes it again.
                    known[name] = title
            outcome = replace(
                outcome, collections=known, failures=failed, is_ended=True
            )
            outcomes[run.directory.name] = outcome
            _save(run, outcome)
            if not failed:
                _say_made(run, outcome, journal.of_run(run))
    return outcomes


def _place(launch: Launch, collection: str) -> _Place:
    return launch.output_bucket, root(launch), collection


def _write_records(
    run: Run, launch: Launch, former: Mapping[str, str], scratch: Path, journal: Journal
) -> CatalogOutcome:
    """Write the records of a run; return its outcome as it is so far.

    Args:
        former: titles of the collections in which its records are, by their ids. They
            are removed from those to which it does not belong any more.
    """
    products = launch.catalog.products
    try:
        outputs = launch.outputs()
        records = records_of(run, launch, _warner(journal.of_run(run)))
        counts = stored.write(outputs, root(launch), run.id, records, scratch)
        titles = {each.id: each.title for each in counts}
        for name in former.keys() - titles.keys():
            stored.remove(outputs, root(launch), name, run.id)
    except Exception as error:
        # The other runs are made nevertheless.
        message = _explain(error, journal.of_run(run))
        return CatalogOutcome(products, former, 0, {"": message}, is_ended=False)
    images = sum(counts.values())
    return CatalogOutcome(products, titles, images, {}, is_ended=False)


def _save(run: Run, outcome: CatalogOutcome) -> None:
    write_atomically(run.catalog_file, as_json(outcome))


def _explain(error: Exception, journal: Journal) -> str:
    """Return the message of an error for people; log its traceback if it is odd."""
    return user_message(error) or journal.internal_error(error)


def _warner(journal: Journal) -> Callable[[str], None]:
    """Return a function that tells people what the catalog does not have."""
    return lambda message: journal.say("catalog-warning", message, "warning")


def _say_made(run: Run, outcome: CatalogOutcome, journal: Journal) -> None:
    images = counted(outcome.images, "image")
    places = counted(len(outcome.collections), "collection")
    journal.say(
        "catalog-made",
        f"{run.manifest_key}: {images} in {places} of the catalog",
        products=list(outcome.products),
    )


def prune(
    launch: Launch, collections: Mapping[str, str], journal: Journal
) -> tuple[int, dict[str, str]]:
    """Leave out images whose COGs are gone or are in another collection now.

    Args:
        collections: titles of the collections, by their ids.

    Returns:
        How many images were left out, and why products could not be made, by their
        names.
    """
    outputs = launch.outputs()
    failures: dict[str, str] = {}
    gone_images = 0
    with locked(launch.home, _LOCK), _scratch(launch.home) as scratch:
        read: dict[str, Records] = {}
        for number, name in enumerate(collections):
            versions = stored.versions(outputs, root(launch), name)
            known = dict.fromkeys(versions, True)
            read[name] = stored.collected(outputs, known, scratch / f"{number}.jsonl")
        latest = _latest_runs(read.values())
        # After the records: a COG is there before its record.
        listed = outputs.list(launch.output_prefix)
        there = {found.key for found in listed if found.key in latest}
        for name, title in collections.items():
            gone = [
                record
                for record in read[name]
                if record.key not in there or latest[record.key] != record.run
            ]
            stored.write_gone(outputs, root(launch), name, gone)
            gone_images += len(gone)
            task = _Task(collection_of(name, title), launch)
            failures |= _update(task, scratch, journal)
        if _MOSAICS in launch.catalog.products:
            settings = replace(launch.catalog, products=(_MOSAICS,))
            mosaics = replace(launch, catalog=settings)
            for name, title in collections.items():
                if any(record.mosaicid for record in read[name]):
                    # Its former collection has taken an image out of a mosaic that
                    # both share, now or in an earlier call that was interrupted.
                    task = _Task(collection_of(name, title), mosaics)
                    failures |= _update(task, scratch, journal, whole=True)
    return gone_images, failures


def _latest_runs(collections: Iterable[Records]) -> dict[str, str]:
    """Return the last run that converted each image, by the key of its COG."""
    latest: dict[str, str] = {}
    for records in collections:
        for record in records:
            latest[record.key] = max(record.run, latest.get(record.key, ""))
    return latest


@dataclass(frozen=True)
class _Task:
    """A collection that is brought up to date, with the settings that count for it."""

    collection: Collection
    launch: Launch


def _update(
    task: _Task, scratch: Path, journal: Journal, *, whole: bool = False
) -> dict[str, str]:
    """Bring a collection up to date; return why products failed, by their names."""
    settings, collection = task.launch.catalog, task.collection
    explain = partial(_explain, journal=journal)
    try:
        target = Target(
            task.launch.outputs(),
            root(task.launch),
            described(collection, settings.collections_file),
            scratch,
            settings.public_url,
            warn=_warner(journal),
        )
        failures = update(target, settings.products, whole=whole, explain=explain)
    except Exception as error:
        # The other collections are made nevertheless.
        failures = {"": explain(error)}
    for name, why in failures.items():
        journal.say(
            "product-failed",
            f"the collection {collection.title!r}: {catalog_fault(name, why)}",
            "warning",
            product=name,
        )
    return failures


def root(launch: Launch) -> str:
    """Return the prefix of the catalog in the output bucket."""
    return launch.output_prefix + CATALOG_FOLDER


@contextmanager
def _scratch(home: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=home, prefix="catalog-") as folder:
        yield Path(folder)
