"""Find the names of classes that a file beside an image has.

A GeoTIFF has no place for a raster attribute table or category names. GDAL reads both
from the ``.aux.xml`` file beside it.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import rasterio

_TABLE = re.compile(rb"<\s*GDALRasterAttributeTable\b([^>]{0,200})", re.IGNORECASE)
_CATEGORY = re.compile(rb"<\s*Category\s*>", re.IGNORECASE)
_NOT_THEMATIC = b"athematic"


@dataclass(frozen=True)
class AttributeTables:
    """The classes that a file beside an image describes.

    Attributes:
        file: name of the file.
        kinds: words for what it has; empty if it has nothing about classes.
        thematic: whether it says that values are classes.
    """

    file: str = ""
    kinds: tuple[str, ...] = ()
    thematic: bool = False


def attribute_tables(dataset: rasterio.DatasetReader) -> AttributeTables:
    """Return what the ``.aux.xml`` file that GDAL uses with an image has."""
    sidecar = Path(f"{dataset.name}.aux.xml")
    if not any(Path(file).name == sidecar.name for file in dataset.files[1:]):
        return AttributeTables()
    content = sidecar.read_bytes()
    tables = _TABLE.findall(content)
    has_categories = bool(_CATEGORY.search(content))
    kinds = (
        *(["raster attribute table"] if tables else []),
        *(["category names"] if has_categories else []),
    )
    thematic = any(_NOT_THEMATIC not in table.lower() for table in tables)
    return AttributeTables(sidecar.name, kinds, thematic or has_categories)
