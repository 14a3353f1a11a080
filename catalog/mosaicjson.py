"""Write mosaics: which images a tile of a web map needs, in MosaicJSON 0.0.3.

https://github.com/developmentseed/mosaicjson-spec/tree/main/0.0.3
"""

import gzip
import html
import math
import random
import re
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import orjson
import shapely
from numpy.typing import NDArray

from bucket import ObjectMissing, ObjectUnreadable
from catalog import tiles
from catalog.footprints import Footprints, Geometries
from catalog.record import Record
from catalog.records import Records
from catalog.target import Target
from node.result import Result
from state.errors import PipelineError
from state.keys import CATALOG_FOLDER, MOSAICS_FOLDER
from state.records import from_record

MEDIA_TYPE = "application/gzip"
_VERSION = re.compile(r"(\d{1,6}\.\d{1,6}\.)(\d{1,6})", re.ASCII)
# A pixel of zoom level 0 at the equator; its side halves with each level.
_RESOLUTION = 2 * math.pi * 6378137 / 256  # metres
_TILE_SIZE = 256  # pixels
# If no image has a resolution.
_ZOOMS = (10, 18)
# cogeo-mosaic takes the number 0 of a level for none.
_MIN_ZOOM = 1
# How often images are named: in so many tiles each on average, if they are many.
_TILES_PER_IMAGE = 4
_FEW_NAMES = 50_000
_MAX_PACKED, _MAX_UNPACKED = 200 * 2**20, 2**30  # bytes
_ATTEMPTS = 30
# The member of a collection's mosaic with ``_Origin``.
_ORIGIN = "cog_pipeline"
_MAX_PAUSE = 3.0  # seconds

_Mosaic = dict[str, Any]


@dataclass
class _Images:
    """The images of a mosaic.

    Attributes:
        urls: where they are.
        footprints: where they were taken.
        minzoom, maxzoom: the zoom levels of the images; -1 if none has a resolution.
    """

    urls: list[str] = field(default_factory=list)
    footprints: Footprints = field(default_factory=Footprints)
    minzoom: int = -1
    maxzoom: int = -1

    def add(self, record: Record, target: Target) -> None:
        """Add the image of a record, which has a footprint."""
        self.urls.append(target.url(record.key))
        self.footprints.add(record.result.footprint)
        lowest, highest = _zooms(record.result)
        self.minzoom = max(self.minzoom, lowest)
        self.maxzoom = max(self.maxzoom, highest)

    def on_map(self) -> tuple[Geometries, NDArray[np.int64]]:
        """Return the polygons that web maps show, and the image of each of them."""
        parts, owners = self.footprints.parts()
        shown = tiles.on_map(parts)
        return parts[shown], owners[shown]


def write(records: Records, target: Target) -> None:
    """Write the mosaics of a collection.

    That of the collection is made of all its images. Images with a mosaic id of their
    own are merged into that mosaic, which others may write, too. Images without a
    footprint, or beyond the latitudes of Web Mercator, are left out.

    Raises:
        BucketError: the bucket cannot be read or written.
        PipelineError: a mosaic of several writers cannot be merged.
    """
    own, shared = _images(records.changed_records, target)
    gone: dict[str, set[str]] = {}
    for record in records.removed:
        gone.setdefault(record.mosaicid, set()).add(target.url(record.key))
    for mosaicid in sorted({*shared, *gone} - {""}):
        images = shared.get(mosaicid, _Images())
        _merge(mosaicid, images, gone.get(mosaicid, set()), target)
    key = key_of(target.collection.mosaicid, target)
    mosaic = None
    if records.changed is not None:
        if "" not in gone:
            mosaic = _extended(own, records, target)
        if mosaic is None:
            own, _ = _images((each for each in records if not each.mosaicid), target)
    if mosaic is None and own.urls:
        new = _merged(None, own, set(), target)
        mosaic = {**new, _ORIGIN: asdict(_Origin.of(own, new, records))}
    if mosaic:
        target.put_key(key, _packed(mosaic), MEDIA_TYPE)
    else:
        target.bucket.remove(key)


