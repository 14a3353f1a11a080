"""A poll that finds nothing to do, in a bucket of very many objects."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bucket import Bucket
from lab.scale import generate
from lab.scale.fill import fill
from lab.scale.measure import Cost
from lab.scale.run import MANIFESTS, PATTERN, launch, poll_of
from tests.support.seaweedfs import SeaweedFS

_ENDED_MANIFESTS = 10
_ENDED = "20261120T195942Z"


@dataclass(frozen=True)
class Idle:
    """What it costs to look, by what the pattern of manifests begins with.

    Attributes:
        beside: where the pattern names the folder of the manifests.
        among: where it begins with ``*``, so that each object could be one.
    """

    objects: int
    beside: Cost
    among: Cost


def measure(server: SeaweedFS, place: Path, objects: int) -> Idle:
    """Poll a new bucket of so many objects, and ten manifests that have ended."""
    maps, cogs = (Bucket(server.store, name) for name in ("idle-maps", "idle-cogs"))
    maps.create()
    cogs.create()
    fill(server, maps.name, islice(generate.inputs(objects), objects))
    for number in range(_ENDED_MANIFESTS):
        for state in ("processed", "failed"):
            maps.write(f"{MANIFESTS}{number:02}-{state}-{_ENDED}.csv", b"frame.tif,4\n")
    place.mkdir()

    def look(name: str, pattern: str) -> Cost:
        folder = place / name
        made = launch(server, folder, maps.name, cogs.name, pattern=pattern)
        return poll_of(made, server)

    beside = look("beside", PATTERN)
    return Idle(objects, beside, look("among", "*raw.csv"))
