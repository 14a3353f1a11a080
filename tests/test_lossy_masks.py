"""Under lossy profiles, the same pixels have no data as in the image."""

import json
from pathlib import Path

import numpy
import pytest
import rasterio
import rasterio.shutil
from hypothesis import HealthCheck, given, settings, strategies
from rasterio.enums import ColorInterp, MaskFlags

from node import check, convert as converting
from node.convert import convert as convert_image
from node.errors import CheckFailed
from node.gdal import warning_log
from node.options import parse
from node.picture import picture
from node.source import open_source
from tests.support import compare, rasters
from tests.support.kinds import convert, filled, with_mask
from tests.support.node import run_node

SIDE = 700
Y, X = numpy.mgrid[0:SIDE, 0:SIDE]
COLLAR = abs(X - 350) + abs(Y - 350) >= 300


def smooth(bands: int) -> numpy.ndarray:
    noise = numpy.random.default_rng(0).normal(150, 5, (bands, SIDE, SIDE))
    return (noise + 20 * numpy.sin(X / 90)).clip(100, 200).astype("u1")


def collared(bands: int, nodata: int) -> numpy.ndarray:
    pixels = smooth(bands)
    pixels[:, COLLAR] = nodata
    return pixels


def mask_and_pixels(path: Path, **options) -> tuple[numpy.ndarray, numpy.ndarray]:
    with rasterio.open(path, **options) as raster:
        return raster.dataset_mask() > 0, raster.read()


@pytest.mark.parametrize("nodata", [0, 255, 7])
@pytest.mark.parametrize(
    ("profile", "bands"),
    [("jpeg", 1), ("jpeg", 3), ("aerial-rgb", 3), ("webp", 3)],
)
def test_nodata_becomes_a_mask_under_a_lossy_profile(
    profile: str, bands: int, nodata: int, tmp_path: Path
):
    options = {"photometric": "RGB"} if bands == 3 else {}
    make = filled(collared(bands, nodata), nodata=nodata, **options)
    status, result, image = convert(tmp_path, make, bands, "--profile", profile)
    assert status == 0, result["reason"]
    assert result["nodata"] is None
    cog = tmp_path / "image.tif"
    compare.assert_valid(cog)
    with rasterio.open(cog) as raster:
        assert raster.nodatavals == (None,) * bands
        assert raster.mask_flag_enums[0] == [MaskFlags.per_dataset]
    mask, pixels = mask_and_pixels(image)
    assert (mask == ~COLLAR).all()
    stored_mask, stored = mask_and_pixels(cog)
    assert (stored_mask == mask).all()
    assert abs(stored[:, mask].astype(int) - pixels[:, mask]).mean() < 8
    overview_mask, overview = mask_and_pixels(cog, overview_level=0)
    expected = mask.reshape(350, 2, 350, 2).any(axis=(1, 3))
    assert (overview_mask == expected).all()
    # Averages with nodata would be out of the range of the data.
    assert (
        (overview[:, overview_mask] > 80) & (overview[:, overview_mask] < 220)
    ).all()


def test_a_pixel_is_data_if_one_of_its_bands_is(tmp_path: Path):
    pixels = smooth(3)
    pixels[0] = 0
    pixels[1:, COLLAR] = 0
    make = filled(pixels, nodata=0, photometric="RGB")
    assert convert(tmp_path, make, 3, "--profile", "jpeg")[0] == 0
    assert (mask_and_pixels(tmp_path / "image.tif")[0] == ~COLLAR).all()


def test_a_mask_comes_before_nodata(tmp_path: Path):
    make = with_mask(True, bands=3, nodata=3)
    status, result, image = convert(tmp_path, make, 3, "--profile", "webp")
    assert status == 0, result["reason"]
    with rasterio.open(tmp_path / "image.tif") as raster:
        assert raster.nodata is None
    mask = mask_and_pixels(image)[0]
    assert (mask_and_pixels(tmp_path / "image.tif")[0] == mask).all()


