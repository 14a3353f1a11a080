"""Which other run a run waits for, as its directory records it."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from state.records import from_record
from state.run import Run

# An access point that is gone for good ends no run.
MAX_WAIT = timedelta(days=7)


@dataclass(frozen=True)
class Waiting:
    """Why a run is not submitted yet.

    Attributes:
        key: of the manifest of the run that it waits for.
        etag: of the same.
        since: when it began to wait, for this or another one, in ISO 8601.
    """

    key: str
    etag: str
    since: str

    @property
    def duration(self) -> timedelta:
        return datetime.now(UTC) - datetime.fromisoformat(self.since)


def waiting(run: Run) -> Waiting | None:
    """Return why a run waits; None if it does not."""
    if not run.waiting_file.exists():
        return None
    return from_record(Waiting, json.loads(run.waiting_file.read_text()))
