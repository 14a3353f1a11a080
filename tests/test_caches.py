"""The pipeline does not use programs that other users can change."""

import hashlib
import json
import os
import platform
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pack import packed
from pack.errors import PackError
from pool import personal
from pool.distribution import find_or_fetch
from pool.errors import PoolError
from state import cache
from state.project import PROJECT

_NOBODY = 65534


def open_to_all(path: Path) -> str:
    path.chmod(path.stat().st_mode | 0o022)
    return f"other users can write {path}: chmod go-w {path}"


def open_to_a_group(path: Path) -> str:
    os.chown(path, -1, _other_group())
    path.chmod(path.stat().st_mode | 0o020)
    return f"other users can write {path}: chmod go-w {path}"


def give_to_another(path: Path) -> str:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    os.chown(path, _NOBODY, -1)
    return f"{path} belongs to another user"


def _other_group() -> int:
    """Return a group that may have other members than this user."""
    if os.geteuid() == 0:
        return _NOBODY
    for group in os.getgroups():
        if group != os.getgid():
            return group
    pytest.skip("this user is in no second group")


Spoil = Callable[[Path], str]
in_each_way = pytest.mark.parametrize(
    "spoil", [open_to_all, open_to_a_group, give_to_another]
)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "cog_pipeline"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(scope="session")
def node() -> Path:
    return packed.find_or_make(print)


@pytest.fixture
def cached_node(node: Path, own_cache: Path) -> Path:
    """Copy the packed node into a cache of the test's own."""
    copy = own_cache / node.parent.name / node.name
    copy.parent.mkdir(mode=0o700)
    shutil.copy(node, copy)
    return copy


@in_each_way
@pytest.mark.parametrize("which", ["the cache", "its folder", "itself"])
def test_a_packed_node_that_others_can_change_is_not_sent(
    cached_node: Path, which: str, spoil: Spoil
):
    folder = cached_node.parent
    assert packed.find_or_make(print) == cached_node
    paths = {"the cache": folder.parent, "its folder": folder, "itself": cached_node}
    message = spoil(paths[which])
    with pytest.raises(PackError) as raised:
        packed.find_or_make(print)
    assert message in str(raised.value)


@pytest.fixture
def htcondor(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the folders of a fetched HTCondor, which are checked before it is run."""
    monkeypatch.setenv("POOL_SUITE", "trial")
    prefix = own_cache / f"htcondor-trial-{platform.machine()}"
    for folder in ("bin", "sbin", "libexec", "lib"):
        (prefix / folder).mkdir(mode=0o755, parents=True)
    prefix.chmod(0o755)
    return prefix


@in_each_way
@pytest.mark.parametrize("which", ["..", ".", "bin", "sbin", "libexec", "lib"])
def test_an_htcondor_that_others_can_change_is_not_run(
    htcondor: Path, which: str, spoil: Spoil
):
    assert find_or_fetch(print).sbin == htcondor / "sbin"
    message = spoil(Path(os.path.normpath(htcondor / which)))
    with pytest.raises(PoolError) as raised:
        find_or_fetch(print)
    assert message in str(raised.value)


@pytest.fixture
def stopped_pool(tmp_path: Path) -> Path:
    """Make the files of a stopped pool, which are checked before anything is run."""
    directory = tmp_path / "pool"
    for folder in (directory, directory / "s3", directory / "condor"):
        folder.mkdir(mode=0o700)
    programs = dict.fromkeys(("bin", "sbin", "libexec", "lib", "openssl"), "/usr/bin")
    for name, content in (("programs.json", json.dumps(programs)), ("s3-port", "1")):
        (directory / name).touch(mode=0o600)
        (directory / name).write_text(content)
    return directory


@in_each_way
@pytest.mark.parametrize("which", [".", "programs.json", "s3-port", "s3"])
def test_a_pool_that_others_can_change_is_not_used(
    stopped_pool: Path, which: str, spoil: Spoil
):
    assert not personal.existing_pool(stopped_pool).running
    message = spoil(stopped_pool / which)
    with pytest.raises(PoolError) as raised:
        personal.existing_pool(stopped_pool)
    assert message in str(raised.value)


@in_each_way
def test_no_pool_is_started_where_others_can_change_it(
    stopped_pool: Path, spoil: Spoil
):
    message = spoil(stopped_pool)
    with (
        pytest.raises(PoolError) as raised,
        personal.running_pool(stopped_pool, print),
    ):
        pass
    assert message in str(raised.value)


def test_folders_of_the_cache_are_private_whatever_the_umask_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / "cache"))
    before = os.umask(0)
    try:
        assert cache.why_not() is None
    finally:
        os.umask(before)
    for folder in ("home", "home/cache", "home/cache/cog_pipeline"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700, folder


def test_packages_without_a_signature_are_not_unpacked(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """apt refuses them even if the machine's settings allow them."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("this machine has no apt-get or no dpkg-deb")
    settings = tmp_path / "apt.conf"
    settings.write_text(
        'APT::Get::AllowUnauthenticated "true";\n'
        'Acquire::AllowInsecureRepositories "true";\n'
        # The machine's own sources need the network.
        'Dir::Etc::sourcelist "/dev/null";\n'
        'Dir::Etc::sourceparts "-";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(settings))
    monkeypatch.setenv("POOL_SUITE", "trial")
    monkeypatch.setenv("POOL_MIRROR", f"file:{_unsigned_mirror(tmp_path / 'mirror')}")
    with pytest.raises(PoolError, match="unauthenticated packages"):
        find_or_fetch(print)
    assert list(own_cache.iterdir()) == []


def _unsigned_mirror(mirror: Path) -> Path:
    """Make a Debian mirror whose suite ``trial`` has packages but no signature."""
    processor = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()
    index = mirror / "dists" / "trial" / "main" / f"binary-{processor}"
    index.mkdir(parents=True)
    paragraphs = []
    for name in ("condor", "openssl"):
        control = (
            f"Package: {name}\nVersion: 1\nArchitecture: all\n"
            "Maintainer: nobody <nobody@example.org>\nDescription: for a test\n"
        )
        source = mirror / name / "DEBIAN"
        source.mkdir(parents=True)
        (source / "control").write_text(control)
        package = mirror / f"{name}.deb"
        subprocess.run(
            ["dpkg-deb", "--build", source.parent, package],
            capture_output=True,
            check=True,
        )
        content = package.read_bytes()
        paragraphs.append(
            f"{control}Filename: {package.name}\nSize: {len(content)}\n"
            f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
        )
    (index / "Packages").write_text("\n".join(paragraphs))
    return mirror


def test_the_node_is_packed_without_the_personal_pool():
    """An access point lacks the packages of the pool, and does not need it."""
    for module in (PROJECT / "pack").glob("*.py"):
        assert "from pool" not in module.read_text(), module
