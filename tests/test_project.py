"""The files about the project keep step with each other."""

import re
import tomllib

import yaml

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
    for file in re.findall(r"\(((?:docs/)?\w+\.(?:md|sub))\)", readme):
        assert (PROJECT / file).exists()
