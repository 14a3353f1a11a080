"""The S3 server fails in all the ways it can, and nothing is lost."""

from tests.conftest import Archive
from tests.faulty_s3 import Fault, FaultyS3


def test_a_server_that_fails_now_and_then_is_asked_again(
    faulty_archive: Archive, faulty_s3_server: FaultyS3
):
    keys = [f"{name}.tif" for name in "abcd"]
    for key in keys:
        faulty_archive.upload_raster(key, 3)
    faulty_archive.upload_manifest("batch-raw.csv", [(key, 3) for key in keys])
    faulty_s3_server.faults = [
        Fault(status=500, probability=0.15),
        Fault(status=503, probability=0.15),
        Fault(cut_after=0, probability=0.1),
        Fault(cut_after=20_000, probability=0.1),
        Fault(answer_lost=True, method="PUT|DELETE", probability=0.1),
    ]
    faulty_archive.run("--submit-option", "hold_backoff_seconds = 1")

    processed, failed = faulty_archive.outcome("batch-")

    faulty_s3_server.faults = []
    assert failed == []
    assert processed == [[key, "3"] for key in keys]
