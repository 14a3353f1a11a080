"""The outcome of a run's catalog: ``catalog.json`` in the run directory."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from state.launch import Launch
from state.records import from_record
from state.run import Run


@dataclass(frozen=True)
class CatalogOutcome:
    """The outcome of the catalog of a run.

    Attributes:
        products: names of the products that were to be made.
        collections: titles of the run's collections, by their ids.
        images: number of the run's images in them.
        failures: why products could not be made, by their names; ``""`` is the name of
            what they have in common.
        is_ended: whether no product is being made any more; False after a crash, too.
    """

    products: tuple[str, ...]
    collections: Mapping[str, str]
    images: int
    failures: Mapping[str, str]
    is_ended: bool = True


def load_catalog_outcome(run: Run) -> CatalogOutcome | None:
    """Return the outcome of the catalog of a run; None if nothing was tried."""
    if not run.catalog_file.exists():
        return None
    saved = json.loads(run.catalog_file.read_text())
    products = tuple(saved["products"])
    return from_record(CatalogOutcome, saved, products=products)


def is_pending(run: Run, launch: Launch) -> bool:
    """Return whether products of a run are still to be made.

    Args:
        launch: the settings of the run.
    """
    wanted = {*launch.catalog.products}
    if not run.done or not wanted:
        return False
    outcome = load_catalog_outcome(run)
    if outcome is None or not outcome.is_ended or outcome.failures:
        return True
    return not wanted <= {*outcome.products}


def catalog_fault(product: str, why: str) -> str:
    """Return the sentence about a product that could not be made.

    >>> catalog_fault("postgis", "the server does not answer")
    'the product postgis of the catalog could not be made: the server does not answer'
    """
    name = f"the product {product} of the catalog" if product else "the catalog"
    return f"{name} could not be made: {why}"
