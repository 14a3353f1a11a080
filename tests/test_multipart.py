"""The node splits a COG that is too large for one upload."""

import hashlib
import json
from pathlib import Path

import pytest

from node.multipart import UploadLimits, read_limits
from tests.support import rasters
from tests.support.node import files, run_node


def convert(folder: Path, limits: UploadLimits, *options: str) -> dict:
    """Convert an image and return the result of the node."""
    if not (folder / "image.tif").exists():
        rasters.write(folder / "image.tif", 3)
    run_node(folder, "image.tif", "3", "--upload-limits", str(limits), *options)
    return json.loads((folder / "result.json").read_text())


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    """Return the content of the COG before it is split."""
    folder = tmp_path / "whole"
    folder.mkdir()
    assert "parts" not in convert(folder, UploadLimits(10**9))["cog"]
    return (folder / "image.tif").read_bytes()


@pytest.mark.parametrize("parts", [1.5, 2, 7])
def test_a_large_cog_is_split_into_parts(tmp_path: Path, whole: bytes, parts: float):
    part = int(len(whole) / parts)
    count = -(-len(whole) // part)

    result = convert(tmp_path, UploadLimits(len(whole) - 1, 100, part))

    names = [f"cog.part{number:04}" for number in range(1, count + 1)]
    assert files(tmp_path) == {*names, "image.jpg", "result.json", "whole"}
    contents = [(tmp_path / name).read_bytes() for name in names]
    assert b"".join(contents) == whole
    assert [len(content) for content in contents[:-1]] == [part] * (count - 1)
    assert result["cog"] == {
        "bytes": len(whole),
        "md5": md5(whole),
        "sha256": hashlib.sha256(whole).hexdigest(),
        "parts": [{"bytes": len(content), "md5": md5(content)} for content in contents],
    }


def test_a_cog_of_exactly_the_limit_stays_whole(tmp_path: Path, whole: bytes):
    result = convert(tmp_path, UploadLimits(len(whole), 100, 1000))
    assert "parts" not in result["cog"]
    assert (tmp_path / "image.tif").read_bytes() == whole


@pytest.mark.parametrize("max_parts", [0, 2])
def test_a_cog_that_exceeds_the_limits_is_reported(
    tmp_path: Path, whole: bytes, max_parts: int
):
    result = convert(tmp_path, UploadLimits(400_000, max_parts, 400_000))
    assert (result["ok"], result["code"]) == (False, "output-too-large")
    assert f"its COG has {len(whole):,} bytes" in result["reason"]
    assert "upload the image less compressed" in result["reason"]
    assert files(tmp_path) == {"image.tif", "result.json", "whole"}


def test_a_jpeg_that_is_too_large_is_reported(tmp_path: Path):
    result = convert(
        tmp_path, UploadLimits(50_000, 100, 40_000), "--jpeg-quality", "95"
    )
    assert "its JPEG has" in result["reason"]
    assert "--jpeg-max-size" in result["reason"]
    assert files(tmp_path) == {"image.tif", "result.json"}


def test_a_copied_cog_is_split_too(tmp_path: Path, whole: bytes):
    (tmp_path / "image.tif").write_bytes(whole)
    result = convert(tmp_path, UploadLimits(400_000, 100, 300_000), "--copy-valid-cog")
    assert result["copied"]
    parts = sorted(tmp_path.glob("cog.part*"))
    assert b"".join(part.read_bytes() for part in parts) == whole
    assert not (tmp_path / "image.tif").exists()


@pytest.mark.parametrize("text", ["", "1", "1:2", "1:-2:3", "1:2:3 ", "٣:1:1"])
def test_invalid_limits_are_refused(text: str):
    with pytest.raises(ValueError, match="MAX_SIZE"):
        read_limits(text)


def test_a_failed_split_leaves_no_file_that_could_be_sent(tmp_path: Path, whole: bytes):
    (tmp_path / "image.tif").write_bytes(whole)
    # A directory occupies the name of the first part.
    (tmp_path / "cog.part0001").mkdir()
    result = convert(tmp_path, UploadLimits(400_000, 100, 300_000), "--copy-valid-cog")
    assert (result["ok"], result["code"]) == (False, "internal-error")
    assert "Is a directory" in result["reason"]
    # The image, which was the COG, is removed too, because it is truncated.
    assert files(tmp_path) == {"cog.part0001", "result.json", "whole"}
