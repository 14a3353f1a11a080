"""The files about the project agree with each other and with the code."""

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from state.project import PROJECT

PYTHON = "3.12"
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")])


def test_the_conda_environment_installs_what_is_locked():
    environment = yaml.safe_load((PROJECT / "environment.yml").read_text())

    assert environment["name"] == "cog_pipeline"
    assert f"python={PYTHON}" in environment["dependencies"]
    (by_pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert by_pip == ["-r locks/conda.txt"]


def test_every_template_is_rendered_by_some_module():
    strings = {
        node.value
        for room in ("dag", "pool")
        for path in (PROJECT / room).glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
    }
    for template in (PROJECT / "templates").iterdir():
        assert template.name in strings


def test_every_make_target_of_the_documents_exists():
    makefile = (PROJECT / "Makefile").read_text()
    targets = re.findall(r"^([\w-]+):", makefile, re.MULTILINE)
    for document in DOCUMENTS:
        text = document.read_text()
        # In a line of code of its own, or at the start of code within a sentence.
        for target in re.findall(r"(?:^ *|`)make ([\w-]+)", text, re.MULTILINE):
            assert target in targets, f"{document.name}: make {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_to_a_heading(document: Path):
    for link in _links(document):
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target), link


def test_the_anchors_of_headings_are_those_of_github(tmp_path: Path):
    document = tmp_path / "page.md"
    document.write_text(
        "# `--co NAME=VALUE`, and more\n\n## Why?\n\n```sh\n# no heading\n```\n\n"
        "## Why?\n\n[a](#why) [b](other.md#x) `[c](#no-link)` [d](https://e.org/f)\n"
    )
    assert _anchors(document) == ["--co-namevalue-and-more", "why", "why-1"]
    assert list(_links(document)) == ["#why", "other.md#x"]


def _links(document: Path) -> Iterator[str]:
    """Yield the targets of a document's links within the project."""
    text = re.sub(r"`[^`\n]*`", "", _without_code_blocks(document))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"\w+:", link):
            yield link


def _anchors(document: Path) -> list[str]:
    """Return the anchors that GitHub gives to a document's headings."""
    anchors = []
    counts: Counter[str] = Counter()
    text = _without_code_blocks(document)
    for heading in re.findall(r"^#+ +(.*?) *$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        anchors.append(f"{slug}-{counts[slug]}" if counts[slug] else slug)
        counts[slug] += 1
    return anchors


def _without_code_blocks(document: Path) -> str:
    return re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.DOTALL | re.M)


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
    """mypy checks each package, shellcheck each shell script except the templates."""
    configuration = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    rooms = {path.parent.name for path in PROJECT.glob("*/__init__.py")} - {"tests"}
    modules = {path.name for path in PROJECT.glob("*.py")}
    assert set(configuration["tool"]["mypy"]["files"]) == rooms | modules

    makefile = (PROJECT / "Makefile").read_text()
    checked = re.search(r"\.venv/bin/shellcheck (.*)", makefile)
    assert checked
    scripts = {
        str(path.relative_to(PROJECT))
        for folder in (
            ".ci",
            "bin",
            "container",
            "demo",
            "lab/throughput",
            "pack",
            "pool",
        )
        for path in (PROJECT / folder).iterdir()
        if path.is_file() and re.match(rb"#!\S+[ /](ba)?sh\b", path.read_bytes())
    }
    assert set(checked[1].split()) == scripts
