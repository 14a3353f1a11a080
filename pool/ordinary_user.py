"""HTCondor runs no jobs of root's: how root still runs a personal pool.

There are two ways, tried in this order; in both the files of root stay
readable and writable, so a clone in ``/root`` works:

1. a user namespace in which root appears as ``nobody``;
2. where namespaces are refused (most containers, a chroot), the user
   ``nobody`` itself, who keeps root's right to open files as a capability.
"""

import os
import pwd
import shutil
import subprocess
from functools import cache
from pathlib import Path

from pool.errors import PoolError
from state.ownership import POOL_USER

_NAMESPACE = ["unshare", "--user", "--map-user=nobody", "--map-group=nogroup", "--"]


def _drop_to_nobody() -> list[str]:
    nobody = pwd.getpwnam("nobody")
    capabilities = "+dac_override,+fowner,+chown"
    return [
        "setpriv",
        f"--reuid={nobody.pw_uid}",
        f"--regid={nobody.pw_gid}",
        "--clear-groups",
        f"--inh-caps={capabilities}",
        f"--ambient-caps={capabilities}",
        # Or access(2), by which HTCondor looks before it opens, knows of none.
        "--securebits=+no_setuid_fixup",
        "--",
    ]


def _works(prefix: list[str]) -> bool:
    if shutil.which(prefix[0]) is None:
        return False
    who = subprocess.run([*prefix, "id", "-u"], capture_output=True, text=True)
    return who.returncode == 0 and who.stdout.strip() not in ("", "0")


def gives_away() -> bool:
    """Return whether the pool runs as another user, who is given its files."""
    return command_prefix()[:1] == ["setpriv"]


def environment() -> dict[str, str]:
    """Return what commands need in their environment to trust what the pool writes."""
    if not gives_away():
        return {}
    return {POOL_USER: str(pwd.getpwnam("nobody").pw_uid)}


def give(directory: Path) -> None:
    """Make the pool's user the owner of a directory and of all that is in it.

    HTCondor reads its secrets from files of its own user alone. In a user
    namespace root's files are that already.
    """
    if not gives_away():
        return
    nobody = pwd.getpwnam("nobody")
    for path in (directory, *directory.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)


@cache
def command_prefix() -> list[str]:
    """What to write before a command so that it does not run as root.

    Empty for anyone but root.

    Raises:
        PoolError: this root can neither make a user namespace nor become
            another user.
    """
    if os.geteuid() != 0:
        return []
    for prefix in (_NAMESPACE, _drop_to_nobody()):
        if _works(prefix):
            return prefix
    raise PoolError(
        "HTCondor runs no jobs of root's, and this root may neither make a user "
        "namespace nor become another user: run this as an ordinary user, or "
        "give the container user namespaces (docker run --security-opt "
        "seccomp=unconfined)."
    )
