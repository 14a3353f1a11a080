"""What jobs are sent of the node: two files, as the clone has them."""

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
    made = Launch(tmp_path, S3Endpoint("s3", tmp_path, tmp_path), "maps", "cogs")
    made.home.mkdir()
    return made


def test_two_files_are_kept_and_nothing_else(launch: Launch):
    kept = node_code.keep(launch)
    assert {file.name for file in kept.iterdir()} == {"generate_cogs.sh", "node.zip"}
    with ZipFile(kept / "node.zip") as archive:
        names = {Path(name).name for name in archive.namelist()}
    assert names == {module.name for module in PROJECT.glob("node/*.py")}
    before = (kept / "node.zip").stat()
    assert node_code.keep(launch) == kept
    assert (kept / "node.zip").stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("name", ["generate_cogs.sh", "node.zip"])
def test_what_was_changed_is_made_anew(launch: Launch, name: str):
    kept = node_code.keep(launch)
    content = (kept / name).read_bytes()
    (kept / name).write_bytes(b"another program")
    assert node_code.keep(launch) == kept
    assert (kept / name).read_bytes() == content


def test_they_convert_an_image_with_nothing_else(launch: Launch, tmp_path: Path):
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
