"""The main job: upload a manifest, launch once, read the two CSVs."""

import csv
import json
import re
import subprocess

import numpy
import pytest
import rasterio
from PIL import Image

from tests.support.archive import A_JOB_A_ROW, ALL, Archive, wait_for
from tests.support.compare import assert_same_image

# A CSV here has a field of a megabyte.
csv.field_size_limit(2**24)

HOSTILE_NAMES = [
    "with space.tif",
    "quote'single.tif",
    'quote"double.tif',
    "$(touch pwned).tif",
    "$HOME `id`.tif",
    "semi;colon.tif",
    "com,ma.tif",
    "new\nline.tif",
    "carriage\rreturn.tif",
    "back\\slash.tif",
    "percent%20.tif",
    "a=b&c#d?e.tif",
    "$$(Name).tif",
    "Ünïcödé 地図.TIF",
    "-dash.tiff",
    "right\u202eto\u202cleft.tif",
    "bell\x07 escape\x1b[31m.tif",
    "line\u2028separator\x85.tif",
    "=cmd|' /C calc'!A0.tif",
    "a..%2f..%2fup.tif",
    "a..\\..\\up.tif",
    "{{ project }}{% raw %}.tif",
    "\ufeffmark.tif",
    "\U0001f5fa e\u0301.tif",
    "f/" * 98 + "deep.tif",
    "x" * 251 + ".tif",
]


def test_good_rows_become_cogs_and_jpegs(archive: Archive):
    sources = {
        f"scenes/{bands}.tif": archive.upload_raster(
            f"scenes/{bands}.tif", bands, alpha="NO"
        )
        for bands in (1, 3, 4)
    }
    rows = [(f"{archive.maps.name}/{key}", key[7]) for key in sources]
    archive.upload_manifest("batch-raw.csv", rows)
    archive.launch()

    processed, failed = archive.outcome("batch-")

    assert [tuple(row) for row in processed] == rows
    assert failed == []
    for key, source in sources.items():
        assert_same_image(archive.fetch(archive.cogs, key), source)
        jpeg = archive.fetch(archive.cogs, key.replace(".tif", ".jpg"))
        with Image.open(jpeg) as image, rasterio.open(source) as raster:
            assert image.format == "JPEG"
            assert image.size == (raster.width, raster.height)
            assert image.mode == ("L" if raster.count == 1 else "RGB")
            pixels = numpy.atleast_3d(numpy.asarray(image)).astype(int)
            expected = raster.read(list(range(1, pixels.shape[2] + 1)))
            difference = abs(pixels.transpose(2, 0, 1) - expected)
            assert difference.mean() < 5
    assert len(list(archive.cogs.list())) == 6


def test_only_a_failed_row_keeps_its_log(archive: Archive):
    archive.upload_raster("good.tif", 3)
    archive.maps.write("bad.tif", b"no raster")
    archive.upload_manifest("batch-raw.csv", [("good.tif", 3), ("bad.tif", 3)])
    archive.launch(*A_JOB_A_ROW)
    archive.outcome("batch-")

    (run,) = archive.directory.glob("workflow-run-*")
    wait_for((run / "done.json").exists)
    logs = [log.name for log in (run / "logs").iterdir()]
    assert logs == ["row2.log"]
    results = [json.loads(line) for line in (run / "results.jsonl").open()]
    assert [result["ok"] for result in results] == [True, False]
    assert not (run / "results").exists()


