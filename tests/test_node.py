"""The node runs by hand, without HTCondor, in a directory with the image."""

import importlib.util
import json
from pathlib import Path

import pytest
import rasterio
from PIL import Image
from rio_cogeo.cogeo import cog_validate

from state.project import PROJECT
from tests.support import rasters
from tests.support.node import files, python_with, run_node, work_directory


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 7])
def test_a_conversion_leaves_a_cog_a_jpeg_and_a_result(tmp_path: Path, bands: int):
    rasters.write(tmp_path / "image.tif", bands)

    done = run_node(tmp_path, "image.tif", str(bands))

    assert done.returncode == 0, done.stderr
    assert files(tmp_path) == {"image.tif", "image.jpg", "result.json"}
    assert cog_validate(tmp_path / "image.tif", strict=True, quiet=True)[0]
    with Image.open(tmp_path / "image.jpg") as jpeg:
        assert jpeg.mode == ("L" if bands < 3 else "RGB")
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["ok"]
    assert (result["width"], result["height"], result["bands"]) == (700, 600, bands)
    assert result["crs"] == "EPSG:32616"
    assert result["cog"]["bytes"] == (tmp_path / "image.tif").stat().st_size


def test_python_does_not_import_files_of_the_sandbox(tmp_path: Path):
    (tmp_path / "rasterio.py").write_text("raise SystemExit('imported')")
    (tmp_path / "json.py").write_text("raise SystemExit('imported')")
    rasters.write(tmp_path / "node.tif", 1)
    assert run_node(tmp_path, "node.tif", "1").returncode == 0


@pytest.mark.parametrize(
    ("content", "bands", "code"),
    [
        (b"no raster", "3", "not-a-raster"),
        (b"", "3", "not-a-raster"),
        (None, "3", "image-missing"),
        (b"<VRTDataset rasterXSize='1' rasterYSize='1'/>", "1", "not-a-raster"),
    ],
)
def test_an_image_that_cannot_be_converted_has_a_reason(
    tmp_path: Path, content: bytes | None, bands: str, code: str
):
    if content is not None:
        (tmp_path / "image.tif").write_bytes(content)

    done = run_node(tmp_path, "image.tif", bands)

    assert done.returncode == 65
    assert len(done.stderr.strip().splitlines()) == 1
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["ok"], result["code"]) == (False, code)
    assert result["reason"] in done.stderr
    images = set() if content is None else {"image.tif"}
    assert files(tmp_path) == {"result.json"} | images


def test_an_infinite_transform_still_leaves_a_result(tmp_path: Path):
    path = rasters.write(tmp_path / "image.tif", 1)
    with rasterio.open(path, "r+") as raster:
        raster.transform = rasterio.Affine(float("inf"), 0, 0, 0, -1, 0)
    done = run_node(tmp_path, "image.tif", "1")
    result = json.loads((tmp_path / "result.json").read_text())
    assert (done.returncode == 0) == result["ok"]
    assert (tmp_path / "image.jpg").exists() == result["ok"]


def test_a_truncated_image_leaves_only_its_result(tmp_path: Path):
    whole = rasters.write(tmp_path / "whole.tif", 3).read_bytes()
    (tmp_path / "whole.tif").unlink()
    (tmp_path / "image.tif").write_bytes(whole[: len(whole) // 2])

    done = run_node(tmp_path, "image.tif", "3")

    assert done.returncode not in (0, 64)
    assert files(tmp_path) == {"image.tif", "result.json"}
    assert (tmp_path / "image.tif").stat().st_size == len(whole) // 2
    result = json.loads((tmp_path / "result.json").read_text())
    assert not result["ok"]
    assert result["reason"]


def test_a_wrong_number_of_bands_is_reported_with_the_right_one(tmp_path: Path):
    rasters.write(tmp_path / "image.tif", 3)
    done = run_node(tmp_path, "image.tif", "4")
    assert done.returncode == 65
    assert "says 4 bands" in done.stderr
    assert "has 3" in done.stderr
    with rasterio.open(tmp_path / "image.tif") as untouched:
        assert untouched.count == 3


@pytest.mark.parametrize("name", ["-h.tif", "--profile.tif", "--.TIFF"])
def test_an_image_name_may_look_like_an_option(name: str, tmp_path: Path):
    rasters.write(tmp_path / name, 1)
    done = run_node(tmp_path, name, "1", "--profile", "raw")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [(), ("",), ("image.tif",), ("image.tif", "three"), ("image.tif", "0")],
)
def test_a_wrong_call_shows_an_example(tmp_path: Path, arguments: tuple[str, ...]):
    done = run_node(tmp_path, *arguments)
    assert done.returncode == 64
    assert "e.g. generate_cogs.sh scene.tif 4" in done.stderr


@pytest.mark.parametrize(
    "words", [("a.jpg", "1"), ("a.tif", "1", "--next", "a.tiff", "1")]
)
def test_a_jpeg_that_would_replace_another_file_is_refused(
    words: tuple[str, ...], tmp_path: Path
):
    for name in ("a.jpg", "a.tif", "a.tiff"):
        rasters.write(tmp_path / name, 1)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = run_node(tmp_path, *words)
    assert done.returncode == 64
    assert "the JPEG 'a.jpg' would replace another file: rename" in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_machine_without_python_is_reported(tmp_path: Path):
    rasters.write(tmp_path / "image.tif", 1)
    done = run_node(tmp_path, "image.tif", "1", PYTHON="/nowhere/python3")
    assert done.returncode == 69
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["code"] == "no-python"


@pytest.mark.parametrize("package", ["rasterio", "zstandard"])
def test_a_machine_that_lacks_a_package_is_reported(package: str, tmp_path: Path):
    python = python_with(tmp_path, package, f"raise ImportError('no {package}')")
    work = work_directory(tmp_path)

    done = run_node(work, "image.tif", "1", PYTHON=python)

    assert done.returncode == 69
    result = json.loads((work / "result.json").read_text())
    assert result["code"] == "unfit-machine"
    assert f"no {package}" in result["reason"]
    assert files(work) == {"image.tif", "result.json"}


def test_a_node_does_not_import_boto3(tmp_path: Path):
    # rasterio does so where it is installed, as it is for these tests.
    assert importlib.util.find_spec("boto3")
    work = work_directory(tmp_path)
    done = run_node(work, "image.tif", "1", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert "rasterio" in done.stderr
    assert "botocore" not in done.stderr


def test_a_processor_that_is_too_old_is_reported_as_an_unfit_machine(tmp_path: Path):
    python = python_with(tmp_path, "numpy", "raise RuntimeError('wants X86_V2')")
    work = work_directory(tmp_path)

    done = run_node(work, "image.tif", "1", PYTHON=python)

    assert done.returncode == 69
    assert "wants X86_V2" in done.stderr


def test_the_dag_has_the_status_that_forbids_another_attempt():
    from node.errors import Unconvertible, UnfitMachine

    dag = (PROJECT / "templates" / "convert.dag").read_text()
    assert "UNLESS-EXIT {{ unconvertible }}" in dag
    assert (Unconvertible.exit_status, UnfitMachine.exit_status) == (65, 69)
