"""A host: a separate machine, made of namespaces."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

_BOOT = Path(__file__).with_name("boot.sh")
# Prefix of a command that ends with the tests, however they end.
ENDS_WITH_TESTS = ("setpriv", "--pdeathsig", "KILL", "--")
_NAMESPACES = ("--net", "--mount", "--uts", "--ipc", "--pid")
_DEVICES = ("null", "zero", "full", "random", "urandom")
# Files of /etc that programs need and that do not describe the machine.
_COMMON = ("/etc/alternatives", "/etc/ssl", "/etc/ld.so.cache", "/etc/localtime")
_PLAIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# User ids on hosts, and so in the owners of their disks, which are directories here.
_USERS = {"root": 0, "condor": 64, "alice": 1000, "nobody": 65534}


class HostError(Exception):
    """A host did not start or a command on it failed."""


@dataclass(frozen=True)
class Mount:
    """A line of a host's ``/etc/fstab``."""

    source: str | Path
    target: str | Path
    type: str = "none"
    options: str = "bind,ro"

    def __str__(self) -> str:
        words = (self.source, self.target, self.type, self.options)
        escaped = (str(w).replace("\\", "\\134").replace(" ", "\\040") for w in words)
        return " ".join(escaped) + ",X-mount.mkdir 0 0\n"


def same(path: Path, options: str = "bind,ro") -> Mount:
    """Return a mount of a path of the real machine at the same place."""
    return Mount(path, path, options=options)


def without(programs: str) -> list[Mount]:
    """Return mounts that hide some programs of ``/usr`` from a host."""
    found = (
        program.resolve()
        for folder in ("/usr/bin", "/usr/local/bin")
        for program in Path(folder).glob(programs)
    )
    return [Mount("/dev/null", program) for program in sorted(set(found))]


def own_disk(
    target: str, mebibytes: int, user: str = "root", mode: str = "0755"
) -> Mount:
    """Return an empty disk of a limited size that is lost when the host is off."""
    owner = f"uid={_USERS[user]},gid={_USERS[user]}"
    return Mount("tmpfs", target, "tmpfs", f"size={mebibytes}m,mode={mode},{owner}")


