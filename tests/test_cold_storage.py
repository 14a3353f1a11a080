"""Images in cold storage are refused at the check, unless they were restored.

The store answers as Amazon documents it:
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
"""

import re
from pathlib import Path

import pytest

from tests.support.archive import Archive
from tests.support.faulty_s3 import Fault, FaultyS3

LISTING = r"/maps-[^/?]*/?\?.*list-type=2"
RESTORED = (
    "<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress>"
    "<RestoreExpiryDate>2026-12-24T00:00:00.000Z</RestoreExpiryDate></RestoreStatus>"
)
UNDER_WAY = (
    "<RestoreStatus><IsRestoreInProgress>true</IsRestoreInProgress></RestoreStatus>"
)


def listed(**storage: str) -> Fault:
    """List objects, by the stem of their names, with these elements."""

    def entry(found: re.Match[bytes]) -> bytes:
        text = re.sub(rb"<StorageClass>.*?</StorageClass>", b"", found[0])
        named = re.search(rb"<Key>([a-z]+)\.tif", text)
        extra = storage.get(named[1].decode(), "") if named else ""
        return text.replace(b"</Contents>", extra.encode() + b"</Contents>")

    def rewritten(body: bytes) -> bytes:
        return re.sub(rb"<Contents>.*?</Contents>", entry, body, flags=re.DOTALL)

    return Fault(method="GET", path=LISTING, rewritten=rewritten)


def of_class(name: str, status: str = "") -> str:
    return f"<StorageClass>{name}</StorageClass>{status}"


def head(name: str, **headers: str) -> Fault:
    answer = {key.replace("_", "-"): value for key, value in headers.items()}
    return Fault(method="HEAD", path=rf"/maps-.*/{name}\.tif$", headers=answer)


def test_rows_are_refused_by_the_storage_class_of_their_images(
    faulty_s3_server: FaultyS3, faulty_archive: Archive
):
    readable = ["instant", "restored", "warm", "plain", "refused"]
    cold = ["deep", "glacier", "waits", "tier"]
    for name in (*readable, *cold):
        faulty_archive.upload_raster(f"{name}.tif", 1)
    faulty_archive.launch_to_poll_by_hand()
    rows = [(f"{name}.tif", 1) for name in (*readable, *cold)]
    faulty_archive.upload_manifest("batch-raw.csv", rows)
    tiers = "INTELLIGENT_TIERING"
    with faulty_s3_server.suffering(
        listed(
            instant=of_class("GLACIER_IR"),
            restored=of_class("GLACIER", RESTORED),
            warm=of_class(tiers),
            plain=of_class("STANDARD"),
            refused=of_class(tiers),
            deep=of_class("DEEP_ARCHIVE"),
            glacier=of_class("GLACIER"),
            waits=of_class("GLACIER", UNDER_WAY),
            tier=of_class(tiers),
        ),
        head("warm", x_amz_storage_class=tiers),
        # Some keys may not ask for the tier.
        Fault(method="HEAD", path=r"/maps-.*/refused\.tif$", status=403),
        head("tier", x_amz_storage_class=tiers, x_amz_archive_status="ARCHIVE_ACCESS"),
    ):
        assert faulty_archive.poll().returncode == 0
        processed, failed = faulty_archive.outcome("batch-")

    assert [row[0] for row in processed] == [f"{name}.tif" for name in readable]
    reasons = {Path(key).stem: reason for key, _, reason in failed}
    assert list(reasons) == cold
    for name, where in zip(
        cold, ("DEEP_ARCHIVE", "GLACIER", "GLACIER", "ARCHIVE_ACCESS"), strict=True
    ):
        assert f"in cold storage ({where})" in reasons[name]
        assert "restore it" in reasons[name]
    (log,) = faulty_archive.directory.glob("workflow-run-*/log.jsonl")
    assert log.read_text().count('"code": "in-cold-storage"') == len(cold)


@pytest.mark.parametrize(
    ("headers", "where"),
    [
        ({"x_amz_storage_class": "GLACIER"}, "GLACIER"),
        (
            {
                "x_amz_storage_class": "GLACIER",
                "x_amz_restore": 'ongoing-request="true"',
            },
            "GLACIER",
        ),
        (
            {
                "x_amz_storage_class": "DEEP_ARCHIVE",
                "x_amz_restore": 'ongoing-request="false", expiry-date="Fri, 21 Dec"',
            },
            "",
        ),
        ({"x_amz_archive_status": "DEEP_ARCHIVE_ACCESS"}, "DEEP_ARCHIVE_ACCESS"),
        ({"x_amz_storage_class": "GLACIER_IR"}, ""),
        ({}, ""),
    ],
)
def test_a_head_request_tells_it_too(
    faulty_s3_server: FaultyS3,
    faulty_archive: Archive,
    headers: dict[str, str],
    where: str,
):
    faulty_archive.maps.write("image.tif", b"x")
    bucket = type(faulty_archive.maps)(faulty_archive.store, faulty_archive.maps.name)
    with faulty_s3_server.suffering(head("image", **headers)):
        assert bucket.stat("image.tif").archive == where
