"""Measure a poll that finds nothing to do, in a bucket with very many objects."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bucket import Bucket
from lab.scale import generate
from lab.scale.fill import fill
from lab.scale.measure import Cost
from lab.scale.run import MANIFESTS, PATTERN, cost_of_poll, new_launch
from tests.support.seaweedfs import SeaweedFS

_ENDED_MANIFESTS = 10
_ENDED = "20261120T195942Z"


@dataclass(frozen=True)
class IdleCosts:
    """The costs of a poll, with and without a prefix of the manifests.

    Attributes:
        objects: number of objects in the bucket.
        with_prefix: cost where the pattern begins with the folder of the manifests.
        without_prefix: cost where the pattern begins with ``*``, so that each object
            could be a manifest.
    """

    objects: int
    with_prefix: Cost
    without_prefix: Cost


def measure(server: SeaweedFS, place: Path, objects: int) -> IdleCosts:
    """Poll a new bucket of so many objects and the CSVs of ten manifests."""
    maps, cogs = (Bucket(server.store, name) for name in ("idle-maps", "idle-cogs"))
    maps.create()
    cogs.create()
    fill(server, maps.name, islice(generate.inputs(objects), objects))
    for number in range(_ENDED_MANIFESTS):
        for state in ("processed", "failed"):
            maps.write(f"{MANIFESTS}{number:02}-{state}-{_ENDED}.csv", b"frame.tif,4\n")
    place.mkdir()

    def poll(name: str, pattern: str) -> Cost:
        launch = new_launch(server, place / name, maps.name, cogs.name, pattern=pattern)
        return cost_of_poll(launch, server)

    with_prefix = poll("with-prefix", PATTERN)
    return IdleCosts(objects, with_prefix, poll("without-prefix", "*raw.csv"))
