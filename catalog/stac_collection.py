"""STAC Collections: what the catalog says about all images of a collection.

https://github.com/radiantearth/stac-spec/blob/v1.1.0/collection-spec/collection-spec.md
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from catalog.collections import Collection, Provider
from catalog.record import Record
from catalog.stac_item import (
    EARLIEST,
    PROJECTION,
    VERSION,
    band,
    crs_code,
    link,
    link_to_self,
    time_range,
)
from catalog.target import Target

FILE = "collection.json"
# The product geoparquet writes it; it has all items in one file.
_PARQUET = "items.parquet"
_WORLD = [-180.0, -90.0, 180.0, 90.0]
# A longer list of values says nothing to people.
_MAX_VALUES = 100


@dataclass
class Summary:
    """The facts that the images of a collection have in common.

    Attributes:
        collection: the collection.
        wests, easts: the sides of each footprint, in degrees.
        south, north: the sides of all footprints, in degrees.
        start, end: the first and the last moment of all images; empty without images.
        gsd: the smallest and the largest ground sample distance, in metres.
        codes: the codes of their CRSs.
        bands: names and types of their bands, each as JSON.
    """

    collection: Collection
    wests: "array[float]" = field(default_factory=lambda: array("d"))
    easts: "array[float]" = field(default_factory=lambda: array("d"))
    south: float = 90.0
    north: float = -90.0
    start: str = ""
    end: str = ""
    gsd: tuple[float, float] | None = None
    codes: set[str] = field(default_factory=set)
    bands: set[bytes] = field(default_factory=set)

    def add(self, record: Record) -> None:
        """Take an image into account."""
        result = record.result
        start, end = time_range(record, self.collection)
        self.start = min(self.start or start, start)
        self.end = max(self.end, end)
        if result.footprint and result.bbox:
            west, south, east, north = result.bbox
            self.wests.append(west)
            self.easts.append(east)
            self.south, self.north = min(self.south, south), max(self.north, north)
        if result.gsd:
            least, most = self.gsd or (result.gsd, result.gsd)
            self.gsd = min(least, result.gsd), max(most, result.gsd)
        if code := crs_code(result):
            self.codes.add(code)
        for number, described in enumerate(result.bands_info, start=1):
            content = band(number, described)
            content.pop("eo:common_name", None)
            self.bands.add(orjson.dumps(content))

    def bbox(self) -> list[float]:
        """Return the box of all footprints, as RFC 7946 has it."""
        if not self.wests:
            return _WORLD
        wests, easts = np.array(self.wests), np.array(self.easts)
        west, east = enclosing_longitudes(wests, easts)
        return [west, self.south, east, self.north]

    def interval(self) -> list[str | None]:
        """Return the first and the last moment; None for one that is not known."""
        if not self.end:
            return [each or None for each in self.collection.interval]
        return [None if self.start == EARLIEST else self.start, self.end]

    def values(self) -> dict[str, Any]:
        """Return the summaries of the images' fields."""
        content: dict[str, Any] = {}
        if 0 < len(self.codes) <= _MAX_VALUES:
            content["proj:code"] = sorted(self.codes)
        if self.gsd:
            content["gsd"] = {"minimum": self.gsd[0], "maximum": self.gsd[1]}
        if 0 < len(self.bands) <= _MAX_VALUES:
            bands = [orjson.loads(each) for each in sorted(self.bands)]
            # b2 comes before b10.
            content["bands"] = sorted(bands, key=lambda each: int(each["name"][1:]))
        return content


def enclosing_longitudes(
    wests: NDArray[np.float64], easts: NDArray[np.float64]
) -> tuple[float, float]:
    """Return the shortest range of longitudes that contains all these ranges.

    Args:
        wests, easts: the ends of the ranges in degrees, of shape (n,), n > 0; west is
            more than east in those across the antimeridian.

    Returns:
        Its west and its east; west is more than east if it crosses the antimeridian.
    """
    order = np.argsort(wests)
    west = wests[order]
    east = np.where(easts < wests, easts + 360, easts)[order]
    reach = np.maximum.accumulate(east)
    # A range across the antimeridian goes on at -180.
    reach = np.maximum(reach, reach[-1] - 360)
    # The range that is sought goes around the widest gap between these.
    gaps = np.append(west[1:], west[0] + 360) - reach
    last = len(gaps) - 1
    widest = last if gaps[last] >= gaps.max() else int(gaps.argmax())
    if gaps[widest] <= 0:
        return -180.0, 180.0
    begin, end = float(west[(widest + 1) % len(west)]), float(reach[widest])
    return begin, end - 360 if end > 180 else end


def document(
    summary: Summary, target: Target, pages: Iterable[dict[str, str]]
) -> bytes:
    """Return the Collection.

    Args:
        pages: links to its pages.
    """
    collection, values = target.collection, summary.values()
    key = target.prefix + FILE
    content: dict[str, Any] = {
        "type": "Collection",
        "stac_version": VERSION,
        "stac_extensions": [PROJECTION] if "proj:code" in values else [],
        "id": collection.id,
        "title": collection.title or collection.id,
        "description": collection.description or collection.title or collection.id,
        "license": collection.license,
        "extent": {
            "spatial": {"bbox": [summary.bbox()]},
            "temporal": {"interval": [summary.interval()]},
        },
    }
    if collection.keywords:
        content["keywords"] = collection.keywords
    if collection.providers:
        content["providers"] = [_provider(each) for each in collection.providers]
    if values:
        content["summaries"] = values
    if target.bucket.exists(target.prefix + _PARQUET):
        content["assets"] = {
            "items": {
                "href": f"./{_PARQUET}",
                "title": "All items, as GeoParquet",
                "type": "application/vnd.apache.parquet",
                "roles": ["collection-mirror"],
            }
        }
    content["links"] = [
        *link_to_self(target, key),
        link("root", "../catalog.json"),
        link("parent", "../catalog.json"),
        *_license_link(collection),
        *pages,
    ]
    return orjson.dumps(content)


def _license_link(collection: Collection) -> list[dict[str, str]]:
    if not collection.license_url:
        return []
    return [link("license", collection.license_url, "License", "text/html")]


def _provider(provider: Provider) -> dict[str, Any]:
    content: dict[str, Any] = {"name": provider.name}
    if provider.roles:
        content["roles"] = provider.roles
    if provider.url:
        content["url"] = provider.url
    return content
