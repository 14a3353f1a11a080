"""The record of the run that another run waits for."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from state.records import from_record
from state.run import Run

# If an access point is gone for good, its runs never end.
MAX_WAIT = timedelta(days=7)


@dataclass(frozen=True)
class Waiting:
    """The reason why a run is not submitted yet.

    Attributes:
        key: key of the manifest of the run that it waits for.
        etag: ETag of that manifest.
        since: when it began to wait, for this run or another one, in ISO 8601.
    """

    key: str
    etag: str
    since: str

    @property
    def duration(self) -> timedelta:
        """How long the run has waited."""
        return datetime.now(UTC) - datetime.fromisoformat(self.since)


def waiting(run: Run) -> Waiting | None:
    """Return which run a run waits for; None if it does not wait."""
    if not run.waiting_file.exists():
        return None
    return from_record(Waiting, json.loads(run.waiting_file.read_text()))
