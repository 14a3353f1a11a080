"""Write the items of a collection as one GeoParquet file, which can be read in parts.

The columns are those of stac-geoparquet, and the metadata that of GeoParquet 1.1:
https://radiantearth.github.io/stac-geoparquet-spec/ and
https://github.com/opengeospatial/geoparquet/blob/v1.1.0/format-specs/geoparquet.md

DuckDB writes it from JSON, because rustac's writer makes one group of 150,000 rows,
refuses rows without a geometry, and takes its types from the first rows.
"""

import glob
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import orjson
import shapely

from catalog.footprints import Footprints, Geometries
from catalog.record import Record
from catalog.records import Records
from catalog.stac_item import JSON, extensions, item
from catalog.target import Target

NAME = "items.parquet"
MEDIA_TYPE = "application/vnd.apache.parquet"
# A reader fetches whole groups: smaller ones make the footer longer, which all fetch.
_ROWS = 1000
# So many rows are Python objects at once: with more, Python collects garbage longer.
_SLICE = 100
_MEMORY = "300MB"
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


def write(records: Records, target: Target) -> None:
    """Write ``items.parquet`` of a collection, with a row for each record.

    The rows are in spatial order, in groups of 1,000 with a bounding box each. Images
    without a footprint come last, without geometry and bounding box.

    Raises:
        BucketError: the bucket does not accept it.
    """
    extent = _Extent()
    parts = list(_parts(records, target, extent))
    file = target.scratch / NAME
    _convert(parts, file, _metadata(extent))
    target.put(NAME, file, MEDIA_TYPE)


def _parts(records: Records, target: Target, extent: _Extent) -> Iterator[Path]:
    """Yield files of JSON, one row a line, with the rows of a group each."""
    rest = iter(records)
    # Without any record, an empty file makes a table without rows.
    for number in range(max(1, math.ceil(len(records) / _ROWS))):
        part = target.scratch / f"{number:07}.ndjson"
        with part.open("wb") as file:
            for _ in range(_ROWS // _SLICE):
                rows = _rows(islice(rest, _SLICE), target, extent)
                file.writelines(map(_line, rows))
        yield part


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


def _line(row: dict[str, Any]) -> bytes:
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


def _metadata(extent: _Extent) -> dict[str, Any]:
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
    }


def _convert(parts: list[Path], file: Path, metadata: dict[str, Any]) -> None:
    """Write files of JSON as one Parquet file, with a row group for each of them."""
    columns = ", ".join(f"{_text(name)}: {_text(_COLUMNS[name])}" for name in _COLUMNS)
    texts = (
        f"{_text(key)}: {_text(orjson.dumps(value).decode())}"
        for key, value in metadata.items()
    )
    settings: dict[str, str | bool | int | float | list[str]] = {
        # Several threads bring little, and take their memory each.
        "threads": "1",
        "memory_limit": _MEMORY,
        "temp_directory": str(file.parent),
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    with duckdb.connect(config=settings) as database:
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


def _text(text: str) -> str:
    """Return a text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"
