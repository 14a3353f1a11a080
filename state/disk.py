"""How much room the disk of a launch has, and whether a run fits on it."""

import os
from dataclasses import dataclass
from pathlib import Path

from state.launch import Launch

MIN_FILES = 10_000
# How many times as large as its manifest a run directory becomes, by docs/scale.md.
_RUN_PER_MANIFEST = 20


@dataclass(frozen=True)
class Room:
    """What is free on a disk to an ordinary user.

    Attributes:
        files: how many more; None where there are enough.
    """

    bytes: int
    files: int | None

    def __str__(self) -> str:
        if self.files is not None:
            return f"{self.files} files"
        return f"{self.bytes / 1e9:.1f} GB"


def room_on(directory: Path) -> Room:
    found = os.statvfs(directory)
    # Some file systems do not count files, and say there are none.
    few_files = found.f_files > 0 and found.f_favail < MIN_FILES
    free = found.f_bavail * found.f_frsize
    return Room(free, found.f_favail if few_files else None)


def no_room_for_a_run(launch: Launch, manifest_size: int) -> str | None:
    """Return why the disk has no room for a run; None if it has.

    Args:
        manifest_size: in bytes.
    """
    if launch.disk_floor == 0:
        return None
    room = room_on(launch.directory)
    needed = launch.disk_floor + _RUN_PER_MANIFEST * manifest_size
    if room.bytes >= needed and room.files is None:
        return None
    return (
        f"the disk of {launch.directory} has room for {room} more, and a run begins "
        f"only where {needed / 1e9:.1f} GB and {MIN_FILES} files are free: make "
        "room there, or launch with another --disk-floor"
    )
