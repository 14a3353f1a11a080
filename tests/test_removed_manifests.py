"""Somebody removes the manifest of a run from the bucket while the run lasts."""

import json
import subprocess
from pathlib import Path

from tests.support.archive import Archive, wait_for, wait_for_dagman

WAITING = ("--node-submit-option", "hold = true")


def runs(archive: Archive) -> list[Path]:
    return sorted(archive.directory.glob("workflow-run-*"))


def remove_manifest(archive: Archive) -> str:
    """Remove the processing CSV as ``aws s3 sync --delete`` does; return its key."""
    (found,) = archive.maps.list("batch-processing-")
    archive.maps.remove(found.key)
    return found.key


def events(run: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (run / "log.jsonl").open()]


def test_its_images_are_not_converted_by_a_second_run_at_once(archive: Archive):
    archive.upload_raster("image.tif", 1)
    archive.launch_to_poll_by_hand(*WAITING)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    assert archive.poll().returncode == 0
    remove_manifest(archive)
    archive.upload_manifest("again-raw.csv", [(f"{archive.maps.name}/image.tif", 1)])

    # With the first poll, nobody has put the manifest back when the second run begins.
    (first,) = runs(archive)
    (first / "manifest.csv").rename(first / "kept.csv")
    said = archive.poll().stdout
    (first / "kept.csv").rename(first / "manifest.csv")
    assert "again-raw.csv has images that are being converted: it waits" in said
    _, second = runs(archive)
    assert not (second / "submitted.json").exists()
    archive.poll()
    assert not (second / "submitted.json").exists(), "it still waits"

    wait_for_dagman(first)
    cluster = json.loads((first / "submitted.json").read_text())["cluster"]
    subprocess.run(["condor_rm", str(cluster)], check=True, capture_output=True)
    wait_for((first / "done.json").exists)
    wait_for(lambda: archive.poll().returncode == 0)
    wait_for((second / "submitted.json").exists)


def test_it_is_put_back(archive: Archive):
    archive.upload_raster("image.tif", 1)
    archive.launch_to_poll_by_hand(*WAITING)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    assert archive.poll().returncode == 0
    key = remove_manifest(archive)

    assert archive.poll().returncode == 0

    assert archive.maps.read(key, 100) == b"image.tif,1\r\n"
    (run,) = runs(archive)
    assert events(run).count("manifest-restored") == 1
    archive.poll()
    assert events(run).count("manifest-restored") == 1
