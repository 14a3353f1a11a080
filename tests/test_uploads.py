"""Uploads in parts, from the launch to the object in the bucket."""

import json

import numpy
import rasterio
from hypothesis import given, strategies

from dag import multipart
from state.launch import MAX_PUT
from state.rows import Row
from tests.support import rasters
from tests.support.archive import Archive, wait_for_words
from tests.support.compare import assert_same_image
from tests.support.faulty_s3 import Fault, FaultyS3

# The COG of a raster of 700 x 600 pixels and 3 bands has some 700 kB.
LOWERED = ("--max-put", "400000")


def test_large_cogs_arrive_in_parts_and_whole(archive: Archive):
    large = ("a.tif", "with ; sign.tif")
    sources = {key: archive.upload_raster(key, 3) for key in large}
    sources["small.tif"] = archive.upload_raster("small.tif", 1, width=90, height=90)
    archive.upload_raster("wrong.tif", 3)
    _upload_one_that_grows(archive, "grows.tif")
    archive.upload_manifest(
        "batch-raw.csv",
        [
            ("image", "bands", "profile"),
            *((key, 1 if key == "small.tif" else 3, "") for key in sources),
            ("wrong.tif", 4, ""),
            ("grows.tif", 3, "raw"),
        ],
    )
    archive.launch(*LOWERED)

    processed, failed = archive.outcome("batch-")

    assert [row[0] for row in processed[1:]] == list(sources)
    reasons = {row[0]: row[2] for row in failed[1:]}
    assert "says 4 bands" in reasons["wrong.tif"]
    assert "may have at most 400,000" in reasons["grows.tif"]
    for key, source in sources.items():
        cog = archive.fetch(archive.cogs, key)
        assert (cog.stat().st_size > 400_000) == (key in large)
        assert_same_image(cog, source)
    (run,) = archive.directory.glob("workflow-run-*")
    told = wait_for_words(run / "results.jsonl", "wrong").splitlines()
    told = [json.loads(line) for line in told]
    in_parts = [
        result["image"] for result in told if "parts" in (result.get("cog") or {})
    ]
    assert in_parts == ["a.tif", "with%20%3B%20sign.tif"]
    begun = [json.loads(line)["line"] for line in (run / "uploads.jsonl").open()]
    assert begun == [2, 3, 5], "neither of the small images cost a request"
    assert _left(archive, *large, "wrong.tif") == []


def test_a_part_that_is_refused_once_is_sent_again(
    faulty_archive: Archive, faulty_s3_server: FaultyS3
):
    source = faulty_archive.upload_raster("image.tif", 3)
    faulty_archive.upload_manifest("batch-raw.csv", [("image.tif", 3)])
    faulty_s3_server.faults = [
        # The upload is begun, and nobody hears of it.
        Fault(method="POST", path="uploads", answer_lost=True, times=1),
        Fault(method="PUT", path="partNumber=2", status=403, times=1),
    ]
    said = faulty_archive.run(
        *LOWERED, "--submit-option", "hold_backoff_seconds = 1"
    ).stderr
    assert "starting to upload" in said
    faulty_archive.poll()

    processed, failed = faulty_archive.outcome("batch-")

    assert (processed, failed) == ([["image.tif", "3"]], [])
    assert faulty_s3_server.count("PUT", "partNumber=1") >= 2
    assert_same_image(faulty_archive.fetch(faulty_archive.cogs, "image.tif"), source)
    assert faulty_s3_server.count("POST", "uploads") == 2
    assert _left(faulty_archive, "image.tif") == []


@given(strategies.integers(0, 2**50), strategies.integers(1, 2**40))
def test_what_could_be_large_has_parts_enough(size: int, largest: int):
    for most in (MAX_PUT, largest):
        limits = multipart.limits(Row(1, (), size=size), most)
        if 16 * size <= most:
            assert limits.max_parts == 0
            continue
        assert 2 <= limits.max_parts <= 1000
        assert most // 4 <= limits.part_size <= most
        assert limits.max_parts * limits.part_size >= min(16 * size, 1000 * most)


def _upload_one_that_grows(archive: Archive, key: str) -> None:
    """A few kB, of which the profile raw makes more than a MB."""
    path = archive.directory / "grows.tif"
    rasters.write(path, 3, compress="deflate")
    with rasterio.open(path) as raster:
        profile = raster.profile
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(numpy.full((3, 600, 700), 7, "u1"))
    archive.maps.upload(key, path)


def _left(archive: Archive, *keys: str) -> list[str]:
    return [key for key in keys if archive.cogs.list_multipart_uploads(key)]
