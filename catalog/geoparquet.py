"""Write the items of a collection as one GeoParquet file, which can be read in parts.

The columns are those of stac-geoparquet, and the metadata that of GeoParquet 1.1:
https://radiantearth.github.io/stac-geoparquet-spec/ and
https://github.com/opengeospatial/geoparquet/blob/v1.1.0/format-specs/geoparquet.md

DuckDB writes it from JSON, because rustac's writer makes one group of 150,000 rows,
refuses rows without a geometry, and takes its types from the first rows. Rows of images
that have not changed are taken from the former file, which is four times as fast as
making them.
"""

import glob
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import orjson
import shapely
from shapely.errors import ShapelyError

from bucket import ObjectMissing, ObjectUnreadable
from catalog.footprints import Footprints, Geometries
from catalog.record import Record
from catalog.records import Records
from catalog.spatial import NOWHERE, center, hilbert_distances
from catalog.stac_item import JSON, extensions, item
from catalog.target import Target

NAME = "items.parquet"
MEDIA_TYPE = "application/vnd.apache.parquet"
# A reader fetches whole groups: smaller ones make the footer longer, which all fetch.
_ROWS = 1000
# So many rows are Python objects at once: with more, Python collects garbage longer.
_SLICE = 100
_MEMORY = "300MB"
_MAX_FILE = 16 * 2**30  # bytes
# With more new rows than that, all are made again: they are in memory.
_MAX_NEW = 50_000
_ORIGIN = (0.0, 0.0)
# The key of the metadata with ``Records.basis``.
_BASIS = "cog_pipeline:basis"
_ASSET = (
    'STRUCT(href VARCHAR, "type" VARCHAR, roles VARCHAR[], '
    '"file:size" BIGINT, "file:checksum" VARCHAR)'
)
_SIDES = ("xmin", "ymin", "xmax", "ymax")
# The columns and their types. Other fields of an item are left out: each column makes
# the footer longer by 150 bytes a group.
_COLUMNS = {
    "stac_version": "VARCHAR",
    "stac_extensions": "VARCHAR[]",
    "id": "VARCHAR",
    "collection": "VARCHAR",
    "geometry": "VARCHAR",
    "bbox": "STRUCT(xmin DOUBLE, ymin DOUBLE, xmax DOUBLE, ymax DOUBLE)",
    "title": "VARCHAR",
    "datetime": "TIMESTAMPTZ",
    "start_datetime": "TIMESTAMPTZ",
    "end_datetime": "TIMESTAMPTZ",
    "created": "TIMESTAMPTZ",
    "gsd": "DOUBLE",
    "proj:code": "VARCHAR",
    "proj:shape": "BIGINT[]",
    "cog_pipeline:manifest": "VARCHAR",
    "cog_pipeline:run": "VARCHAR",
    "cog_pipeline:source": "VARCHAR",
    "links": 'STRUCT(href VARCHAR, rel VARCHAR, "type" VARCHAR)[]',
    "assets": f"STRUCT(cog {_ASSET}, jpeg {_ASSET})",
}


_Database = duckdb.DuckDBPyConnection


class _Line(NamedTuple):
    """A row as a line of JSON.

    Attributes:
        place: where it is in spatial order.
        content: the line, with its end.
    """

    place: int
    content: bytes


_PLACE = attrgetter("place")


@dataclass
class _Extent:
    """The types and the bounds of all geometries."""

    types: set[str] = field(default_factory=set)
    bounds: list[float] | None = None

    def add(self, geometries: Geometries) -> None:
        """Add geometries, of shape (n,), some of which may be None."""
        present = geometries[geometries != None]  # noqa: E711 - of each element
        if not len(present):
            return
        self.types |= {each.geom_type for each in present}
        if self.bounds:
            present = np.append(present, shapely.box(*self.bounds))
        self.bounds = shapely.total_bounds(present).tolist()