def _images(
    records: Iterable[Record], target: Target
) -> tuple[_Images, dict[str, _Images]]:
    """Return the images of the collection's mosaic, and those of others by its id."""
    own = _Images()
    others: dict[str, _Images] = {}
    for record in records:
        if record.result.footprint:
            images = own
            if record.mosaicid:
                images = others.setdefault(record.mosaicid, _Images())
            images.add(record, target)
    return own, others


@dataclass(frozen=True)
class _Origin:
    """The images and settings of which a collection's mosaic was made.

    Attributes:
        basis: ``Records.basis``.
        minzoom, maxzoom: those of its images.
        parts: the number of polygons of their footprints.
        names: how often their bounding boxes touch tiles.
    """

    basis: str
    minzoom: int
    maxzoom: int
    parts: int
    names: int

    @classmethod
    def of(cls, images: _Images, mosaic: _Mosaic, records: Records) -> "_Origin":
        """Return the origin of a mosaic of images."""
        parts, _ = images.on_map()
        names = tiles.count(parts, mosaic["quadkey_zoom"])
        zooms = images.minzoom, images.maxzoom
        return cls(records.basis, *zooms, len(parts), names)

    def __add__(self, other: "_Origin") -> "_Origin":
        return _Origin(
            other.basis,
            max(self.minzoom, other.minzoom),
            max(self.maxzoom, other.maxzoom),
            self.parts + other.parts,
            self.names + other.names,
        )

    def keeps(self, zoom: int) -> bool:
        """Return whether the tiles of all images have a zoom level."""
        wanted = max(self.minzoom, _MIN_ZOOM)
        fits = self.names <= _most_names(self.parts)
        return self.minzoom >= 0 and wanted == zoom and fits


def _extended(images: _Images, records: Records, target: Target) -> _Mosaic | None:
    """Return the collection's mosaic with new images.

    Returns:
        The same mosaic as if it were made of all images; None if it has to be made so.
    """
    key = key_of(target.collection.mosaicid, target)
    try:
        old, _ = _read(key, target)
    except (PipelineError, ObjectUnreadable):
        # It will be replaced.
        return None
    former = _origin_of(old) if old else None
    # Somebody else may have written it.
    if old is None or former is None or former.basis != records.former_basis:
        return None
    zoom = old["quadkey_zoom"]
    origin = former + _Origin.of(images, old, records)
    if not origin.keeps(zoom):
        return None
    new = _merged(old, images, set(), target, zoom)
    zooms = {"minzoom": zoom, "maxzoom": max(origin.maxzoom, zoom)}
    return {**new, **zooms, "version": old["version"], _ORIGIN: asdict(origin)}


def _origin_of(mosaic: _Mosaic) -> _Origin | None:
    """Return the origin of a collection's mosaic; None if it does not name it."""
    try:
        return from_record(_Origin, mosaic[_ORIGIN])
    except (LookupError, TypeError, AttributeError):
        return None


def key_of(mosaicid: str, target: Target) -> str:
    """Return the key of a mosaic in the output bucket."""
    prefix = target.root.removesuffix(CATALOG_FOLDER)
    return f"{prefix}{MOSAICS_FOLDER}{mosaicid}.json.gz"


def _zooms(result: Result) -> tuple[int, int]:
    """Return the lowest and the highest zoom level of an image; -1 if not known.

    They are those of rio-tiler: at the highest, a pixel of the map is as large as one
    of the image; at the lowest, as one of the overview that is smaller than a tile.
    """
    if not (result.gsd and result.width and result.height and result.bbox):
        return -1, -1
    latitude = (result.bbox[1] + result.bbox[3]) / 2
    latitude = min(abs(latitude), tiles.MAX_LATITUDE)
    resolution = result.gsd / math.cos(math.radians(latitude))
    side, levels = min(result.width, result.height), 0
    while side >> levels > _TILE_SIZE:
        levels += 1
    return _zoom(resolution * 2**levels), _zoom(resolution)


