"""Report events: a sentence for people, and a JSON object a line for programs.

``log.jsonl`` in a run directory lists what happened to the run. The one in the folder
of a launch lists what its polls did. Each line has

===========  ==============================================================
``time``     UTC, as ISO 8601 has it
``level``    ``info``, ``warning`` or ``error``
``event``    a stable name, for programs
``message``  the sentence for people
===========  ==============================================================

and may have ``run``, ``manifest``, ``line``, ``attempt`` and other facts.
"""

import json
import tempfile
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from state.run import Run
from state.text import one_line, redact_signatures

LOG_NAME = "log.jsonl"
_FORMER = "log.1.jsonl"
# The size at which a launch's log is renamed and a new one started: after months, as a
# rule.
_MAX_LOG = 10 * 10**6  # bytes
# Limits of a traceback, since an error's message may be of any length.
_MAX_FRAMES = 100
_MAX_FRAME = 2000  # characters


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        name: stable name, for programs.
        message: sentence for people.
        level: ``info``, ``warning`` or ``error``.
        facts: further fields of its line in the log.
    """

    name: str
    message: str
    level: str = "info"
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Journal:
    """Shows events to people, and adds them to logs.

    Attributes:
        terminal: function that shows a sentence to people.
        logs: files to which each event is added; the last one is the most specific.
        facts: fields of all events.
    """

    terminal: Callable[[str], None]
    logs: tuple[Path, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def say(self, event: str, message: str, level: str = "info", **facts: Any) -> None:
        """Show a message to people, and add the event to all logs."""
        self.terminal(one_line(message))
        for log in self.logs:
            self._append(log, (self.line(event, message, level, **facts),))

    def record(self, event: Event) -> None:
        """Show an event to people, and add it to all logs."""
        self.say(event.name, event.message, event.level, **event.facts)

    def internal_error(self, error: Exception) -> str:
        """Log an unexpected error with its traceback; return the message for people."""
        message = one_line(f"{type(error).__name__}: {error}")
        trace = _trace(error)
        line = self.line("internal-error", message, "error", traceback=trace)
        written = [log for log in self.logs if self._append(log, (line,))]
        try:
            where = written[-1] if written else _temporary(line)
        except OSError as refused:
            return f"internal error: {message}. Its traceback is lost: {refused}"
        return (
            f"internal error: {message}. The last line of {where} has the traceback; "
            "please report it to the developers"
        )

    def note(self, events: Iterable[str]) -> None:
        """Add events, as ``line`` returns them, to the most specific log only."""
        self._append(self.logs[-1], events)

    def line(self, event: str, message: str, level: str = "info", **facts: Any) -> str:
        """Return the line of a log for an event; facts that are None are left out."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        record = {"time": now, "level": level, "event": event}
        record |= {"message": one_line(message)}
        all_facts = {**self.facts, **facts}
        record |= {name: fact for name, fact in all_facts.items() if fact is not None}
        return json.dumps(record, default=str) + "\n"

    def of_run(self, run: Run) -> "Journal":
        """Return a journal that also writes into the run's log."""
        run_facts = {"run": run.directory.name, "manifest": run.manifest_key}
        logs = (*self.logs, run.directory / LOG_NAME)
        return replace(self, logs=logs, facts={**self.facts, **run_facts})

    def _append(self, log: Path, lines: Iterable[str]) -> bool:
        try:
            with log.open("a") as file:
                file.writelines(lines)
        except OSError as error:
            # A run must not fail because its log cannot be written.
            self.terminal(f"the log {log} cannot be written: {error.strerror}")
            return False
        return True


def journal_of(home: Path, terminal: Callable[[str], None]) -> Journal:
    """Return the journal of a launch.

    Its log and the former log have about ``_MAX_LOG`` bytes each at most.
    """
    log = home / LOG_NAME
    if log.exists() and log.stat().st_size > _MAX_LOG:
        log.replace(home / _FORMER)
    return Journal(terminal, (log,))


def _trace(error: Exception) -> str:
    """Return the end of an error's traceback, without signatures."""
    frames = traceback.format_exception(error)[-_MAX_FRAMES:]
    return "".join(redact_signatures(frame, _MAX_FRAME) for frame in frames)


def _temporary(line: str) -> Path:
    """Write a line to a new temporary file, and return its path."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="cog_pipeline-", suffix=".jsonl", delete=False
    ) as file:
        file.write(line)
    return Path(file.name)
