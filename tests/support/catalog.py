"""Records of images that nobody converted, for tests of the catalog's products."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from catalog.record import Dates, Record, to_line
from catalog.records import Records, collect
from node.result import Band, Cog, Jpeg, Result

_RESULT = Result(
    ok=True,
    width=2000,
    height=1000,
    bands=1,
    data_type="uint8",
    crs="EPSG:2056",
    bounds=(2600000.0, 1199000.0, 2602000.0, 1200000.0),
    transform=(1.0, 0.0, 2600000.0, 0.0, -1.0, 1200000.0),
    gsd=1.0,
    footprint={
        "type": "Polygon",
        "coordinates": [[[7.0, 46.0], [7.2, 46.0], [7.2, 46.1], [7.0, 46.1], [7, 46]]],
    },
    bbox=(7.0, 46.0, 7.2, 46.1),
    bands_info=(Band(data_type="uint8", color_interpretation="gray"),),
    cog=Cog(bytes=123456, md5="0" * 32, sha256="0" * 64),
    jpeg=Jpeg(bytes=2345, md5="1" * 32, sha256="1" * 64, width=512, height=256),
)
_RECORD = Record(
    key="1937/sheet.tif",
    jpeg_key="1937/sheet.jpg",
    source="maps/1937/sheet.tif",
    collection="1937",
    manifest="manifests/batch-raw.csv",
    run="0123456789abcdef",
    converted="2026-11-26T13:00:00Z",
    dates=Dates("1937-01-01T00:00:00Z", "1937-12-31T23:59:59Z"),
    mosaicid="",
    result=_RESULT,
)


def record(key: str, **changes: Any) -> Record:
    """Return the record of an image, with other fields of it or of its result."""
    own = {name: changes.pop(name) for name in Record.__slots__ if name in changes}
    own.setdefault("jpeg_key", key.rpartition(".")[0] + ".jpg")
    return replace(_RECORD, key=key, result=replace(_RESULT, **changes), **own)


def collected(file: Path, now: list[Record], before: list[Record] = ()) -> Records:
    """Return records as a product gets them that was last made of others."""
    keys = {each.key for each in now}
    gone = [each for each in before if each.key not in keys]
    lines = [(to_line(each), True) for each in before]
    lines += [
        (orjson.dumps({"key": each.key, "run": each.run, "gone": True}), False)
        for each in gone
    ]
    lines += [(to_line(each), False) for each in now if each not in before]
    return collect(lines, file, from_nothing=not before)
