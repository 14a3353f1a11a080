"""Read from DAGMan's messages which jobs HTCondor refused."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from state.text import one_line

# Longer lines contain text of others, and are no message that is looked for.
_MAX_LINE = 4000  # characters
_TIME = re.compile(r"\d\d/\d\d/\d\d \d\d:\d\d:\d\d (.*)", re.DOTALL)
_TRY = re.compile(r"Submitting HTCondor Node (\w+) job\(s\)")
_REASON = re.compile(
    r"(?:Failed to submit job \w+: (?:SCHEDD:\d+:)?|submit error: (?:Submit:-?\d+:)?|"
    r"ERROR: on Line \d+ of submit file: )(.*)",
    re.DOTALL,
)
_GIVEN_UP = re.compile(r"Shortcutting node (\w+) retries because of submit failure")
# DAGMan writes this if the schedd did not accept the job, or could not make a job from
# the description. For a limit, or if the schedd is away, it writes something else or
# nothing.
_FOR_GOOD = re.compile(r"Failed to submit job \w+: |.*failed to create job classad")
_LIMIT = re.compile(r"would exceed MAX_JOBS|Schedd says -")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A node whose job HTCondor did not accept.

    Attributes:
        reason: HTCondor's message; empty if it gave none.
        for_good: whether it would refuse another job like this, too.
    """

    reason: str
    for_good: bool


def refusals(log: Path) -> dict[str, Refusal]:
    """Return the nodes for which DAGMan could not submit a job, by name.

    Nodes whose jobs were accepted later are left out. The log contains texts of
    execution points too, but never at the beginning of a message.
    """
    refused: dict[str, Refusal] = {}
    reason, for_good = "", False
    for message in _messages(log):
        if tried := _TRY.match(message):
            # DAGMan may have been restarted, and then tries all nodes again.
            refused.pop(tried[1], None)
            reason, for_good = "", False
        elif given_up := _GIVEN_UP.match(message):
            refused[given_up[1]] = Refusal(one_line(reason), for_good)
        elif part := _REASON.match(message):
            reason = f"{reason} {part[1]}".strip()
            for_good = _FOR_GOOD.match(message) is not None or for_good
            for_good = for_good and not _LIMIT.search(message)
    return refused


def _messages(log: Path) -> Iterator[str]:
    """Yield the messages of a log, without their times."""
    if not log.exists():
        return
    with log.open(errors="replace") as file:
        while line := file.readline(_MAX_LINE):
            if message := _TIME.match(line):
                yield message[1]
