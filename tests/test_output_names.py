"""Outputs are named after their images, by the rule of the launch."""

import csv
import io
import json
from pathlib import Path

import pytest

from state.launch import load_launch
from tests.support.archive import Archive
from tests.support.command_line import BUCKETS, assert_wrong, invoke

RULE = (
    *("--output-prefix", "2025/", "--output-suffix", "_cog"),
    *("--strip-prefix", "public_", "--strip-prefix", "pub"),
)


def test_outputs_have_the_names_of_the_rule(archive: Archive):
    images = ["b.TIFF", "scans/public_a.tif", "scans/a.tif", "scans/pub.tif"]
    for image in images:
        archive.upload_raster(image, 1)
    archive.upload_manifest("atlas-raw.csv", [(image, 1) for image in images])
    archive.launch(*RULE, "--retry-seconds", "1")

    processed, failed = archive.outcome("atlas-")

    assert [row[0] for row in processed] == [images[0], images[1], images[3]]
    ((image, _, reason),) = failed
    assert image == "scans/a.tif"
    assert "those of line 2, scans/public_a.tif: rename one image" in reason
    stems = ("2025/b_cog", "2025/scans/a_cog", "2025/scans/pub_cog")
    assert {stored.key for stored in archive.cogs.list()} == {
        *(f"{stem}.jpg" for stem in stems),
        *("2025/b_cog.TIFF", f"{stems[1]}.tif", f"{stems[2]}.tif"),
    }

    # Other commands compute the same names.
    assert archive.call("validate").returncode == 0
    archive.upload_raster("scans/public_new.tif", 2)
    where = (*archive.store_options(), "--input-bucket", archive.maps.name)
    outputs = ("--output-bucket", archive.cogs.name, *RULE)
    made = archive.call("manifest", "scans/pub", *where, "--pending", *outputs)
    assert made.returncode == 0, made.stderr
    assert list(csv.reader(io.StringIO(made.stdout))) == [
        [f"{archive.maps.name}/scans/public_new.tif", "2"]
    ]
    # A run of before the rule goes on without it.
    assert load_launch(archive.launch_file()).cog_key("pub1.tif") == "2025/1_cog.tif"
    saved = json.loads(archive.launch_file().read_text())
    del saved["strip_prefixes"], saved["output_suffix"]
    archive.launch_file().write_text(json.dumps(saved))
    assert load_launch(archive.launch_file()).cog_key("pub1.tif") == "2025/pub1.tif"


def test_outputs_do_not_have_the_folder_of_the_images(archive: Archive):
    images = ["raw/scans/a.tif", "raw/b.tif", "b.tif"]
    for image in images:
        archive.upload_raster(image, 1)
    archive.upload_manifest("atlas-raw.csv", [(image, 1) for image in images])
    archive.launch("--input-prefix", "raw/", "--output-prefix", "2025/")

    processed, failed = archive.outcome("atlas-")

    assert [row[0] for row in processed] == images[:2]
    ((image, _, reason),) = failed
    assert image == "b.tif"
    assert "those of line 2, raw/b.tif: rename one image" in reason
    stems = ("2025/b", "2025/scans/a")
    assert {stored.key for stored in archive.cogs.list()} == {
        f"{stem}.{suffix}" for stem in stems for suffix in ("jpg", "tif")
    }

    archive.upload_raster("raw/scans/new.tif", 2)
    where = (*archive.store_options(), "--input-bucket", archive.maps.name)
    names = ("--input-prefix", "raw/", "--output-prefix", "2025/")
    listed = archive.call("list", *where, *names[:2], "--csv")
    assert [row[0] for row in csv.reader(io.StringIO(listed.stdout))] == [
        *("key", "raw/b.tif", "raw/scans/a.tif", "raw/scans/new.tif")
    ]
    pending = ("--pending", "--output-bucket", archive.cogs.name, *names)
    for prefix in ((), ("ra",), ("raw/scans/",)):
        printed = archive.call("manifest", *prefix, *where, *pending)
        assert printed.returncode == 0, printed.stderr
        assert printed.stdout == f"{archive.maps.name}/raw/scans/new.tif,2\n"
    shown = archive.call("convert", "--dry-run")
    assert shown.stdout.split()[:2] == ["images", "1"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--output-suffix", "a/b"), "cannot be part of a name"),
        (("--strip-prefix", " public"), "cannot be part of a name"),
        (
            ("--in-place", "--output-bucket", "maps", "--output-suffix", "_cog"),
            "leave out --input-prefix, --strip-prefix",
        ),
    ],
)
def test_rules_that_cannot_work_are_refused(
    words: tuple[str, ...], sentence: str, keys: tuple[Path, Path]
):
    access, secret = keys
    store = ("-a", str(access), "-s", str(secret), "-e", "127.0.0.1:9")
    assert_wrong(invoke("launch", *store, *BUCKETS, *words), sentence)