class Host:
    """A host, on or off.

    Attributes:
        name: its host name, with the domain.
        disk: its root directory, seen from outside, but for what is mounted there.
    """

    def __init__(
        self, name: str, disk: Path, mounts: Sequence[Mount], search_path: str = ""
    ) -> None:
        """Create the disk.

        Args:
            mounts: besides those of every host.
            search_path: where it has programs besides the usual folders.
        """
        self.name = name
        self.disk = disk
        self._search_path = search_path
        self._init: int | None = None
        self._unshare: subprocess.Popen | None = None
        self._daemons: list[subprocess.Popen] = []
        _install(disk, name, mounts)

    @property
    def init(self) -> int:
        """Return the process id, outside, of the first process of the host."""
        if self._init is None:
            raise HostError(f"{self.name} is switched off")
        return self._init

    def switch_on(self) -> None:
        """Boot; the host has no network yet.

        Raises:
            HostError: the host did not start; the message says why.
        """
        log = self.disk / "var" / "log" / "boot.log"
        with log.open("a") as errors:
            self._unshare = subprocess.Popen(
                [
                    *ENDS_WITH_TESTS,
                    *("unshare", *_NAMESPACES, "--fork", "--kill-child", "--"),
                    *("sh", str(_BOOT), str(self.disk), self.name),
                ],
                env=self._environment("root"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        number = self._unshare.stdout.readline().strip()
        if not number:
            self._unshare.wait()
            raise HostError(f"{self.name} did not boot: {log.read_text().strip()}")
        self._init = int(number)

    def power_off(self) -> None:
        """End all processes at once, as when the plug is pulled."""
        if self._unshare is None:
            return
        if self._init is not None:
            os.kill(self._init, signal.SIGKILL)
        else:
            self._unshare.kill()
        for process in (self._unshare, *self._daemons):
            process.wait()
        self._daemons.clear()
        self._unshare.stdout.close()
        self._unshare = self._init = None

    def command(self, command: Sequence[str], user: str, directory: Path) -> list[str]:
        """Return the command here that runs ``command`` on the host."""
        return [
            *("nsenter", "--target", str(self.init)),
            *(*_NAMESPACES, "--"),
            *("setpriv", "--reuid", user, "--regid", user, "--init-groups", "--"),
            *("env", f"--chdir={directory}", *command),
        ]

    def run(
        self,
        *command: str,
        user: str = "root",
        directory: Path = Path("/"),
    ) -> str:
        """Run a command on the host, and return its output.

        Raises:
            HostError: the command failed.
        """
        done = subprocess.run(
            self.command(command, user, directory),
            env=self._environment(user),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            output = (done.stderr + done.stdout).strip()
            raise HostError(f"{command[0]} on {self.name}: {done.returncode}: {output}")
        return done.stdout

    def start(
        self,
        *command: str,
        user: str,
        log: Path,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Start a daemon on the host, which ends with it."""
        with log.open("ab") as output:
            daemon = subprocess.Popen(
                self.command(command, user, Path("/")),
                env=self._environment(user) | dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._daemons.append(daemon)

    def _environment(self, user: str) -> dict[str, str]:
        """Return the environment of a host, without that of the caller's shell."""
        return {
            "LANG": "C.UTF-8",
            "PATH": f"{self._search_path}:{_PLAIN_PATH}".lstrip(":"),
            "HOME": _home(user),
            "USER": user,
            "LOGNAME": user,
        }


def folder(path: Path, user: str = "root", mode: int = 0o755) -> Path:
    """Make a directory for a host, whatever the umask is here."""
    for missing in reversed([p for p in (path, *path.parents) if not p.exists()]):
        missing.mkdir()
        missing.chmod(0o755)
    path.chmod(mode)
    _give(path, user)
    return path


def file(
    path: Path, content: str | bytes = b"", user: str = "root", mode: int = 0o644
) -> Path:
    """Write a file for a host, whatever the umask is here."""
    path.touch()
    path.chmod(mode)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    _give(path, user)
    return path


def _give(path: Path, user: str) -> None:
    os.chown(path, _USERS[user], _USERS[user])


def why_not() -> str | None:
    """Return why this machine cannot have hosts; None if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts are namespaces that root makes on Linux: run the tests as root"
    make = (
        "import subprocess; from pyroute2 import IPRoute;"
        "subprocess.run(['mount', '-t', 'tmpfs', 'none', '/proc'], check=True);"
        "links = IPRoute(); links.link('add', ifname='a', kind='bridge');"
        "links.link('add', ifname='b', kind='veth', peer={'ifname': 'c'})"
    )
    tried = subprocess.run(
        ["unshare", *_NAMESPACES, "--fork", "--", sys.executable, "-c", make],
        capture_output=True,
        text=True,
    )
    if tried.returncode != 0:
        lines = tried.stderr.strip().splitlines()
        return (
            "this root may not make namespaces, mounts or network links "
            f"({lines[-1] if lines else 'no reason given'}): run the tests on a "
            "machine of its own, or in a container with more rights "
            "(docker run --privileged)"
        )
    return None


def _install(disk: Path, name: str, mounts: Sequence[Mount]) -> None:
    """Lay out a disk from which a host can boot."""
    for directory in ("etc", "dev", "proc", "sys", "run", "usr", "outside", "srv"):
        folder(disk / directory)
    folder(disk / "var" / "log")
    folder(disk / "root")
    system = [same(Path("/usr"))]
    for directory in ("bin", "sbin", "lib", "lib64"):
        real = Path("/", directory)
        if real.is_symlink():
            (disk / directory).symlink_to(real.readlink())
        elif real.exists():
            system.append(same(real))
    for common in (path for path in map(Path, _COMMON) if path.exists()):
        if common.is_dir():
            system.append(same(common))
        else:
            file(disk / common.relative_to("/"), common.read_bytes())
    for device in _DEVICES:
        file(disk / "dev" / device)
        system.append(same(Path("/dev", device), "bind"))
    system += [
        Mount("proc", "/proc", "proc", "nosuid"),
        Mount("sysfs", "/sys", "sysfs", "ro"),
        own_disk("/dev/shm", 64, mode="1777"),
        own_disk("/tmp", 64, mode="1777"),
        own_disk("/var/tmp", 64, mode="1777"),
    ]
    etc = disk / "etc"
    file(etc / "fstab", "".join(map(str, [*system, *mounts])))
    file(etc / "hostname", name + "\n")
    file(etc / "nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")
    entries = _USERS.items()
    file(etc / "group", "".join(f"{user}:x:{n}:\n" for user, n in entries))
    file(
        etc / "passwd",
        "".join(f"{user}:x:{n}:{n}::{_home(user)}:/bin/sh\n" for user, n in entries),
    )


def _home(user: str) -> str:
    return {"root": "/root", "alice": "/home/alice"}.get(user, "/")
