"""The two files with the code of the node that each job gets."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from bucket import S3Endpoint
from dag import node_code
from state.launch import Launch
from state.project import PROJECT
from tests.support import rasters


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    launch = Launch(tmp_path, S3Endpoint("s3", tmp_path, tmp_path), "maps", "cogs")
    launch.home.mkdir()
    return launch


def test_exactly_two_files_are_written(launch: Launch):
    folder = node_code.keep(launch)
    assert {file.name for file in folder.iterdir()} == {"generate_cogs.sh", "node.zip"}
    with ZipFile(folder / "node.zip") as archive:
        names = {Path(name).name for name in archive.namelist()}
    modules = {module.name for module in PROJECT.glob("node/*.py")}
    assert names - modules <= {f"{module}c" for module in modules}
    assert modules <= names
    before = (folder / "node.zip").stat()
    assert node_code.keep(launch) == folder
    assert (folder / "node.zip").stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("name", ["generate_cogs.sh", "node.zip"])
def test_a_changed_file_is_written_again(launch: Launch, name: str):
    folder = node_code.keep(launch)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(b"another program")
    assert node_code.keep(launch) == folder
    assert (folder / name).read_bytes() == content


def test_the_two_files_suffice_to_convert_an_image(launch: Launch, tmp_path: Path):
    work = tmp_path / "work"
    work.mkdir()
    for file in node_code.keep(launch).iterdir():
        (work / file.name).write_bytes(file.read_bytes())
    rasters.write(work / "image.tif", 1)
    done = subprocess.run(
        ["sh", "generate_cogs.sh", "image.tif", "1"],
        cwd=work,
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (work / "image.jpg").exists()


def archive_of_a_new_process(seed: str) -> bytes:
    code = """
import sys
from pathlib import Path
from dag import node_code
sys.stdout.buffer.write(node_code._archive(sorted(Path("node").glob("*.py"))))
"""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        env={"PYTHONHASHSEED": seed},
        capture_output=True,
        check=True,
    ).stdout


def test_the_archive_is_reproducible():
    assert archive_of_a_new_process("1") == archive_of_a_new_process("2")


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there is no bytecode then")
@pytest.mark.parametrize("version", ["the same", "another"])
def test_a_python_of_the_same_version_uses_the_bytecode(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
):
    package = tmp_path / "node"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "which.py").write_text("")
    if version == "another":
        monkeypatch.setattr(node_code, "MAGIC_NUMBER", b"old\n")
    content = node_code._archive(sorted(package.iterdir()))
    archive = tmp_path / "node.zip"
    archive.write_bytes(content)
    code = "import node.which; print(node.which.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={"PYTHONPATH": str(archive)},
        capture_output=True,
        text=True,
        check=True,
    )
    ending = ".pyc\n" if version == "the same" else ".py\n"
    assert done.stdout.endswith(ending)
