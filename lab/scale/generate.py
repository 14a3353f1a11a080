"""A state's archive, generated: the same for the same number of rows.

An image a row, in folders of a thousand. One in ten has a world file beside it, and
five in a thousand fail, each in another way. What nodes leave is written as they
would have: it was copied from rows that HTCondor 23.9.6 really converted.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

from lab.scale.fill import Entry
from node.errors import Unconvertible
from state.rows import node_name
from state.run import Run

_A_FOLDER = 1000
# The first cluster of the nodes' jobs, and what HTCondor writes of one.
_FIRST_CLUSTER = 100
_EVENTS = Path(__file__).with_name("node_events.txt").read_text()


class Fate(Enum):
    """What becomes of a row; the value is what its reason says, if it fails."""

    PROCESSED = ""
    NOT_UPLOADED = "not in the bucket"
    IMPOSSIBLE = "impossible number of bands"
    UNREADABLE = "cannot read it as a GeoTIFF"
    OUTPUT_LOST = "is not in the output bucket"
    OUTPUT_CUT_OFF = "but its node made"


# Of the thousand rows of a folder, those that fail.
_FAILING = {
    7: Fate.NOT_UPLOADED,
    107: Fate.IMPOSSIBLE,
    207: Fate.UNREADABLE,
    307: Fate.OUTPUT_LOST,
    407: Fate.OUTPUT_CUT_OFF,
}
_WITHOUT_NODE = (Fate.NOT_UPLOADED, Fate.IMPOSSIBLE)


@dataclass(frozen=True)
class Frame:
    """One image of the archive; ``number`` is its line in the manifest, from 1."""

    number: int

    @property
    def fate(self) -> Fate:
        return _FAILING.get(self.number % _A_FOLDER, Fate.PROCESSED)

    @property
    def key(self) -> str:
        folder = (self.number - 1) // _A_FOLDER
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

    def _md5(self, what: str) -> bytes:
        text = f"{what} {self.number}".encode()
        return hashlib.md5(text, usedforsecurity=False).digest()


def all_rows(rows: int) -> range:
    return range(1, rows + 1)


def frames(rows: int) -> Iterator[Frame]:
    return map(Frame, all_rows(rows))


def expected(rows: int) -> dict[Fate, int]:
    """How many of so many rows have which fate."""
    whole, rest = divmod(rows, _A_FOLDER)
    failing = {
        fate: whole + (number <= rest) for number, fate in sorted(_FAILING.items())
    }
    return {Fate.PROCESSED: rows - sum(failing.values())} | failing


def write_manifest(path: Path, bucket: str, rows: int) -> None:
    with path.open("w") as file:
        file.writelines(f"{bucket}/{each.key},{each.bands}\n" for each in frames(rows))


def inputs(rows: int) -> Iterator[Entry]:
    """What lies in the input bucket, but for the manifest."""
    for each in frames(rows):
        if each.fate is not Fate.NOT_UPLOADED:
            yield each.image
            if world_file := each.world_file:
                yield world_file


def outputs(rows: int) -> Iterator[Entry]:
    """What the nodes leave in the output bucket."""
    for each in _converted(rows):
        if each.fate is Fate.OUTPUT_CUT_OFF:
            yield Entry(each.cog.key, each.cog.size - 1, each._md5("cut off"))
        elif each.fate is not Fate.OUTPUT_LOST:
            yield each.cog
        if each.fate is not Fate.OUTPUT_LOST:
            yield each.jpeg


def _with_nodes(rows: range) -> Iterator[Frame]:
    return (each for each in map(Frame, rows) if each.fate not in _WITHOUT_NODE)


def _converted(rows: int) -> Iterator[Frame]:
    nodes = _with_nodes(all_rows(rows))
    return (each for each in nodes if each.fate is not Fate.UNREADABLE)


def end_nodes(run: Run, rows: range) -> None:
    """Write what the nodes of these rows leave on the access point as they end."""
    for each in _with_nodes(rows):
        name = node_name(each.number)
        result = json.dumps(told(each), indent=2) + "\n"
        (run.results_directory / f"{name}.json").write_text(result)
        (run.logs_directory / f"{name}.log").write_text(_said(each))


def log_nodes(run: Run, rows: int) -> None:
    """Write what HTCondor tells of the nodes of all rows."""
    with run.node_log.open("w") as log:
        log.writelines(map(_events, _with_nodes(all_rows(rows))))


def told(frame: Frame) -> dict:
    """A node's ``result.json``."""
    name = frame.key.rpartition("/")[2]
    if frame.fate is Fate.UNREADABLE:
        return {
            "ok": False,
            "code": "not-a-geotiff",
            "reason": f"{Fate.UNREADABLE.value}: not recognized as being in a "
            "supported file format",
            "image": name,
            "seconds": 0.031,
            "cpu_seconds": 0.294,
            "attempt": 1,
        }
    west, north = 300_000.0 + 3072 * (frame.number % 1000), 4_800_000.0
    return {
        "ok": True,
        "width": 10_240,
        "height": 10_240,
        "bands": 4,
        "data_type": "uint8",
        "crs": "EPSG:32616",
        "bounds": [west, north - 3072, west + 3072, north],
        "transform": [0.3, 0.0, west, 0.0, -0.3, north],
        "nodata": None,
        "profile": "zstd",
        "jpeg": {"width": 10_240, "height": 10_240, "quality": 80, **_file(frame.jpeg)},
        "compression": "ZSTD",
        "overviews": 5,
        "check_cpu_seconds": 0.382,
        "warnings": [],
        "cog": _file(frame.cog),
        "image": name,
        "seconds": 2.913,
        "cpu_seconds": 2.854,
        "attempt": 1,
    }


def _file(entry: Entry) -> dict:
    return {"bytes": entry.size, "md5": entry.md5.hex()}


def _said(frame: Frame) -> str:
    """What its job printed: nothing, unless it failed."""
    if frame.fate is not Fate.UNREADABLE:
        return ""
    return f"{frame.key.rpartition('/')[2]}: {told(frame)['reason']}\n"


def _events(frame: Frame) -> str:
    """What HTCondor writes of a node's job into the log of all nodes."""
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
