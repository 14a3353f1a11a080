"""What the nodes of a run told: a small file each, gathered into one as they end."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dag.rows import node_name
from dag.run import Run

_RESULT = ".json"
# Of a file that is being gathered: what a node writes meanwhile is another one.
_TAKEN = ".taken"
# Those that share a node have one of each try, which are counted from 0.
_OF_A_NODE = re.compile(node_name(r"(\d+)") + rf"(?:\.(\d))?(?:{_RESULT}|{_TAKEN})")
_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What is needed of a node's ``result.json``; the rest stays in the file.

    Attributes:
        row: its number.
        ok: whether it converted the image.
        code: why not, as a name for programs; empty when it did.
        reason: the same as a sentence.
        attempt: which of its tries told this, None where it does not know.
        cog: size in bytes and MD5 of what it made; jpeg likewise.
        parts: those of the parts that it left in place of the COG, if any.
        seconds: how long it took.
        cpu_seconds: of user and system time that it took.
        before: what it had told of an earlier try, which succeeded, when a later one
            did not: as when a neighbour's failure had both tried again.
    """

    row: int
    ok: bool
    code: str = ""
    reason: str = ""
    attempt: int | None = None
    cog: tuple[int, str] = (0, "")
    jpeg: tuple[int, str] = (0, "")
    parts: tuple[tuple[int, str], ...] = ()
    seconds: float = 0
    cpu_seconds: float = 0
    before: "NodeResult | None" = None

    @property
    def success(self) -> "NodeResult | None":
        """What it told of the last try that succeeded, if one did."""
        return self if self.ok else self.before


def gather(run: Run, *, settled: bool = False) -> None:
    """Move what nodes told into one file; a success leaves no file of its own.

    Can be repeated after a crash at any step: what a crash has written twice says
    the same twice, and of several lines of a row the last one counts.

    Args:
        settled: no node writes any more.
    """
    if not run.results_directory.exists():
        return
    files = [
        file
        for file in run.results_directory.iterdir()
        if _OF_A_NODE.fullmatch(file.name)
    ]
    # The tries of a row in their order, since the last line of it counts.
    files.sort(key=_row_and_try)
    for begin in range(0, len(files), _AT_ONCE):
        _gather(run, files[begin : begin + _AT_ONCE], settled)


def _gather(run: Run, files: list[Path], settled: bool) -> None:
    told = {}
    for file in files:
        if file.suffix == _RESULT and not settled:
            file = file.replace(file.with_suffix(_TAKEN))
        try:
            told[file] = _in_one_line(run, file)
        except (FileNotFoundError, ValueError):
            # Cut off, as after a machine that vanished, or not yet whole.
            continue
    with run.results_file.open("a+", encoding="utf-8") as gathered:
        if _ends_amid_a_line(gathered.name):
            gathered.write("\n")
        gathered.writelines(line for _, line in told.values())
        gathered.flush()
        os.fsync(gathered.fileno())
    for file, (ok, _) in told.items():
        file.unlink()
        if ok:
            log = run.logs_directory / f"{file.stem}.log"
            log.unlink(missing_ok=True)


def _in_one_line(run: Run, file: Path) -> tuple[bool, str]:
    """Whether a node ended well, and all that it told.

    Raises:
        ValueError: the file is none of a node's.
    """
    told = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(told, dict):
        raise ValueError(f"{file} holds no object")
    line = {"run": run.directory.name, "row": _row_and_try(file)[0]} | told
    return told.get("ok") is True, json.dumps(line) + "\n"


def _row_and_try(file: Path) -> tuple[int, int]:
    row, its_try = _OF_A_NODE.fullmatch(file.name).groups()
    return int(row), int(its_try or 0)


def _ends_amid_a_line(file: str) -> bool:
    with Path(file).open("rb") as content:
        if content.seek(0, os.SEEK_END) == 0:
            return False
        content.seek(-1, os.SEEK_END)
        return content.read() != b"\n"


def load(run: Run) -> dict[int, NodeResult]:
    """What the nodes told in their last tries, by the numbers of their rows."""
    told: dict[int, NodeResult] = {}
    for result in _all(run):
        if not result.ok and (known := told.get(result.row)):
            result = replace(result, before=known.success)
        told[result.row] = result
    return told


def _all(run: Run) -> Iterator[NodeResult]:
    if not run.results_file.exists():
        return
    with run.results_file.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                yield _result(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                # A line that a crash cut off, which a later one repeats; or what no
                # node of ours says, which is as good as nothing.
                continue


def _result(told: dict[str, Any]) -> NodeResult:
    row, attempt = int(told["row"]), told.get("attempt")
    attempt = None if attempt is None else int(attempt)
    seconds, cpu_seconds = (
        float(told.get(name, 0)) for name in ("seconds", "cpu_seconds")
    )
    if not told["ok"]:
        return NodeResult(
            row,
            ok=False,
            code=str(told.get("code", "unforeseen")),
            reason=str(told.get("reason", "")),
            attempt=attempt,
            seconds=seconds,
            cpu_seconds=cpu_seconds,
        )
    return NodeResult(
        row,
        ok=True,
        attempt=attempt,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        cog=_size_and_md5(told["cog"]),
        jpeg=_size_and_md5(told["jpeg"]),
        parts=tuple(map(_size_and_md5, told["cog"].get("parts", ()))),
    )


def _size_and_md5(told: dict[str, Any]) -> tuple[int, str]:
    return int(told["bytes"]), str(told["md5"])
