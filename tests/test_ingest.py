"""The commands list and manifest read a bucket, a list and a folder."""

import csv
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
import rasterio
from click.testing import Result

from bucket import Bucket
from ingest import headers
from ingest.headers import NotReadable
from ingest.manifest import sample
from state.project import PROJECT
from tests.support import rasters, seaweedfs
from tests.support.archive import ALL, Archive
from tests.support.command_line import assert_wrong, invoke


def command(
    archive: Archive, *words: str, text: str = ""
) -> subprocess.CompletedProcess:
    name, *others = words
    bucket = ("--input-bucket", archive.maps.name)
    return archive.call(name, *archive.store_options(), *bucket, *others, text=text)


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


@pytest.fixture
def maps(archive: Archive) -> Bucket:
    """Fill the bucket: four images, of which one is cut off, and other files."""
    archive.upload_raster("scans/a, b.tif", 3)
    archive.upload_raster("scans/c.TIFF", 1)
    archive.upload_raster("scans/z/d.tif", 4)
    archive.maps.write("scans/broken.tif", b"II*\0\xff\xff\0\0 cut off here")
    archive.maps.write("scans/notes.txt", b"no image")
    archive.upload_raster("other/e.tif", 2)
    return archive.maps


def test_rasters_are_listed_with_totals(archive: Archive, maps: Bucket):
    listed = command(archive, "list", "scans/")
    assert listed.returncode == 0, listed.stderr
    *lines, last = listed.stdout.splitlines()
    pattern = r" *[\d.]+ k?M?B +\d{4}-\d\d-\d\d \d\d:\d\d  (.*)"
    keys = ["scans/a, b.tif", "scans/broken.tif", "scans/c.TIFF", "scans/z/d.tif"]
    assert [re.fullmatch(pattern, line)[1] for line in lines] == keys
    assert last.startswith("4 rasters, ")

    chosen = command(
        *(archive, "list", "--json", "--filter", r"\.tif$", "--exclude", "broken"),
        *("--larger-than", "1kB", "--since", "2020-01-01"),
    )
    *objects, totals = map(json.loads, chosen.stdout.splitlines())
    found = {stored.key: stored for stored in maps.list()}
    assert [each["key"] for each in objects] == [
        "other/e.tif",
        "scans/a, b.tif",
        "scans/z/d.tif",
    ]
    sizes = [found[each["key"]].size for each in objects]
    assert [each["bytes"] for each in objects] == sizes
    assert totals == {"rasters": 3, "bytes": sum(sizes)}

    as_csv = rows(command(archive, "list", "scans/z", "--csv").stdout)
    assert as_csv[0] == ["key", "bytes", "modified"]
    assert [row[0] for row in as_csv[1:]] == ["scans/z/d.tif"]
    assert (
        command(archive, "list", "--since", "2199-01-01").stdout == "0 rasters, 0 B\n"
    )


def test_a_manifest_is_made_and_uploaded(archive: Archive, maps: Bucket):
    done = command(archive, "manifest", "scans/", "--upload", "atlas-raw.csv")

    assert done.returncode == 1
    assert "scans/broken.tif: it ends before its directory" in done.stderr
    assert "lacks 1 image" in done.stderr
    assert done.stdout == ""
    expected = [
        [f"{maps.name}/scans/a, b.tif", "3"],
        [f"{maps.name}/scans/c.TIFF", "1"],
        [f"{maps.name}/scans/z/d.tif", "4"],
    ]
    assert rows(maps.read("atlas-raw.csv", ALL).decode()) == expected
    again = command(archive, "manifest", "scans/", "--upload", "atlas-raw.csv")
    assert again.returncode == 1
    assert "is there already" in again.stderr

    printed = command(archive, "manifest", "scans/", "--exclude", "broken")
    assert printed.returncode == 0
    assert rows(printed.stdout) == expected
    nothing = command(archive, "manifest", "nowhere/")
    assert nothing.returncode == 1
    assert "no such image" in nothing.stderr


