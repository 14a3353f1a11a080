"""The results of a run's nodes: a small file each, gathered into one as they end."""

import json
import os
import re
import secrets
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from node import result as node_result
from node.result import Result, Thumbnail
from state import multipart as state_multipart
from state.run import Run
from state.text import one_line

# The code of a row whose node sent something that is not a result.
BAD_RESULT = "bad-result"

_RESULT = ".json"
# Suffix of a file that is being gathered. A node may meanwhile write a new one.
_TAKEN = ".taken"
# Rows that share a node have one file for each attempt, counted from 0.
_OF_A_NODE = re.compile(r"row([1-9][0-9]*)(?:\.([0-9]))?(?:\.json|\.taken)")
_AT_ONCE = 1000
# The fields that `NodeResult` is made of.
_FIELDS = {
    *("ok", "code", "reason", "attempt", "cog", "jpeg", "seconds", "cpu_seconds"),
}


@dataclass(frozen=True, slots=True)
class NodeResult:
    """The results of a row that the pipeline needs, in little memory.

    There may be a million rows. `records` yields everything.

    Attributes:
        line: line of the row in the manifest.
        ok: whether its node converted the image.
        code: reason of a failure, for programs; empty for a success.
        reason: reason of a failure, for people.
        attempt: number of the attempt, None if the node does not know it.
        cog: size in bytes and MD5 of the COG; jpeg likewise.
        parts: size in bytes and MD5 of each part, if the COG is a multipart upload.
        seconds: duration of the conversion.
        cpu_seconds: CPU time of the conversion.
        before: result of an earlier attempt that succeeded, if a later one did not, as
            when the failure of a neighbour had both tried again.
    """

    line: int
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
        """The result of the last attempt that succeeded, if one did."""
        return self if self.ok else self.before


def gather(run: Run, *, settled: bool = False) -> None:
    """Gather the results of nodes in one file, and remove their own files.

    You can repeat this after a crash at any step: lines that are written twice say the
    same, and the last line of a row counts.

    An execution point may send anything in place of a result. It then fails its row,
    and no other.

    Args:
        settled: whether all nodes have stopped writing.
    """
    if not run.results_directory.exists():
        return
    files = [
        file
        for file in run.results_directory.iterdir()
        if _OF_A_NODE.fullmatch(file.name)
    ]
    # Attempts of a row in their order, since the last line of a row counts.
    files.sort(key=_line_and_try)
    for begin in range(0, len(files), _AT_ONCE):
        _gather(run, files[begin : begin + _AT_ONCE], settled)


def _gather(run: Run, files: list[Path], settled: bool) -> None:
    # Whether each is a success. Only one result at a time is in memory.
    successes: dict[Path, bool] = {}
    with (
        run.results_file.open("a+", encoding="utf-8") as lines,
        run.thumbnails_file.open("ab") as thumbnails,
    ):
        if _ends_amid_a_line(lines.name):
            lines.write("\n")
        for file in files:
            if file.suffix == _RESULT and not settled:
                file = _take(run, file)
            if (result := _read_or_fail(file, settled)) is None:
                continue
            result = _with_thumbnails_in(thumbnails, result)
            # The name of the file decides on the row, whatever the content says.
            named = {"run": run.directory.name, "line": _line_and_try(file)[0]}
            lines.write(json.dumps(named | result.to_json(compact=True)) + "\n")
            successes[file] = result.ok
        # First what the lines point to. Bytes that no line points to do no harm.
        for written in (thumbnails, lines):
            written.flush()
            os.fsync(written.fileno())
    for file, ok in successes.items():
        remove(run, file)
        if ok:
            remove(run, run.logs_directory / f"{file.stem}.log")


def _with_thumbnails_in(file: BinaryIO, result: Result) -> Result:
    """Append the thumbnails of a result to a file; return where they are instead."""
    moved = []
    for thumbnail in result.thumbnails:
        # A node has no say in positions.
        if thumbnail.webp is not None:
            moved.append(replace(thumbnail, webp=None, position=file.tell()))
            file.write(thumbnail.content())
    return replace(result, thumbnails=tuple(moved))


def read_thumbnail(run: Run, thumbnail: Thumbnail) -> bytes:
    """Return the WebP file of a thumbnail of a run's `records`."""
    with run.thumbnails_file.open("rb") as file:
        file.seek(thumbnail.position or 0)
        return file.read(thumbnail.bytes)


