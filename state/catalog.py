"""What was made of a run for the catalog: ``catalog.json`` in its directory."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from state.launch import Launch
from state.records import from_record
from state.run import Run


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


def catalog_fault(product: str, why: str) -> str:
    """Return what to say of a product that could not be made.

    >>> catalog_fault("postgis", "the server does not answer")
    'the product postgis of the catalog could not be made: the server does not answer'
    """
    name = f"the product {product} of the catalog" if product else "the catalog"
    return f"{name} could not be made: {why}"
