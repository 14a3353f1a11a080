"""List the messages of polls, HTCondor and nodes about a run, in order of time."""

import heapq
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Set
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from operator import attrgetter
from pathlib import Path

from condor.eventlog import JobEvent, JobHistory
from state import results
from state.errors import PipelineError
from state.journal import LOG_NAME
from state.rows import load_rows_with_nodes
from state.run import Run, try_locked

# The output of a node that is shown: the end of longer ones.
_MAX_OUTPUT = 2**16  # bytes
_OUTPUT = re.compile(r"(rows?[1-9][0-9]*)\.log", re.ASCII)


@dataclass(frozen=True)
class Entry:
    """A message about a run.

    Attributes:
        time: in seconds since 1970.
        source: ``run`` for the run's own log, ``job`` for HTCondor's events, ``result``
            and ``output`` for what a node sent.
        event: name of the event for programs; empty for results and output.
        message: the text. A job or an execution point may have written it.
        node: name of the DAG node; empty if it is about the run.
        attempt: which try of the node it is, from 1; None if that is not known.
    """

    time: float
    source: str
    event: str
    message: str
    node: str = ""
    attempt: int | None = None


@dataclass(frozen=True)
class Selection:
    """The rows and nodes of an image."""

    lines: Set[int]
    nodes: Set[str]


def selection(run: Run, image: str) -> Selection:
    """Return the rows of a run that have an image, and their nodes.

    Raises:
        PipelineError: no row has it.
    """
    lines: set[int] = set()
    nodes: set[str] = set()
    if run.rows_file.exists():
        for row, names in load_rows_with_nodes(run):
            if image in (row.key, *row.fields[:1]):
                lines.add(row.line)
                nodes.update(names)
    if not lines:
        raise PipelineError(
            f"no row of {run.directory.name} has the image {image}: name it as the "
            "manifest does"
        )
    return Selection(lines, nodes)


