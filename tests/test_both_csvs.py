"""Two CSVs replace each manifest, whatever becomes of its rows."""

import pytest

from tests.support.archive import ALL, Archive


def ends_of(archive: Archive) -> dict[str, bytes]:
    """Return the content of what replaced the manifest, by its state."""
    return {
        found.key.split("-")[1]: archive.maps.read(found.key, ALL)
        for found in archive.maps.list("batch-")
    }


@pytest.mark.parametrize("header", ["", "image,bands\n"])
def test_a_failed_csv_without_rows_is_there_and_empty(archive: Archive, header: str):
    archive.upload_raster("a.tif", 1)
    archive.maps.write("batch-raw.csv", f"{header}a.tif,1\n".encode())
    archive.launch()
    archive.outcome("batch-")
    assert ends_of(archive) == {
        "processed": f"{header}a.tif,1\n".encode(),
        "failed": b"",
    }


def test_a_processed_csv_without_rows_is_there_and_empty(archive: Archive):
    archive.maps.write("batch-raw.csv", b"image,bands\na.tif,1\n")
    archive.launch_to_poll_by_hand()
    archive.poll()
    ends = ends_of(archive)
    assert (sorted(ends), ends["processed"]) == (["failed", "processed"], b"")


def test_a_manifest_that_cannot_be_read_has_both_csvs_too(archive: Archive):
    content = "Kärnten.tif,1\n".encode("latin-1")
    archive.maps.write("batch-raw.csv", content)
    archive.launch_to_poll_by_hand()
    archive.poll()
    ends = ends_of(archive)
    assert sorted(ends) == ["failed", "processed", "unreadable"]
    assert (ends["processed"], ends["unreadable"]) == (b"", content)
