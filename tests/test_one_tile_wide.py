"""Levels that are exactly one tile wide are tiled for rio-cogeo, too."""

from pathlib import Path

import pytest
import rasterio

from node import check
from node.convert import convert
from node.options import parse
from tests.support import compare
from tests.support.kinds import plain, with_mask


def converted(directory: Path, make, bands: int, *options: str) -> Path:
    image, cog = directory / "image.tif", directory / "cog.tif"
    make(image)
    ((_, _, parsed),) = parse(["image.tif", str(bands), *options])
    convert(image, bands, parsed, cog, directory / "image.jpg")
    assert check.layout_faults(cog) == []
    return cog


@pytest.mark.parametrize(
    ("width", "height"),
    [(512, 513), (512, 1700), (1024, 2048), (1023, 1025), (2048, 5000), (2047, 2049)],
)
@pytest.mark.parametrize("profile", ["zstd", "lzw"])
def test_a_level_that_is_one_tile_wide_has_tiles(
    profile: str, width: int, height: int, tmp_path: Path
):
    make = plain(3, width=width, height=height)
    cog = converted(tmp_path, make, 3, "--profile", profile)
    compare.assert_valid(cog)
    compare.assert_same_pixels(tmp_path / "image.tif", cog)


@pytest.mark.parametrize("profile", ["jpeg", "webp", "lerc", "deflate", "packbits"])
def test_a_mask_has_the_tiles_of_its_level(profile: str, tmp_path: Path):
    make = with_mask(True, bands=3, width=512, height=1100)
    cog = converted(tmp_path, make, 3, "--profile", profile)
    compare.assert_valid(cog)
    with rasterio.open(tmp_path / "image.tif") as ours, rasterio.open(cog) as theirs:
        assert (ours.dataset_mask() == theirs.dataset_mask()).all()


@pytest.mark.parametrize(
    ("tile", "width", "height"),
    [
        *((128, 128, 700), (128, 256, 1400), (256, 256, 600)),
        *((1024, 1024, 600), (1024, 2048, 2048), (1024, 1024, 300), (2048, 2048, 2100)),
    ],
)
def test_tiles_of_other_sizes_are_halved_too(
    tile: int, width: int, height: int, tmp_path: Path
):
    make = plain(1, width=width, height=height)
    cog = converted(tmp_path, make, 1, "--co", f"BLOCKSIZE={tile}")
    compare.assert_valid(cog, tile)
    compare.assert_same_pixels(tmp_path / "image.tif", cog)
