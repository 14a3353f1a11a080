"""Only locked versions with their hashes are installed."""

import hashlib
import os
import re
import shutil
import subprocess
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from state.project import PROJECT

GROUPS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["dependency-groups"]
LOCKS = {path.stem: path for path in (PROJECT / "locks").glob("*.txt")} | {
    "node": PROJECT / "container" / "requirements.txt"
}
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PROCESSORS = ("x86_64", "aarch64")
WHEEL = "trial-1.0-py3-none-any.whl"


@dataclass(frozen=True)
class Locked:
    """A package of a lock file, in one version."""

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        (only,) = self.requirement.specifier
        assert only.operator == "==", self.requirement
        return only.version


def read(lock: Path) -> Iterator[Locked]:
    text = re.sub(r"\\\n\s*", "", lock.read_text())
    for line in text.splitlines():
        if line and not line.lstrip().startswith(("#", "--only-binary")):
            required, *hashes = line.split("--hash=")
            yield Locked(
                Requirement(required.strip()),
                tuple(digest.strip() for digest in hashes),
            )


def requirements_of(group: str) -> Iterator[Requirement]:
    for line in GROUPS[group]:
        if isinstance(line, dict):
            yield from requirements_of(line["include-group"])
        else:
            yield Requirement(line)


def applies(requirement: Requirement, python: str, processor: str) -> bool:
    machine = default_environment() | {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": processor,
    }
    return requirement.marker is None or requirement.marker.evaluate(machine)


def test_every_environment_of_make_and_of_the_images_is_locked():
    makefile = (PROJECT / "Makefile").read_text()
    environments = set(re.findall(r"\.venv/ready-(\w+)", makefile))
    assert {"demo", "test", "bench", "scale"} <= environments
    assert LOCKS.keys() == environments | {"catalog", "conda", "node"}
    (groups,) = re.findall(r"for group in ([\w ]+);", makefile)
    assert LOCKS.keys() == {*groups.split(), "node"}


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("group", sorted(LOCKS))
def test_a_lock_has_every_requirement_of_pyproject(
    group: str, python: str, processor: str
):
    packages = [
        package
        for package in read(LOCKS[group])
        if applies(package.requirement, python, processor)
    ]
    versions = {package.name: package.version for package in packages}
    assert len(versions) == len(packages), "a package has two versions"
    for requirement in requirements_of(group):
        if applies(requirement, python, processor):
            version = versions.get(canonicalize_name(requirement.name))
            assert version, f"{requirement.name} is not in the lock: run 'make locks'"
            is_met = requirement.specifier.contains(version)
            assert is_met, f"{requirement}: run 'make locks'"


@pytest.mark.parametrize("group", sorted(LOCKS))
def test_each_package_of_a_lock_has_hashes_and_no_address(group: str):
    text = LOCKS[group].read_text()
    assert "make locks" in text.partition("\n--only-binary :all:\n")[0]
    assert not re.search(r"://|@|--(extra-)?index|--find-links|--trusted|/\w+/", text)
    packages = list(read(LOCKS[group]))
    assert packages
    for package in packages:
        assert package.hashes, package.requirement
        for digest in package.hashes:
            assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest), package.requirement


def test_all_locks_agree_on_a_version():
    """Two groups may be installed in one environment, which has one version."""
    versions: dict[tuple[str, str], str] = {}
    for lock in LOCKS.values():
        for package in read(lock):
            key = package.name, str(package.requirement.marker)
            version = versions.setdefault(key, package.version)
            assert package.version == version, f"{package.name}: run 'make locks'"


@pytest.fixture
def trial(tmp_path: Path) -> Path:
    """Make a project that needs one package, and the wheel of that package."""
    project = tmp_path / "project"
    for folder in ("pool", "locks"):
        (project / folder).mkdir(parents=True)
    shutil.copy(PROJECT / "pool" / "make_environment.sh", project / "pool")
    write_wheel(project, "print('the locked version')\n")
    return project


def lock(project: Path) -> None:
    """Write a lock with the hash of the current wheel."""
    content = (project / WHEEL).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    line = f"trial==1.0 --hash=sha256:{digest}\n"
    (project / "locks" / "trial.txt").write_text(line)


def write_wheel(folder: Path, code: str) -> None:
    metadata = "trial-1.0.dist-info"
    files = {
        "trial.py": code,
        f"{metadata}/METADATA": "Metadata-Version: 2.1\nName: trial\nVersion: 1.0\n",
        f"{metadata}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    files[f"{metadata}/RECORD"] = "".join(f"{name},,\n" for name in files)
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)


def make_environment(project: Path) -> subprocess.CompletedProcess:
    """Run the script that make runs, with only the packages of the folder."""
    settings = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(project),
    }
    return subprocess.run(
        ["sh", project / "pool" / "make_environment.sh", "trial"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )


def test_only_the_locked_wheel_of_a_package_is_installed(trial: Path):
    def is_installed() -> bool:
        modules = list(trial.glob(".venv/lib/*/site-packages/trial.py"))
        assert (trial / ".venv" / "ready-trial").exists() == bool(modules)
        return bool(modules)

    lock(trial)
    write_wheel(trial, "print('something else')\n")
    result = make_environment(trial)
    assert result.returncode != 0
    assert "DO NOT MATCH THE HASHES" in result.stderr
    assert not is_installed()

    (trial / "locks" / "trial.txt").write_text("trial==1.0\n")
    result = make_environment(trial)
    assert result.returncode != 0
    assert "Hashes are required" in result.stderr
    assert not is_installed()

    lock(trial)
    result = make_environment(trial)
    assert result.returncode == 0, result.stderr
    assert is_installed()