def test_rows_go_into_a_file_while_a_terminal_shows_the_progress(
    archive: Archive, maps: Bucket
):
    terminal, stderr = os.openpty()
    command = (sys.executable, str(PROJECT / "cog_pipeline.py"), "manifest", "scans/")
    done = subprocess.run(
        [*command, *archive.store_options(), "--input-bucket", maps.name],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )
    assert done.returncode == 1
    assert [bands for _, bands in rows(done.stdout)] == ["3", "1", "4"]
    os.close(stderr)
    shown = os.read(terminal, 100_000).decode()
    os.close(terminal)
    assert "headers read" in shown
    assert "d.tif" not in shown
    # A warning has a line of its own, above the progress.
    without_codes = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown)
    assert re.search(r"[\r\n]Warning: scans/broken\.tif", without_codes)


def test_pending_images_are_those_without_a_newer_cog(archive: Archive, maps: Bucket):
    archive.cogs.write("maps/scans/c.TIFF", b"a COG")
    archive.cogs.write("maps/scans/z/d.tif", b"an old COG")
    # Some stores keep the dates of whole seconds.
    time.sleep(1.1)
    archive.upload_raster("scans/z/d.tif", 4)

    done = command(
        *(archive, "manifest", "scans/", "--exclude", "broken", "--pending"),
        *("--output-bucket", archive.cogs.name, "--output-prefix", "maps/"),
    )

    assert done.returncode == 0, done.stderr
    keys = [row[0].removeprefix(f"{maps.name}/") for row in rows(done.stdout)]
    assert keys == ["scans/a, b.tif", "scans/z/d.tif"]


def test_an_image_whose_jpeg_belongs_to_another_cog_is_not_pending(archive: Archive):
    for name in ("a.TIF", "a.tif", "b.tiff", "c.tif"):
        archive.upload_raster(name, 1)
    for key in ("a.TIF", "a.jpg", "b.Tif", "b.jpg", "c.jpg"):
        archive.cogs.write(key, b"an output")

    done = command(
        archive, "manifest", "--pending", "--output-bucket", archive.cogs.name
    )

    assert done.returncode == 0, done.stderr
    assert [row[0] for row in rows(done.stdout)] == [f"{archive.maps.name}/c.tif"]
    assert "2 images left out, such as a.tif: its JPEG would replace" in done.stderr


def test_a_manifest_is_made_of_a_list(archive: Archive, maps: Bucket):
    done = command(
        *(archive, "manifest", "--from", "-", "--json"),
        text="scans/z/d.tif\nscans/none.tif\n\nother/e.tif\n",
    )

    assert done.returncode == 1
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"key": "scans/z/d.tif", "bands": 4},
        {"key": "other/e.tif", "bands": 2},
    ]
    assert "Warning: scans/none.tif" in done.stderr


def test_a_manifest_is_made_of_a_folder(archive: Archive, maps: Bucket):
    folder = archive.directory / "scans"
    (folder / "z").mkdir(parents=True)
    rasters.write(folder / "z" / "d.tif", 4)
    rasters.write(folder / "new.tif", 1)

    trusted = command(archive, "manifest", "scans/", "--folder", str(folder))
    assert rows(trusted.stdout) == [
        [f"{maps.name}/scans/new.tif", "1"],
        [f"{maps.name}/scans/z/d.tif", "4"],
    ]
    uploaded = command(
        *(archive, "manifest", "scans/", "--folder", str(folder)),
        *("--upload", "folder-raw.csv"),
    )
    assert uploaded.returncode == 1
    assert "scans/new.tif: it is not in the bucket" in uploaded.stderr
    assert rows(maps.read("folder-raw.csv", ALL).decode()) == [
        [f"{maps.name}/scans/z/d.tif", "4"]
    ]


