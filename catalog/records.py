"""All records of a collection, in a local file: there may be a million."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from catalog.record import Record, from_line
from catalog.spatial import NOWHERE, center, hilbert_distances

Positions = NDArray[np.int64]
_NO_POSITIONS: Positions = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Records:
    """The records of a collection, one an image, in spatial order.

    Iterate over them as often as you like; one at a time is in memory.

    Attributes:
        file: the records, one a line, among others that they have replaced.
        positions: where each line begins, in spatial order: along a Hilbert curve of
            longitude and latitude; those without a footprint come last.
        changed: keys of the COGs whose records are new or other than those of which
            the product was last made; None if all may be.
        changed_positions: where their lines begin; empty if all may be.
        removed_positions: where the lines of records begin that are gone or have been
            replaced, and that the product may have.
        basis: digest of everything of which the product is made now.
        former_basis: digest of everything of which it was last made. A product that
            takes something from its former file checks that the file names this one.
    """

    file: Path
    positions: Positions
    changed: frozenset[str] | None = None
    changed_positions: Positions = field(default_factory=lambda: _NO_POSITIONS)
    removed_positions: Positions = field(default_factory=lambda: _NO_POSITIONS)
    basis: str = ""
    former_basis: str = ""

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[Record]:
        return self.at(self.positions.tolist())

    @property
    def by_key(self) -> Iterator[Record]:
        """The records in the order of their keys, all of which are in memory."""
        keys = [record.key for record in self]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        return self.at(self.positions[order].tolist())

    @property
    def removed(self) -> Iterator[Record]:
        """The records that may be in the product, and are gone or have been replaced.

        A record that came and went after the last update is among them, because another
        maker may have put it into the product. A key whose record was replaced is in
        ``changed``, too.
        """
        return self.at(self.removed_positions.tolist())

    @property
    def changed_records(self) -> Iterator[Record]:
        """The records that may be other than those in the product.

        The others are not read, as an iteration over all records would do.
        """
        return (
            iter(self)
            if self.changed is None
            else self.at(self.changed_positions.tolist())
        )

    def is_changed(self, record: Record) -> bool:
        """Return whether the record may be other than the one in the product."""
        return self.changed is None or record.key in self.changed

    def at(self, positions: Sequence[int]) -> Iterator[Record]:
        """Yield the records of the lines that begin at some positions."""
        with self.file.open("rb") as file:
            for position in positions:
                file.seek(position)
                yield from_line(file.readline())


def collect(
    lines: Iterable[tuple[bytes, bool]], file: Path, *, from_nothing: bool = True
) -> Records:
    """Write records into a file, and return the current ones.

    Args:
        lines: the records as ``to_line`` wrote them, and whether the product was last
            made of it and those before. If several have the same key, the last one
            counts. Lines of ``gone_line`` end the record of a key and a run.
        file: the file, which is written.
        from_nothing: whether the product is made for the first time, or again as a
            whole.

    Raises:
        ValueError, LookupError, TypeError: a line is not a record.
    """
    current: dict[str, int] = {}
    former: dict[str, int] = {}
    gone: dict[tuple[str, str], bool] = {}
    places: dict[int, tuple[float, float]] = {}
    new: list[tuple[str, int]] = []
    with file.open("wb") as written:
        for line, is_old in lines:
            content = orjson.loads(line)
            key, position = content["key"], written.tell()
            if content.get("gone"):
                version = (key, content["run"])
                gone[version] = is_old or gone.get(version, False)
                continue
            current[key] = position
            if is_old:
                former[key] = position
            else:
                new.append((key, position))
            written.write(line)
            if bbox := content["result"].get("bbox"):
                places[position] = center(bbox)
    records = Records(file, _NO_POSITIONS)
    for versions, old_only in ((current, False), (former, True)):
        for (key, run), is_old in gone.items():
            position = versions.get(key, -1)
            if position >= 0 and (is_old or not old_only):
                (record,) = records.at([position])
                if record.run == run:
                    del versions[key]
    positions = _in_spatial_order(current.values(), places)
    if from_nothing:
        return replace(records, positions=positions)
    changed = {key: place for key, place in current.items() if former.get(key) != place}
    there = frozenset(current.values())
    # A new record of an earlier run replaces nothing.
    unchanged = current.keys() - changed.keys()
    removed = [
        place
        for key, place in (*former.items(), *new)
        if place not in there and key not in unchanged
    ]
    return Records(
        file,
        positions,
        frozenset(changed),
        np.array([*changed.values()], dtype=np.int64),
        np.array(removed, dtype=np.int64),
    )


def _in_spatial_order(
    positions: Iterable[int], places: dict[int, tuple[float, float]]
) -> Positions:
    lines = np.fromiter(positions, dtype=np.int64)
    order = np.full(lines.shape, NOWHERE)
    if places:
        located = np.isin(lines, np.fromiter(places, dtype=np.int64))
        points = np.array([places[line] for line in lines[located].tolist()])
        if len(points):
            order[located] = hilbert_distances(points[:, 0], points[:, 1])
    # Among equals, in the order of their lines.
    return lines[np.lexsort((lines, order))]