@dataclass
class _Lines:
    """Rows as lines of JSON.

    Attributes:
        target: where the file goes.
        extent: the extent of all lines so far.
    """

    target: Target
    extent: _Extent = field(default_factory=_Extent)

    def of(self, records: Iterable[Record]) -> Iterator[_Line]:
        """Yield the rows of records."""
        rest = iter(records)
        while some := [*islice(rest, _SLICE)]:
            places = _places([record.result.bbox for record in some])
            rows = _rows(some, self.target, self.extent)
            for row, place in zip(rows, places, strict=True):
                yield _Line(place, orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

    def of_former(self, database: _Database) -> Iterator[_Line]:
        """Yield the rows of the view "kept"."""
        found = database.execute("SELECT geometry, to_json(kept)::VARCHAR FROM kept")
        while rows := found.fetchmany(_ROWS):
            geometries = shapely.from_wkb([geometry for geometry, _ in rows])
            self.extent.add(geometries)
            places = _places([*map(_bbox, geometries)])
            for (_, line), place in zip(rows, places, strict=True):
                yield _Line(place, f"{line}\n".encode())


def write(records: Records, target: Target) -> None:
    """Write ``items.parquet`` of a collection, with a row for each record.

    The rows are in spatial order, in groups of 1,000 with a bounding box each. Images
    without a footprint come last, without geometry and bounding box.

    Raises:
        BucketError: the bucket does not accept it.
    """
    lines = _Lines(target)
    if not (parts := _from_former(records, lines)):
        lines = _Lines(target)
        parts = _parts(lines.of(records), target.scratch)
    file = target.scratch / NAME
    _convert(parts, file, _metadata(lines.extent, records.basis))
    target.put(NAME, file, MEDIA_TYPE)


def _parts(lines: Iterable[_Line], folder: Path) -> list[Path]:
    """Write lines into files with the rows of a group each; return the files."""
    parts: list[Path] = []
    rest = iter(lines)
    # Without any row, an empty file makes a table without rows.
    while (group := [*islice(rest, _ROWS)]) or not parts:
        parts.append(folder / f"{len(parts):07}.ndjson")
        with parts[-1].open("wb") as file:
            file.writelines(line.content for line in group)
    return parts


def _from_former(records: Records, lines: _Lines) -> list[Path]:
    """Return the rows of all records, those that have not changed from the former file.

    Returns:
        Files of JSON; none if the former file is missing or damaged, or was made of
        other records than the product was.
    """
    target = lines.target
    former = target.scratch / f"former-{NAME}"
    if records.changed is None or len(records.changed) > _MAX_NEW:
        return []
    try:
        target.bucket.download(target.prefix + NAME, former, _MAX_FILE)
        with _database(target.scratch) as database:
            # Somebody else may have written it.
            if _basis_of(database, former) != records.former_basis:
                return []
            _keep(database, former, records)
            new = sorted(lines.of(records.changed_records), key=_PLACE)
            everything = heapq.merge(lines.of_former(database), new, key=_PLACE)
            return _parts(everything, target.scratch)
    except (ObjectMissing, ObjectUnreadable, duckdb.Error, ShapelyError):
        return []


def _basis_of(database: _Database, file: Path) -> str:
    """Return the digest of that of which a file was made; empty if it has none."""
    found = database.execute(
        "SELECT value FROM parquet_kv_metadata($1) WHERE key = $2::BLOB",
        [glob.escape(str(file)), _BASIS],
    ).fetchone()
    return str(orjson.loads(found[0])) if found else ""


def _keep(database: _Database, former: Path, records: Records) -> None:
    """Make the view "kept" of the rows of a file that have not changed."""
    changed = chain(records.changed_records, records.removed)
    ids = [record.id for record in changed]
    # Geometries stay WKB.
    database.execute("SET enable_geoparquet_conversion = false")
    database.execute("CREATE TABLE gone AS SELECT unnest($1::VARCHAR[]) AS id", [ids])
    file = _text(glob.escape(str(former)))
    database.execute(
        f"""
        CREATE VIEW kept AS SELECT * REPLACE (hex(geometry) AS geometry)
        FROM read_parquet({file}) WHERE id NOT IN (SELECT id FROM gone)
        """  # noqa: S608 - only the name of the file differs
    )


def _places(boxes: Sequence[Sequence[float] | None]) -> list[int]:
    """Return where rows are in spatial order, by the bounding boxes of their items."""
    centers = np.array([center(box) if box else _ORIGIN for box in boxes])
    distances = hilbert_distances(*centers.T).tolist()
    pairs = zip(boxes, distances, strict=True)
    return [distance if box else NOWHERE for box, distance in pairs]


def _bbox(geometry: Any) -> tuple[float, float, float, float] | None:
    """Return the bounding box of an item by its geometry.

    West is more than east across the antimeridian.
    """
    if geometry is None:
        return None
    west, south, east, north = geometry.bounds
    if geometry.geom_type == "MultiPolygon" and (west, east) == (-180, 180):
        longitudes = shapely.get_coordinates(geometry)[:, 0]
        west = longitudes[longitudes > 0].min()
        east = longitudes[longitudes < 0].max()
    return west, south, east, north


def _item(record: Record, target: Target) -> dict[str, Any]:
    """Return a record as a STAC Item with absolute links, and without its bands."""
    made = item(record, "", target)
    made["assets"]["cog"].pop("bands", None)
    made["stac_extensions"] = extensions(made)
    for name, key in (("cog", record.key), ("jpeg", record.jpeg_key)):
        if asset := made["assets"].get(name):
            asset["href"] = target.url(key)
    collection = target.url(f"{target.prefix}collection.json")
    made["links"] = [{"href": collection, "rel": "collection", "type": JSON}]
    return made


def _rows(
    records: Iterable[Record], target: Target, extent: _Extent
) -> list[dict[str, Any]]:
    """Return records as rows: properties are columns, and geometries are WKB."""
    footprints = Footprints()
    rows = []
    for record in records:
        content = _item(record, target)
        footprints.add(content.pop("geometry"))
        rows.append(content | content.pop("properties"))
    geometries = footprints.geometries()
    extent.add(geometries)
    binary = shapely.to_wkb(geometries)
    bounds = shapely.bounds(geometries).tolist()
    for row, wkb, sides in zip(rows, binary, bounds, strict=True):
        row["geometry"] = wkb.hex() if wkb else None
        # Not the box of the item: its west is more than its east at the antimeridian,
        # where comparisons of a reader would miss it.
        row["bbox"] = dict(zip(_SIDES, sides, strict=True)) if wkb else None
    return rows


def _metadata(extent: _Extent, basis: str) -> dict[str, Any]:
    """Return the metadata of the file, by the names of its keys."""
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": sorted(extent.types),
        "covering": {"bbox": {side: ["bbox", side] for side in _SIDES}},
    }
    if extent.bounds:
        column["bbox"] = extent.bounds
    return {
        "geo": {
            "version": "1.1.0",
            "primary_column": "geometry",
            "columns": {"geometry": column},
        },
        "stac-geoparquet": {"version": "1.0.0"},
        _BASIS: basis,
    }


def _convert(parts: list[Path], file: Path, metadata: dict[str, Any]) -> None:
    """Write files of JSON as one Parquet file, with a row group for each of them."""
    columns = ", ".join(f"{_text(name)}: {_text(_COLUMNS[name])}" for name in _COLUMNS)
    texts = (
        f"{_text(key)}: {_text(orjson.dumps(value).decode())}"
        for key, value in metadata.items()
    )
    with _database(file.parent) as database:
        database.execute(
            f"""
            COPY (
                SELECT * REPLACE (unhex(geometry) AS geometry)
                FROM read_json(
                    $parts, format = 'newline_delimited', columns = {{{columns}}}
                )
            ) TO {_text(str(file))} (
                FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {_ROWS},
                KV_METADATA {{{", ".join(texts)}}}
            )
            """,  # noqa: S608 - all but the names of files is constant
            {"parts": [glob.escape(str(part)) for part in parts]},
        )


def _database(scratch: Path) -> _Database:
    settings: dict[str, str | bool | int | float | list[str]] = {
        # Several threads bring little, and take their memory each.
        "threads": "1",
        "memory_limit": _MEMORY,
        "temp_directory": str(scratch),
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    return duckdb.connect(config=settings)


def _text(text: str) -> str:
    """Return a text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"
