"""HTCondor and an S3 server on hosts."""

import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import jinja2

from bucket import S3Endpoint
from pool import s3
from pool.distribution import Distribution, find_or_fetch
from pool.s3 import S3Server
from state.project import PROJECT
from tests.hosts import hosts, network
from tests.hosts.hosts import Host, HostError, Mount
from tests.hosts.network import Switch

_CONFIG = Path(__file__).with_name("condor_config")
_DOMAIN = "hosts.test"
EXECUTE = "/var/lib/condor/execute"
_CERTIFICATES = "/etc/pool-certificates"
_PLAIN_PATH = "/usr/local/bin:/usr/bin:/bin"
_S3_PORT = 9443
_CPUS = 2
_READY_SECONDS = 60
# Options of condor_status that list the machines of a role.
_ASKED_BY = {"CentralManager": "-negotiator", "Submit": "-schedd", "Execute": "-startd"}


@dataclass(frozen=True)
class Software:
    """Software and limits of an execution point.

    Attributes:
        python: path of a Python environment with the node's packages; None if there
            is no Python at all.
        variables: environment variables that its administrator sets for jobs.
        disk: disk space for jobs, in MiB.
    """

    python: str | None
    variables: Mapping[str, str] = field(default_factory=dict)
    disk: int = 8192


ON_THE_PATH = Software("/opt/nodes", {"PATH": f"/opt/nodes/bin:{_PLAIN_PATH}"})
BY_ITS_NAME = Software(
    "/srv/conda/envs/rasters", {"PYTHON": "/srv/conda/envs/rasters/bin/python3"}
)
NO_PYTHON = Software(None)


@dataclass(frozen=True)
class Machine:
    """A host in the pool.

    Attributes:
        role: HTCondor's name for its task.
        number: number of its port at the switch and in its address.
        user: the user who runs its daemons.
    """

    host: Host
    role: str
    number: int
    user: str

    @property
    def logs(self) -> Path:
        return self.host.disk / "var" / "log" / "condor"


@dataclass(frozen=True)
class HostPool:
    """A running pool.

    Attributes:
        machines: the central manager, the access point, the execution points.
        directory: of alice's, to launch in; at the same path on the access point.
        store: the S3 server, with alice's keys.
    """

    switch: Switch
    machines: tuple[Machine, ...]
    directory: Path
    store: S3Endpoint

    @property
    def access_point(self) -> Machine:
        return self.machines[1]

    @property
    def execution_points(self) -> tuple[Machine, ...]:
        return self.machines[2:]

    def switch_on(self, machine: Machine) -> None:
        """Boot a machine that is off, and start its HTCondor."""
        machine.host.switch_on()
        self.switch.connect(machine.host, machine.number)
        _give_token(machine)
        machine.host.start(
            *("condor_master", "-f"),
            user=machine.user,
            environment={
                "X509_CERT_DIR": _CERTIFICATES,
                # Otherwise HTCondor retries a transfer to a full disk for minutes.
                "CONDOR_CURL_MAX_RETRY_ATTEMPTS": "2",
            },
            log=machine.logs / "master.out",
        )

    def power_off(self, machine: Machine) -> None:
        """Stop a machine at once."""
        # First, since the kernel would close its connections properly.
        self.switch.disconnect(machine.number)
        machine.host.power_off()

    def wait_for(self, *machines: Machine) -> None:
        """Wait until the central manager knows machines.

        Raises:
            HostError: it has not in time.
        """
        deadline = time.monotonic() + _READY_SECONDS
        for machine in machines:
            while machine.host.name not in self.heard_of(machine.role):
                if time.monotonic() > deadline:
                    raise HostError(
                        f"{machine.host.name} did not come into the pool in "
                        f"{_READY_SECONDS} s: look into {machine.logs}"
                    )
                time.sleep(0.5)

    def heard_of(self, role: str) -> set[str]:
        """Return the names of the machines of a role that the central manager knows."""
        asked = ("condor_status", _ASKED_BY[role], "-af", "Machine")
        central_manager = self.machines[0]
        try:
            names = central_manager.host.run(*asked, user=central_manager.user)
            return set(names.split())
        except HostError:
            # It does not know itself until its collector has started.
            return set()


@contextmanager
def running_pool(directory: Path, software: Sequence[Software]) -> Iterator[HostPool]:
    """Run a pool with an execution point for each of ``software``.

    In the ``with`` block this thread, and what it starts, is on the hosts' network.

    Raises:
        HostError, PoolError: it cannot be made.
    """
    distribution = find_or_fetch(print)
    directory = hosts.folder(directory.resolve())
    server = S3Server(hosts.folder(directory / "s3"), _S3_PORT, network.address(1))
    s3.configure(server, distribution.openssl)
    alice = hosts.folder(directory / "alice", "alice")
    with ExitStack() as stack:
        switch = Switch()
        stack.callback(switch.power_off)
        stack.enter_context(switch.plugged_in())
        stack.callback(s3.stop, server)
        s3.start(server, hosts.ENDS_WITH_TESTS)
        machines = _install(directory, distribution, server, software, alice)
        pool = HostPool(switch, machines, alice, _store_of_alice(server, alice))
        for machine in machines:
            stack.callback(machine.host.power_off)
            pool.switch_on(machine)
        pool.wait_for(*machines)
        yield pool


