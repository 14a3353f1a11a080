"""What the nodes of a run told: a small file each, gathered into one as they end."""

import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from node import result as node_result
from state import multipart as state_multipart
from state.run import Run
from state.text import one_line

# The code of a row whose node sent something else than a result.
BAD_RESULT = "bad-result"

_RESULT = ".json"
# Of a file that is being gathered: what a node writes meanwhile is another one.
_TAKEN = ".taken"
# Those that share a node have one of each try, which are counted from 0.
_OF_A_NODE = re.compile(r"row([1-9][0-9]*)(?:\.([0-9]))?(?:\.json|\.taken)")
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

    An execution point may send anything in a result's place. What is no result fails
    its row, and nothing but its row.

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
    # Whether it tells of success. Of what else it tells, one at a time is in memory.
    told: dict[Path, bool] = {}
    with run.results_file.open("a+", encoding="utf-8") as gathered:
        if _ends_amid_a_line(gathered.name):
            gathered.write("\n")
        for file in files:
            if file.suffix == _RESULT and not settled:
                file = _take(run, file)
            if (result := _read_or_fail(file, settled)) is None:
                continue
            # Which row it is of, its name decides, whatever stands in it.
            named = {"run": run.directory.name, "row": _row_and_try(file)[0]}
            gathered.write(json.dumps(named | result) + "\n")
            told[file] = result["ok"]
        gathered.flush()
        os.fsync(gathered.fileno())
    for file, ok in told.items():
        remove(run, file)
        if ok:
            remove(run, run.logs_directory / f"{file.stem}.log")


def _read_or_fail(file: Path, settled: bool) -> dict[str, Any] | None:
    """Return what a node told, or a failure for what is no result; None for later."""
    try:
        return _read(file)
    except FileNotFoundError:
        return None
    except _NotAResult as error:
        if error.may_be_half_written and not settled:
            return None
        reason = f"what its node sent as its result cannot be used: {error}"
        return {"ok": False, "code": BAD_RESULT, "reason": one_line(reason)}


def _take(run: Run, file: Path) -> Path:
    """Rename a result, so that what its node writes meanwhile is another file."""
    taken = file.with_suffix(_TAKEN)
    if taken.is_dir():
        # It was no result, and a crash kept it from being removed.
        remove(run, taken)
    return file.replace(taken)


class _NotAResult(Exception):
    """A file is no result of a node."""

    def __init__(self, why: str, *, may_be_half_written: bool) -> None:
        super().__init__(why)
        self.may_be_half_written = may_be_half_written


def _read(file: Path) -> dict[str, Any]:
    """Return the known fields of a result.

    Raises:
        FileNotFoundError: it is not there.
        _NotAResult: it is no file, or holds no result.
    """
    try:
        # No link is followed, and no pipe is waited for.
        opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _NotAResult("it is no file", may_be_half_written=False) from error
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise _NotAResult("it is no file", may_be_half_written=False)
    with os.fdopen(opened, "rb") as content:
        read = content.read(node_result.LARGEST + 1)
    try:
        return node_result.read(read)
    except ValueError as error:
        whole = len(read) <= node_result.LARGEST
        raise _NotAResult(str(error), may_be_half_written=whole) from error


def remove(run: Run, path: Path) -> None:
    """Remove a file that a node sent, whatever it is; no error when it is gone.

    A folder in its place goes to what nodes leave otherwise, where nobody looks.
    """
    try:
        path.unlink(missing_ok=True)
    except IsADirectoryError:
        run.sandbox_directory.mkdir(mode=0o700, exist_ok=True)
        path.rename(run.sandbox_directory / secrets.token_hex(8))


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
    # Whatever others tell of parts, they have none.
    in_parts = state_multipart.recorded(run).keys()
    for result in _all(run):
        if result.row not in in_parts:
            result = replace(result, parts=())
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
                told = json.loads(line)
                yield _result(int(told["row"]), node_result.checked(told))
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                # A line that a crash cut off, which a later one repeats; or one of an
                # earlier version, which kept what no node of ours says.
                continue


def _result(row: int, told: dict[str, Any]) -> NodeResult:
    result = NodeResult(
        row,
        ok=told["ok"],
        attempt=told.get("attempt"),
        seconds=told.get("seconds", 0),
        cpu_seconds=told.get("cpu_seconds", 0),
    )
    if not told["ok"]:
        # No longer than it is shown: there may be a million.
        return replace(result, code=told["code"], reason=one_line(told["reason"]))
    return replace(
        result,
        cog=_size_and_md5(told["cog"]),
        jpeg=_size_and_md5(told["jpeg"]),
        parts=tuple(map(_size_and_md5, told["cog"].get("parts", ()))),
    )


def _size_and_md5(told: dict[str, Any]) -> tuple[int, str]:
    return told["bytes"], told["md5"]
