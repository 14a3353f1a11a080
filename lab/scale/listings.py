"""Measure the commands that read whole buckets: ``make listings``.

    python -m lab.scale.listings [--images N] [--objects N]

``manifest`` reads the headers of small images. ``list`` lists objects that have no
content.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from bucket import Bucket
from lab.scale import generate, page as pages, small
from lab.scale.__main__ import running_server
from lab.scale.fill import fill
from lab.scale.measure import Cost, cost
from lab.support.markdown import insert, table
from state.project import PROGRAM, PROJECT
from tests.support.seaweedfs import SeaweedFS

_PAGE = PROJECT / "docs" / "scale.md"
_WRITERS = 16


def main() -> int:
    parser = argparse.ArgumentParser(prog="make listings", description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--objects", type=int, default=1_000_000)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=PROJECT, prefix=".scale-") as folder,
        running_server(Path(folder)) as server,
    ):
        rows = list(_measure(server, Path(folder), options.images, options.objects))
    head = ("command", "objects", "s", "per second", "CPU s", "memory, MiB", "requests")
    text = "\n".join([*table(head, rows), "", *pages.machine("SeaweedFS")]) + "\n"
    _PAGE.write_text(insert(_PAGE.read_text(), "listings", text))
    print(text)
    return 0


def _measure(
    server: SeaweedFS, place: Path, images: int, objects: int
) -> Iterator[tuple[str, ...]]:
    store = server.store
    headers, many = Bucket(store, "headers"), Bucket(store, "many")
    headers.create()
    many.create()
    content = small.write_image(place).read_bytes()
    with ThreadPoolExecutor(_WRITERS) as threads:
        for _ in threads.map(
            lambda number: headers.write(f"{number:06}.tif", content), range(images)
        ):
            pass
    fill(server, many.name, islice(generate.inputs(objects), objects))
    program = [sys.executable, str(PROGRAM)]
    access = [
        *("-a", str(store.access_key), "-s", str(store.secret_key)),
        *("-e", store.endpoint, "--ca-certs", str(store.ca_certs)),
    ]
    commands = {
        "manifest": ["manifest", "--input-bucket", headers.name],
        "list": ["list", "--input-bucket", many.name],
    }
    for name, words in commands.items():
        count = images if name == "manifest" else objects
        yield _row(f"`{name}`", count, cost([*program, *words, *access], place, server))


def _row(name: str, count: int, measured: Cost) -> tuple[str, ...]:
    return (
        name,
        f"{count:,}",
        f"{measured.seconds:.0f}",
        f"{count / measured.seconds:,.0f}",
        f"{measured.cpu:.0f}",
        f"{measured.memory:.0f}",
        f"{measured.requests.total():,}",
    )


if __name__ == "__main__":
    sys.exit(main())
