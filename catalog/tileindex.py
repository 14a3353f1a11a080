"""The tile index: a footprint and a location an image, for GIS and map servers.

``tileindex.fgb`` (FlatGeobuf) and ``tileindex.shp`` (Shapefile) have the footprints of
the valid pixels. ``tileindex.gti.gpkg`` (GeoPackage) has the extents of the images, and
opens in GDAL from 3.9 on as one mosaic of them all.
"""

import posixpath
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from struct import pack
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyogrio.raw import (
    write as write_layer,
)

from catalog.gti import Places, bands_metadata
from catalog.rasters import Bands, bands_of, common, crs_of, geotransform
from catalog.record import Record
from catalog.records import Records
from catalog.target import Target

_LAYER = "tileindex"
_FLATGEOBUF, _GEOPACKAGE = f"{_LAYER}.fgb", f"{_LAYER}.gti.gpkg"
# The file that readers open comes last.
_SHAPEFILE: Mapping[str, str] = {
    f"{_LAYER}.prj": "text/plain",
    f"{_LAYER}.cpg": "text/plain",
    f"{_LAYER}.qix": "application/octet-stream",
    f"{_LAYER}.dbf": "application/vnd.dbf",
    f"{_LAYER}.shx": "application/vnd.shx",
    f"{_LAYER}.shp": "application/vnd.shp",
}
# The location has the key in it, and the run had one manifest.
_NOT_IN_SHAPEFILE = ("key", "manifest")
_MAX_SHAPEFILE = 2**31 - 2**20  # bytes of one of its files
_MAX_TEXT = 254  # bytes of a text in it
_SHAPE = 64  # bytes at most that a footprint takes beyond those of its WKB
_WIDTH_OF_OTHERS = 128  # bytes of the fields that are not texts, at most
_MAX_CODE = 40  # characters of a CRS as a code
_TYPES: Mapping[str, str] = {
    "location": "object",
    "src_srs": "object",
    "name": "object",
    "bytes": "int64",
    "start": "object",
    "end": "object",
    "bands": "int32",
    "gsd": "float64",
    "run": "object",
    "manifest": "object",
    "key": "object",
}
# Texts that many images have in common.
_SHARED = ("src_srs", "start", "end", "run", "manifest")
_MAX_KINDS = 1_000
# Bounds of the fields, which a hostile result may exceed.
_MAX_INT, _MAX_LONG = 2**31 - 1, 2**63 - 1
_UNKNOWN = np.nan
# Numbers of WKB (OGC 06-103r4, 8.2).
_LITTLE_ENDIAN, _POLYGON, _MULTIPOLYGON = 1, 3, 6
_Fields = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class _Images:
    """The images of an index.

    Attributes:
        fields: their attributes by name, each of shape (n,).
        places: where they are.
        has_bands: which of them have a geotransform and bands that GDAL knows, of shape
            (n,).
        kinds: these bands, without repetitions.
    """

    fields: _Fields
    places: Places
    has_bands: NDArray[np.bool_]
    kinds: frozenset[Bands]


def write(records: Records, target: Target) -> None:
    """Write the tile index of a collection.

    An image without a footprint or a CRS is in none of its files. One that GDAL's
    driver cannot place in a mosaic is not in the GeoPackage.

    Raises:
        BucketError: the bucket refuses a file.
    """
    images, footprints = _images(records, target)
    if not len(footprints):
        for name in (*_SHAPEFILE, _FLATGEOBUF, _GEOPACKAGE):
            target.remove(name)
        return
    _write_flatgeobuf(images, footprints, target)
    _write_shapefile(images, footprints, target)
    # A million of them are 300 MB.
    del footprints
    _write_geopackage(images, target)


def _images(records: Records, target: Target) -> tuple[_Images, NDArray[np.object_]]:
    """Return the images that an index can have, and their footprints.

    Returns:
        The images; and the footprints as multipolygons in WKB, of shape (n,).
    """
    columns: dict[str, list[Any]] = {name: [] for name in _TYPES}
    shared: dict[str, str] = {}
    footprints: list[bytes] = []
    # A tenth of the memory that lists of tuples take.
    transforms, sizes, bboxes = array("d"), array("d"), array("d")
    has_bands: list[bool] = []
    kinds: set[Bands] = set()
    for record in records:
        result = record.result
        if not (result.footprint and result.bbox and result.crs):
            continue
        for name, value in _attributes(record, target).items():
            if name in _SHARED and value:
                value = shared.setdefault(value, value)
            columns[name].append(value)
        footprints.append(_wkb(result.footprint))
        transform = geotransform(result)
        transforms.extend(transform or (_UNKNOWN,) * 6)
        sizes.extend((result.width or 0, result.height or 0))
        bboxes.extend(result.bbox)
        bands = bands_of(result) if transform else None
        has_bands.append(bands is not None)
        if bands:
            kinds.add(bands)
        if len(kinds) > _MAX_KINDS:
            kinds = {common(kinds)}
    # Each list is released before the next one is copied.
    fields = {
        name: np.array(columns.pop(name), dtype=kind) for name, kind in _TYPES.items()
    }
    places = Places(
        fields["src_srs"],
        np.asarray(transforms).reshape(-1, 6),
        np.asarray(sizes).reshape(-1, 2),
        np.asarray(bboxes).reshape(-1, 4),
        fields["gsd"],
    )
    known = np.array(has_bands, dtype=bool)
    images = _Images(fields, places, known, frozenset(kinds))
    return images, np.array(footprints, dtype=object)