@pytest.mark.parametrize("bands", [2, 4])
@pytest.mark.parametrize("profile", ["jpeg", "aerial-rgb"])
def test_alpha_becomes_a_mask_in_a_jpeg(profile: str, bands: int, tmp_path: Path):
    pixels = smooth(bands)
    pixels[-1] = numpy.where(COLLAR, 0, numpy.maximum(1, X % 256))
    colours = {"photometric": "RGB"} if bands == 4 else {}
    make = filled(pixels, alpha="YES", **colours)
    status, result, _ = convert(tmp_path, make, bands, "--profile", profile)
    assert status == 0, result["reason"]
    assert any("alpha band becomes a mask" in text for text in result["warnings"])
    assert any("partly transparent pixels" in text for text in result["warnings"])
    assert result["bands"] == bands - 1
    assert len(result["bands_info"]) == bands - 1
    compare.assert_valid(tmp_path / "image.tif")
    with rasterio.open(tmp_path / "image.tif") as raster:
        assert raster.count == bands - 1
        assert ColorInterp.alpha not in raster.colorinterp
    mask, stored = mask_and_pixels(tmp_path / "image.tif")
    assert (mask == ~COLLAR).all()
    assert abs(stored[:, mask].astype(int) - pixels[:-1, mask]).mean() < 8


@pytest.mark.parametrize("option", [(), ("--overview-resampling", "cubic")])
def test_no_pixel_is_called_partly_transparent_if_none_is(
    option: tuple[str, ...], tmp_path: Path
):
    pixels = smooth(4)
    pixels[3] = numpy.where(COLLAR, 0, 255)
    make = filled(pixels, photometric="RGB", alpha="YES")
    status, result, _ = convert(tmp_path, make, 4, "--profile", "jpeg", *option)
    assert status == 0
    assert result["warnings"] == ["its alpha band becomes a mask: JPEG has no alpha"]


def test_colours_are_divided_by_the_alpha_that_becomes_a_mask(tmp_path: Path):
    pixels = numpy.full((4, SIDE, SIDE), 100, "u1")
    pixels[3] = numpy.where(COLLAR, 0, 128)
    make = filled(pixels, photometric="RGB", alpha="PREMULTIPLIED")
    assert convert(tmp_path, make, 4, "--profile", "jpeg")[0] == 0
    mask, stored = mask_and_pixels(tmp_path / "image.tif")
    assert abs(stored[:, mask].mean() - 199) < 3


def test_webp_keeps_alpha_exactly(tmp_path: Path):
    pixels = smooth(4)
    pixels[3] = numpy.where(COLLAR, 0, X % 256)
    make = filled(pixels, photometric="RGB", alpha="YES")
    assert convert(tmp_path, make, 4, "--profile", "webp")[0] == 0
    with rasterio.open(tmp_path / "image.tif") as raster:
        assert (raster.read(4) == pixels[3]).all()


@pytest.mark.parametrize("resampling", ["cubic", "mode", "nearest"])
def test_each_resampling_of_overviews_keeps_the_mask_of_a_jpeg(
    resampling: str, tmp_path: Path
):
    make = filled(collared(3, 0), nodata=0, photometric="RGB")
    options = ("--profile", "jpeg", "--overview-resampling", resampling)
    assert convert(tmp_path, make, 3, *options)[0] == 0
    mask, pixels = mask_and_pixels(tmp_path / "image.tif", overview_level=0)
    expected = (~COLLAR).reshape(350, 2, 350, 2)
    assert not (mask & ~expected.any(axis=(1, 3))).any()
    assert mask[expected.all(axis=(1, 3))].all()
    assert abs(pixels[:, mask].mean() - collared(3, 0)[:, ~COLLAR].mean()) < 9


def test_a_warped_jpeg_has_the_mask_of_the_warped_image(tmp_path: Path):
    make = filled(collared(3, 0), nodata=0, photometric="RGB")
    warp = ("--reproject", "EPSG:4326")
    status, result, image = convert(tmp_path, make, 3, "--profile", "jpeg", *warp)
    assert status == 0, result["reason"]
    lossless = tmp_path / "lossless"
    lossless.mkdir()
    (lossless / "image.tif").write_bytes(image.read_bytes())
    assert run_node(lossless, "image.tif", "3", *warp).returncode == 0
    mask = mask_and_pixels(lossless / "image.tif")[0]
    assert 0 < mask.mean() < 1
    assert (mask_and_pixels(tmp_path / "image.tif")[0] == mask).all()


