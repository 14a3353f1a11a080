"""The command convert converts the images that have no COG yet."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bucket import S3Endpoint, StoredObject
from dag.estimate import Range, estimate
from ingest.manifest import key_for
from state.launch import Launch
from tests.support.archive import Archive


def test_images_without_a_cog_are_converted_now(archive: Archive):
    refused = archive.call("convert")
    assert refused.returncode == 1
    assert "'launch' first" in refused.stderr

    for name in ("old/a.tif", "new/b.tif", "new/c.tif"):
        archive.upload_raster(name, 1)
    archive.launch_to_poll_by_hand()

    guess = json.loads(archive.call("convert", "--dry-run", "--json").stdout)
    assert (guess["images"], guess["runs"], guess["money"]) == (3, 0, None)
    assert guess["size"] == sum(image.size for image in archive.maps.list())
    assert guess["slots"] >= 1
    assert guess["jobs"] == min(guess["slots"], 3)
    assert guess["disk"] > guess["size"]
    assert list(archive.maps.list("convert-")) == []

    done = archive.call("convert", "old/", "--wait", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["processed"], report["failed"]) == (1, 0)
    assert (archive.directory / report["run"] / "done.json").exists()
    assert {each.key for each in archive.cogs.list()} == {"old/a.tif", "old/a.jpg"}

    # The image that was converted says how long the others take.
    text = archive.call("convert", "--dry-run", "--price-per-core-hour", "0.05")
    assert text.returncode == 0, text.stderr
    assert "estimated from 1 earlier run" in text.stdout
    assert "money" in text.stdout
    better = json.loads(archive.call("convert", "--dry-run", "--json").stdout)
    assert (better["images"], better["runs"]) == (2, 1)
    assert better["machine_seconds"]["expected"] > 0

    archive.maps.write("new/broken.tif", b"no raster")
    done = archive.call("convert", "--wait", "--exclude", "c.tif")
    assert done.returncode == 1
    assert "broken.tif" in done.stderr
    assert "lacks 1 image" in done.stderr
    assert "1 processed, 0 failed" in done.stdout
    archive.maps.remove("new/broken.tif")

    nothing = archive.call("convert", "--filter", "a.tif|b.tif")
    assert nothing.returncode == 0, nothing.stderr
    assert "nothing to convert" in nothing.stdout
    nothing = archive.call("convert", "--filter", "a.tif|b.tif", "--json")
    assert json.loads(nothing.stdout)["manifest"] is None
    assert len(list(archive.directory.glob("workflow-run-*"))) == 2
    again = archive.call("convert", "old/", "--overwrite", "--wait")
    assert again.returncode == 0, again.stderr
    assert "1 processed" in again.stdout


def test_the_manifest_is_one_that_polls_take(archive: Archive):
    archive.upload_raster("a.tif", 1)
    archive.launch_to_poll_by_hand()
    for key in ("survey.csv", "raw.txt", "._a-raw.csv"):
        refused = archive.call("convert", "--manifest", key)
        assert refused.returncode == 1
        assert f"no poll would take {key}" in refused.stderr
        assert not archive.maps.exists(key)


def test_an_earlier_run_of_the_same_manifest_is_not_its_run(archive: Archive):
    archive.upload_raster("a.tif", 1)
    archive.launch_to_poll_by_hand("-p", "todo*.csv", "--max-runs", "1")
    convert = ("convert", "--manifest", "todo.csv", "--overwrite", "--json")
    first = json.loads(archive.call(*convert, "--wait").stdout)
    assert first["processed"] == 1
    # Another run leaves no room for the second one.
    archive.upload_manifest("todo-other.csv", [("a.tif", 1)])
    archive.poll()
    _, other = sorted(archive.directory.glob("workflow-run-*"))
    assert archive.call("hold", other.name).returncode == 0

    second = archive.call(*convert)

    assert json.loads(second.stdout)["run"] is None, second.stderr


def test_rows_that_fail_are_the_exit_code(archive: Archive):
    whole = archive.upload_raster("a.tif", 1).read_bytes()
    archive.maps.write("a.tif", whole[: len(whole) * 3 // 4])
    archive.launch_to_poll_by_hand()
    done = archive.call("convert", "--wait")
    assert done.returncode == 1
    assert "0 processed, 1 failed" in done.stdout
    assert "'failures workflow-run-" in done.stderr


def test_an_image_does_not_replace_the_jpeg_of_another(archive: Archive):
    archive.upload_raster("a.TIF", 1)
    archive.upload_raster("a.tif", 1)
    archive.launch_to_poll_by_hand()
    assert "1 processed, 1 failed" in archive.call("convert", "--wait").stdout

    again = archive.call("convert", "--wait")

    assert again.returncode == 0, again.stderr
    assert "nothing to convert" in again.stdout
    assert "1 image left out, such as a.tif" in again.stderr


def test_cogs_in_the_bucket_of_their_images_are_not_converted(archive: Archive):
    archive.upload_raster("a.tif", 1)
    maps = archive.maps
    archive.upload_raster("cogs/b.tif", 1)
    one_bucket = ("--output-bucket", maps.name, "--output-prefix", "cogs/")
    archive.launch_to_poll_by_hand(*one_bucket)
    for option in ("--overwrite", "--dry-run"):
        found = archive.call("convert", "--dry-run", option, "--json")
        assert json.loads(found.stdout)["images"] == 1


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        ("*raw.csv", "name-raw.csv"),
        ("lists/*-raw.csv", "lists/name-raw.csv"),
        ("*.csv", "name-raw.csv"),
        ("todo-*.csv", "todo-name-raw.csv"),
        ("todo.csv", None),
    ],
)
def test_the_key_of_a_manifest_matches_the_pattern(pattern: str, key: str | None):
    assert key_for(pattern, "name") == key


def test_the_longest_job_takes_its_time(tmp_path: Path):
    store = S3Endpoint("127.0.0.1:9443", tmp_path, tmp_path)
    launch = Launch(tmp_path, store, "maps", "cogs")
    images = [
        StoredObject(f"{number}.tif", size, "", datetime.now(UTC))
        for number, size in enumerate([1_000_000_000, 1_000, 1_000])
    ]
    found = estimate(images, launch, slots=100, earlier=[])
    assert found.jobs == 3
    assert found.elapsed_seconds.expected == pytest.approx(
        found.machine_seconds.expected, rel=0.01
    )
    assert found.money(3600).expected == found.machine_seconds.expected
    assert Range(1, 2, 3).times(2) == Range(2, 4, 6)