def _attributes(record: Record, target: Target) -> dict[str, Any]:
    result = record.result
    return {
        "location": target.gdal_path(record.key),
        "src_srs": result.crs,
        "name": posixpath.basename(record.key),
        "bytes": min(result.cog.bytes, _MAX_LONG) if result.cog else 0,
        # Texts sort as times do, all formats have them, and they take a tenth of the
        # time to write.
        "start": record.dates.start if record.dates else None,
        "end": record.dates.end if record.dates else None,
        "bands": min(result.bands or 0, _MAX_INT),
        "gsd": _UNKNOWN if result.gsd is None else result.gsd,
        "run": record.run,
        "manifest": record.manifest,
        "key": record.key,
    }


def _wkb(footprint: Mapping[str, Any]) -> bytes:
    """Return a footprint as multipolygon in WKB.

    By way of shapely, it takes five times as long.
    """
    polygons = footprint["coordinates"]
    if footprint["type"] == "Polygon":
        polygons = [polygons]
    head = pack("<BII", _LITTLE_ENDIAN, _MULTIPOLYGON, len(polygons))
    return head + b"".join(map(_wkb_of_polygon, polygons))


def _wkb_of_polygon(rings: Sequence[Sequence[Sequence[float]]]) -> bytes:
    head = pack("<BII", _LITTLE_ENDIAN, _POLYGON, len(rings))
    return head + b"".join(
        pack(f"<I{2 * len(ring)}d", len(ring), *chain.from_iterable(ring))
        for ring in rings
    )


def _write_flatgeobuf(
    images: _Images, footprints: NDArray[np.object_], target: Target
) -> None:
    file = target.scratch / _FLATGEOBUF
    _write_layer(file, "FlatGeobuf", footprints, images.fields)
    _put(file, target, "application/flatgeobuf")


def _write_shapefile(
    images: _Images, footprints: NDArray[np.object_], target: Target
) -> None:
    """Write the Shapefile, or remove it if it cannot hold the images.

    A location that is cut would be the location of another image or of none.
    """
    fields = _fields_of_shapefile(images.fields)
    reason = _why_not_in_shapefile(fields, footprints)
    if reason:
        target.warn(
            f"the collection {target.collection.id} gets no Shapefile: {reason}. Use "
            f"{_FLATGEOBUF} instead"
        )
        for name in reversed(list(_SHAPEFILE)):
            target.remove(name)
        return
    file = target.scratch / f"{_LAYER}.shp"
    _write_layer(file, "ESRI Shapefile", footprints, fields, SPATIAL_INDEX="YES")
    for name, content_type in _SHAPEFILE.items():
        _put(target.scratch / name, target, content_type)


def _fields_of_shapefile(fields: _Fields) -> _Fields:
    kept = {n: v for n, v in fields.items() if n not in _NOT_IN_SHAPEFILE}
    # MapServer reads a code and PROJ's form, but not WKT, which is too long, too.
    codes = kept.pop("src_srs")
    short = {crs: _code_or_proj(crs) for crs in set(codes)}
    return kept | {"src_srs": np.array([short[crs] for crs in codes], dtype=object)}


def _code_or_proj(text: str) -> str:
    if len(text) <= _MAX_CODE:
        return text
    crs = crs_of(text)
    return (crs and crs.to_proj4()) or text


def _why_not_in_shapefile(fields: _Fields, footprints: NDArray[np.object_]) -> str:
    width = _WIDTH_OF_OTHERS
    for name, values in fields.items():
        if values.dtype == object:
            longest = max((len(text.encode()) for text in values if text), default=0)
            if longest > _MAX_TEXT:
                return f"a {name} has {longest} bytes, and it holds {_MAX_TEXT}"
            width += longest
    shapes = sum(map(len, footprints)) + _SHAPE * len(footprints)
    if max(width * len(footprints), shapes) > _MAX_SHAPEFILE:
        return f"{len(footprints)} images take more than 2 GiB in it"
    return ""


def _write_geopackage(images: _Images, target: Target) -> None:
    chosen = images.has_bands & images.places.usable()
    if not chosen.any():
        target.remove(_GEOPACKAGE)
        return
    crs, extents, metadata = images.places[chosen].mosaic()
    extents = shapely.to_wkb(extents)
    metadata |= {"LOCATION_FIELD": "location", **bands_metadata(images.kinds)}
    fields = {name: values[chosen] for name, values in images.fields.items()}
    if all(fields["start"]):
        # A later image lies above an earlier one. GDAL cannot sort images of which
        # some have no date.
        metadata["SORT_FIELD"] = "start"
    file = target.scratch / _GEOPACKAGE
    _write_layer(
        file,
        "GPKG",
        extents,
        fields,
        crs=crs,
        layer_metadata=metadata,
        # Older GDAL warns of newer versions.
        VERSION="1.2",
    )
    _put(file, target, "application/geopackage+sqlite3")


def _write_layer(
    file: Path,
    driver: str,
    geometries: NDArray[np.object_],
    fields: _Fields,
    *,
    crs: str = "EPSG:4326",
    **more: Any,
) -> None:
    write_layer(
        str(file),
        geometries,
        list(fields.values()),
        list(fields),
        layer=_LAYER,
        driver=driver,
        geometry_type="MultiPolygon",
        promote_to_multi=True,
        crs=crs,
        encoding="UTF-8",
        **more,
    )


def _put(file: Path, target: Target, content_type: str) -> None:
    target.put(file.name, file, content_type)
    # The next file needs the room.
    file.unlink()