def test_the_columns_of_a_row_override_the_options_of_the_launch(archive: Archive):
    for name in "abcd":
        archive.upload_raster(
            f"{name}.tif", 3, crs=None if name == "c" else "EPSG:32616"
        )
    archive.upload_manifest(
        "batch-raw.csv",
        [
            ("image", "bands", "profile", "co", "Assign-CRS", "remark"),
            ("a.tif", 3, "", "", "", "uses the launch's options"),
            ("b.tif", 3, "deflate", "BLOCKSIZE=256 PREDICTOR=NO", "", ""),
            ("c.tif", 3, "", "", "EPSG:26915", ""),
            ("d.tif", 3, "best", "", "", ""),
        ],
    )
    archive.launch(
        "--profile", "jpeg", "--co", "JPEG_QUALITY=60", "--jpeg-max-size=400"
    )

    processed, failed = archive.outcome("batch-")

    assert [row[0] for row in processed[1:]] == ["a.tif", "b.tif", "c.tif"]
    assert [row[0] for row in failed[1:]] == ["d.tif"]
    assert "there is no profile 'best'" in failed[1][2]
    stored = {}
    for name in "abc":
        with rasterio.open(archive.fetch(archive.cogs, f"{name}.tif")) as cog:
            stored[name] = (
                cog.compression.name,
                cog.block_shapes[0][0],
                cog.crs.to_epsg(),
            )
        with Image.open(archive.fetch(archive.cogs, f"{name}.jpg")) as jpeg:
            assert jpeg.size == (350, 300)
    assert stored == {
        "a": ("jpeg", 512, 32616),
        "b": ("deflate", 256, 32616),
        "c": ("jpeg", 512, 26915),
    }


def test_the_sidecar_of_an_image_is_used(archive: Archive):
    key = "scenes/with space.tif"
    archive.upload_raster(key, 1, crs=None, transform=rasterio.Affine.scale(1, -1))
    sidecar = b"<PAMDataset><SRS>EPSG:32616</SRS></PAMDataset>"
    archive.maps.write(f"{key}.aux.xml", sidecar, "text/xml")
    archive.upload_manifest("batch-raw.csv", [(key, 1)])
    archive.launch()

    processed, _ = archive.outcome("batch-")

    assert processed == [[key, "1"]]
    with rasterio.open(archive.fetch(archive.cogs, key)) as cog:
        assert cog.crs.to_epsg() == 32616
    assert {item.key for item in archive.cogs.list()} == {key, key[:-3] + "jpg"}


def test_rows_that_fail_do_not_stop_the_others(archive: Archive):
    archive.upload_raster("a/good.tif", 3)
    archive.upload_raster("a/wrong.tif", 3)
    archive.upload_raster("a/nowhere.tif", 1, crs=None)
    archive.maps.write("a/text.tif", b"this is no raster")
    rows = [("good", 3), ("wrong", 4), ("nowhere", 1), ("text", 1), ("absent", 1)]
    archive.upload_manifest(
        "deep/er/batch-raw.csv", [(f"a/{name}.tif", bands) for name, bands in rows]
    )
    archive.launch()

    processed, failed = archive.outcome("deep/er/batch-")

    assert processed == [["a/good.tif", "3"]]
    reasons = {row[0]: row[2] for row in failed}
    assert "says 4 bands" in reasons["a/wrong.tif"]
    assert "has 3" in reasons["a/wrong.tif"]
    assert "--assign-crs" in reasons["a/nowhere.tif"]
    assert "cannot read it as a GeoTIFF" in reasons["a/text.tif"]
    assert "not in the bucket" in reasons["a/absent.tif"]
    outputs = {item.key for item in archive.cogs.list()}
    assert outputs == {"a/good.tif", "a/good.jpg"}, "a failed row left an output"


def test_if_every_row_fails_the_processed_csv_is_empty(archive: Archive):
    for name in "abc":
        archive.maps.write(f"{name}.tif", name.encode() * 100)
    archive.upload_manifest("batch-raw.csv", [(f"{name}.tif", 1) for name in "abc"])
    archive.launch()

    processed, failed = archive.outcome("batch-")

    assert processed == []
    assert [row[:2] for row in failed] == [[f"{name}.tif", "1"] for name in "abc"]
    assert all(row[2] for row in failed)


