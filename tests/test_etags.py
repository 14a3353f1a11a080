"""Stores that list an object with another ETag than it has when it is read."""

import json
import re

import pytest

from tests.support.archive import Archive
from tests.support.faulty_s3 import Fault, FaultyS3

GET = r"/maps-[^/?]*/batch-raw\.csv$"
LISTING = r"/maps-[^/?]*/?\?.*list-type=2"


def listed_as(etag: str) -> Fault:
    def rewritten(body: bytes) -> bytes:
        return re.sub(rb"<ETag>.*?</ETag>", f"<ETag>{etag}</ETag>".encode(), body)

    return Fault(method="GET", path=LISTING, rewritten=rewritten)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(method="GET", path=GET, headers={"ETag": 'W/"0123"'}),
        Fault(method="GET", path=GET, headers={"ETag": '"0123-gzip"'}),
        listed_as(""),
        listed_as("&quot;0123&quot;"),
    ],
)
def test_a_manifest_that_has_not_changed_since_the_last_poll_is_taken(
    faulty_s3_server: FaultyS3, faulty_archive: Archive, fault: Fault
):
    faulty_archive.upload_raster("image.tif", 1)
    faulty_archive.launch_to_poll_by_hand()
    faulty_archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    with faulty_s3_server.suffering(fault):
        assert "another ETag" in faulty_archive.poll().stdout
        assert not list(faulty_archive.directory.glob("workflow-run-*"))
        assert faulty_archive.poll().returncode == 0
        assert faulty_archive.outcome("batch-") == ([["image.tif", "1"]], [])
    (home,) = faulty_archive.directory.glob("launch-*")
    assert json.loads((home / "postponed.json").read_text())["manifests"] == {}


def test_health_warns_of_a_manifest_that_changes_at_each_poll(
    faulty_s3_server: FaultyS3, faulty_archive: Archive
):
    faulty_archive.launch_to_poll_by_hand()
    fault = Fault(method="GET", path=GET, headers={"ETag": '"0123"'})
    with faulty_s3_server.suffering(fault):
        for size in range(4):
            assert "batch-raw.csv" not in faulty_archive.health().stdout
            rows = [(f"{number}.tif", 1) for number in range(1 + size)]
            faulty_archive.upload_manifest("batch-raw.csv", rows)
            assert faulty_archive.poll().returncode == 0
        assert not list(faulty_archive.directory.glob("workflow-run-*"))
        said = faulty_archive.health().stdout
    assert "4 polls have started no run for batch-raw.csv" in said

    faulty_archive.maps.remove("batch-raw.csv")
    assert faulty_archive.poll().returncode == 0
    assert "batch-raw.csv" not in faulty_archive.health().stdout