def test_a_list_may_begin_with_a_byte_order_mark(archive: Archive, maps: Bucket):
    saved = archive.directory / "keys.txt"
    saved.write_text("scans/z/d.tif\n", encoding="utf-8-sig")
    done = command(archive, "manifest", "--from", str(saved))
    assert rows(done.stdout) == [[f"{maps.name}/scans/z/d.tif", "4"]], done.stderr


def test_a_list_that_is_not_text_is_refused_by_its_name(archive: Archive, maps: Bucket):
    saved = archive.directory / "keys.txt"
    saved.write_text("scans/z/d.tif\nscans/café.tif\n", encoding="latin-1")
    for words in ((), ("-o", "made.csv"), ("--upload", "made-raw.csv")):
        done = command(archive, "manifest", "--from", str(saved), *words)
        assert done.returncode == 2, done.stderr
        message = " ".join(done.stderr.split())
        assert f"--from {saved}: not UTF-8 text: save it as UTF-8" in message
    assert not (archive.directory / "made.csv").exists()
    assert not maps.exists("made-raw.csv")


# The directories of these are where no file has anything.
FAR = [2**31, 2**63 - 1, 2**63, 2**64 - 1]


def far_away(offset: int) -> bytes:
    """Return the beginning of a BigTIFF whose directory is at an offset."""
    return struct.pack("<2sHHHQ", b"II", 43, 8, 0, offset)


def test_a_damaged_file_of_a_folder_does_not_keep_the_others_from_the_manifest(
    tmp_path: Path, keys: tuple[Path, Path]
):
    for offset in FAR:
        (tmp_path / f"{offset}.tif").write_bytes(far_away(offset))
    rasters.write(tmp_path / "whole.tif", 3)

    done = manifest_of_folder(tmp_path, keys)

    assert done.exit_code == 1, done.output
    assert rows(done.stdout) == [["maps/whole.tif", "3"]]
    for offset in FAR:
        assert f"{offset}.tif: it ends before its directory" in done.stderr
    assert f"lacks {len(FAR)} images" in done.stderr


def test_a_damaged_file_of_a_bucket_does_not_keep_the_others_from_the_manifest(
    archive: Archive, maps: Bucket
):
    for offset in FAR:
        maps.write(f"other/{offset}.tif", far_away(offset))

    done = command(archive, "manifest", "other/")

    assert done.returncode == 1, done.stderr
    assert rows(done.stdout) == [[f"{maps.name}/other/e.tif", "2"]]
    for offset in FAR:
        assert f"other/{offset}.tif: it ends before its directory" in done.stderr


def test_a_file_whose_name_is_not_text_is_reported_and_is_not_in_the_manifest(
    tmp_path: Path, keys: tuple[Path, Path]
):
    rasters.write(tmp_path / "whole.tif", 3)
    odd = os.fsdecode(b"map\xe9.tif")
    shutil.copy(tmp_path / "whole.tif", tmp_path / odd)

    for words in ((), ("-o", str(tmp_path / "made.csv")), ("--json",)):
        done = manifest_of_folder(tmp_path, keys, *words)
        assert done.exit_code == 1, done.output
        assert r"map\xe9.tif: its name is not UTF-8" in done.stderr
        assert "lacks 1 image" in done.stderr
    assert rows((tmp_path / "made.csv").read_text()) == [["maps/whole.tif", "3"]]


def manifest_of_folder(folder: Path, keys: tuple[Path, Path], *words: str) -> Result:
    """Make a manifest of a folder; no server is asked."""
    access, secret = keys
    return invoke(
        *("manifest", "--folder", str(folder), *words),
        *("-a", str(access), "-s", str(secret), "-e", "127.0.0.1:9"),
        *("--input-bucket", "maps"),
    )


def check_ranges(bucket: Bucket) -> None:
    bucket.write("text", bytes(range(100)))
    assert bucket.read_range("text", 0, 10) == bytes(range(10))
    assert bucket.read_range("text", 90, 50) == bytes(range(90, 100))
    assert bucket.read_range("text", 100, 5) == b""
    assert bucket.read_range("text", 2**64 - 1, 5) == b""
    # The connection can be used again.
    assert bucket.read_range("text", 50, 1) == b"\x32"