def test_manifests_with_equal_names_in_several_folders_run_in_parallel(
    archive: Archive,
):
    folders = ("north/", "south/", "")
    for folder in folders:
        archive.upload_raster(f"{folder}image.tif", 1)
        archive.upload_manifest(f"{folder}batch-raw.csv", [(f"{folder}image.tif", 1)])
    archive.launch()

    for folder in folders:
        processed, failed = archive.outcome(f"{folder}batch-")
        assert processed == [[f"{folder}image.tif", "1"]]
        assert failed == []
    assert len(list(archive.directory.glob("workflow-run-*"))) == len(folders)


def test_the_crondor_job_finds_a_manifest_that_is_uploaded_later(archive: Archive):
    archive.launch()
    archive.upload_raster("late.tif", 1)
    archive.upload_manifest("late-raw.csv", [("late.tif", 1)])

    processed, failed = archive.outcome("late-")

    assert (processed, failed) == ([["late.tif", "1"]], [])


@pytest.mark.parametrize("signing", ["auto", "presigned"])
def test_hostile_keys_are_converted(archive: Archive, signing: str):
    sources = {}
    for name in HOSTILE_NAMES:
        sources[f"h/{name}"] = archive.upload_raster(
            f"h/{name}", 1, width=80, height=60
        )
    rows = [(key, 1) for key in sources]
    archive.upload_manifest("batch-raw.csv", rows)
    archive.launch("--signing", signing)

    processed, failed = archive.outcome("batch-")

    assert failed == []
    assert processed == [[key, "1"] for key in sources]
    for key, source in sources.items():
        assert_same_image(archive.fetch(archive.cogs, key), source)
    assert not list(archive.directory.rglob("pwned"))


def test_images_are_converted_from_a_plain_http_endpoint(plain_archive: Archive):
    source = plain_archive.upload_raster("image.tif", 1)
    plain_archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    plain_archive.launch()

    assert plain_archive.outcome("batch-") == ([["image.tif", "1"]], [])
    assert_same_image(plain_archive.fetch(plain_archive.cogs, "image.tif"), source)


def test_shadow_signing_fails_rows_whose_keys_it_cannot_sign(archive: Archive):
    archive.upload_raster("semi;colon.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("semi;colon.tif", 1)])
    archive.launch("--signing", "shadow")

    processed, failed = archive.outcome("batch-")

    assert processed == []
    assert "--signing auto" in failed[0][2]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no rows"),
        (b"\n \n", "no rows"),
        (b"image,bands\n", "no rows"),
        (b"II*\0\x08\0\0\0", "binary"),
        (b"\xff\xfd\xe4,3", "UTF-8"),
        ("a.tif,1\n".encode("utf-16-le"), "UTF-16"),
        (b"a.tif,1\n" + b"\0" * 2**20, "binary"),
    ],
)
def test_an_object_that_is_not_a_manifest_becomes_one_failed_row(
    archive: Archive, content: bytes, reason: str
):
    archive.maps.write("batch-raw.csv", content)
    archive.launch()

    processed, failed = archive.outcome("batch-")

    assert processed == []
    ((key, bands, failed_reason),) = failed
    assert (key, bands) == ("batch-raw.csv", "")
    assert reason in failed_reason
    (kept,) = archive.directory.glob("workflow-run-*/manifest.csv")
    assert kept.read_bytes() == content


