"""The record of the manifests for which polls could not start a run."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from state.files import write_atomically
from state.launch import Launch
from state.records import as_json, from_record


@dataclass(frozen=True)
class Postponed:
    """A manifest for which polls could not start a run.

    Attributes:
        why: the reason, for people.
        polls: how many polls in a row could not start one.
        seen: what identifies the object and its content; empty if it was not read.
    """

    why: str
    polls: int
    seen: str = ""


def load(launch: Launch) -> dict[str, Postponed]:
    """Return the postponed manifests of a launch, by key."""
    file = _file(launch)
    if not file.exists():
        return {}
    saved = json.loads(file.read_text())["manifests"]
    return {key: from_record(Postponed, record) for key, record in saved.items()}


class Postponements:
    """The record of a launch, during a poll."""

    def __init__(self, launch: Launch, waiting: Collection[str]) -> None:
        """Load the record, without manifests that no longer wait.

        Args:
            waiting: keys of the manifests that wait.
        """
        self._launch = launch
        self._before = load(launch)
        self._now = {key: self._before[key] for key in waiting if key in self._before}

    def seen(self, key: str) -> str:
        """Return what the poll before saw of a manifest; empty if it was not read."""
        return self._before[key].seen if key in self._before else ""

    def add(self, key: str, why: str, seen: str = "") -> None:
        """Record that this poll starts no run for a manifest."""
        polls = self._before[key].polls if key in self._before else 0
        self._now[key] = Postponed(why, polls + 1, seen)

    def remove(self, key: str) -> None:
        """Record that a manifest does not wait any more."""
        self._now.pop(key, None)

    def save(self) -> None:
        """Write the record, if it has changed."""
        if self._now != self._before:
            saved = {key: asdict(postponed) for key, postponed in self._now.items()}
            write_atomically(_file(self._launch), as_json({"manifests": saved}))


def _file(launch: Launch) -> Path:
    return launch.home / "postponed.json"