def _read_or_fail(file: Path, settled: bool) -> Result | None:
    """Return a node's result, a failure if it is not one, or None for later."""
    try:
        return _read(file)
    except FileNotFoundError:
        return None
    except _NotAResult as error:
        if error.may_be_half_written and not settled:
            return None
        reason = f"the result that its node sent cannot be used: {error}"
        return Result(ok=False, code=BAD_RESULT, reason=one_line(reason))


def _take(run: Run, file: Path) -> Path:
    """Rename a result, so that its node cannot change it meanwhile."""
    taken = file.with_suffix(_TAKEN)
    if taken.is_dir():
        # It was no result, and a crash prevented its removal.
        remove(run, taken)
    return file.replace(taken)


class _NotAResult(Exception):
    """A file is not the result of a node."""

    def __init__(self, why: str, *, may_be_half_written: bool) -> None:
        super().__init__(why)
        self.may_be_half_written = may_be_half_written


def _read(file: Path) -> Result:
    """Return the result that a file holds.

    Raises:
        FileNotFoundError: it is not there.
        _NotAResult: it is not a regular file, or does not contain a result.
    """
    try:
        # Do not follow links or wait for pipes.
        opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _NotAResult(
            "it is not a regular file", may_be_half_written=False
        ) from error
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise _NotAResult("it is not a regular file", may_be_half_written=False)
    with os.fdopen(opened, "rb") as content:
        read = content.read(node_result.MAX_BYTES + 1)
    try:
        return node_result.read(read)
    except ValueError as error:
        whole = len(read) <= node_result.MAX_BYTES
        raise _NotAResult(str(error), may_be_half_written=whole) from error


def remove(run: Run, path: Path) -> None:
    """Remove a file that a node sent, of any type, if it exists.

    A folder in its place goes to what nodes leave otherwise, where nobody looks.
    """
    try:
        path.unlink(missing_ok=True)
    except IsADirectoryError:
        run.sandbox_directory.mkdir(mode=0o700, exist_ok=True)
        path.rename(run.sandbox_directory / secrets.token_hex(8))


def _line_and_try(file: Path) -> tuple[int, int]:
    match = _OF_A_NODE.fullmatch(file.name)
    assert match, file  # noqa: S101
    return int(match[1]), int(match[2] or 0)


def _ends_amid_a_line(file: str) -> bool:
    with Path(file).open("rb") as content:
        if content.seek(0, os.SEEK_END) == 0:
            return False
        content.seek(-1, os.SEEK_END)
        return content.read() != b"\n"


def load(run: Run) -> dict[int, NodeResult]:
    """Return the results of the last attempts, by the lines of their rows."""
    results: dict[int, NodeResult] = {}
    # Only a row whose upload has several parts can have some.
    multipart_lines = state_multipart.recorded(run).keys()
    for line, record in _lines(run, _FIELDS):
        result = _node_result(line, record, multipart=line in multipart_lines)
        if not result.ok and (known := results.get(line)):
            result = replace(result, before=known.success)
        results[line] = result
    return results


def records(
    run: Run, only: Collection[str] | None = None
) -> Iterator[tuple[int, Result]]:
    """Yield the line of a row and a result of it, one attempt after the other.

    If a row has several results, the last one counts.

    Args:
        only: names of the fields that are read, if not all.
    """
    return _lines(run, only)


def _lines(run: Run, only: Collection[str] | None) -> Iterator[tuple[int, Result]]:
    if not run.results_file.exists():
        return
    with run.results_file.open(encoding="utf-8") as lines:
        for text in lines:
            try:
                payload = json.loads(text)
                # Earlier versions wrote it as "row".
                number = int(payload["line"] if "line" in payload else payload["row"])
                result = Result.from_json(payload, only)
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                # A crash cut the line off, and a later line repeats it; or an earlier
                # version wrote it, which kept what no node writes.
                continue
            yield number, result


def _node_result(line: int, record: Result, *, multipart: bool) -> NodeResult:
    # A failure has no files.
    cog, jpeg = record.cog, record.jpeg
    return NodeResult(
        line,
        ok=record.ok,
        code=record.code,
        # Keep only as much as is shown.
        reason=one_line(record.reason) if record.reason else "",
        attempt=record.attempt,
        cog=(cog.bytes, cog.md5) if cog else (0, ""),
        jpeg=(jpeg.bytes, jpeg.md5) if jpeg else (0, ""),
        parts=tuple((part.bytes, part.md5) for part in cog.parts)
        if cog and multipart
        else (),
        seconds=record.seconds or 0,
        cpu_seconds=record.cpu_seconds or 0,
    )