def test_each_kind_of_bad_row_fails_with_its_reason(archive: Archive):
    archive.upload_raster("good.tif", 1)
    archive.upload_raster("twin.tif", 1)
    archive.upload_raster("twin.tiff", 1)
    bad = {
        ("good.tif", "1"): "already names this image",
        ("no-bands.tif", ""): "its number of bands is missing",
        ("bands.tif", "three"): "invalid number of bands 'three'",
        ("bands.tif", "0"): "invalid number of bands '0'",
        ("bands.tif", "-3"): "invalid number of bands '-3'",
        ("/etc/image.tif", "3"): "begins with '/'",
        ("a/../b.tif", "3"): "'..'",
        ("a/./b.tif", "3"): "'.'",
        (".tif", "3"): "begins with '.'",
        ("photo.png", "3"): "not a TIFF by name",
        ("gone.tif", "3"): "not in the bucket",
        ("", "3"): "no image is named",
        ("twin.tiff", "1"): "its JPEG would replace that of line",
        ("n" * 300 + ".tif", "1"): "too long",
        ("地" * 85 + ".tif", "1"): "too long",
        ("f/" * 101 + "deep.tif", "1"): "101 folders deep",
        ("x" * 2**20 + ".tif", "1"): "too long",
        ("a.tif", "9" * 2**20): "invalid number of bands",
        ("a/../../../b.tif", "3"): "'..'",
        ("gone\u202e\x1b[31m.tif", "3"): "not in the bucket",
        ("=cmd|' /C calc'!A0", "1"): "not a TIFF by name",
    }
    archive.upload_manifest("x-raw.csv", [("good.tif", 1), ("twin.tif", 1), *bad])
    archive.launch()

    processed, failed = archive.outcome("x-")

    assert processed == [["good.tif", "1"], ["twin.tif", "1"]]
    assert [tuple(row[:2]) for row in failed] == list(bad)
    for row, reason in zip(failed, bad.values(), strict=True):
        assert reason in row[2]


def test_a_failed_csv_can_be_uploaded_again(archive: Archive):
    name = archive.maps.name
    archive.maps.write(
        "batch-raw.csv",
        f"\ufeffImage,Bands,Note\r\n\r\n {name}/late.tif , 1 ,mine\r\n".encode(),
    )
    archive.launch()
    _, failed = archive.outcome("batch-")
    assert failed[0] == ["Image", "Bands", "reason", "Note"]
    assert failed[1][:2] == [f" {name}/late.tif ", " 1 "]
    assert failed[1][3] == "mine"

    archive.upload_raster("late.tif", 1)
    (key,) = [item.key for item in archive.maps.list("batch-failed")]
    archive.maps.write("again-raw.csv", archive.maps.read(key, ALL))
    archive.poll()
    processed, failed = archive.outcome("again-")

    assert failed == []
    assert processed[1][:2] == [f" {name}/late.tif ", " 1 "]


def test_a_cog_can_be_converted_again(archive: Archive):
    source = archive.upload_raster("image.tif", 3)
    archive.upload_manifest("first-raw.csv", [("image.tif", 3)])
    archive.launch()
    archive.outcome("first-")
    # The new COG has the same bytes as the old one. It must be uploaded nevertheless.
    archive.maps.write("again/image.tif", archive.cogs.read("image.tif", ALL))
    archive.upload_manifest("second-raw.csv", [("again/image.tif", 3)])
    archive.poll()

    processed, failed = archive.outcome("second-")

    assert (processed, failed) == ([["again/image.tif", "3"]], [])
    assert_same_image(archive.fetch(archive.cogs, "again/image.tif"), source)


def test_a_run_keeps_the_settings_of_its_launch(archive: Archive):
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    job = re.search(r"job (\d+)", archive.launch())[1]
    subprocess.run(["condor_rm", job], capture_output=True, check=True)
    relaunched = archive.run("--output-prefix", "elsewhere/")
    while "already running" in relaunched.stderr:
        relaunched = archive.run("--output-prefix", "elsewhere/")
    assert relaunched.returncode == 0, relaunched.stderr

    assert archive.outcome("batch-") == ([["image.tif", "1"]], [])
    assert archive.cogs.exists("image.tif")


def test_manifests_whose_outcomes_have_equal_names_have_separate_csvs(archive: Archive):
    archive.upload_raster("a.tif", 1)
    archive.upload_raster("b.tif", 1)
    archive.upload_manifest("x.csv", [("a.tif", 1)])
    archive.upload_manifest("x-raw.csv", [("b.tif", 1)])
    archive.launch("-p", "*.csv")

    directory = archive.directory
    wait_for(lambda: len(list(directory.glob("workflow-run-*/done.json"))) == 2)

    keys = [item.key for item in archive.maps.list("x-processed-")]
    rows = {archive.maps.read(key, ALL).decode() for key in keys}
    assert rows == {"a.tif,1\n", "b.tif,1\n"}


