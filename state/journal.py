"""What happened: a sentence for people, and a JSON object a line for programs.

``log.jsonl`` in a run directory tells what happened to the run, the one in the
home of a launch what its polls did. Each line has

===========  ==============================================================
``time``     UTC, as ISO 8601 has it
``level``    ``info``, ``warning`` or ``error``
``event``    a name for programs, which stays
``message``  the sentence for people
===========  ==============================================================

and, where there are such, ``run``, ``manifest``, ``row``, ``attempt`` and what else
is known.
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
# When a launch's log is put aside for a new one: after months, as a rule.
_LARGE = 10 * 10**6
# Of a traceback: an error's own words may be as long as what it was made from.
_LAST_FRAMES = 100
_LONGEST_FRAME = 2000


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        name: a name for programs, which stays.
        message: a sentence for people.
        level: ``info``, ``warning`` or ``error``.
        facts: further fields of its line in the log.
    """

    name: str
    message: str
    level: str = "info"
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Journal:
    """Takes what there is to say.

    Attributes:
        terminal: takes each sentence for people.
        logs: the files that take each event; the last is the nearest.
        facts: what all its events share.
    """

    terminal: Callable[[str], None]
    logs: tuple[Path, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def say(self, event: str, message: str, level: str = "info", **facts: Any) -> None:
        """Tell people and all logs."""
        self.terminal(one_line(message))
        for log in self.logs:
            self._append(log, (self.line(event, message, level, **facts),))

    def record(self, event: Event) -> None:
        """Show an event to people, and add it to all logs."""
        self.say(event.name, event.message, event.level, **event.facts)

    def internal_error(self, error: Exception) -> str:
        """Write down where an error came from that nobody foresaw.

        Returns:
            What to say of it.
        """
        said = one_line(f"{type(error).__name__}: {error}")
        trace = _trace(error)
        line = self.line("internal-error", said, "error", traceback=trace)
        took = [log for log in self.logs if self._append(log, (line,))]
        try:
            where = took[-1] if took else _temporary(line)
        except OSError as refused:
            return f"internal error: {said}. Its traceback is lost: {refused}"
        return (
            f"internal error: {said}. The last line of {where} has the traceback; "
            "please report it to the developers"
        )

    def note(self, events: Iterable[str]) -> None:
        """Add what ``line`` made to the nearest log alone."""
        self._append(self.logs[-1], events)

    def line(self, event: str, message: str, level: str = "info", **facts: Any) -> str:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        told = {"time": now, "level": level, "event": event}
        told |= {"message": one_line(message)}
        known = {**self.facts, **facts}
        told |= {name: fact for name, fact in known.items() if fact is not None}
        return json.dumps(told, default=str) + "\n"

    def of_run(self, run: Run) -> "Journal":
        """A journal that also writes into the run's log."""
        known = {"run": run.directory.name, "manifest": run.manifest_key}
        logs = (*self.logs, run.directory / LOG_NAME)
        return replace(self, logs=logs, facts={**self.facts, **known})

    def _append(self, log: Path, lines: Iterable[str]) -> bool:
        try:
            with log.open("a") as file:
                file.writelines(lines)
        except OSError as error:
            # A run is not to fail because it cannot be written about.
            self.terminal(f"the log {log} cannot be written: {error.strerror}")
            return False
        return True


def journal_of(home: Path, terminal: Callable[[str], None]) -> Journal:
    """The journal of a launch; its log grows no further than twice ``_LARGE``."""
    log = home / LOG_NAME
    if log.exists() and log.stat().st_size > _LARGE:
        log.replace(home / _FORMER)
    return Journal(terminal, (log,))


def _trace(error: Exception) -> str:
    """Return an error's traceback without signatures, and of a long one the end."""
    frames = traceback.format_exception(error)[-_LAST_FRAMES:]
    return "".join(redact_signatures(frame, _LONGEST_FRAME) for frame in frames)


def _temporary(line: str) -> Path:
    """A new file in the system's temporary directory, with this in it."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="cog_pipeline-", suffix=".jsonl", delete=False
    ) as file:
        file.write(line)
    return Path(file.name)