def _install(
    directory: Path,
    distribution: Distribution,
    server: S3Server,
    software: Sequence[Software],
    alice: Path,
) -> tuple[Machine, ...]:
    """Make the disks of the machines of a pool."""
    # Name, role, mounts and software of each host, in the order of the addresses.
    plans: dict[str, tuple[str, list[Mount], Software | None]] = {
        "central-manager": ("CentralManager", [], None),
        "access-point": ("Submit", _of_alice(alice), None),
    }
    for number, has in enumerate(software, start=1):
        plans[f"execution-{number}"] = ("Execute", _of_nodes(has), has)
    numbers = {name: number for number, name in enumerate(plans, start=2)}
    etc_hosts = "127.0.0.1 localhost\n" + "".join(
        f"{network.address(number)} {name}.{_DOMAIN} {name}\n"
        for name, number in numbers.items()
    )
    template = jinja2.Template(_CONFIG.read_text(), undefined=jinja2.StrictUndefined)
    signing_key = secrets.token_bytes(64)
    machines = []
    for name, (role, mounts, has) in plans.items():
        disk = hosts.folder(directory / name)
        host = Host(
            f"{name}.{_DOMAIN}",
            disk,
            [*_outside_usr(distribution.bin.parent), *mounts],
            distribution.search_path,
        )
        config = template.render(
            distribution=distribution,
            role=role,
            central_manager=f"central-manager.{_DOMAIN}",
            address=network.address(numbers[name]),
            domain=_DOMAIN,
            execute=EXECUTE,
            cpus=_CPUS,
            software=has,
        )
        user = "alice" if role == "Submit" else "condor"
        hosts.file(disk / "etc" / "hosts", etc_hosts)
        shutil.copytree(server.certificates, disk / _CERTIFICATES.lstrip("/"))
        _configure(disk, config, signing_key, user)
        machines.append(Machine(host, role, numbers[name], user))
    return tuple(machines)


def _configure(disk: Path, config: str, signing_key: bytes, user: str) -> None:
    condor = hosts.folder(disk / "etc" / "condor")
    hosts.file(condor / "condor_config", config)
    hosts.folder(condor / "tokens.d", user, mode=0o700)
    secrets_of_pool = hosts.folder(condor / "passwords.d", user, mode=0o700)
    hosts.file(secrets_of_pool / "POOL", signing_key, user, mode=0o600)
    for owned in ("lib/condor", "lib/condor/spool", "log/condor", "run/condor"):
        hosts.folder(disk / "var" / owned, user)


def _outside_usr(*paths: Path) -> list[Mount]:
    """Return the mounts of the real machine that a host sees besides ``/usr``."""
    return [hosts.same(path) for path in paths if not path.is_relative_to("/usr")]


def _of_alice(directory: Path) -> list[Mount]:
    """Return mounts of the project, of its Python, and of alice's directory."""
    mounts = _outside_usr(Path(sys.base_prefix), PROJECT, Path(sys.prefix))
    if directory.is_relative_to(PROJECT):
        # Hide the files of other tests, and those of this one that are not alice's.
        test_runs = PROJECT / directory.relative_to(PROJECT).parts[0]
        mounts.append(hosts.own_disk(str(test_runs), 1))
    return [*mounts, hosts.same(directory, "bind")]


def _of_nodes(software: Software) -> list[Mount]:
    """Return mounts of the nodes' Python, if any, and a disk for them."""
    mounts = [hosts.own_disk(EXECUTE, software.disk, "condor")]
    if software.python is None:
        return [*mounts, *hosts.without("python*")]
    python = Mount(Path(sys.prefix), software.python)
    return [*mounts, *_outside_usr(Path(sys.base_prefix)), python]


def _give_token(machine: Machine) -> None:
    """Make the machine's user known to the other machines."""
    token = machine.host.disk / "etc" / "condor" / "tokens.d" / "pool"
    if not token.exists():
        made = machine.host.run(
            *("condor_token_create", "-identity", f"{machine.user}@{_DOMAIN}"),
            user=machine.user,
        )
        hosts.file(token, made, machine.user, mode=0o600)


def _store_of_alice(server: S3Server, directory: Path) -> S3Endpoint:
    """Return the endpoint for alice, with copies of the keys that she owns."""
    keys = (
        hosts.file(directory / key.name, key.read_bytes(), "alice", mode=0o600)
        for key in (server.access_key, server.secret_key)
    )
    ca_certs = hosts.file(directory / "ca.pem", server.ca_certs.read_bytes())
    return S3Endpoint(server.endpoint, *keys, ca_certs=ca_certs)
