"""Make the catalog of finished runs, and record in their directories what was made."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from catalog import stored
from catalog.collections import Collection, collection_of, described
from catalog.join import records_of
from catalog.products import product
from catalog.records import Records, collect
from catalog.target import Target
from catalog.update import update
from state.catalog import Made, catalog_fault, is_pending, load_made
from state.errors import PipelineError, user_message
from state.files import write_atomically
from state.journal import Journal
from state.keys import CATALOG_FOLDER
from state.launch import UNREADABLE, Launch
from state.records import as_json
from state.run import Run, all_runs, locked, settings_of
from state.text import counted

_LOCK = "catalog.lock"
_BEING_MADE = "it is being made, or was interrupted"
# An output bucket, the prefix of the catalog in it, and a collection.
_Place = tuple[str, str, str]
# Images whose catalog takes about a minute.
_MANY = 50_000


def pending(launch: Launch, journal: Journal) -> list[tuple[Run, Launch]]:
    """Return the finished runs of a launch whose products are still to be made.

    Returns:
        Each with its settings, the oldest first.
    """
    found = []
    for run in all_runs(launch)[0]:
        try:
            if run.done and is_pending(run, settings := settings_of(run)):
                found.append((run, settings))
        except (PipelineError, *UNREADABLE) as error:
            text = f"{run.directory.name} is not in the catalog: {error}"
            journal.say("catalog-failed", text, "error")
    return found


def is_heavy(launch: Launch, runs: Sequence[tuple[Run, Launch]]) -> bool:
    """Return whether to make the products of some runs outside of a poll.

    Each product is made of all images of a collection. Those of a launch may all be in
    one.
    """
    made = filter(None, map(load_made, all_runs(launch)[0]))
    images = sum(each.images for each in made)
    images += sum(json.loads(run.done_file.read_text())["processed"] for run, _ in runs)
    return images > _MANY


def make(
    runs: Sequence[tuple[Run, Launch]], journal: Journal, *, whole: bool = False
) -> dict[str, Made]:
    """Make the products of the collections of some runs, with all their images.

    Args:
        runs: finished runs of one directory, in order, each with its settings: those
            of the catalog as they are to be now.
        whole: whether to make everything again, as if there were nothing yet.

    Returns:
        What was made of each run, by the name of its directory.

    Raises:
        BucketError, PipelineError: the records cannot be written, or packages are not
            installed.
    """
    for name in {name for _, launch in runs for name in launch.catalog.products}:
        product(name)
    for run, _ in runs:
        if not run.done:
            raise PipelineError(
                f"{run.directory.name} has not ended: 'status' shows how far it is"
            )
    made: dict[str, Made] = {}
    tasks: dict[_Place, _Task] = {}
    if not runs:
        return made
    home = runs[0][1].home
    with locked(home, _LOCK), _scratch(home) as scratch:
        for run, launch in runs:
            now = _write_records(run, launch, scratch, journal)
            # After a crash, the next call knows the collections.
            write_atomically(run.catalog_file, as_json(now))
            made[run.directory.name] = now
            for name, title in now.collections.items():
                tasks[_place(launch, name)] = _Task(collection_of(name, title), launch)
        failures = {
            place: _update(task, scratch, journal, whole=whole)
            for place, task in tasks.items()
        }
        for run, launch in runs:
            now = made[run.directory.name]
            failed = {
                name: why for name, why in now.failures.items() if why != _BEING_MADE
            }
            for name in now.collections:
                failed |= failures[_place(launch, name)]
            now = replace(now, failures=failed)
            made[run.directory.name] = now
            write_atomically(run.catalog_file, as_json(now))
            if not failed:
                _say_made(run, now, journal.of_run(run))
    return made


def _place(launch: Launch, collection: str) -> _Place:
    return launch.output_bucket, root(launch), collection


def _write_records(run: Run, launch: Launch, scratch: Path, journal: Journal) -> Made:
    """Write the records of a run; return what is to be made of it.

    The collections are those to which it belongs, and those that it has left because
    the catalog's settings are others than before.
    """
    former = load_made(run)
    left = dict(former.collections) if former else {}
    products = launch.catalog.products
    try:
        outputs = launch.outputs()
        records = records_of(run, launch)
        counts = stored.write(outputs, root(launch), run.id, records, scratch)
        now = {each.id: each.title for each in counts}
        for name in left.keys() - now.keys():
            stored.remove(outputs, root(launch), name, run.id)
    except Exception as error:
        # The other runs are made nevertheless.
        message = user_message(error) or journal.of_run(run).internal_error(error)
        return Made(products, left, 0, {"": message})
    return Made(products, left | now, sum(counts.values()), {"": _BEING_MADE})


def _say_made(run: Run, made: Made, journal: Journal) -> None:
    images = counted(made.images, "image")
    places = counted(len(made.collections), "collection")
    journal.say(
        "catalog-made",
        f"{run.manifest_key}: {images} in {places} of the catalog",
        products=list(made.products),
    )


def prune(
    launch: Launch, collections: Mapping[str, str], journal: Journal
) -> tuple[int, dict[str, str]]:
    """Leave out images whose COGs are no longer in the output bucket.

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
            lines = stored.read(outputs, dict.fromkeys(versions, True), scratch)
            read[name] = collect(lines, scratch / f"{number}.jsonl")
        # After the records: a COG is there before its record.
        there = {found.key for found in outputs.list(launch.output_prefix)}
        for name, title in collections.items():
            gone = [record for record in read[name] if record.key not in there]
            stored.write_gone(outputs, root(launch), name, gone)
            gone_images += len(gone)
            task = _Task(collection_of(name, title), launch)
            failures |= _update(task, scratch, journal)
    return gone_images, failures


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

    def explain(error: Exception) -> str:
        return user_message(error) or journal.internal_error(error)

    try:
        target = Target(
            task.launch.outputs(),
            root(task.launch),
            described(collection, settings.collections_file),
            scratch,
            settings.public_url,
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
