"""The record of when a poll of a launch last succeeded."""

from datetime import UTC, datetime

from state.files import write_atomically
from state.launch import Launch


def record_heartbeat(launch: Launch) -> None:
    """Record that a poll has just succeeded."""
    write_atomically(launch.heartbeat_file, datetime.now(UTC).isoformat() + "\n")