def test_a_valid_cog_is_copied_with_its_alpha_whatever_the_profile(tmp_path: Path):
    pixels = smooth(4)
    filled(pixels, photometric="RGB", alpha="YES")(tmp_path / "plain.tif")
    rasterio.shutil.copy(tmp_path / "plain.tif", tmp_path / "image.tif", driver="COG")
    before = (tmp_path / "image.tif").read_bytes()
    options = ("--profile", "jpeg", "--copy-valid-cog")
    assert run_node(tmp_path, "image.tif", "4", *options).returncode == 0
    assert (tmp_path / "image.tif").read_bytes() == before
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["bands"], result["warnings"]) == (4, [])


@pytest.mark.parametrize("profile", ["lerc", "lerc_deflate", "lerc_zstd"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("alpha", ["binary", "graded", "none"])
def test_lerc_keeps_the_colours_of_transparent_pixels(
    profile: str, dtype: str, alpha: str, tmp_path: Path
):
    pixels = smooth(4).astype(dtype)
    largest = numpy.iinfo(dtype).max
    # A fourth band that is no alpha may have its values.
    pixels[3] = numpy.where(COLLAR, 0, largest if alpha != "graded" else X)
    meaning = "NO" if alpha == "none" else "YES"
    make = filled(pixels, photometric="RGB", alpha=meaning)
    status, result, image = convert(tmp_path, make, 4, "--profile", profile)
    assert status == 0, result["reason"]
    compare.assert_same_pixels(image, tmp_path / "image.tif")
    compare.assert_same_description(image, tmp_path / "image.tif")


HEIGHTS = 130 + 5 * numpy.sin(X / 50) + numpy.random.default_rng(0).random((SIDE, SIDE))
EMPTY = (numpy.random.default_rng(1).random((SIDE, SIDE)) < 0.02) | (X > 500)


@pytest.mark.parametrize(
    ("dtype", "nodata", "error"),
    [
        ("float32", 9999, 0.1),
        ("float32", -9999, 0.1),
        ("float32", 0, 0.3),
        ("float32", 1e20, 0.1),
        ("float32", numpy.nan, 0.1),
        ("float64", 9999, 0.01),
        ("int16", 32767, 3),
        ("int16", 999, 2.5),
        ("uint8", 255, 3),
        ("uint8", 0, 2),
        ("uint8", 131, 2),
    ],
)
def test_lerc_with_an_error_keeps_each_nodata_pixel(
    dtype: str, nodata: float, error: float, tmp_path: Path
):
    pixels = HEIGHTS.astype(dtype)
    pixels[EMPTY] = nodata
    make = filled(pixels[None], nodata=nodata)
    options = ("--profile", "lerc", "--co", f"MAX_Z_ERROR={error}")
    status, result, image = convert(tmp_path, make, 1, *options)
    assert status == 0, result["reason"]
    cog = tmp_path / "image.tif"
    mask, expected = mask_and_pixels(image)
    stored_mask, stored = mask_and_pixels(cog)
    assert (stored_mask == mask).all()
    difference = abs(stored.astype("f8") - expected)[:, mask]
    # LERC computes with floats.
    assert difference.max() <= error * 1.001
    overview_mask = mask_and_pixels(cog, overview_level=0)[0]
    assert (overview_mask == mask.reshape(350, 2, 350, 2).any(axis=(1, 3))).all()


def test_lerc_with_an_error_keeps_what_is_no_number(tmp_path: Path):
    pixels = numpy.stack([HEIGHTS, HEIGHTS]).astype("f4")
    pixels[0, EMPTY] = numpy.nan
    pixels[1, :9] = numpy.inf
    options = ("--profile", "lerc", "--co", "MAX_Z_ERROR=0.1")
    assert convert(tmp_path, filled(pixels), 2, *options)[0] == 0
    stored = mask_and_pixels(tmp_path / "image.tif")[1]
    assert (numpy.isnan(stored) == numpy.isnan(pixels)).all()
    assert (numpy.isinf(stored) == numpy.isinf(pixels)).all()


def test_nodata_costs_lerc_little_of_its_compression(tmp_path: Path):
    sizes = []
    for nodata in (-9999, 9999):
        directory = tmp_path / str(nodata)
        directory.mkdir()
        pixels = numpy.where(EMPTY, nodata, HEIGHTS).astype("f4")
        filled(pixels[None], nodata=nodata)(directory / "image.tif")
        options = ("--profile", "lerc", "--co", "MAX_Z_ERROR=0.1")
        assert run_node(directory, "image.tif", "1", *options).returncode == 0
        sizes.append((directory / "image.tif").stat().st_size)
    # LERC itself keeps the least value. Without loss, the COG is twice as large.
    assert sizes[1] < 1.1 * sizes[0]


@pytest.mark.parametrize("profile", ["zstd", "lzw", "jpeg", "webp"])
def test_a_mask_that_differs_in_one_pixel_is_found(profile: str, tmp_path: Path):
    image, cog = tmp_path / "image.tif", tmp_path / "cog.tif"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        filled(smooth(3), photometric="RGB")(image)
        with rasterio.open(image, "r+") as raster:
            raster.write_mask(~COLLAR)
        ((_, _, options),) = parse(["image.tif", "3", "--profile", profile])
        with warning_log() as log, open_source(image, 3, options, log) as source:
            plan = converting.plan(source, options, tmp_path)
            codec, checksums = converting.make(
                plan, cog, tmp_path / "image.jpg", picture(source)
            )
            assert check.check(cog, plan, codec, checksums) == []
            wrong = ~COLLAR
            wrong[600, 640] ^= True
            with rasterio.open(cog, "r+", IGNORE_COG_LAYOUT_BREAK=True) as raster:
                raster.write_mask(wrong)
            with pytest.raises(CheckFailed, match="mask"):
                check.check(cog, plan, codec, checksums)


@given(
    profile=strategies.sampled_from(
        ("jpeg", "webp", "aerial-rgb", "lerc", "lerc_zstd")
    ),
    bands=strategies.sampled_from((1, 2, 3, 4)),
    nodata=strategies.sampled_from((None, 0, 9, 255)),
    alpha=strategies.booleans(),
    mask=strategies.booleans(),
    share=strategies.floats(0, 1),
    size=strategies.tuples(strategies.integers(1, 700), strategies.integers(1, 700)),
    seed=strategies.integers(0, 2**32 - 1),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_same_pixels_have_data(
    tmp_path_factory, profile, bands, nodata, alpha, mask, share, size, seed
):
    if profile == "webp":
        bands = max(3, bands)
    # JPEG takes an even number of bands only if the last one is alpha.
    alpha = bands in (2, 4) and (alpha or profile in ("jpeg", "aerial-rgb"))
    directory = tmp_path_factory.mktemp("image")
    source, cog, jpeg = (directory / name for name in ("a", "b", "c"))
    chance = numpy.random.default_rng(seed)
    rows, columns = size
    # No noise: lossy compressions remove it.
    pixels = numpy.empty((bands, rows, columns), "u1")
    pixels[:] = 90 + numpy.arange(columns) // 9
    empty = chance.random((rows, columns)) < share
    if nodata is not None:
        pixels[: bands - alpha, empty] = nodata
    if alpha:
        pixels[-1, chance.random((rows, columns)) < share] = 0
    colours = {"photometric": "RGB" if bands >= 3 else "MINISBLACK"}
    rasters.write(
        source, bands, columns, rows, nodata=nodata, ALPHA="YES" if alpha else "NO",
        **colours,
    )  # fmt: skip
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(source, "r+") as made,
    ):
        made.write(pixels)
        if mask:
            made.write_mask(chance.random((rows, columns)) < share)
    words = ["image.tif", "1", "--profile", profile, "--co", "MAX_Z_ERROR=2"]
    ((_, _, options),) = parse(words)
    with rasterio.open(source) as raster:
        expected = has_data(raster, pixels, nodata, alpha)

    convert_image(source, bands, options, cog, jpeg)

    with rasterio.open(cog) as raster:
        stored = raster.read()
        alpha = alpha and raster.count == bands
        assert (has_data(raster, stored, raster.nodata, alpha) == expected).all()


def has_data(raster, pixels, nodata, alpha) -> numpy.ndarray:
    """Return which pixels have data: a mask comes before nodata."""
    opaque = pixels[-1] > 0 if alpha else True
    if raster.mask_flag_enums[0] == [MaskFlags.per_dataset]:
        return (raster.read_masks(1) > 0) & opaque
    if nodata is None:
        return numpy.broadcast_to(opaque, pixels.shape[1:])
    colours = pixels[:-1] if alpha else pixels
    return (colours != nodata).any(axis=0) & opaque