def test_ranges_end_with_the_object(archive: Archive, tmp_path: Path):
    # rclone answers a range with status 200, SeaweedFS with 206, as S3 does.
    check_ranges(archive.maps)
    directory = tmp_path / "weed"
    directory.mkdir()
    with seaweedfs.running(directory, archive.store) as store:
        bucket = Bucket(store, "ranges")
        bucket.create()
        check_ranges(bucket)


@pytest.mark.parametrize("order", ["LITTLE", "BIG"])
@pytest.mark.parametrize("big", ["YES", "NO"])
@pytest.mark.parametrize("bands", [1, 3, 300])
def test_bands_are_read_from_any_tiff(order: str, big: str, bands: int, tmp_path: Path):
    path = tmp_path / "image.tif"
    profile = {
        **{"driver": "GTiff", "width": 100, "height": 70, "count": bands},
        **{"dtype": "uint8", "BIGTIFF": big, "ENDIANNESS": order},
    }
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(numpy.zeros((bands, 70, 100), "u1"))
        # GDAL moves the directory to the end.
        raster.update_tags(note="x" * 40_000)
    content = path.read_bytes()
    requests = []

    def read(offset: int, size: int) -> bytes:
        requests.append(size)
        return content[offset : offset + size]

    assert headers.bands(read) == bands
    assert len(requests) <= 2
    for size in (0, 5, 9, 100):
        with pytest.raises(NotReadable):
            headers.bands(lambda offset, number, s=size: content[:s][offset:][:number])


def test_headers_that_are_no_tiff_are_refused_with_a_reason():
    for text in (b"", b"\x89PNG\r\n\x1a\n" * 9, b"II*\0" + b"\0" * 99, b"MM\0*" * 9):
        with pytest.raises(NotReadable, match=r"TIFF|directory"):
            headers.bands(lambda offset, size, t=text: t[offset : offset + size])


def test_a_sample_is_a_choice_of_the_keys_in_their_order():
    keys = [f"{number:04}" for number in range(1000)]
    chosen = sample(keys, 50)
    assert len(set(chosen)) == 50
    assert chosen == sorted(chosen)
    assert chosen[-1] > "0800"
    assert sample(keys[:3], 50) == keys[:3]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("list", "--larger-than", "big"), "'big' is not a size"),
        (("list", "--filter", "("), "is not a regular expression"),
        (("list", "--since", "yesterday"), "does not match the format"),
        (("manifest", "--pending"), "--pending needs --output-bucket"),
        (("manifest", "--pending", "--output-bucket", "maps"), "cannot tell"),
        (("manifest", "--upload", "atlas"), "ends in .csv"),
        (("manifest", "--from", "-", "--pending"), "--pending works only on a listing"),
        (("manifest", "--from", "-", "--folder", "/"), "not both"),
        (("manifest", "--upload", "a-raw.csv", "--json"), "leave out --json"),
        (("manifest", "-o", "nowhere/a.csv"), "be written into nowhere"),
        (("manifest", "-o", "/etc/hostname/a.csv"), "be written into /etc/hostname"),
        (("manifest", "-o", "-"), "leave out --output to print the manifest"),
        (("manifest", "-o", "/dev/stdout"), "leave out --output to print"),
        (("manifest", "-o", "/dev/fd/1"), "leave out --output to print"),
    ],
)
def test_wrong_options_are_refused(
    words: tuple[str, ...], sentence: str, keys: tuple[Path, Path]
):
    access, secret = keys
    result = invoke(
        *words,
        *("-a", str(access), "-s", str(secret), "-e", "127.0.0.1:9"),
        *("--input-bucket", "maps"),
    )
    assert_wrong(result, sentence)
