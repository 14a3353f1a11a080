"""Records for tests of the catalog, with and without a run."""

import gzip
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bucket import Bucket
from catalog.record import Dates, Record, from_line, gone_line, to_line
from catalog.records import Records, collect
from node.result import Band, Cog, Jpeg, Result


def record(key: str = "sheets/a.tif", **changes: Any) -> Record:
    """Return the record of an image of three bands in UTM zone 16 N, from 2020.

    Args:
        key: key of its COG.
        changes: fields of the record or of its result that are other. The footprint
            is that of the bounding box unless it is named.
    """
    digest = hashlib.sha256(key.encode())
    # Images with other keys are at other places, within a degree.
    west = -88 + digest.digest()[0] / 256
    south = 40 + digest.digest()[1] / 256
    box = changes.pop("bbox", (west, south, west + 0.01, south + 0.01))
    colours = ("red", "green", "blue")
    result = {
        "ok": True,
        "image": key.rpartition("/")[2],
        "width": 1000,
        "height": 800,
        "bands": 3,
        "data_type": "uint8",
        "crs": "EPSG:32616",
        "bounds": (300000.0, 4400000.0, 300500.0, 4400400.0),
        "transform": (0.5, 0.0, 300000.0, 0.0, -0.5, 4400400.0),
        "gsd": 0.5,
        "footprint": polygon(*box) if box else None,
        "bbox": box,
        "bands_info": tuple(
            Band(
                data_type="uint8",
                color_interpretation=colour,
                minimum=0,
                maximum=255,
                mean=100.5,
                stddev=20.25,
                valid_percent=99.5,
            )
            for colour in colours
        ),
        "profile": "jpeg",
        "compression": "JPEG",
        "overviews": 2,
        "cog": Cog(bytes=1234567, md5="0" * 32, sha256=digest.hexdigest()),
        "jpeg": Jpeg(
            bytes=12345,
            md5="1" * 32,
            sha256=digest.hexdigest(),
            width=500,
            height=400,
            quality=85,
        ),
    }
    fields = {
        "key": key,
        "jpeg_key": f"{key.rpartition('.')[0]}.jpg",
        "source": f"maps/{key}",
        "collection": "aerial",
        "manifest": "maps-raw.csv",
        "run": "20261126T130000Z-maps",
        "converted": "2026-11-26T13:00:00Z",
        "dates": Dates("2020-07-01T00:00:00Z", "2020-07-01T23:59:59Z"),
        "mosaicid": "",
    }
    for name, value in changes.items():
        (fields if name in fields else result)[name] = value
    return Record(**fields, result=Result(**result))


def polygon(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    """Return a rectangle as a polygon of GeoJSON."""
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def collected(
    file: Path, now: Sequence[Record], before: Sequence[Record] = ()
) -> Records:
    """Return records as a product gets them that was last made of others.

    Args:
        file: the file of their lines, which is written.
    """
    keys = {each.key for each in now}
    lines = [(to_line(each), True) for each in before]
    lines += [(gone_line(each), False) for each in before if each.key not in keys]
    lines += [(to_line(each), False) for each in now if each not in before]
    return collect(lines, file, from_nothing=not before)


def stored_records(bucket: Bucket, root: str = "catalog/") -> Iterator[Record]:
    """Yield the records that runs have left in a bucket."""
    for stored in bucket.list(root):
        if "/records/" in stored.key:
            content = gzip.decompress(bucket.read(stored.key, 10**8))
            yield from map(from_line, content.splitlines())
