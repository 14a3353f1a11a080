"""What the nodes of a run told: one small file each, gathered into one."""

import json
from dataclasses import dataclass
from typing import Any

from dag.files import write_atomically
from dag.manifest import Row
from dag.run import Run, node_name


@dataclass(frozen=True)
class NodeResult:
    """A node's ``result.json``.

    Attributes:
        ok: whether it converted the image.
        reason: why not; empty when it did.
        files: size in bytes and MD5 of what it made, by ``cog`` and ``jpeg``.
        told: all it said.
    """

    ok: bool
    reason: str
    files: dict[str, tuple[int, str]]
    told: dict[str, Any]


def read(run: Run, row: Row) -> NodeResult | None:
    """A row's result, None when its node left none that can be read."""
    file = run.results_directory / f"{node_name(row.number)}.json"
    try:
        told = json.loads(file.read_text())
        files = {
            name: (int(told[name]["bytes"]), str(told[name]["md5"]))
            for name in ("cog", "jpeg")
            if told["ok"]
        }
        return NodeResult(bool(told["ok"]), str(told.get("reason", "")), files, told)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        # Cut off, as after a machine that vanished: as good as none.
        return None


def gather(run: Run, results: dict[int, NodeResult]) -> None:
    """Write all results into one file, by their rows' numbers."""
    lines = (
        json.dumps({"row": number} | result.told) + "\n"
        for number, result in sorted(results.items())
    )
    write_atomically(run.results_file, "".join(lines))
