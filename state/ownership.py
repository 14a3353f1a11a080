"""Find out which other users can change a file or a folder.

Files that the pipeline reads back from disk (settings, runs, programs in a cache)
decide which keys are used and which programs run. So they are trusted only if nobody
but the operator and root can have written them.
"""

import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_ROOT = 0
_ACL = "system.posix_acl_access"
# The user of a personal pool that root started, if the pool runs as another user.
POOL_USER = "COG_PIPELINE_POOL_USER"


def faults(path: Path) -> Iterator[str]:
    """Yield why another user can change or replace ``path``, and the remedy.

    Inspect ``path`` and each folder above it. Inspect both a link and its target. In a
    folder with the sticky bit, such as ``/tmp``, users cannot replace each other's
    entries. So a folder above may be writable if it has that bit, but ``path`` may not.

    Raises:
        OSError: ``path`` does not exist or cannot be inspected.
    """
    path = Path(os.path.abspath(path))
    for folder in reversed(path.parents):
        yield from _faults_of(folder, folder.lstat(), sticky_is_safe=True)
        if folder.is_symlink():
            yield from faults(folder.resolve(strict=True))
    yield from _faults_of(path, path.lstat())


def faults_within(folder: Path) -> Iterator[str]:
    """Yield why another user can change the entries of a folder, and the remedy.

    A file with a second name (a hard link) can be changed under that name. The
    pipeline makes no symbolic links either, but an execution point can make HTCondor
    create one.

    In a folder that nobody else can enter, an entry that all users may write is safe.
    HTCondor creates some logs with such a mode.

    Raises:
        OSError: the folder cannot be read.
    """
    entered_by_others = stat.S_IMODE(folder.lstat().st_mode) & 0o011
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # its process has renamed or removed it since
            path = Path(entry.path)
            if stat.S_ISLNK(found.st_mode):
                yield f"{path} is a link, which the pipeline never makes: remove it"
            elif stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
                yield f"{path} has a second name elsewhere: replace it by a copy"
            elif entered_by_others:
                yield from _faults_of(path, found)
            else:
                yield from _wrong_owner(path, found)


def _faults_of(
    path: Path, found: os.stat_result, *, sticky_is_safe: bool = False
) -> Iterator[str]:
    yield from _wrong_owner(path, found)
    if stat.S_ISLNK(found.st_mode):
        return  # the mode of a link has no effect
    if sticky_is_safe and found.st_mode & stat.S_ISVTX:
        return
    by_group = found.st_mode & stat.S_IWGRP and (
        not _is_own_group(found.st_gid) or _others_are_listed(path)
    )
    if by_group or found.st_mode & stat.S_IWOTH:
        yield f"other users can write {path}: chmod go-w {shlex.quote(str(path))}"


def _wrong_owner(path: Path, found: os.stat_result) -> Iterator[str]:
    trusted = {str(_ROOT), str(os.geteuid()), os.environ.get(POOL_USER)}
    if str(found.st_uid) not in trusted:
        yield (
            f"{path} belongs to another user ({_user_name(found.st_uid)}), who can "
            "change it: use one of your own"
        )


def _others_are_listed(path: Path) -> bool:
    """Return whether a path has an access control list.

    If it has one, its group permissions are the maximum for all users in the list.
    """
    try:
        return bool(os.getxattr(path, _ACL, follow_symlinks=False))
    except OSError:
        # It has none, or its file system does not support them.
        return False


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


@cache
def _is_own_group(number: int) -> bool:
    """Return whether a group is the private group of this user.

    Many systems give each user except root a group of the same name with no other
    member, and make new files writable by that group.
    """
    if number == 0:
        return False
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(number)
    except KeyError:
        return False
    sharing = {other.pw_name for other in pwd.getpwall() if other.pw_gid == number}
    members = {*group.gr_mem, *sharing}
    return group.gr_name == user.pw_name and members <= {user.pw_name}
