"""The files about the project keep step with each other."""

import re
import tomllib

import yaml
from packaging.requirements import Requirement

from tests.conftest import PROJECT

PYTHON = "3.12"


def test_the_conda_environment_names_what_pyproject_names():
    groups = tomllib.loads((PROJECT / "pyproject.toml").read_text())[
        "dependency-groups"
    ]
    wanted = {
        line.partition(";")[0].strip()
        for line in groups["access-point"] + groups["node"]
        # Of the lines for one Python or another, that of the environment's.
        if "python_version >= '3.14'" not in line
    }

    environment = yaml.safe_load((PROJECT / "environment.yml").read_text())

    assert environment["name"] == "cog_pipeline"
    assert f"python={PYTHON}" in environment["dependencies"]
    (by_pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert set(by_pip) == wanted


def test_every_template_is_rendered_by_some_module():
    code = "\n".join(
        path.read_text()
        for path in [*PROJECT.glob("dag/*.py"), *PROJECT.glob("pool/*.py")]
    )
    for template in (PROJECT / "templates").iterdir():
        assert f'"{template.name}"' in code


def test_every_command_of_the_readme_exists():
    readme = (PROJECT / "README.md").read_text()
    targets = re.findall(r"^(\w+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"\bmake (\w+)$", readme, re.MULTILINE):
        assert target in targets
    for file in re.findall(r"\(((?:docs/)?[\w-]+\.(?:md|sub))\)", readme):
        assert (PROJECT / file).exists()


def test_the_images_install_what_a_node_needs_each_in_one_version():
    lines = (PROJECT / "container" / "requirements.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    groups = tomllib.loads((PROJECT / "pyproject.toml").read_text())[
        "dependency-groups"
    ]
    for line in groups["node"]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(pinned[wanted.name]), line


def test_the_images_are_made_in_the_same_way():
    docker = (PROJECT / "container" / "Dockerfile").read_text()
    apptainer = (PROJECT / "container" / "apptainer.def").read_text()
    bases = [re.search(r"^FROM (\S+)", docker, re.MULTILINE)[1]]
    bases += [re.search(r"^From: (\S+)", apptainer, re.MULTILINE)[1]]
    assert bases[0] == bases[1]
    assert re.fullmatch(rf"\S+/python:{re.escape(PYTHON)}\.\d+-slim-\w+", bases[0])
    for command in (
        "apt-get install --yes --no-install-recommends libexpat1",
        "pip install --no-cache-dir --only-binary :all: -r /requirements.txt",
        'python3 -c "import isal, numpy, PIL, rasterio, zstandard"',
    ):
        assert command in docker
        assert command in apptainer
