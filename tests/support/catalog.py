"""Records for tests of the catalog, with and without a run."""

import gzip
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bucket import Bucket
from catalog.record import Dates, Record, from_line
from node.result import Band, Cog, Jpeg, Result

_BOX = (-90.0, 43.0, -89.0, 44.0)


def record(key: str = "sheets/a.tif", **changes: Any) -> Record:
    """Return a plausible record of an image in Wisconsin.

    Args:
        changes: values of fields of the record or of its result.
    """
    result = Result(
        ok=True,
        image=key.rpartition("/")[2],
        width=1000,
        height=800,
        bands=3,
        data_type="uint8",
        crs="EPSG:32616",
        bounds=(300_000.0, 4_792_000.0, 310_000.0, 4_800_000.0),
        transform=(10.0, 0.0, 300_000.0, 0.0, -10.0, 4_800_000.0),
        gsd=10.0,
        footprint=polygon(*_BOX),
        bbox=_BOX,
        bands_info=tuple(
            Band(
                data_type="uint8",
                color_interpretation=color,
                minimum=1,
                maximum=254,
                mean=100.5,
                stddev=20.25,
                valid_percent=100.0,
            )
            for color in ("red", "green", "blue")
        ),
        cog=Cog(bytes=123_456, md5="1" * 32, sha256="2" * 64),
        jpeg=Jpeg(bytes=12_345, md5="3" * 32, sha256="4" * 64, width=500, height=400),
    )
    of_result = {
        name: changes.pop(name) for name in [*changes] if hasattr(result, name)
    }
    made = Record(
        key=key,
        jpeg_key=key[: key.rindex(".")] + ".jpg",
        source=f"maps/{key}",
        collection="sheets",
        manifest="batch-raw.csv",
        run="20261126T130000Z-1a2b3c4d",
        converted="2026-11-26T13:00:00Z",
        dates=Dates("1937-07-01T00:00:00Z", "1937-07-01T23:59:59Z"),
        mosaicid="",
        result=replace(result, **of_result),
    )
    return replace(made, **changes)


def polygon(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    """Return a rectangle as a polygon of GeoJSON."""
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def stored_records(bucket: Bucket, root: str = "catalog/") -> Iterator[Record]:
    """Yield the records that runs have left in a bucket."""
    for stored in bucket.list(root):
        if "/records/" in stored.key:
            content = gzip.decompress(bucket.read(stored.key, 10**8))
            yield from map(from_line, content.splitlines())
