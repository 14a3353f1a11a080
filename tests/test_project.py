"""The files about the project keep step with each other."""

import re
import tomllib

import yaml

from state.project import PROJECT

PYTHON = "3.12"


def test_the_conda_environment_installs_what_is_locked():
    environment = yaml.safe_load((PROJECT / "environment.yml").read_text())

    assert environment["name"] == "cog_pipeline"
    assert f"python={PYTHON}" in environment["dependencies"]
    (by_pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert by_pip == ["-r locks/conda.txt"]


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


def test_the_images_are_made_in_the_same_way():
    docker = (PROJECT / "container" / "Dockerfile").read_text()
    apptainer = (PROJECT / "container" / "apptainer.def").read_text()
    base = re.search(r"^FROM (\S+?):(\S+)@(\S+)$", docker, re.MULTILINE)
    assert base, "the Dockerfile names no base image by its tag and its digest"
    name, tag, digest = base.groups()
    assert re.fullmatch(rf"{re.escape(PYTHON)}\.\d+-slim-\w+", tag)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest)
    # Apptainer refuses a name with both.
    assert f"\nFrom: {name}@{digest}\n" in apptainer
    for command in (
        "apt-get install --yes --no-install-recommends libexpat1",
        "pip install --no-cache-dir --require-hashes -r /requirements.txt",
        'python3 -c "import isal, numpy, PIL, rasterio, zstandard"',
    ):
        assert command in docker
        assert command in apptainer


def test_pre_commit_runs_what_make_lint_runs():
    makefile = (PROJECT / "Makefile").read_text()
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe
    (repository,) = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())[
        "repos"
    ]
    assert repository["repo"] == "local", "a hook is fetched from elsewhere"
    hooks = repository["hooks"]
    assert [hook["entry"] for hook in hooks] == re.findall(r"\t@(.*)\n", recipe[1])
    assert all(hook["pass_filenames"] is False for hook in hooks)


def test_lint_checks_every_room_and_every_shell_script():
    """Each package's types are checked, each shell script but the templates."""
    configuration = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    rooms = {path.parent.name for path in PROJECT.glob("*/__init__.py")} - {"tests"}
    modules = {path.name for path in PROJECT.glob("*.py")}
    assert set(configuration["tool"]["mypy"]["files"]) == rooms | modules

    makefile = (PROJECT / "Makefile").read_text()
    checked = re.search(r"\.venv/bin/shellcheck (.*)", makefile)
    assert checked
    scripts = {
        str(path.relative_to(PROJECT))
        for folder in (".ci", "bin", "container", "demo", "pack", "pool")
        for path in (PROJECT / folder).iterdir()
        if path.is_file() and re.match(rb"#!\S+[ /](ba)?sh\b", path.read_bytes())
    }
    assert set(checked[1].split()) == scripts
