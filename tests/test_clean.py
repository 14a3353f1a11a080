"""The command clean lists what is left, and removes only what is safe to remove."""

import json
import os
import time
from pathlib import Path

import pytest

from condor import queue
from dag.images import sidecar_keys
from state.run import load_run, locked
from tests.support.archive import Archive, wait_for
from tests.support.command_line import assert_wrong, invoke
from tests.support.steps import killed_after

DAY = 24 * 60 * 60  # seconds


def cleaned(archive: Archive, *options: str) -> dict[str, dict]:
    """Run clean for everything that is there, and return what it found, by name."""
    done = archive.call("clean", "--older-than", "0d", "--json", *options)
    assert done.returncode == 0, done.stderr
    *lines, totals = map(json.loads, done.stdout.splitlines())
    assert totals["found"] == len(lines)
    assert totals["removable"] == sum(line["removable"] for line in lines)
    assert totals["removed"] == sum(line["removed"] for line in lines)
    return {line["name"]: line for line in lines}


def ended_run(archive: Archive) -> Path:
    """Return the directory of a run that has ended and left the queue."""
    archive.upload_raster("a.tif", 1)
    archive.launch_to_poll_by_hand()
    archive.upload_manifest("batch-raw.csv", [("a.tif", 1)])
    assert archive.poll().returncode == 0
    (directory,) = archive.directory.glob("workflow-run-*")
    wait_for(lambda: load_run(directory).done)
    wait_for(lambda: queue.find(queue.RUN_ATTRIBUTE, str(directory)) is None)
    return directory


def test_only_safe_leftovers_are_removed(archive: Archive):
    directory = ended_run(archive)
    # There has been no multipart upload yet.
    assert archive.call("clean").stdout == "Nothing is left.\n"
    run = load_run(directory)
    maps, cogs = archive.maps, archive.cogs
    for key in (*sidecar_keys("a.tif"), "a.tfw.replaced", "next-raw.csv", "b.TIFF"):
        maps.write(key, b"known")
    maps.write("away-processing-20260101T000000Z.csv", b"a.tif,1\n")
    maps.write("gone-raw.csv.claim", b"{}")
    maps.write("._a.tif", b"macOS")
    maps.write("notes.bin", b"unknown")
    cogs.write("a.tif.aux.xml", b"strange")
    ours = cogs.start_multipart_upload("large.tif", "image/tiff")
    other = cogs.start_multipart_upload("x/b c.tif", "image/tiff")
    record = {"version": 1, "line": 1, "key": "large.tif", "id": ours}
    run.uploads_file.write_text(json.dumps(record) + "\n")

    assert archive.call("clean").stdout == "Nothing is left.\n"
    found = cleaned(archive)
    kinds = {name: (line["kind"], line["removable"]) for name, line in found.items()}
    assert kinds == {
        directory.name: ("run-directory", True),
        f"{cogs.name}/large.tif": ("multipart-upload", True),
        f"{cogs.name}/x/b c.tif": ("multipart-upload", False),
        f"{maps.name}/away-processing-20260101T000000Z.csv": ("claim", False),
        f"{maps.name}/gone-raw.csv.claim": ("claim", False),
        f"{maps.name}/._a.tif": ("unknown-object", False),
        f"{maps.name}/notes.bin": ("unknown-object", False),
        f"{cogs.name}/a.tif.aux.xml": ("unknown-object", False),
    }
    text = archive.call("clean", "--older-than", "0h").stdout
    assert f"run-directory {directory.name} (" in text
    assert "2 of 8 can be removed, " in text
    assert directory.exists()

    # A process that works on the run keeps it, and so does a CSV that is not safe.
    with locked(directory):
        kept = cleaned(archive, "--delete")
    assert not kept[directory.name]["removed"]
    assert kept[f"{cogs.name}/large.tif"]["removed"]
    assert [upload.id for upload in cogs.multipart_uploads("")] == [other]
    processed = maps.read(run.processed_key, 1000)
    for content in (None, b"other"):
        maps.remove(run.processed_key)
        if content:
            maps.write(run.processed_key, content)
        line = cleaned(archive, "--delete")[directory.name]
        assert not (line["removable"] or line["removed"])
        assert "it is kept, because" in line["reason"]
    maps.write(run.processed_key, processed)

    before = {stored.key for bucket in (maps, cogs) for stored in bucket.list()}
    assert cleaned(archive, "--delete")[directory.name]["removed"]
    assert not list(archive.directory.glob("*workflow-run-*"))
    assert before == {stored.key for bucket in (maps, cogs) for stored in bucket.list()}
    shown = archive.call("status")
    assert shown.stdout.count("0 runs, 0 done.\n") == 1


def test_runs_that_last_and_half_removed_ones(archive: Archive):
    archive.upload_raster("a.tif", 1)
    archive.launch_to_poll_by_hand("--node-submit-option", "hold = true")
    archive.upload_manifest("batch-raw.csv", [("a.tif", 1)])
    assert archive.poll().returncode == 0
    (directory,) = archive.directory.glob("workflow-run-*")
    run = load_run(directory)
    held = archive.cogs.start_multipart_upload("a.tif", "image/tiff")
    record = {"version": 1, "line": 1, "key": "a.tif", "id": held}
    run.uploads_file.write_text(json.dumps(record) + "\n")
    half = archive.directory / "removed-workflow-run-20260101T000000Z"
    half.mkdir(mode=0o700)
    (half / "run.json").write_text("{}")
    mine = archive.directory / "removed-workflow-run-mine"
    mine.mkdir()

    # Somebody wrote this file: the DAG is still in the queue.
    for is_done in (False, True):
        if is_done:
            run.done_file.write_text("{}")
            long_ago = time.time() - 100 * DAY
            os.utime(run.done_file, (long_ago, long_ago))
        found = cleaned(archive, "--delete")
        assert directory.name not in found
        assert (half.name in found) is not is_done
    assert directory.exists()
    assert mine.exists()
    assert not half.exists()


def test_clean_killed_after_a_step_goes_on_where_it_was(archive: Archive):
    directory = ended_run(archive)
    run = load_run(directory)
    uploads = {
        key: archive.cogs.start_multipart_upload(key, "image/tiff")
        for key in ("a.tif", "b.tif")
    }
    lines = [
        json.dumps({"version": 1, "line": number, "key": key, "id": upload})
        for number, (key, upload) in enumerate(uploads.items(), 1)
    ]
    run.uploads_file.write_text("\n".join(lines) + "\n")
    before = {stored.key for stored in archive.maps.list()}
    everything = ("clean", "--older-than", "0d", "--delete")

    killed_after("abort", archive, *everything, cwd=archive.directory)

    # The directory says whose the other upload is, so it is still there.
    assert len(list(archive.cogs.multipart_uploads(""))) == 1
    assert directory.exists()

    killed_after("rename workflow-run-", archive, *everything, cwd=archive.directory)

    assert not list(archive.cogs.multipart_uploads(""))
    assert archive.call("status").stdout.count("0 runs, 0 done.\n") == 1
    assert archive.poll().returncode == 0

    half_removed = f"removed-{directory.name}"
    assert cleaned(archive, "--delete")[half_removed]["removed"]
    assert not list(archive.directory.glob("*workflow-run-*"))
    assert before == {stored.key for stored in archive.maps.list()}


@pytest.mark.parametrize("age", ["90", "-1d", "1y", "999999d"])
def test_wrong_ages_are_refused(age: str):
    assert_wrong(invoke("clean", "--older-than", age), "is not an age, such as 90d")