def _zoom(resolution: float) -> int:
    """Return the zoom level whose pixels are nearest to so many metres."""
    return min(max(round(math.log2(_RESOLUTION / resolution)), 0), tiles.MAX_ZOOM)


def _merge(mosaicid: str, images: _Images, gone: set[str], target: Target) -> None:
    """Merge images into a mosaic that others may be writing at this moment.

    Args:
        gone: URLs of images that are no longer in it.
    """
    key = key_of(mosaicid, target)
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(random.uniform(0, min(0.1 * 2**attempt, _MAX_PAUSE)))
        old, etag = _read(key, target)
        if old is None and not images.urls:
            return
        new = _merged(old, images, gone, target)
        if old and {**old, "version": ""} == {**new, "version": ""}:
            return
        content = _packed(new)
        if old is None:
            written = target.bucket.write_if_absent(key, content)
        else:
            written = target.bucket.write_if_unchanged(key, content, etag, MEDIA_TYPE)
        if written:
            return
    raise PipelineError(
        f"the mosaic {key} was changed by others {_ATTEMPTS} times while images were "
        "added to it: make the catalog again"
    )


def _read(key: str, target: Target) -> tuple[_Mosaic | None, str]:
    """Return a mosaic and its ETag; None if there is none."""
    file = target.scratch / "mosaic.json.gz"
    try:
        etag = target.bucket.download(key, file, _MAX_PACKED)
    except ObjectMissing:
        return None, ""
    try:
        with gzip.open(file) as packed:
            text = packed.read(_MAX_UNPACKED + 1)
        if len(text) > _MAX_UNPACKED:
            raise ValueError(f"it has more than {_MAX_UNPACKED} bytes")
        return _checked(orjson.loads(text)), etag
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise PipelineError(
            f"{key} is not a mosaic to which images can be added: {error}; remove it, "
            "or use another mosaicid"
        ) from error


def _checked(mosaic: Any) -> _Mosaic:
    """Return a mosaic that anyone may have written, if it can be merged.

    Raises:
        ValueError: it cannot.
    """
    if not isinstance(mosaic, dict) or not isinstance(mosaic.get("tiles"), dict):
        raise ValueError("it has no tiles")
    mosaic.setdefault("quadkey_zoom", mosaic.get("minzoom"))
    for name in ("minzoom", "maxzoom", "quadkey_zoom"):
        if type(mosaic.get(name)) is not int or not 0 <= mosaic[name] <= 30:
            raise ValueError(f"its {name} is not a zoom level")
    zoom = mosaic["quadkey_zoom"]
    if zoom < _MIN_ZOOM:
        raise ValueError(f"its quadkey_zoom is less than {_MIN_ZOOM}")
    bounds = mosaic.get("bounds")
    if (
        not isinstance(bounds, list)
        or len(bounds) != 4
        or not all(isinstance(each, int | float) for each in bounds)
    ):
        raise ValueError("its bounds are not four numbers")
    if "tilematrixset" in mosaic or "asset_prefix" in mosaic:
        raise ValueError("it has another tile matrix set, or a prefix of its assets")
    for quadkey, assets in mosaic["tiles"].items():
        if len(quadkey) != zoom or quadkey.strip("0123"):
            raise ValueError(f"{quadkey[:40]!r} is not a quadkey of zoom level {zoom}")
        if not isinstance(assets, list) or not all(isinstance(a, str) for a in assets):
            raise ValueError("the assets of a tile are not a list of texts")
    return mosaic


