"""Multipart uploads, from the launch to the object in the bucket."""

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

# The COG of a raster of 700 x 600 pixels and 3 bands has about 700 kB.
LOW_LIMIT = ("--max-put", "400000")


def test_large_cogs_arrive_complete_by_multipart_upload(archive: Archive):
    large = ("a.tif", "with ; sign.tif")
    sources = {key: archive.upload_raster(key, 3) for key in large}
    sources["small.tif"] = archive.upload_raster("small.tif", 1, width=90, height=90)
    archive.upload_raster("wrong.tif", 3)
    _upload_raster_that_grows(archive, "grows.tif")
    archive.upload_manifest(
        "batch-raw.csv",
        [
            ("image", "bands", "profile"),
            *((key, 1 if key == "small.tif" else 3, "") for key in sources),
            ("wrong.tif", 4, ""),
            ("grows.tif", 3, "raw"),
        ],
    )
    archive.launch(*LOW_LIMIT)

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
    lines = wait_for_words(run / "results.jsonl", "wrong").splitlines()
    results = [json.loads(line) for line in lines]
    in_parts = [
        result["image"] for result in results if "parts" in (result.get("cog") or {})
    ]
    assert in_parts == ["a.tif", "with%20%3B%20sign.tif"]
    rows = [json.loads(line)["line"] for line in (run / "uploads.jsonl").open()]
    assert rows == [2, 3, 5], "only an image whose COG may be large has an upload"
    assert _keys_with_open_uploads(archive, *large, "wrong.tif") == []


def test_a_part_that_is_refused_once_is_sent_again(
    faulty_archive: Archive, faulty_s3_server: FaultyS3
):
    source = faulty_archive.upload_raster("image.tif", 3)
    faulty_archive.upload_manifest("batch-raw.csv", [("image.tif", 3)])
    faulty_s3_server.faults = [
        # The server starts the upload, but its answer is lost.
        Fault(method="POST", path="uploads", answer_lost=True, times=1),
        Fault(method="PUT", path="partNumber=2", status=403, times=1),
    ]
    errors = faulty_archive.run(
        *LOW_LIMIT, "--submit-option", "hold_backoff_seconds = 1"
    ).stderr
    assert "starting to upload" in errors
    faulty_archive.poll()

    processed, failed = faulty_archive.outcome("batch-")

    assert (processed, failed) == ([["image.tif", "3"]], [])
    assert faulty_s3_server.count("PUT", "partNumber=1") >= 2
    assert_same_image(faulty_archive.fetch(faulty_archive.cogs, "image.tif"), source)
    assert faulty_s3_server.count("POST", "uploads") == 2
    assert _keys_with_open_uploads(faulty_archive, "image.tif") == []


@given(strategies.integers(0, 2**50), strategies.integers(1, 2**40))
def test_an_image_whose_cog_may_be_large_has_enough_parts(size: int, limit: int):
    for max_put in (MAX_PUT, limit):
        limits = multipart.limits(Row(1, (), size=size), max_put)
        if 16 * size <= max_put:
            assert limits.max_parts == 0
            continue
        assert 2 <= limits.max_parts <= 1000
        assert max_put // 4 <= limits.part_size <= max_put
        assert limits.max_parts * limits.part_size >= min(16 * size, 1000 * max_put)


def _upload_raster_that_grows(archive: Archive, key: str) -> None:
    """Upload a raster of a few kB whose COG has more than 1 MB with the profile raw."""
    path = archive.directory / "grows.tif"
    rasters.write(path, 3, compress="deflate")
    with rasterio.open(path) as raster:
        profile = raster.profile
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(numpy.full((3, 600, 700), 7, "u1"))
    archive.maps.upload(key, path)


def _keys_with_open_uploads(archive: Archive, *keys: str) -> list[str]:
    return [key for key in keys if archive.cogs.list_multipart_uploads(key)]
