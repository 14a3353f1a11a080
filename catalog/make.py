"""Make the catalog of finished runs, and record in their directories what was made."""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bucket import Bucket
from catalog import stored
from catalog.collections import Collection, collection_of, described
from catalog.join import records_of
from catalog.products import product
from catalog.target import FOLDER, Target
from catalog.update import update
from state.errors import PipelineError, user_message
from state.files import write_atomically
from state.journal import Journal
from state.launch import Launch
from state.records import as_json, from_record
from state.run import Run, all_runs, locked, settings_of
from state.text import counted

_LOCK = "catalog.lock"


@dataclass(frozen=True)
class Made:
    """What was made of a run for the catalog.

    Attributes:
        products: names of the products that were to be made.
        collections: titles of the run's collections, by their ids.
        images: number of the run's images in them.
        failures: why products could not be made, by their names; ``""`` is the name of
            what they have in common.
    """

    products: tuple[str, ...]
    collections: Mapping[str, str]
    images: int
    failures: Mapping[str, str]


def load_made(run: Run) -> Made | None:
    """Return what was made of a run for the catalog; None if nothing was tried."""
    if not run.catalog_file.exists():
        return None
    saved = json.loads(run.catalog_file.read_text())
    return from_record(Made, saved, products=tuple(saved["products"]))


def is_pending(run: Run, launch: Launch) -> bool:
    """Return whether products of a run are still to be made.

    Args:
        launch: the settings of the run.
    """
    made = load_made(run)
    wanted = {*launch.catalog.products}
    if not run.done or not wanted:
        return False
    return made is None or bool(made.failures) or not wanted <= {*made.products}


def catch_up(launch: Launch, journal: Journal) -> None:
    """Make the products of all finished runs of a launch that are still to be made.

    A failure changes nothing for the runs. The journal has it, and the next call tries
    again.
    """
    for run in all_runs(launch)[0]:
        # Most runs are of long ago.
        if not run.done:
            continue
        of_run = journal.of_run(run)
        try:
            settings = settings_of(run)
            if is_pending(run, settings):
                make(run, settings, of_run)
        except Exception as error:
            message = user_message(error) or of_run.internal_error(error)
            of_run.say("catalog-failed", f"the catalog: {message}", "error")


def make(run: Run, launch: Launch, journal: Journal, *, whole: bool = False) -> Made:
    """Make the products of a run's collections, with all other images in them.

    Args:
        launch: the settings of the run, with those of the catalog as they are to be.
        whole: whether to make everything again, as if there were nothing yet.

    Raises:
        BucketError, PipelineError: the records cannot be written.
    """
    if not run.done:
        raise PipelineError(
            f"{run.directory.name} has not ended: 'status' shows how far it is"
        )
    for name in launch.catalog.products:
        product(name)
    outputs = launch.outputs()
    with locked(launch.home, _LOCK), _scratch(launch) as scratch:
        # Those of an earlier time may have other names.
        former = load_made(run)
        records = records_of(run, launch)
        counts = stored.write(outputs, root(launch), run.id, records, scratch)
        now = {each.id: each.title for each in counts}
        left = dict(former.collections) if former else {}
        for name in left.keys() - now.keys():
            stored.remove(outputs, root(launch), name, run.id)
        made = Made(
            launch.catalog.products,
            left | now,
            sum(counts.values()),
            {"": "it was interrupted"},
        )
        # After a crash, the next call knows the collections.
        write_atomically(run.catalog_file, as_json(made))
        targets = [
            target_of(collection_of(name, title), outputs, launch, scratch)
            for name, title in made.collections.items()
        ]
        failures = _update_all(targets, launch, journal, whole)
        made = replace(made, collections=now, failures=failures)
        write_atomically(run.catalog_file, as_json(made))
    if not failures:
        images, places = counted(made.images, "image"), counted(len(now), "collection")
        journal.say(
            "catalog-made",
            f"{run.manifest_key}: {images} in {places} of the catalog",
            products=list(made.products),
        )
    return made


def root(launch: Launch) -> str:
    """Return the prefix of the catalog in the output bucket."""
    return launch.output_prefix + FOLDER


def target_of(
    collection: Collection, outputs: Bucket, launch: Launch, scratch: Path
) -> Target:
    """Return where the products of a collection go."""
    settings = launch.catalog
    return Target(
        outputs,
        root(launch),
        described(collection, settings.collections_file),
        scratch,
        settings.public_url.rstrip("/"),
    )


def _update_all(
    targets: Iterable[Target], launch: Launch, journal: Journal, whole: bool
) -> dict[str, str]:
    """Bring collections up to date; return why products failed, by their names."""
    failures: dict[str, str] = {}
    for target in targets:
        for name, why in update(target, launch.catalog.products, whole=whole).items():
            failures.setdefault(name, why)
            journal.say(
                "product-failed",
                f"the product {name} of the collection {target.collection.title!r} "
                f"could not be made: {why}; the next poll tries again",
                "warning",
                product=name,
            )
    return failures


@contextmanager
def _scratch(launch: Launch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=launch.home, prefix="catalog-") as folder:
        yield Path(folder)
