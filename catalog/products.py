"""The products of the catalog, by their names. A new product is one more module."""

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from state.errors import PipelineError

if TYPE_CHECKING:
    # A launch without a catalog needs none of the catalog's packages.
    from catalog.records import Records
    from catalog.target import Target

# In this order: a STAC collection names the GeoParquet file beside it.
PRODUCTS = (
    *("geoparquet", "mosaicjson", "tileindex", "vrt", "checksums", "postgis"),
    "stac",
)
ALL = "all"
# The GeoPackage of the tile index is a GTI file.
_OTHER_NAMES = {"gti": "tileindex"}


class Product(Protocol):
    """Describe the functions that the module of a product has.

    It may also have a function ``check``, which raises PipelineError if the product
    cannot be made on this machine.
    """

    def write(self, records: "Records", target: "Target") -> None:
        """Make the product of a collection.

        Raises:
            BucketError, PipelineError: it cannot be made now.
        """


def product(name: str) -> Product:
    """Return a product.

    Raises:
        PipelineError: its packages are not installed.
    """
    try:
        module: Product = import_module(f"catalog.{name}")
    except ModuleNotFoundError as error:
        raise PipelineError(
            f"the product {name} needs the package {error.name}: install the catalog's "
            "packages with 'pip install --require-hashes -r locks/catalog.txt'"
        ) from error
    return module


def check(name: str) -> None:
    """Raise PipelineError if a product cannot be made here; see ``Product.check``."""
    module = product(name)
    if hasattr(module, "check"):
        module.check()


def names(text: str) -> tuple[str, ...]:
    """Return the products that a list with commas names, in the order of their making.

    Raises:
        ValueError: there is no product of that name.
    """
    wanted = {_OTHER_NAMES.get(name, name) for name in _words(text)}
    if ALL in wanted:
        wanted = {*wanted - {ALL}, *PRODUCTS}
    if unknown := sorted(wanted - {*PRODUCTS}):
        known = ", ".join([*sorted({*PRODUCTS, *_OTHER_NAMES}), ALL])
        raise ValueError(f"there is no product {unknown[0]!r}; there are {known}")
    return tuple(name for name in PRODUCTS if name in wanted)


def _words(text: str) -> Iterable[str]:
    return filter(None, (word.strip().lower() for word in text.split(",")))
