"""Check how much room the disk of a launch has, and whether a run fits on it."""

import os
from dataclasses import dataclass
from pathlib import Path

from state.launch import Launch

MIN_FILES = 10_000
# The size of a run directory, as a multiple of its manifest. docs/scale.md has the
# figures.
_RUN_PER_MANIFEST = 20


@dataclass(frozen=True)
class Room:
    """The room on a disk that ordinary users can use.

    Attributes:
        bytes: free bytes.
        files: number of files that can still be created; None if there is room for
            MIN_FILES.
    """

    bytes: int
    files: int | None

    def __str__(self) -> str:
        if self.files is not None:
            return f"{self.files} files"
        return f"{self.bytes / 1e9:.1f} GB"


def room_on(directory: Path) -> Room:
    """Return the room on the disk of a directory."""
    disk = os.statvfs(directory)
    # Some file systems do not count files, and report 0.
    too_few_files = disk.f_files > 0 and disk.f_favail < MIN_FILES
    free = disk.f_bavail * disk.f_frsize
    return Room(free, disk.f_favail if too_few_files else None)


def no_room_for_a_run(launch: Launch, manifest_size: int) -> str | None:
    """Return why the disk has no room for a run; None if it has.

    Args:
        manifest_size: size of the manifest, in bytes.
    """
    if launch.disk_floor == 0:
        return None
    room = room_on(launch.directory)
    needed = launch.disk_floor + _RUN_PER_MANIFEST * manifest_size
    if room.bytes >= needed and room.files is None:
        return None
    return (
        f"the disk of {launch.directory} has room for {room} more, and a run starts "
        f"only where {needed / 1e9:.1f} GB and {MIN_FILES} files are free: make "
        "room there, or launch with another --disk-floor"
    )
