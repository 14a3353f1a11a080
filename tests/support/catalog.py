"""Records as a run makes them, for tests of the catalog's products."""

from dataclasses import fields, replace
from typing import Any

from catalog.record import Dates, Record
from node.result import Cog, Jpeg, Result

_FIELDS = frozenset(field.name for field in fields(Result))


def record(key: str, **changes: Any) -> Record:
    """Return a plausible record of an image of one metre near Bern.

    Args:
        changes: fields of the record, or of its result, that are other.
    """
    of_result = {name: changes.pop(name) for name in _FIELDS & changes.keys()}
    west, south, east, north = of_result.get("bbox") or (7.4, 46.9, 7.45, 46.95)
    ring = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    result = Result(
        ok=True,
        width=4000,
        height=5500,
        bands=3,
        data_type="uint8",
        crs="EPSG:2056",
        gsd=1.0,
        footprint={"type": "Polygon", "coordinates": [[list(each) for each in ring]]},
        bbox=(west, south, east, north),
        overviews=4,
        cog=Cog(bytes=1_000_000, md5="0" * 32, sha256="a" * 64),
        jpeg=Jpeg(bytes=10_000, md5="1" * 32, sha256="b" * 64, width=800, height=1100),
    )
    name = key.rpartition(".")[0]
    made = Record(
        key=key,
        jpeg_key=f"{name}.jpg",
        source=f"maps/{name}.tif",
        collection="maps",
        manifest="manifests/first.csv",
        run="first-1",
        converted="2026-11-26T13:00:00Z",
        dates=Dates("2020-07-01T00:00:00Z", "2020-07-01T00:00:00Z"),
        mosaicid="",
        result=replace(result, **of_result),
    )
    return replace(made, **changes)
