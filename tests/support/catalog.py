"""Records for the tests of the catalog."""

from dataclasses import replace
from typing import Any

from catalog.record import Dates, Record
from node.result import Band, Cog, Jpeg, Result

_RESULT = Result(
    ok=True,
    width=700,
    height=600,
    bands=3,
    data_type="uint8",
    crs="EPSG:32616",
    bounds=(300000.0, 4794000.0, 307000.0, 4800000.0),
    transform=(10.0, 0.0, 300000.0, 0.0, -10.0, 4800000.0),
    gsd=10.0,
    footprint={
        "type": "Polygon",
        "coordinates": [
            [
                [-89.5, 43.3],
                [-89.4, 43.3],
                [-89.4, 43.35],
                [-89.5, 43.35],
                [-89.5, 43.3],
            ]
        ],
    },
    bbox=(-89.5, 43.3, -89.4, 43.35),
    bands_info=tuple(
        Band(data_type="uint8", color_interpretation=color, valid_percent=100.0)
        for color in ("red", "green", "blue")
    ),
    profile="deflate",
    compression="DEFLATE",
    overviews=1,
    cog=Cog(bytes=1000, md5="0" * 32, sha256="0" * 64),
    jpeg=Jpeg(bytes=100, md5="0" * 32, sha256="1" * 64),
)


def record(key: str, **changes: Any) -> Record:
    """Return a plausible record; ``changes`` are of its fields or its result's."""
    of_record = {k: changes.pop(k) for k in list(changes) if k in Record.__slots__}
    stem = key.rpartition(".")[0]
    made = Record(
        key=key,
        jpeg_key=f"{stem}.jpg",
        source=f"maps/{key}",
        collection="1937",
        manifest="batch-raw.csv",
        run="run-1",
        converted="2026-11-26T13:00:00Z",
        dates=Dates("1937-01-01T00:00:00Z", "1937-12-31T23:59:59Z"),
        mosaicid="",
        result=replace(_RESULT, **changes),
    )
    return replace(made, **of_record)
