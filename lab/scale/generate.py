"""Generate the archive of a state; the same number of rows gives the same archive.

Each row has one image. The images are in folders of a thousand. One image in ten has
a world file beside it, and five rows in a thousand fail, each for another reason. The
files of the nodes are copies of those that HTCondor 23.9.6 left of real conversions.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import numpy

from lab.scale.fill import Entry
from node.errors import Unconvertible
from node.result import Band, Cog, Jpeg, Result, Thumbnail
from node.thumbnail import thumbnails
from state.rows import node_name
from state.run import Run

_ROWS_PER_FOLDER = 1000
# The cluster of the first node's job, and the events of one job in HTCondor's log.
_FIRST_CLUSTER = 100
_EVENTS = Path(__file__).with_name("node_events.txt").read_text()


class Fate(Enum):
    """The outcome of a row; the value is a part of its reason if it fails."""

    PROCESSED = ""
    NOT_UPLOADED = "not in the bucket"
    IMPOSSIBLE = "invalid number of bands"
    UNREADABLE = "cannot read it as a GeoTIFF"
    OUTPUT_LOST = "is not in the output bucket"
    OUTPUT_CUT_OFF = "but its node made"


# The rows that fail among the thousand of a folder.
_FAILURES = {
    7: Fate.NOT_UPLOADED,
    107: Fate.IMPOSSIBLE,
    207: Fate.UNREADABLE,
    307: Fate.OUTPUT_LOST,
    407: Fate.OUTPUT_CUT_OFF,
}
_WITHOUT_NODE = (Fate.NOT_UPLOADED, Fate.IMPOSSIBLE)
# Parts of each result: a footprint with some corners, and the bands.
_RING = [
    [-89.478 + 0.001 * (n % 40), 43.297 + 0.029 * (n // 20)] for n in (*range(40), 0)
]
_BANDS = tuple(
    Band(
        data_type="uint8",
        color_interpretation=name,
        minimum=0.0,
        maximum=255.0,
        mean=97.31,
        stddev=41.87,
        valid_percent=100.0,
    )
    for name in ("red", "green", "blue", "undefined")
)


@dataclass(frozen=True)
class Frame:
    """One image of the archive; ``number`` is its line in the manifest, from 1 on."""

    number: int

    @property
    def fate(self) -> Fate:
        return _FAILURES.get(self.number % _ROWS_PER_FOLDER, Fate.PROCESSED)

    @property
    def key(self) -> str:
        folder = (self.number - 1) // _ROWS_PER_FOLDER
        return f"state/county-{folder:04}/frame-{self.number:07}.tif"

    @property
    def bands(self) -> str:
        return "three" if self.fate is Fate.IMPOSSIBLE else "4"

    @property
    def image(self) -> Entry:
        return Entry(self.key, 40_000_000 + self.number, self._md5("image"))

    @property
    def world_file(self) -> Entry | None:
        if self.number % 10:
            return None
        return Entry(self.key.removesuffix("tif") + "tfw", 90, self._md5("world"))

    @property
    def cog(self) -> Entry:
        return Entry(self.key, 21_000_000 + self.number, self._md5("cog"))

    @property
    def jpeg(self) -> Entry:
        key = self.key.removesuffix("tif") + "jpg"
        return Entry(key, 1_000_000 + self.number, self._md5("jpeg"))

    def _md5(self, name: str) -> bytes:
        """Return an invented digest."""
        text = f"{name} {self.number}".encode()
        return hashlib.md5(text, usedforsecurity=False).digest()


def row_numbers(rows: int) -> range:
    """Return the numbers of all rows, from 1 on."""
    return range(1, rows + 1)


def frames(rows: int) -> Iterator[Frame]:
    """Return the images of all rows."""
    return map(Frame, row_numbers(rows))


def expected_fates(rows: int) -> dict[Fate, int]:
    """Return the number of rows of each fate."""
    folders, rest = divmod(rows, _ROWS_PER_FOLDER)
    failures = {
        fate: folders + (number <= rest) for number, fate in sorted(_FAILURES.items())
    }
    return {Fate.PROCESSED: rows - sum(failures.values())} | failures


def write_manifest(path: Path, bucket: str, rows: int) -> None:
    """Write a manifest of all rows."""
    with path.open("w") as file:
        file.writelines(
            f"{bucket}/{frame.key},{frame.bands}\n" for frame in frames(rows)
        )


def inputs(rows: int) -> Iterator[Entry]:
    """Yield the objects of the input bucket, except the manifest."""
    for frame in frames(rows):
        if frame.fate is not Fate.NOT_UPLOADED:
            yield frame.image
            if world_file := frame.world_file:
                yield world_file


def outputs(rows: int) -> Iterator[Entry]:
    """Yield the objects that the nodes leave in the output bucket."""
    for frame in _converted_frames(rows):
        if frame.fate is Fate.OUTPUT_CUT_OFF:
            yield Entry(frame.cog.key, frame.cog.size - 1, frame._md5("cut off"))
        elif frame.fate is not Fate.OUTPUT_LOST:
            yield frame.cog
        if frame.fate is not Fate.OUTPUT_LOST:
            yield frame.jpeg


def _frames_with_nodes(rows: range) -> Iterator[Frame]:
    return (frame for frame in map(Frame, rows) if frame.fate not in _WITHOUT_NODE)


def _converted_frames(rows: int) -> Iterator[Frame]:
    nodes = _frames_with_nodes(row_numbers(rows))
    return (frame for frame in nodes if frame.fate is not Fate.UNREADABLE)


def end_nodes(run: Run, rows: range) -> None:
    """Write the files that the nodes of some rows leave on the access point."""
    for frame in _frames_with_nodes(rows):
        name = node_name(frame.number)
        result = json.dumps(node_result(frame)) + "\n"
        (run.results_directory / f"{name}.json").write_text(result)
        (run.logs_directory / f"{name}.log").write_text(_output(frame))


def log_nodes(run: Run, rows: int) -> None:
    """Write the log that HTCondor would have written of the nodes of all rows."""
    with run.node_log.open("w") as log:
        log.writelines(map(_events, _frames_with_nodes(row_numbers(rows))))


def node_result(frame: Frame) -> dict[str, Any]:
    """Return the content of a node's ``result.json``."""
    name = frame.key.rpartition("/")[2]
    if frame.fate is Fate.UNREADABLE:
        return Result(
            ok=False,
            code="not-a-raster",
            reason=f"GDAL {Fate.UNREADABLE.value} ('{name}' not recognized as being in "
            "a supported file format.): upload it again, or leave it out",
            image=name,
            seconds=0.031,
            cpu_seconds=0.294,
            attempt=1,
        ).to_json(compact=True)
    west, north = 300_000.0 + 3072 * (frame.number % 1000), 4_800_000.0
    sha256 = hashlib.sha256(frame.key.encode()).hexdigest()
    cog, jpeg = frame.cog, frame.jpeg
    common = _common_result()
    return common | {
        "image": name,
        "bounds": [west, north - 3072, west + 3072, north],
        "transform": [0.3, 0.0, west, 0.0, -0.3, north],
        "cog": {"bytes": cog.size, "md5": cog.md5.hex(), "sha256": sha256},
        "jpeg": common["jpeg"] | {"bytes": jpeg.size, "md5": jpeg.md5.hex()},
    }


