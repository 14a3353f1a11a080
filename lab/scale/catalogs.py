"""Measure the products of the catalog: ``make catalogs``.

    python -m lab.scale.catalogs [--images N] [--products NAMES]

The records are made up: images of 10 km over North America, in runs of 1,000. Each
product is made by a process of its own, first of all images, then of 100 more. Last,
one process makes all products except PostGIS, of 100 more images, as a poll does.
A million images are measured without STAC, whose items take a quarter of an hour.
"""

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bucket import Bucket
from catalog import products, stored
from catalog.collections import of_folder
from catalog.record import Dates, Record
from catalog.target import Target
from catalog.update import update
from lab.scale import page as pages
from lab.scale.__main__ import running_server
from lab.scale.measure import Cost, cost
from lab.support import postgres
from lab.support.markdown import insert, table
from node.result import Band, Cog, Jpeg, Result
from state.keys import CATALOG_FOLDER
from state.launch import store_from_record
from state.project import PROJECT
from tests.support.seaweedfs import SeaweedFS

_PAGE = PROJECT / "docs" / "scale.md"
_BUCKET = "cogs"
_COLLECTION = of_folder("aerial", _BUCKET)
_A_RUN = 1000
_MORE = 100
_SIDE = 0.1  # degrees
_DATABASE = "postgis"
_PRODUCTS = f"geoparquet,mosaicjson,tileindex,{_DATABASE}"
_MILLION = 10**6


def main() -> int:
    parser = argparse.ArgumentParser(prog="make catalogs", description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--products")
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        return _make(*options.make)
    with (
        tempfile.TemporaryDirectory(dir=PROJECT, prefix=".scale-") as folder,
        running_server(Path(folder)) as server,
        postgres.running() as database,
    ):
        database.create_database(_BUCKET)
        os.environ |= {
            "PGHOST": str(database.socket),
            "PGUSER": postgres.ARCHIVE,
            "PGDATABASE": _BUCKET,
        }
        wanted = options.products or (
            _PRODUCTS if options.images >= _MILLION else f"{_PRODUCTS},stac"
        )
        names = products.names(wanted)
        rows = list(_measure(server, Path(folder), options.images, names))
    head = ("product", "images", "s", "CPU s", "memory, MiB", "requests")
    text = "\n".join([*table(head, rows), "", *pages.machine("SeaweedFS")]) + "\n"
    mark = "catalogs of a million" if options.images >= _MILLION else "catalogs"
    _PAGE.write_text(insert(_PAGE.read_text(), mark, text))
    print(text)
    return 0


def _make(names: str, store: str) -> int:
    with tempfile.TemporaryDirectory(dir=PROJECT, prefix=".scale-") as folder:
        bucket = Bucket(store_from_record(json.loads(store)), _BUCKET)
        target = Target(bucket, CATALOG_FOLDER, _COLLECTION, Path(folder))
        failures = update(target, names.split(","))
    print(failures)
    return bool(failures)


def _measure(
    server: SeaweedFS, place: Path, images: int, names: tuple[str, ...]
) -> Iterator[tuple[str, ...]]:
    bucket = Bucket(server.store, _BUCKET)
    bucket.create()
    store = json.dumps(asdict(server.store), default=str)
    program = [sys.executable, "-m", "lab.scale.catalogs", "--make"]
    numbers = iter(range(images + 2 * _MORE))
    for run in range(0, images, _A_RUN):
        _write_run(bucket, run, min(_A_RUN, images - run), numbers, place)
    for name in names:
        yield _row(name, images, cost([*program, name, store], PROJECT, server))
    _write_run(bucket, images, _MORE, numbers, place)
    for name in names:
        measured = cost([*program, name, store], PROJECT, server)
        yield _row(name, _MORE, measured, more=True)
    _write_run(bucket, images + _MORE, _MORE, numbers, place)
    together = ",".join(name for name in names if name != _DATABASE)
    if not together:
        return
    measured = cost([*program, together, store], PROJECT, server)
    yield _row(together.replace(",", ", "), _MORE, measured, more=True)


def _write_run(
    bucket: Bucket, run: int, count: int, numbers: Iterator[int], place: Path
) -> None:
    records = ((_COLLECTION, _record(run, next(numbers))) for _ in range(count))
    stored.write(bucket, CATALOG_FOLDER, f"run-{run:09}", records, place)


def _record(run: int, number: int) -> Record:
    """Return the record of an image somewhere between Mexico and Canada."""
    chance = random.Random(number)
    west, south = chance.uniform(-125, -68), chance.uniform(20, 55)
    key = f"aerial/{number // 1000:04}/sheet-{number:07}.tif"
    year = 1930 + number % 90
    return Record(
        key=key,
        jpeg_key=key.replace(".tif", ".jpg"),
        source=f"maps/{key}",
        collection=_COLLECTION.id,
        manifest=f"aerial-{run}-raw.csv",
        run=f"run-{run:09}",
        converted="2026-11-26T13:00:00Z",
        dates=Dates(f"{year}-01-01T00:00:00Z", f"{year}-12-31T23:59:59Z"),
        mosaicid="",
        result=_result(west, south, number),
    )


def _result(west: float, south: float, number: int) -> Result:
    east, north = west + _SIDE, south + _SIDE
    size = 10_000
    band: dict[str, Any] = {"data_type": "uint8", "minimum": 0, "maximum": 255}
    return Result(
        ok=True,
        width=size,
        height=size,
        bands=3,
        data_type="uint8",
        crs="EPSG:4326",
        bounds=(west, south, east, north),
        transform=(_SIDE / size, 0, west, 0, -_SIDE / size, north),
        gsd=1.0,
        footprint={"type": "Polygon", "coordinates": [[*_outline(west, south)]]},
        bbox=(west, south, east, north),
        bands_info=tuple(
            Band(color_interpretation=color, mean=99.5, stddev=20.25, **band)
            for color in ("red", "green", "blue")
        ),
        overviews=5,
        cog=Cog(bytes=10**8 + number, md5=f"{number:032x}", sha256=f"{number:064x}"),
        jpeg=Jpeg(bytes=10**6, md5=f"{number:032x}", sha256=f"{number:064x}"),
    )


def _outline(west: float, south: float) -> Iterator[list[float]]:
    """Yield the vertices of a square, three a side."""
    steps = [(0, 0), (1, 0), (2, 0), (3, 0), (3, 1), (3, 2), (3, 3)]
    steps += [(2, 3), (1, 3), (0, 3), (0, 2), (0, 1), (0, 0)]
    for x, y in steps:
        yield [west + x * _SIDE / 3, south + y * _SIDE / 3]


def _row(name: str, count: int, measured: Cost, more: bool = False) -> tuple[str, ...]:
    return (
        f"`{name}`",
        f"{count:,} more" if more else f"{count:,}",
        f"{measured.seconds:.1f}",
        f"{measured.cpu:.1f}",
        f"{measured.memory:.0f}",
        f"{measured.requests.total():,}",
    )


if __name__ == "__main__":
    sys.exit(main())