def test_one_bucket_for_inputs_and_outputs_needs_an_explicit_option(archive: Archive):
    one_bucket = ("--output-bucket", archive.maps.name)
    refused = archive.run(*one_bucket)
    assert refused.returncode != 0
    assert "--output-prefix" in refused.stderr
    assert "--in-place" in refused.stderr

    source = archive.upload_raster("image.tif", 1)
    original = archive.maps.read("image.tif", ALL)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    archive.launch(*one_bucket, "--output-prefix", "cogs/")
    processed, _ = archive.outcome("batch-")
    assert processed == [["image.tif", "1"]]
    assert archive.maps.read("image.tif", ALL) == original
    assert_same_image(archive.fetch(archive.maps, "cogs/image.tif"), source)


def test_in_place_replaces_the_originals(archive: Archive):
    source = archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    archive.launch("--output-bucket", archive.maps.name, "--in-place")

    processed, failed = archive.outcome("batch-")

    assert (processed, failed) == ([["image.tif", "1"]], [])
    assert_same_image(archive.fetch(archive.maps, "image.tif"), source)


def test_in_place_renames_a_sidecar_that_would_override_the_cog(archive: Archive):
    archive.upload_raster("a b.tif", 1, crs="EPSG:21781")
    sidecar = b"<PAMDataset><SRS>EPSG:21781</SRS></PAMDataset>"
    for name in ("a b.tif.aux.xml", "another.tif.aux.xml"):
        archive.maps.write(name, sidecar, "text/xml")
    archive.upload_manifest("batch-raw.csv", [("a b.tif", 1)])
    archive.launch(
        *("--output-bucket", archive.maps.name, "--in-place"),
        *("--assign-crs", "EPSG:2056"),
    )

    processed, failed = archive.outcome("batch-")

    assert (processed, failed) == ([["a b.tif", "1"]], [])
    assert not archive.maps.exists("a b.tif.aux.xml")
    assert archive.maps.read("a b.tif.aux.xml.replaced", ALL) == sidecar
    assert archive.maps.exists("another.tif.aux.xml")


def test_a_transfer_that_keeps_failing_is_repeated_and_then_given_up(archive: Archive):
    wrong = archive.directory / "wrong.key"
    wrong.write_text("not the secret\n")
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    archive.launch(
        *("--signing", "shadow") if _shadow_signs() else (),
        *("--submit-option", f"aws_secret_access_key_file = {wrong}"),
        *("--submit-option", f"transfer_input_files = {_refused_input(archive)}"),
        *("--submit-option", "hold_backoff_seconds = 1"),
        *("--submit-option", "max_holds = 1"),
    )

    processed, failed = archive.outcome("batch-")

    assert processed == []
    assert "given up while it was held: Transfer" in failed[0][2]
    (run,) = archive.directory.glob("workflow-run-*")
    log = (run / "convert.dag.nodes.log").read_text()
    # A node is tried four times; each of its jobs is held twice, released once.
    assert log.count("Job was held") == 8
    assert log.count("Job was released") == 4


def test_submit_options_reach_every_node(archive: Archive):
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    archive.launch("--submit-option", '+Project = "atlas"')
    archive.outcome("batch-")

    history = subprocess.run(
        ["condor_history", "-limit", "50", "-af", "Project"],
        capture_output=True,
        text=True,
    )
    assert "atlas" in history.stdout.split()


def _shadow_signs() -> bool:
    from condor import queue

    return queue.version() < (25, 10, 0)


def _refused_input(archive: Archive) -> str:
    """Return an input file whose transfer the store refuses, whoever signs URLs."""
    if _shadow_signs():
        return "$(input_urls)"
    return f"https://{archive.store.endpoint}/{archive.maps.name}/image.tif"