def _merged(
    old: _Mosaic | None,
    images: _Images,
    gone: set[str],
    target: Target,
    zoom: int | None = None,
) -> _Mosaic:
    """Return a mosaic with images, and without those that are gone.

    Args:
        zoom: zoom level of its tiles, if that is known.
    """
    parts, owners = images.on_map()
    lowest, highest = (
        (images.minzoom, images.maxzoom) if images.maxzoom >= 0 else _ZOOMS
    )
    if zoom is None:
        zoom = _fitting(parts, max(old["quadkey_zoom"] if old else lowest, _MIN_ZOOM))
    named: dict[str, set[str]] = {}
    if old:
        # An image that was added before may have another footprint now.
        gone = gone.union(images.urls)
        for quadkey, assets in old["tiles"].items():
            if kept := set(assets) - gone:
                named.setdefault(quadkey[:zoom], set()).update(kept)
    for quadkey, positions in _touched(parts, owners, zoom):
        assets = {images.urls[position] for position in positions}
        named.setdefault(quadkey, set()).update(assets)
    bounds = _bounds(parts, old)
    minzoom = min(old["minzoom"], zoom) if old else zoom
    maxzoom = max(highest if images.urls else 0, old["maxzoom"] if old else zoom)
    return {
        **(old or _described(target)),
        "version": _next_version(old) if old else "1.0.0",
        "minzoom": minzoom,
        "maxzoom": maxzoom,
        "quadkey_zoom": zoom,
        "bounds": bounds,
        "center": [(bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2, minzoom],
        "attribution": _attribution(old, target),
        "tiles": {quadkey: sorted(named[quadkey]) for quadkey in sorted(named)},
    }


def _described(target: Target) -> _Mosaic:
    collection = target.collection
    return {
        "mosaicjson": "0.0.3",
        "name": collection.title or collection.id,
        "description": collection.description,
    }


def _attribution(old: _Mosaic | None, target: Target) -> str:
    """Return the names of the providers, as HTML, since maps show it as such."""
    names = [html.escape(each.name) for each in target.collection.providers]
    former = old.get("attribution") if old else ""
    if isinstance(former, str) and former:
        # A name may have a comma in it.
        known = f", {former}, "
        names = [former, *(name for name in names if f", {name}, " not in known)]
    return ", ".join(names)


def _next_version(old: _Mosaic) -> str:
    if match := _VERSION.fullmatch(str(old.get("version"))):
        return f"{match[1]}{int(match[2]) + 1}"
    return "1.0.0"


def _fitting(parts: Geometries, zoom: int) -> int:
    """Return a zoom level at which the images are not named too often."""
    while zoom > _MIN_ZOOM and tiles.count(parts, zoom) > _most_names(len(parts)):
        zoom -= 1
    return zoom


def _most_names(images: int) -> int:
    """Return how often the tiles of a mosaic may name its images, in all."""
    return max(_TILES_PER_IMAGE * images, _FEW_NAMES)


def _touched(
    parts: Geometries, owners: Any, zoom: int
) -> Iterator[tuple[str, list[int]]]:
    """Yield the quadkeys of the tiles, and the images that touch each of them."""
    positions, numbers = tiles.touched(parts, zoom)
    order = np.argsort(numbers, kind="stable")
    found, begins = np.unique(numbers[order], return_index=True)
    groups = np.split(owners[positions[order]], begins[1:])
    for quadkey, group in zip(tiles.quadkeys(found, zoom), groups, strict=False):
        yield quadkey, group.tolist()


def _bounds(parts: Geometries, old: _Mosaic | None) -> list[float]:
    boxes = [old["bounds"]] if old else []
    if len(parts):
        boxes.append(shapely.total_bounds(parts).tolist())
    if not boxes:
        return [-180.0, -tiles.MAX_LATITUDE, 180.0, tiles.MAX_LATITUDE]
    west, south, east, north = zip(*boxes, strict=True)
    limit = tiles.MAX_LATITUDE
    return [min(west), max(min(south), -limit), max(east), min(max(north), limit)]


def _packed(mosaic: _Mosaic) -> bytes:
    """Return a mosaic as compressed JSON; the same mosaic is always the same bytes."""
    return gzip.compress(orjson.dumps(mosaic), compresslevel=6, mtime=0)