@cache
def _common_result() -> dict[str, Any]:
    """Return a result with the fields that all rows share."""
    no_md5 = "0" * 32
    return Result(
        ok=True,
        attempt=1,
        seconds=2.913,
        cpu_seconds=2.854,
        check_cpu_seconds=0.382,
        width=10_240,
        height=10_240,
        bands=4,
        data_type="uint8",
        crs="EPSG:32616",
        gsd=0.3,
        footprint={"type": "Polygon", "coordinates": [_RING]},
        bbox=(-89.478, 43.297, -89.439, 43.326),
        bands_info=_BANDS,
        profile="zstd",
        compression="ZSTD",
        overviews=5,
        cog=Cog(bytes=1, md5=no_md5),
        jpeg=Jpeg(
            bytes=1,
            md5=no_md5,
            sha256="0" * 64,
            width=10_240,
            height=10_240,
            quality=80,
        ),
        thumbnails=_thumbnails(),
    ).to_json()


@cache
def _thumbnails() -> tuple[Thumbnail, ...]:
    """Return the thumbnails of a picture with as much detail as a landscape's."""
    random = numpy.random.default_rng(1)
    coarse = random.integers(0, 256, (64, 64, 3), dtype=numpy.uint8)
    return thumbnails(coarse.repeat(4, axis=0).repeat(4, axis=1))


def _output(frame: Frame) -> str:
    """Return what the node's job printed: nothing unless it failed."""
    if frame.fate is not Fate.UNREADABLE:
        return ""
    return f"{frame.key.rpartition('/')[2]}: {node_result(frame)['reason']}\n"


def _events(frame: Frame) -> str:
    """Return the events of a node's job in the log of all nodes."""
    seconds = 1_790_000_000 + frame.number
    moment = datetime.fromtimestamp(seconds, UTC)
    return _EVENTS.format(
        job=f"{_FIRST_CLUSTER + frame.number:03}.000.000",
        when=f"{moment:%Y-%m-%d %H:%M:%S}",
        ended=f"{moment:%Y-%m-%dT%H:%M:%SZ}",
        node=node_name(frame.number),
        status=Unconvertible.exit_status if frame.fate is Fate.UNREADABLE else 0,
        host="<127.0.0.1:33087?addrs=127.0.0.1-33087&alias=access&noUDP&sock=schedd>",
    )