class RunLog:
    """The log entries of a run, also those that come later.

    Memory grows with the number of failed rows, not with that of all rows.
    """

    def __init__(self, run: Run, only: Selection | None = None) -> None:
        """Begin before the first entry.

        Args:
            only: the rows and nodes to take; None for all.
        """
        self._run = run
        self._only = only
        self._read: dict[Path, int] = {}
        self._histories: dict[Path, JobHistory] = {}
        self._outputs: dict[str, int] = {}
        # Results whose jobs have not ended yet according to HTCondor's log.
        self._results: dict[tuple[str, int | None], list[str]] = {}

    def new(self) -> Iterator[Entry]:
        """Yield the entries that were not yielded before, in order of time.

        Raises:
            SchedulerError: HTCondor's log cannot be read.
        """
        late = set(self._results)
        self._load_results()
        dagman = (log for log in self._job_logs() if log.name.endswith(".dagman.log"))
        nodes = (log for log in self._job_logs() if log.name.endswith(".nodes.log"))
        yield from heapq.merge(
            self._journal(),
            chain.from_iterable(map(self._dagman_events, dagman)),
            chain.from_iterable(map(self._node_events, nodes)),
            self._new_outputs(),
            key=attrgetter("time"),
        )
        # HTCondor's log says no more about these.
        for node, attempt in late & self._results.keys():
            yield from self._take_results(time.time(), node, attempt)

    def rest(self) -> Iterator[Entry]:
        """Yield the results of jobs whose end HTCondor's log does not have."""
        for node, attempt in list(self._results):
            yield from self._take_results(time.time(), node, attempt)

    def _lines(self, file: Path) -> Iterator[str]:
        """Yield the complete lines of a file that were not yielded before."""
        if not file.exists():
            return
        with file.open("rb") as content:
            content.seek(self._read.get(file, 0))
            for line in content:
                if not line.endswith(b"\n"):
                    return
                self._read[file] = self._read.get(file, 0) + len(line)
                yield line.decode("utf-8", "replace")

    def _journal(self) -> Iterator[Entry]:
        for line in self._lines(self._run.directory / LOG_NAME):
            try:
                saved = json.loads(line)
                at = datetime.fromisoformat(saved["time"]).timestamp()
                event, message = str(saved["event"]), str(saved["message"])
            except (ValueError, LookupError, TypeError):
                # A crash cut the line off.
                continue
            named = saved.get("lines") or [saved.get("line")]
            if self._only and named[0] and not self._only.lines & set(named):
                continue
            line_number = saved.get("line")
            place = f"line {line_number}: " if line_number else ""
            yield Entry(at, "run", event, place + message)

    def _job_logs(self) -> Iterator[Path]:
        for log in self._run.node_logs:
            yield log
            yield log.with_name(log.name.replace(".nodes.log", ".dagman.log"))

    def _history(self, log: Path) -> Iterator[JobEvent]:
        return self._histories.setdefault(log, JobHistory(log)).new()

    def _dagman_events(self, log: Path) -> Iterator[Entry]:
        for event in self._history(log):
            message = f"DAGMan, job {event.job}, {event.message}"
            yield Entry(event.time, "job", event.name, message)

    def _node_events(self, log: Path) -> Iterator[Entry]:
        for event in self._history(log):
            # The FINAL node has no job, although DAGMan writes events of one.
            is_final = event.job <= 0
            if is_final or (self._only and event.node not in self._only.nodes):
                continue
            message = f"job {event.job} {event.message}"
            node, attempt = event.node, event.attempt
            yield Entry(event.time, "job", event.name, message, node, attempt)
            if event.ended:
                for known in (attempt, None):
                    yield from self._take_results(event.time, node, known)

    def _take_results(
        self, at: float, node: str, attempt: int | None
    ) -> Iterator[Entry]:
        for message in self._results.pop((node, attempt), ()):
            yield Entry(at, "result", "", message, node, attempt)

    def _load_results(self) -> None:
        """Gather the results that are there, and keep those to be shown."""
        run = self._run
        if not run.done:
            with try_locked(run.directory) as is_locked:
                if is_locked:
                    results.gather(run)
        found: dict[int, list[tuple[int | None, str]]] = {}
        for line in self._lines(run.results_file):
            if (said := _result(line)) and self._is_shown(*said[:2]):
                number, _, attempt, message = said
                found.setdefault(number, []).append((attempt, message))
        if not found:
            return
        for row, nodes in load_rows_with_nodes(run):
            for attempt, message in found.get(row.line, ()) if nodes else ():
                # A row that is tried alone has no result of the job that it shared.
                messages = self._results.setdefault((nodes[-1], attempt), [])
                told = f"line {row.line}: {message}"
                # A result may have been gathered twice.
                if told not in messages:
                    messages.append(told)

    def _is_shown(self, line: int, ok: bool) -> bool:
        # Most rows succeed, and the event of their job says so.
        return line in self._only.lines if self._only else not ok

    def _new_outputs(self) -> Iterator[Entry]:
        """Return what nodes printed, where the file is new or has changed."""
        folder = self._run.logs_directory
        found: list[tuple[int, str]] = []
        with os.scandir(folder) as entries:
            for file in entries:
                name = _OUTPUT.fullmatch(file.name)
                if name and (not self._only or name[1] in self._only.nodes):
                    try:
                        at = file.stat(follow_symlinks=False).st_mtime_ns
                    except FileNotFoundError:
                        continue  # whoever gathers results removes those of successes
                    if self._outputs.get(name[1]) != at:
                        self._outputs[name[1]] = at
                        found.append((at, name[1]))
        for at, node in sorted(found):
            for line in _end_of(folder / f"{node}.log"):
                yield Entry(at / 1e9, "output", "", line, node)


def _result(line: str) -> tuple[int, bool, int | None, str] | None:
    """Return the row, success, try and message of a result; None if it is cut off."""
    try:
        saved = json.loads(line)
        # Earlier versions wrote it as "row".
        row = int(saved["line"] if "line" in saved else saved["row"])
        attempt = saved.get("attempt")
        attempt = attempt if isinstance(attempt, int) else None
        if saved["ok"] is True:
            seconds = float(saved.get("seconds") or 0)
            return row, True, attempt, f"converted in {seconds:.1f} s"
        why = f"{saved.get('code')}: {saved.get('reason')}"
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return None
    return row, False, attempt, why


def _end_of(file: Path) -> list[str]:
    """Return the last lines of a node's output; none if it is not a regular file."""
    try:
        # Do not follow links or wait for pipes.
        opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return []
    with os.fdopen(opened, "rb") as content:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode):
            return []
        content.seek(max(found.st_size - _MAX_OUTPUT, 0))
        text = content.read(_MAX_OUTPUT).decode("utf-8", "replace")
    return [line for line in text.splitlines() if line.strip()]
