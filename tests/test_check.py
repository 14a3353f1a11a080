"""The node checks each COG before upload and finds what is wrong with it."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy
import pytest
import rasterio
import rasterio.shutil

from node import check, convert as converting, tiff
from node.errors import CheckFailed
from node.gdal import warning_log
from node.options import parse
from node.picture import picture
from node.source import open_source
from tests.support import rasters


@contextmanager
def converted(directory: Path, *options: str) -> Iterator[tuple]:
    """Yield a COG of a new image, and the other arguments of ``check.check``."""
    image = rasters.write(directory / "image.tif", 3, width=1300, height=1100)
    cog = directory / "cog.tif"
    ((_, _, chosen),) = parse(["image.tif", "3", *options])
    with warning_log() as log, open_source(image, 3, chosen, log) as source:
        plan = converting.plan(source, chosen, directory)
        jpeg, preview = directory / "image.jpg", picture(source)
        codec, checksums = converting.make(plan, cog, jpeg, preview)
        yield cog, plan, codec, checksums


def damage(cog: Path, tile: int) -> None:
    """Flip a bit in one of the first pixels of a tile of the image."""
    with cog.open("r+b") as file:
        structure = tiff.read(file)
        offset = int(structure.numbers(0, tiff.TILE_OFFSETS)[tile])
        file.seek(offset + 60)
        byte = file.read(1)[0]
        file.seek(offset + 60)
        file.write(bytes((byte ^ 4,)))


@pytest.mark.parametrize("profile", ["zstd", "deflate", "lzw", "jpeg", "webp"])
def test_a_good_cog_passes(profile: str, tmp_path: Path):
    with converted(tmp_path, "--profile", profile) as arguments:
        assert check.check(*arguments) == []


@pytest.mark.parametrize("tile", [0, 4, 8])
@pytest.mark.parametrize("profile", ["zstd", "deflate", "lzw", "raw"])
def test_one_wrong_bit_in_any_tile_is_found(profile: str, tile: int, tmp_path: Path):
    with converted(tmp_path, "--profile", profile) as arguments:
        damage(arguments[0], tile)
        with pytest.raises(CheckFailed):
            check.check(*arguments)


def test_a_loss_above_the_limit_of_a_lossy_profile_is_found(tmp_path: Path):
    with converted(tmp_path, "--profile", "jpeg") as arguments:
        inverted = tmp_path / "inverted.tif"
        with rasterio.open(tmp_path / "image.tif") as raster:
            profile, pixels = raster.profile, raster.read()
        with rasterio.open(inverted, "w", **profile) as raster:
            raster.write(255 - pixels)
        rasterio.shutil.copy(
            inverted, arguments[0], driver="COG", COMPRESS="JPEG", BLOCKSIZE=512
        )
        with pytest.raises(CheckFailed, match="profile allows 16"):
            check.check(*arguments)


def test_a_changed_nodata_value_is_found(tmp_path: Path):
    with converted(tmp_path) as arguments:
        with rasterio.open(arguments[0], "r+", IGNORE_COG_LAYOUT_BREAK=True) as raster:
            raster.nodata = 9
        with pytest.raises(CheckFailed):
            check.check(*arguments)


@pytest.mark.parametrize("layout", ["strips", "no overviews", "appended", "text"])
def test_a_file_that_is_not_a_valid_cog_is_reported(layout: str, tmp_path: Path):
    tiled = {"tiled": True, "blockxsize": 512, "blockysize": 512}
    path = tmp_path / "image.tif"
    if layout == "text":
        path.write_text("this is no TIFF")
    else:
        options = {} if layout == "strips" else tiled
        rasters.write(path, 3, width=1300, height=1100, **options)
    if layout == "appended":
        with rasterio.open(path, "r+") as raster:
            raster.build_overviews([2, 4])
    (fault, *_) = check.layout_faults(path)
    assert {
        "strips": "image 0 is not tiled",
        "no overviews": "it has no overviews",
        "appended": "a directory comes after pixels",
        "text": "no TIFF header",
    }[layout] == fault


def test_a_tiff_needs_an_image_but_no_stored_tiles(tmp_path: Path):
    path = tmp_path / "sparse.tif"
    profile = {"driver": "GTiff", "dtype": "uint8", "tiled": True, "sparse_ok": "TRUE"}
    with rasterio.open(path, "w", width=300, height=300, count=1, **profile):
        pass
    assert check.layout_faults(path) == []
    with path.open("r+b") as file:
        position = tiff.read(file).positions[0]
        # Overwrite the first entry of the directory: the image becomes a mask.
        file.seek(position + 2)
        file.write(struct.pack("<HHII", tiff.SUBFILE_TYPE, 4, 1, tiff.MASK))
    assert check.layout_faults(path) == ["no image"]


def test_gdals_own_cog_is_valid(tmp_path: Path):
    rasters.write(tmp_path / "image.tif", 3, width=1300, height=1100)
    cog = tmp_path / "cog.tif"
    rasterio.shutil.copy(tmp_path / "image.tif", cog, driver="COG")
    assert check.layout_faults(cog) == []


def test_the_tags_that_were_read_are_those_that_gdal_reads(tmp_path: Path):
    path = rasters.write(tmp_path / "image.tif", 3, ENDIANNESS="BIG", BIGTIFF="YES")
    with path.open("rb") as file:
        structure = tiff.read(file)
    with rasterio.open(path) as raster:
        assert structure.order == ">"
        assert structure.number(0, tiff.IMAGE_WIDTH) == raster.width
        assert numpy.array_equal(structure.numbers(0, 258), [8, 8, 8])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"interleave": "pixel"},
        {"interleave": "band"},
        {"blockysize": 7},
        {"tiled": True, "blockxsize": 128, "blockysize": 64},
        {"dtype": "float64"},
        {"nbits": 1},
        {"ENDIANNESS": "BIG", "BIGTIFF": "YES"},
    ],
)
def test_a_plain_image_is_not_whole_if_a_byte_is_missing(options: dict, tmp_path: Path):
    path = rasters.write(tmp_path / "image.tif", 3, **options)
    assert tiff.is_plain_and_whole(path)
    with path.open("rb") as file:
        structure = tiff.read(file)
    first = 324 if options.get("tiled") else 273
    ends = structure.numbers(0, first) + structure.numbers(
        0, first + (1 if options.get("tiled") else 6)
    )
    path.write_bytes(path.read_bytes()[: int(ends.max()) - 1])
    assert not tiff.is_plain_and_whole(path)


def test_a_compressed_image_is_not_plain(tmp_path: Path):
    path = rasters.write(tmp_path / "image.tif", 3, compress="LZW")
    assert not tiff.is_plain_and_whole(path)
