"""How a large run and a small one that comes later share a pool.

    python -m scale.sharing

On the personal pool, a manifest of small images is followed by one of fewer as soon as
the first has begun: with all its nodes in the queue, and with few of them, by each
``--order``.
"""

import os
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lab.scale import page as pages, small
from state.project import PROJECT
from state.run import Run

_LARGE, _SMALL = 150, 30
_FEW = ("--max-idle", "10")
# DAGMan looks between two of its intervals how many wait.
_FEW_AN_INTERVAL = {"_CONDOR_DAGMAN_MAX_SUBMITS_PER_INTERVAL": "5"}
_SETTINGS = {
    "`--max-idle 1000` (the default)": (),
    "`--max-idle 10`": _FEW,
    "`--max-idle 10 --order oldest-first`": (*_FEW, "--order", "oldest-first"),
}


@dataclass(frozen=True)
class Shared:
    """Seconds from the claim of the second manifest.

    Attributes:
        first: until its first node ran.
        small: until its run was done.
        large: until the run before it was.
    """

    first: float
    small: float
    large: float


def main() -> int:
    page = PROJECT / "docs" / "scale.md"
    os.environ.update(_FEW_AN_INTERVAL)
    with small.pool() as (pool, place):
        image = small.image(place)
        measured = {
            name: measure(small.archive(pool, place / f"case{n}"), image, options)
            for n, (name, options) in enumerate(_SETTINGS.items())
        }
    head = ("", "the small run's first node, s", "its end, s", "the large run's end, s")
    lines = pages.table(
        head,
        (
            (name, f"{one.first:.0f}", f"{one.small:.0f}", f"{one.large:.0f}")
            for name, one in measured.items()
        ),
    )
    text = "\n".join([*lines, "", *pages.machine("rclone serve s3")]) + "\n"
    page.write_text(pages.insert(page.read_text(), "sharing", text))
    print(text)
    return 0


def measure(archive: small.Archive, image: Path, options: tuple[str, ...]) -> Shared:
    archive.upload("large", image, _LARGE)
    archive.poll_first(*options)
    (large,) = archive.runs()
    small.wait_for(lambda: large.node_log.exists() and _began(large))
    archive.upload("small", image, _SMALL)
    archive.poll()
    _, late = archive.runs()
    small.wait_for(lambda: large.done and late.done)
    claimed = late.claimed_file.stat().st_mtime
    return Shared(
        first=_began(late)[0] - claimed,
        small=late.done_file.stat().st_mtime - claimed,
        large=large.done_file.stat().st_mtime - claimed,
    )


def _began(run: Run) -> list[float]:
    """When nodes' jobs began to run, in seconds since 1970."""
    lines = run.node_log.read_text().splitlines()
    moments = (line.split() for line in lines if "Job executing on host" in line)
    return [
        datetime.fromisoformat(f"{day} {clock}").timestamp()
        for _, _, day, clock, *_ in moments
    ]


if __name__ == "__main__":
    sys.exit(main())
