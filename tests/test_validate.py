"""The command validate compares the output bucket with what runs said."""

import csv
import io
import json
import subprocess

import numpy
import rasterio

from ops.validate import Depth, records
from state.run import Run, load_run
from tests.support import rasters
from tests.support.archive import ALL, Archive, wait_for
from tests.support.command_line import assert_wrong, invoke

IMAGES = ("a.tif", "b, 1.tif", "c/d.tif", "e.tiff")


def converted(archive: Archive, name: str, images: tuple[str, ...]) -> Run:
    """Return a new run that has ended and processed these images."""
    before = set(archive.directory.glob("workflow-run-*"))
    archive.upload_manifest(f"{name}-raw.csv", [(image, 1) for image in images])
    assert archive.poll().returncode == 0
    (directory,) = set(archive.directory.glob("workflow-run-*")) - before
    run = load_run(directory)
    wait_for(lambda: run.done)
    return run


def spoil(archive: Archive, key: str) -> None:
    """Change the last byte of an output, and nothing else."""
    content = archive.cogs.read(key, ALL)
    archive.cogs.write(key, content[:-1] + bytes([content[-1] ^ 1]))


def faults(done: subprocess.CompletedProcess) -> dict[str, str]:
    *lines, last = map(json.loads, done.stdout.splitlines())
    assert last["faults"] == len(lines)
    assert done.returncode == (1 if lines else 0), done.stderr
    return {line["key"]: line["code"] for line in lines}


def test_outputs_are_compared_with_what_runs_said(archive: Archive):
    archive.launch_to_poll_by_hand()
    for image in IMAGES:
        archive.upload_raster(image, 1)
    first = converted(archive, "first", (*IMAGES, "missing.tif"))

    for options in ((), ("--checksums", first.directory.name)):
        done = archive.call("validate", *options)
        assert done.stdout == "Checked 8 objects: all are as they should be.\n"
        assert done.returncode == 0, done.stderr
    done = archive.call("validate", "--sample", "1", "--json")
    assert json.loads(done.stdout) == {"objects": 2, "faults": 0}

    archive.cogs.remove("a.jpg")
    spoil(archive, "b, 1.tif")
    archive.cogs.write("e.jpg", b"short")
    found = {"a.jpg": "missing", "b, 1.tif": "replaced", "e.jpg": "wrong-size"}
    for options in (("--quick",), ("--checksums",)):
        assert faults(archive.call("validate", "--json", *options)) == found
    rows = list(csv.reader(io.StringIO(archive.call("validate", "--csv").stdout)))
    assert rows[0] == ["key", "code", "reason", "run"]
    assert {row[0]: row[1] for row in rows[1:]} == found
    assert {row[3] for row in rows[1:]} == {first.directory.name}
    text = archive.call("validate")
    assert text.returncode == 1
    name = first.directory.name
    assert f"wrong-size: e.jpg ({name}):\n  it has 5 bytes, but" in text.stdout
    assert "3 of 8 objects are not as they should be" in text.stderr

    # The record of the latest run that has the image counts.
    second = converted(archive, "second", ("b, 1.tif",))
    del found["b, 1.tif"]
    done = archive.call("validate", "--json")
    assert faults(done) == found
    assert json.loads(done.stdout.splitlines()[-1])["objects"] == 8
    done = archive.call("validate", "--json", name)
    assert json.loads(done.stdout.splitlines()[-1])["objects"] == 6

    # ETags of a store that encrypts differ from all MD5s. Checksums do not.
    (place,) = records([second], [first, second])
    for stored in archive.cogs.list():
        spoil(archive, stored.key)
    assert [check.code for check in place.check(Depth())] == [None, None]
    done = archive.call("validate", "--checksums", "--json", second.directory.name)
    assert faults(done) == {"b, 1.jpg": "replaced", "b, 1.tif": "replaced"}


def test_outputs_of_a_run_that_has_not_ended_are_not_checked(archive: Archive):
    archive.upload_raster("a.tif", 1)
    archive.launch_to_poll_by_hand("--node-submit-option", "hold = true")
    archive.upload_manifest("batch-raw.csv", [("a.tif", 1)])
    assert archive.poll().returncode == 0
    (directory,) = archive.directory.glob("workflow-run-*")

    named = archive.call("validate", directory.name)
    assert named.returncode == 1
    assert "has not ended yet" in named.stderr
    assert "nothing to check" in archive.call("validate").stderr
    # Only --bucket needs keys, since runs know theirs.
    without_keys = archive.call("validate", COG_PIPELINE_S3_ENDPOINT="s3.example.org")
    assert "nothing to check" in without_keys.stderr


def test_cogs_that_others_made_are_checked(archive: Archive):
    def upload(key: str, content: bytes) -> None:
        archive.cogs.write(key, content)

    path = archive.directory / "source.tif"
    rasters.write(path, 3)
    upload("x/strips.tif", path.read_bytes())
    with rasterio.open(path) as source:
        profile = {
            **{"driver": "COG", "width": 2000, "height": 1500, "count": 1},
            **{"dtype": "uint8", "crs": source.crs, "transform": source.transform},
        }
    pixels = numpy.random.default_rng(0).integers(0, 255, (1, 1500, 2000), "u1")
    cog = archive.directory / "cog.tif"
    with rasterio.open(cog, "w", **profile) as raster:
        raster.write(pixels)
    content = cog.read_bytes()
    upload("x/good.TIF", content)
    upload("x/cut.tif", content[:-100_000])
    upload("x/empty.tif", b"")
    upload("x/vrt.tif", b"<VRTDataset rasterXSize='1' rasterYSize='1'/>")
    upload("x/header.tif", content[:40])
    upload("x/notes.txt", b"no image")
    upload("y/other.tif", b"no image")

    def check(*options: str) -> subprocess.CompletedProcess:
        options = ("--bucket", archive.cogs.name, "--json", *options)
        return archive.call("validate", *archive.store_options(), *options)

    done = check("--prefix", "x/")
    assert set(faults(done).values()) == {"not-a-cog"}
    reasons = {
        line["key"]: line["reason"]
        for line in map(json.loads, done.stdout.splitlines()[:-1])
    }
    assert reasons.pop("x/empty.tif") == "it is not a TIFF"
    assert reasons.pop("x/vrt.tif") == "it is not a TIFF"
    assert "is not tiled" in reasons.pop("x/strips.tif")
    assert "its last tile ends at byte" in reasons.pop("x/cut.tif")
    assert "its header cannot be read" in reasons.pop("x/header.tif")
    assert not reasons
    assert done.stderr.count("\n") == 1
    assert faults(check("--prefix", "x/good")) == {}
    assert json.loads(check("--sample", "3").stdout.splitlines()[-1])["objects"] == 3
    assert "nothing to check" in check("--prefix", "z/").stderr


def test_wrong_options_are_refused():
    assert_wrong(invoke("validate", "--prefix", "x/"), "--prefix needs --bucket")
    assert_wrong(
        invoke("validate", "--bucket", "x", "--quick"), "--prefix and --sample"
    )
