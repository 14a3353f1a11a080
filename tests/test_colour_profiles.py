"""What an image's colours look like is kept in the COG and in the JPEG."""

import base64
from pathlib import Path

import pytest
import rasterio
from PIL import Image, ImageCms

from tests.support.kinds import Make, convert, plain, profile_of, with_palette

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def profile_for(space: bytes) -> bytes:
    """Return a profile for colours of a space, as its header names it."""
    return SRGB[:16] + space + SRGB[20:]


def with_profile(bands: int, profile: bytes, **options) -> Make:
    return plain(
        bands, SOURCE_ICC_PROFILE=base64.b64encode(profile).decode(), **options
    )


def profile_in_cog(directory: Path) -> bytes | None:
    with rasterio.open(directory / "image.tif") as raster:
        text = raster.tags(ns="COLOR_PROFILE").get("SOURCE_ICC_PROFILE")
    return base64.b64decode(text) if text else None


def profile_in_jpeg(directory: Path) -> bytes | None:
    with Image.open(directory / "image.jpg") as jpeg:
        jpeg.load()
        return jpeg.info.get("icc_profile")


@pytest.mark.parametrize(
    ("bands", "space", "options"),
    [
        (3, b"RGB ", {"photometric": "RGB"}),
        (3, b"RGB ", {"photometric": "RGB", "dtype": "uint16"}),
        (4, b"RGB ", {"photometric": "RGB", "alpha": "YES"}),
        (3, b"RGB ", {"photometric": "YCBCR", "compress": "JPEG"}),
        (1, b"GRAY", {}),
        (1, b"GRAY", {"photometric": "MINISWHITE"}),
    ],
)
@pytest.mark.parametrize("size", [len(SRGB), 200_000])
def test_a_profile_is_kept(
    bands: int, space: bytes, options: dict, size: int, tmp_path: Path
):
    # A JPEG has more than 64 kB of a profile in several parts.
    profile = profile_for(space) + bytes(size - len(SRGB))

    status, result, _ = convert(
        tmp_path, with_profile(bands, profile, **options), bands
    )

    assert status == 0, result["reason"]
    assert profile_in_cog(tmp_path) == profile
    assert profile_in_jpeg(tmp_path) == profile
    assert result["warnings"] == []


@pytest.mark.parametrize("options", [("--profile", "jpeg"), ("--profile", "web")])
def test_a_profile_is_kept_by_other_profiles_of_the_cog(
    options: tuple[str, ...], tmp_path: Path
):
    make = with_profile(3, SRGB, photometric="RGB")
    status, result, _ = convert(tmp_path, make, 3, *options)
    assert status == 0, result["reason"]
    assert profile_in_cog(tmp_path) == profile_in_jpeg(tmp_path) == SRGB


def test_the_profile_of_a_palette_is_that_of_its_colours(tmp_path: Path):
    def make(path: Path) -> None:
        with_palette(path)
        with rasterio.open(path) as raster:
            pixels, colours = raster.read(), raster.colormap(1)
        icc = {"SOURCE_ICC_PROFILE": base64.b64encode(SRGB).decode()}
        with rasterio.open(path, "w", **profile_of(path) | icc) as raster:
            raster.write_colormap(1, colours)
            raster.write(pixels)

    status, result, _ = convert(tmp_path, make, 1)
    assert status == 0, result["reason"]
    assert profile_in_cog(tmp_path) == profile_in_jpeg(tmp_path) == SRGB


def test_a_profile_of_other_colours_than_those_shown_is_not_in_the_jpeg(
    tmp_path: Path,
):
    status, _, _ = convert(tmp_path, with_profile(1, SRGB), 1)
    assert status == 0
    assert profile_in_cog(tmp_path) == SRGB
    assert profile_in_jpeg(tmp_path) is None


def test_a_profile_of_inks_is_not_kept_for_the_colours_made_of_them(tmp_path: Path):
    make = with_profile(4, profile_for(b"CMYK"), photometric="CMYK")
    status, result, _ = convert(tmp_path, make, 4)
    assert status == 0, result["reason"]
    assert profile_in_cog(tmp_path) is profile_in_jpeg(tmp_path) is None
    assert any("ICC_PROFILE is not kept" in text for text in result["warnings"])


def test_colours_that_are_described_without_a_profile_are_kept(tmp_path: Path):
    function = ",".join(str(value * 257) for value in range(256))
    described = {
        "SOURCE_PRIMARIES_RED": "0.64,0.33,1",
        "SOURCE_PRIMARIES_GREEN": "0.3,0.6,1",
        "SOURCE_PRIMARIES_BLUE": "0.15,0.06,1",
        "SOURCE_WHITEPOINT": "0.3127,0.329,1",
        **{
            f"TIFFTAG_TRANSFERFUNCTION_{colour}": function
            for colour in ("RED", "GREEN", "BLUE")
        },
    }
    make = plain(3, photometric="RGB", **described)

    status, result, image = convert(tmp_path, make, 3)

    assert status == 0, result["reason"]
    with rasterio.open(image) as source, rasterio.open(tmp_path / "image.tif") as cog:
        expected = source.tags(ns="COLOR_PROFILE")
        assert expected.keys() == described.keys()
        assert cog.tags(ns="COLOR_PROFILE") == expected
    assert result["warnings"] == []
