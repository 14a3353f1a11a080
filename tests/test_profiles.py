"""Tests of profiles, creation and overview options, and the CRS options."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy
import pytest
import rasterio
from rasterio.enums import ColorInterp, MaskFlags

from node.options import UsageError, parse
from node.profiles import DEFAULT, PROFILES
from tests.support import compare, rasters
from tests.support.kinds import convert, filled, plain, with_mask, with_palette
from tests.support.node import files, run_node

COMPRESSIONS = {
    "zstd": "zstd",
    "deflate": "deflate",
    "lzw": "lzw",
    "packbits": "packbits",
    "raw": None,
    "jpeg": "jpeg",
    "webp": "webp",
    "lerc": "lerc",
    "lerc_deflate": "lerc_deflate",
    "lerc_zstd": "lerc_zstd",
    "aerial-gray": "deflate",
    "aerial-rgb": "jpeg",
    "elevation": "zstd",
    "archive": "deflate",
    "web": "deflate",
}
LOSSY = {"jpeg", "webp", "aerial-rgb"}
WARPED = {"web"}


def test_every_profile_is_tested():
    assert set(COMPRESSIONS) == set(PROFILES)
    assert DEFAULT in PROFILES


@pytest.mark.parametrize(
    "make", [plain(3), with_mask(True, bands=3)], ids=["whole", "masked"]
)
@pytest.mark.parametrize("profile", sorted(set(PROFILES) - WARPED))
def test_a_profile_stores_a_colour_image(profile: str, make, tmp_path: Path):
    status, result, image = convert(tmp_path, make, 3, "--profile", profile)
    assert status == 0, result["reason"]
    cog = tmp_path / "image.tif"
    compare.assert_valid(cog)
    compare.assert_same_description(image, cog)
    if profile not in LOSSY:
        compare.assert_same_pixels(image, cog)
    else:
        with rasterio.open(image) as source, rasterio.open(cog) as converted:
            difference = source.read().astype(float) - converted.read()
            assert 0 < numpy.abs(difference).mean() < 8
    with rasterio.open(cog) as raster:
        compression = raster.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION")
        name = {"YCbCr JPEG": "jpeg"}.get(compression, compression)
        assert (name.lower() if name else None) == COMPRESSIONS[profile]
    assert (result["profile"], result["ok"]) == (profile, True)


@pytest.mark.parametrize("profile", ["elevation", "lerc", "lerc_zstd", "archive"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_elevations_are_stored_exactly(profile: str, dtype: str, tmp_path: Path):
    make = plain(1, dtype=dtype, nodata=-9999)
    status, result, image = convert(tmp_path, make, 1, "--profile", profile)
    assert status == 0, result["reason"]
    compare.assert_valid(tmp_path / "image.tif")
    compare.assert_same_pixels(image, tmp_path / "image.tif")


@pytest.mark.parametrize(
    ("make", "bands", "profile"),
    [
        (plain(1, dtype="uint16"), 1, "jpeg"),
        (plain(5), 5, "aerial-rgb"),
        (with_palette, 1, "jpeg"),
        (plain(1), 1, "webp"),
        (plain(1, dtype="int64"), 1, "lerc"),
        # The second band is alpha.
        (plain(3, photometric="MINISBLACK", alpha="YES"), 3, "jpeg"),
        (plain(3, photometric="MINISBLACK", alpha="YES"), 3, "webp"),
        (plain(4, photometric="MINISBLACK", alpha="YES"), 4, "webp"),
    ],
)
def test_an_image_that_a_compression_cannot_store_has_a_reason(
    make, bands: int, profile: str, tmp_path: Path
):
    status, result, _ = convert(tmp_path, make, bands, "--profile", profile)
    assert (status, result["code"]) == (65, "unsupported-raster")
    assert "choose another --profile" in result["reason"]


@pytest.mark.parametrize(("profile", "bands"), [("jpeg", 1), ("zstd", 3)])
def test_ycbcr_is_refused_where_gdal_cannot_write_it(
    profile: str, bands: int, tmp_path: Path
):
    options = ("--profile", profile, "--co", "PHOTOMETRIC=YCBCR")
    status, result, _ = convert(tmp_path, plain(bands), bands, *options)
    assert (status, result["code"]) == (65, "unsupported-raster")
    assert "leave it out" in result["reason"]


@pytest.mark.parametrize("profile", ["jpeg", "aerial-rgb"])
@pytest.mark.parametrize(
    "colours",
    [
        ("gray", "undefined", "undefined"),
        ("blue", "green", "red"),
        ("undefined", "undefined", "undefined"),
        ("red", "green", "undefined"),
    ],
)
def test_three_bands_that_are_not_red_green_and_blue_keep_their_meaning_as_jpeg(
    colours: tuple[str, ...], profile: str, tmp_path: Path
):
    def make(path: Path) -> None:
        rasters.write(path, 3, photometric="MINISBLACK")
        with rasterio.open(path, "r+") as raster:
            raster.colorinterp = [ColorInterp[name] for name in colours]

    status, result, image = convert(tmp_path, make, 3, "--profile", profile)
    assert status == 0, result["reason"]
    compare.assert_valid(tmp_path / "image.tif")
    compare.assert_same_description(image, tmp_path / "image.tif")
    assert result["warnings"] == []
    assert _compression_and_error(image, tmp_path / "image.tif") == "JPEG"


@pytest.mark.parametrize("bands", [3, 4])
def test_red_green_and_blue_are_stored_as_ycbcr(bands: int, tmp_path: Path):
    make = plain(bands, photometric="RGB", **({"alpha": "YES"} if bands == 4 else {}))
    status, result, image = convert(tmp_path, make, bands, "--profile", "jpeg")
    assert status == 0, result["reason"]
    assert _compression_and_error(image, tmp_path / "image.tif") == "YCbCr JPEG"


def _compression_and_error(image: Path, cog: Path) -> str:
    with rasterio.open(image) as source, rasterio.open(cog) as raster:
        expected = source.read(raster.indexes).astype(float)
        assert 0 < numpy.abs(expected - raster.read()).mean() < 8
        return raster.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"]


def test_lerc_stays_within_the_given_error(tmp_path: Path):
    options = ("--profile", "lerc", "--co", "MAX_Z_ERROR=0.5")
    make = plain(1, dtype="float32", width=1200, height=900)
    status, _, image = convert(tmp_path, make, 1, *options)
    assert status == 0
    with (
        rasterio.open(image) as source,
        rasterio.open(tmp_path / "image.tif") as converted,
    ):
        worst = numpy.abs(source.read(1) - converted.read(1)).max()
    assert 0 < worst <= 0.5


def test_creation_options_change_a_profile(tmp_path: Path):
    options = ("--co", "BLOCKSIZE=256", "--co", "PREDICTOR=NO", "--co", "BIGTIFF=YES")
    status, _, image = convert(tmp_path, plain(3), 3, *options)
    assert status == 0
    compare.assert_same_pixels(image, tmp_path / "image.tif")
    with rasterio.open(tmp_path / "image.tif") as raster:
        assert set(raster.block_shapes) == {(256, 256)}
        assert "PREDICTOR" not in raster.tags(ns="IMAGE_STRUCTURE")
    assert (tmp_path / "image.tif").read_bytes()[:4] == b"II\x2b\x00"


@pytest.mark.parametrize("level", ["0", "1", "3"])
def test_the_number_of_overviews_is_the_requested_one(level: str, tmp_path: Path):
    options = ("--overview-level", str(level))
    assert convert(tmp_path, plain(1), 1, *options)[0] == 0
    with rasterio.open(tmp_path / "image.tif") as raster:
        assert raster.overviews(1) == [2, 4, 8][: int(level)]


@pytest.mark.parametrize(
    "method", ["nearest", "average", "bilinear", "cubic", "lanczos", "mode", "rms"]
)
def test_overviews_are_resampled_with_the_requested_method(method: str, tmp_path: Path):
    # The methods give different results for a checkerboard of single pixels.
    board = numpy.indices((1, 1024, 1024)).sum(axis=0).astype("u1") % 2 * 200
    options = ("--overview-resampling", method)
    assert convert(tmp_path, filled(board), 1, *options)[0] == 0
    compare.assert_valid(tmp_path / "image.tif")
    with rasterio.open(tmp_path / "image.tif", overview_level=0) as overview:
        values = set(numpy.unique(overview.read(1)[8:-8, 8:-8]).tolist())
    if method in ("nearest", "mode"):
        assert values <= {0, 200}
    elif method == "rms":
        assert values == {141}
    else:
        assert values <= {99, 100, 101}


def test_nodata_never_bleeds_into_an_overview(tmp_path: Path):
    values = numpy.full((1, 2048, 2048), 100, "u1")
    values[0, numpy.random.default_rng(1).random((2048, 2048)) < 0.5] = 255
    assert convert(tmp_path, filled(values, nodata=255), 1)[0] == 0
    for level in (0, 1):
        with rasterio.open(tmp_path / "image.tif", overview_level=level) as overview:
            assert set(numpy.unique(overview.read(1))) <= {100, 255}


def test_masked_pixels_never_bleed_into_an_overview(tmp_path: Path):
    def make(path: Path) -> None:
        values = numpy.full((3, 1100, 1100), 100, "u1")
        valid = numpy.random.default_rng(1).random((1100, 1100)) < 0.5
        values[:, ~valid] = 255
        filled(values)(path)
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "r+") as raster,
        ):
            raster.write_mask(valid)

    assert convert(tmp_path, make, 3)[0] == 0
    with rasterio.open(tmp_path / "image.tif", overview_level=0) as overview:
        valid = overview.dataset_mask() > 0
        assert 0.9 < valid.mean() < 1
        assert (overview.read()[:, valid] == 100).all()


def test_transparent_pixels_never_bleed_into_an_overview(tmp_path: Path):
    values = numpy.full((4, 1100, 1100), 100, "u1")
    valid = numpy.random.default_rng(1).random((1100, 1100)) < 0.5
    values[:3, ~valid] = 255
    values[3] = valid * 255
    make = filled(values, photometric="RGB", alpha="YES")
    assert convert(tmp_path, make, 4)[0] == 0
    with rasterio.open(tmp_path / "image.tif", overview_level=0) as overview:
        pixels = overview.read()
        assert (pixels[:3, pixels[3] > 0] == 100).all()


def test_an_overview_has_only_the_classes_of_the_image(tmp_path: Path):
    assert convert(tmp_path, with_palette, 1)[0] == 0
    with rasterio.open(tmp_path / "image.tif", overview_level=0) as overview:
        assert set(numpy.unique(overview.read(1))) <= set(range(9))


def test_a_link_to_a_valid_cog_is_replaced_by_a_copy(tmp_path: Path):
    place = tmp_path / "elsewhere"
    place.mkdir()
    rasters.write(place / "image.tif", 1)
    assert run_node(place, "image.tif", "1").returncode == 0
    content = (place / "image.tif").read_bytes()
    (tmp_path / "image.tif").symlink_to("elsewhere/image.tif")
    done = run_node(tmp_path, "image.tif", "1", "--copy-valid-cog")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "image.tif").is_symlink()
    assert (tmp_path / "image.tif").read_bytes() == content


def test_a_valid_cog_is_copied_with_copy_valid_cog(tmp_path: Path):
    rasters.write(tmp_path / "image.tif", 3)
    run_node(tmp_path, "image.tif", "3", "--profile", "jpeg")
    cog = (tmp_path / "image.tif").read_bytes()

    assert run_node(tmp_path, "image.tif", "3", "--copy-valid-cog").returncode == 0

    assert (tmp_path / "image.tif").read_bytes() == cog
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["copied"]
    assert files(tmp_path) == {"image.tif", "image.jpg", "result.json"}


def test_a_valid_cog_is_not_copied_if_its_crs_changes(tmp_path: Path):
    rasters.write(tmp_path / "image.tif", 3)
    run_node(tmp_path, "image.tif", "3")
    options = ("--copy-valid-cog", "--assign-crs", "EPSG:26915")
    assert run_node(tmp_path, "image.tif", "3", *options).returncode == 0
    with rasterio.open(tmp_path / "image.tif") as raster:
        assert raster.crs.to_epsg() == 26915


def test_an_invalid_cog_is_not_copied(tmp_path: Path):
    status, result, _ = convert(tmp_path, plain(3), 3, "--copy-valid-cog")
    assert status == 0
    assert not result["copied"]
    compare.assert_valid(tmp_path / "image.tif")


def test_compressing_a_jpeg_as_jpeg_again_gives_a_warning(tmp_path: Path):
    make = plain(3, compress="JPEG", photometric="YCBCR")
    status, result, _ = convert(tmp_path, make, 3, "--profile", "jpeg")
    assert status == 0
    assert any("was compressed as JPEG before" in text for text in result["warnings"])


def test_assign_crs_gives_an_image_a_crs(tmp_path: Path):
    make = plain(1, crs=None)
    status, result, _ = convert(tmp_path, make, 1, "--assign-crs", "EPSG:26915")
    assert (status, result["crs"]) == (0, "EPSG:26915")
    with rasterio.open(tmp_path / "image.tif") as raster:
        assert raster.crs.to_epsg() == 26915
        assert raster.transform == rasters.TRANSFORM


def test_allow_no_crs_accepts_an_image_without_a_crs(tmp_path: Path):
    status, result, image = convert(tmp_path, plain(1, crs=None), 1, "--allow-no-crs")
    assert (status, result["crs"]) == (0, None)
    assert "it has no coordinate reference system" in result["warnings"]
    compare.assert_same_pixels(image, tmp_path / "image.tif")


@pytest.mark.parametrize("nodata", [None, 0])
def test_an_image_is_warped_to_another_crs(nodata: int | None, tmp_path: Path):
    make = plain(3, nodata=nodata)
    status, result, image = convert(tmp_path, make, 3, "--reproject", "EPSG:4326")
    assert status == 0, result["reason"]
    compare.assert_valid(tmp_path / "image.tif")
    with (
        rasterio.open(image) as source,
        rasterio.open(tmp_path / "image.tif") as converted,
    ):
        assert converted.crs.to_epsg() == 4326
        assert converted.count == 3
        # The corners of the warped image are outside the source image, so they have
        # no data.
        mask = converted.dataset_mask()
        assert 0 < (mask > 0).mean() < 1
        expected = MaskFlags.nodata if nodata is not None else MaskFlags.per_dataset
        assert converted.mask_flag_enums[0] == [expected]
        middle = converted.read(1)[converted.height // 2, converted.width // 2]
        source_middle = source.read(1)[source.height // 2, source.width // 2]
        assert abs(int(middle) - int(source_middle)) < 20


def test_the_web_profile_has_the_tiles_of_web_maps(tmp_path: Path):
    status, result, _ = convert(tmp_path, plain(3), 3, "--profile", "web")
    assert status == 0, result["reason"]
    compare.assert_valid(tmp_path / "image.tif")
    with rasterio.open(tmp_path / "image.tif") as raster:
        assert raster.crs.to_epsg() == 3857
        world = 2 * math.pi * 6378137
        zoom = math.log2(world / 256 / raster.transform.a)
        assert zoom == pytest.approx(round(zoom))
        span = 512 * raster.transform.a
        for offset in (raster.bounds.left + world / 2, world / 2 - raster.bounds.top):
            assert offset / span == pytest.approx(round(offset / span), abs=1e-6)
        assert raster.width % 512 == raster.height % 512 == 0


@pytest.mark.parametrize(
    "options",
    [
        ("--profile", "best"),
        ("--co", "COMPRESS"),
        ("--co", "COMPRESS=RAR"),
        ("--co", "TILED=NO"),
        ("--co", "ZLEVEL=$(id)"),
        ("--co", "DISCARD_LSB=2"),
        ("--op", "overview_resampling=best"),
        ("--op", "overview_level"),
        ("--overview-resampling", "best"),
        ("--overview-level", "-1"),
        ("--assign-crs", "somewhere"),
        ("--jpeg-quality", "101"),
        ("--jpeg-max-size", "0"),
    ],
)
def test_an_invalid_option_is_named_and_nothing_is_converted(
    options: tuple[str, str], tmp_path: Path
):
    rasters.write(tmp_path / "image.tif", 1)
    done = run_node(tmp_path, "image.tif", "1", *options)
    assert done.returncode == 64
    assert options[0] in done.stderr
    assert files(tmp_path) == {"image.tif"}


@pytest.mark.parametrize(
    "option",
    [
        *("ZSTD_LEVEL=0", "ZSTD_LEVEL=23", "ZSTD_LEVEL=0.5", "ZLEVEL=0", "ZLEVEL=13"),
        *("JPEG_QUALITY=0", "JPEG_QUALITY=101", "WEBP_LEVEL=0", "WEBP_LEVEL=900"),
    ],
)
def test_a_level_that_gdal_does_not_have_is_refused(option: str):
    with pytest.raises(UsageError, match=r"must be a whole number from 1 to \d+"):
        parse(["image.tif", "1", "--co", option])


@pytest.mark.parametrize(
    ("profile", "option", "bands"),
    [
        *(("zstd", f"ZSTD_LEVEL={level}", 1) for level in (1, 22)),
        *(("deflate", f"ZLEVEL={level}", 1) for level in (1, 12)),
        *(("jpeg", f"JPEG_QUALITY={quality}", 3) for quality in (50, 100)),
        *(("webp", f"WEBP_LEVEL={level}", 3) for level in (10, 100)),
    ],
)
def test_each_level_that_gdal_has_is_taken(
    profile: str, option: str, bands: int, tmp_path: Path
):
    make = plain(bands, **({"photometric": "RGB"} if bands == 3 else {}))
    words = ("--profile", profile, "--co", option)
    status, result, _ = convert(tmp_path, make, bands, *words)
    assert status == 0, result["reason"]
    assert result["warnings"] == []


@pytest.mark.parametrize(("dtype", "predictor"), [("uint8", 3), ("complex128", 2)])
def test_a_predictor_for_other_numbers_is_refused(
    dtype: str, predictor: int, tmp_path: Path
):
    option = f"PREDICTOR={predictor}"
    status, result, _ = convert(tmp_path, plain(1, dtype=dtype), 1, "--co", option)
    assert (status, result["code"]) == (65, "unsupported-raster")
    assert "use PREDICTOR=YES" in result["reason"]


def test_bits_are_left_out_in_the_way_that_the_refusal_of_discard_lsb_names(
    tmp_path: Path,
):
    with pytest.raises(UsageError, match="MAX_Z_ERROR=2 to leave out 2 bits") as found:
        parse(["image.tif", "1", "--co", "discard_lsb=2"])
    words = re.findall("--profile lerc_zstd --co MAX_Z_ERROR=2", str(found.value))
    make = plain(1, dtype="uint16")
    status, _, image = convert(tmp_path, make, 1, *words[0].split())
    assert status == 0
    with rasterio.open(image) as ours, rasterio.open(tmp_path / "image.tif") as theirs:
        assert numpy.abs(ours.read(1).astype(int) - theirs.read(1)).max() == 2


def test_the_help_lists_every_profile(tmp_path: Path):
    done = run_node(tmp_path, "--help")
    assert done.returncode == 0
    assert "generate_cogs.sh scene.tif 4" in done.stdout
    for profile in PROFILES:
        assert f"  {profile} " in done.stdout


def test_the_former_spelling_of_overview_options_works_and_the_last_one_counts():
    call = ["a.tif", "1", "--overview-level", "2", "--op", "overview_level=3"]
    ((_, _, options),) = parse([*call, "--op", "overview_resampling=cubic"])
    assert (options.overview_level, options.overview_resampling) == (3, "cubic")
    ((_, _, options),) = parse([*call, "--overview-level", "4"])
    assert options.overview_level == 4


def test_the_help_has_only_the_new_spelling(tmp_path: Path):
    help_page = run_node(tmp_path, "--help").stdout
    assert "--overview-level N" in help_page
    assert "--op " not in help_page


def test_several_cores_make_the_same_cog(tmp_path: Path):
    rasters.write(tmp_path / "source.tif", 3, width=1500, height=1200)
    cogs = []
    for cores in ("1", "2"):
        shutil.copy(tmp_path / "source.tif", tmp_path / "image.tif")
        done = run_node(tmp_path, "image.tif", "3", OMP_NUM_THREADS=cores)
        assert done.returncode == 0
        cogs.append((tmp_path / "image.tif").read_bytes())
    assert cogs[0] == cogs[1]
