"""Uploads in parts, from the launch to the object in the bucket."""

import json
import time
from pathlib import Path

from tests.conftest import Archive
from tests.test_main_job import assert_same_image

# The COG of a raster of 700 x 600 pixels and 3 bands has some 700 kB.
LOWERED = ("--largest-put", "400000")


def test_a_large_cog_arrives_in_parts_and_whole(archive: Archive):
    sources = {
        name: archive.upload_raster(f"{name}.tif", 3) for name in ("a", "with ; sign")
    }
    small = archive.upload_raster("small.tif", 1, width=90, height=90)
    rows = [(f"{name}.tif", 3) for name in sources]
    archive.upload_manifest("batch-raw.csv", [*rows, ("small.tif", 1)])
    archive.launch(*LOWERED)

    processed, failed = archive.outcome("batch-")

    assert failed == []
    assert [row[0] for row in processed] == ["a.tif", "with ; sign.tif", "small.tif"]
    for name, source in sources.items():
        cog = archive.fetch(archive.cogs, f"{name}.tif")
        assert cog.stat().st_size > 400_000
        assert_same_image(cog, source)
    assert_same_image(archive.fetch(archive.cogs, "small.tif"), small)
    (run,) = archive.directory.glob("workflow-run-*")
    log = _eventually(run / "results.jsonl", "small.tif")
    parts = [json.loads(line)["cog"].get("parts") for line in log.splitlines()]
    assert [part is None for part in parts] == [False, False, True]
    assert_nothing_is_left(archive, ["a.tif", "with ; sign.tif", "small.tif"])


def assert_nothing_is_left(archive: Archive, keys: list[str]) -> None:
    assert [key for key in keys if archive.cogs.open_uploads(key)] == []


def _eventually(file: Path, word: str) -> str:
    deadline = time.monotonic() + 30
    while not (file.exists() and word in file.read_text()):
        assert time.monotonic() < deadline, f"no {word!r} in {file}"
        time.sleep(0.2)
    return file.read_text()
