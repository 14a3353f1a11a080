"""Run a personal pool as root, although HTCondor runs no jobs of root.

There are two ways, tried in this order. With both, the pool can still read and write
root's files, so that a clone in ``/root`` works:

1. A user namespace in which root appears as ``nobody``.
2. Where namespaces are refused (most containers, a chroot), the user ``nobody``
   itself, who keeps root's right to open files as a capability.
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
        # HTCondor calls access(2) before it opens a file, and access(2) takes these
        # capabilities into account only with this setting.
        "--securebits=+no_setuid_fixup",
        "--",
    ]


def _works(prefix: list[str]) -> bool:
    """Return whether a command with this prefix runs, and does not run as root."""
    if shutil.which(prefix[0]) is None:
        return False
    result = subprocess.run([*prefix, "id", "-u"], capture_output=True, text=True)
    return result.returncode == 0 and result.stdout.strip() not in ("", "0")


def gives_away() -> bool:
    """Return whether the pool runs as another user, who must own its files."""
    return command_prefix()[:1] == ["setpriv"]


def environment() -> dict[str, str]:
    """Return the variables by which commands trust files that the pool writes."""
    if not gives_away():
        return {}
    return {POOL_USER: str(pwd.getpwnam("nobody").pw_uid)}


def give(directory: Path) -> None:
    """Make the pool's user the owner of a directory and of everything in it.

    HTCondor reads secrets only from files that its own user owns. In a user
    namespace, that is already true of root's files.
    """
    if not gives_away():
        return
    nobody = pwd.getpwnam("nobody")
    for path in (directory, *directory.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)


@cache
def command_prefix() -> list[str]:
    """Return the words to put before a command so that it does not run as root.

    The list is empty for an ordinary user.

    Raises:
        PoolError: this root can neither make a user namespace nor become another
            user.
    """
    if os.geteuid() != 0:
        return []
    for prefix in (_NAMESPACE, _drop_to_nobody()):
        if _works(prefix):
            return prefix
    raise PoolError(
        "HTCondor runs no jobs of root, and this root can neither make a user "
        "namespace nor become another user: run the command as an ordinary user, or "
        "allow user namespaces in the container (docker run --security-opt "
        "seccomp=unconfined)."
    )
