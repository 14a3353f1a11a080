"""Each kind of raster becomes an equivalent COG, or fails with a reason."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import rasterio
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.transform import Affine

from tests.support import compare, rasters, raw_tiff
from tests.support.kinds import (
    BITS,
    CHANCE,
    HEIGHT,
    WIDTH,
    Make,
    convert,
    filled,
    plain,
    with_mask,
    with_palette,
)


def changed_by(change: Callable[[rasterio.io.DatasetWriter], None], **options) -> Make:
    def make(path: Path) -> None:
        rasters.write(path, **options)
        with rasterio.open(path, "r+") as raster:
            change(raster)

    return make


def with_nodata(dtype: str, nodata: float, **options) -> Make:
    values = CHANCE.integers(1, 200, (1, HEIGHT, WIDTH)).astype(dtype)
    values[CHANCE.random(values.shape) < 0.3] = nodata
    values[:, :200] = nodata
    return filled(values, nodata=nodata, **options)


def without_finite_values() -> numpy.ndarray:
    values = CHANCE.random((1, HEIGHT, WIDTH)).astype("f4")
    values[0, :100] = numpy.nan
    values[0, 200:300, :40] = numpy.inf
    values[0, 300:320, :40] = -numpy.inf
    return values


def with_points(path: Path) -> None:
    points = [
        GroundControlPoint(row, column, -90 + column / 1000, 45 - row / 1000, 0)
        for row in (0, HEIGHT)
        for column in (0, WIDTH)
    ]
    with _ungeoreferenced(path) as raster:
        raster.gcps = points, "EPSG:4326"
        raster.write(numpy.ones((1, HEIGHT, WIDTH), "u1"))


def with_rpcs(path: Path) -> None:
    line, sample, one = ([0.0] * 20 for _ in range(3))
    line[1] = sample[2] = one[0] = 1.0
    rpcs = RPC(
        height_off=1, height_scale=1, lat_off=45, lat_scale=1, long_off=-90,
        long_scale=1, line_off=1, line_scale=1, samp_off=1, samp_scale=1,
        line_num_coeff=line, line_den_coeff=one, samp_num_coeff=sample,
        samp_den_coeff=one, err_bias=None, err_rand=None,
    )  # fmt: skip
    with _ungeoreferenced(path) as raster:
        raster.rpcs = rpcs
        raster.write(numpy.ones((1, HEIGHT, WIDTH), "u1"))


def _ungeoreferenced(path: Path) -> rasterio.io.DatasetWriter:
    size = {"width": WIDTH, "height": HEIGHT, "count": 1, "dtype": "uint8"}
    return rasterio.open(path, "w", driver="GTiff", **size)


def describe(raster: rasterio.io.DatasetWriter) -> None:
    raster.update_tags(TITLE='<&> "é"', TIFFTAG_DATETIME="2020:01:01 00:00:00")
    raster.update_tags(AREA_OR_POINT="Point")
    raster.update_tags(2, WAVELENGTH="650")
    raster.update_tags(ns="ARCHIVE", SHELF="b/7")
    raster.descriptions = ["red", "grün"]
    raster.units = ["m", "ft"]
    raster.scales = [0.1, 2]
    raster.offsets = [-5, 7]


def with_sidecars(path: Path) -> None:
    with _ungeoreferenced(path) as raster:
        raster.write(numpy.ones((1, HEIGHT, WIDTH), "u1"))
    path.with_suffix(".tfw").write_text("10\n0\n0\n-10\n300005\n4799995\n")
    path.with_name(path.name + ".aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:32616</SRS>"
        '<Metadata><MDI key="FROM">beside</MDI></Metadata>'
        '<PAMRasterBand band="1"><Description>pan</Description>'
        "<NoDataValue>3</NoDataValue></PAMRasterBand></PAMDataset>"
    )


def with_overviews_beside(path: Path) -> None:
    rasters.write(path, 3)
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as raster:
        raster.build_overviews([2, 4])


def a_cog(path: Path) -> None:
    import rasterio.shutil

    rasters.write(path.with_name("plain.tif"), 3)
    rasterio.shutil.copy(path.with_name("plain.tif"), path, driver="COG")
    path.with_name("plain.tif").unlink()


DTYPES = [
    *("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
    *("float32", "float64", "complex64", "complex128", "complex_int16"),
]
CONVERTIBLE: dict[str, tuple[Make, int]] = {
    **{f"{bands} bands": (plain(bands), bands) for bands in (1, 2, 3, 4, 7, 40)},
    **{dtype: (plain(2, dtype=dtype), 2) for dtype in DTYPES},
    "float16": (plain(dtype="float32", nbits=16), 1),
    "NaN and infinities": (filled(without_finite_values()), 1),
    "nodata 0": (with_nodata("uint8", 0), 1),
    "nodata of 16 bits": (with_nodata("uint16", 65535), 1),
    "nodata -9999": (with_nodata("float32", -9999), 1),
    "nodata NaN": (with_nodata("float32", numpy.nan), 1),
    "nodata, the least integer": (with_nodata("int32", -(2**31)), 1),
    "nodata that no pixel can have": (plain(nodata=-9999, dtype="int16"), 1),
    "all nodata": (filled(numpy.zeros((1, HEIGHT, WIDTH), "u1"), nodata=0), 1),
    "all NaN": (filled(numpy.full((1, HEIGHT, WIDTH), numpy.nan, "f4")), 1),
    "mask": (with_mask(True, bands=3), 3),
    "mask of a 16-bit image": (with_mask(True, bands=1, dtype="uint16"), 1),
    "mask beside the image": (with_mask(False, bands=3), 3),
    "overviews beside the image": (with_overviews_beside, 3),
    "georeferencing beside the image": (with_sidecars, 1),
    "alpha": (plain(4, photometric="RGB", alpha="YES"), 4),
    "grey and alpha": (plain(2, alpha="YES"), 2),
    "near infrared": (plain(4, photometric="RGB", alpha="NO"), 4),
    "palette": (with_palette, 1),
    "one bit": (filled(BITS, nbits=1), 1),
    "fax": (filled(BITS, nbits=1, compress="CCITTFAX4"), 1),
    "white is zero": (plain(photometric="MINISWHITE"), 1),
    "white is zero, one bit": (filled(BITS, nbits=1, photometric="MINISWHITE"), 1),
    "YCbCr JPEG": (plain(3, compress="JPEG", photometric="YCBCR"), 3),
    "WebP": (plain(3, compress="WEBP", tiled=True), 3),
    "bands one after the other": (plain(5, interleave="band"), 5),
    "small tiles, band by band": (
        plain(3, tiled=True, blockxsize=64, blockysize=64, interleave="band"),
        3,
    ),
    "one strip": (plain(3, blockysize=HEIGHT, compress="DEFLATE"), 3),
    "big endian": (plain(3, dtype="uint16", ENDIANNESS="BIG"), 3),
    "BigTIFF": (plain(3, BIGTIFF="YES"), 3),
    "rotated": (plain(transform=Affine(9, 2, 3e5, 2, -9, 48e5)), 1),
    "south up": (plain(transform=Affine(10, 0, 3e5, 0, 10, 47e5)), 1),
    "latitude and longitude": (
        plain(crs="EPSG:4326", transform=Affine(0.01, 0, -90, 0, -0.01, 45)),
        1,
    ),
    "ground control points": (with_points, 1),
    "RPCs": (with_rpcs, 1),
    "descriptions": (changed_by(describe, bands=2, dtype="int16", nodata=-9999), 2),
    "a COG": (a_cog, 3),
    "1 x 1": (plain(3, width=1, height=1), 3),
    "one row": (plain(3, width=1700, height=1), 3),
    "513 x 513": (plain(1, width=513, height=513), 1),
}


@pytest.mark.parametrize("kind", CONVERTIBLE)
def test_the_cog_has_the_pixels_and_metadata_of_the_image(kind: str, tmp_path: Path):
    make, bands = CONVERTIBLE[kind]

    status, result, image = convert(tmp_path, make, bands)

    assert status == 0, result["reason"]
    # Rename the COG, because GDAL would read the sidecars of the image for it.
    cog = (tmp_path / "image.tif").rename(tmp_path / "cog.tif")
    compare.assert_valid(cog)
    compare.assert_same_pixels(image, cog)
    compare.assert_same_description(image, cog)
    # Some kinds have a single value, or none.
    monotonous = ("no-data:", "one-value:")
    warnings = [each for each in result["warnings"] if not each.startswith(monotonous)]
    assert warnings == []
    with Image.open(tmp_path / "image.jpg") as jpeg:
        assert jpeg.size == (result["width"], result["height"])
        jpeg.load()


def test_an_image_of_a_single_column_is_converted(tmp_path: Path):
    # rio-cogeo calls such a COG invalid, because its overviews have the width of the
    # image. It does the same with the COGs of GDAL's COG driver.
    status, _, image = convert(tmp_path, plain(1, width=1, height=1700), 1)
    assert status == 0
    compare.assert_same_pixels(image, tmp_path / "image.tif")
    with rasterio.open(tmp_path / "image.tif") as raster:
        assert len(raster.overviews(1)) == 2


def test_a_side_too_long_for_a_jpeg_is_scaled_down(tmp_path: Path):
    status, result, image = convert(tmp_path, plain(3, width=70_001, height=9), 3)
    assert status == 0
    compare.assert_valid(tmp_path / "image.tif")
    compare.assert_same_pixels(image, tmp_path / "image.tif")
    with Image.open(tmp_path / "image.jpg") as jpeg:
        assert jpeg.size == (35_001, 5)
        assert (result["jpeg"]["width"], result["jpeg"]["height"]) == jpeg.size
    assert any("scaled down to 35001 x 5" in text for text in result["warnings"])


def mixed_masks(path: Path) -> None:
    rasters.write(path, 2)
    shutil.copy(path, path.with_name("mask.tif"))
    path.with_name("mask.tif").rename(f"{path}.msk")
    with rasterio.open(f"{path}.msk", "r+", driver="GTiff") as raster:
        raster.update_tags(INTERNAL_MASK_FLAGS_1="0", INTERNAL_MASK_FLAGS_2="0")


def complex_integers_of_32_bits(path: Path) -> None:
    values = CHANCE.integers(-(2**31), 2**31, (9, 9, 2), "i4")
    complex_integer = {258: (raw_tiff.SHORT, (64,)), 339: (raw_tiff.SHORT, (5,))}
    raw_tiff.write(path, 9, 9, 9, [values.tobytes()], complex_integer)


UNCONVERTIBLE: dict[str, tuple[Make, int, str]] = {
    "no CRS": (plain(crs=None, transform=Affine.identity()), 1, "no-crs"),
    "another number of bands": (plain(3), 4, "wrong-bands"),
    "a mask for each band": (mixed_masks, 2, "unsupported-raster"),
    "complex integers": (complex_integers_of_32_bits, 1, "unsupported-raster"),
    "zero bytes": (lambda path: path.write_bytes(b""), 1, "not-a-raster"),
    "text": (lambda path: path.write_text("no raster"), 1, "not-a-raster"),
}


@pytest.mark.parametrize("kind", UNCONVERTIBLE)
def test_an_image_that_cannot_be_converted_has_a_reason(kind: str, tmp_path: Path):
    make, bands, code = UNCONVERTIBLE[kind]
    status, result, _ = convert(tmp_path, make, bands)
    assert (status, result["code"]) == (65, code)


def test_tags_in_latin_1_become_utf_8(tmp_path: Path):
    def make(path: Path) -> None:
        rasters.write(path, 1)
        with rasterio.open(path, "r+") as raster:
            raster.update_tags(TITLE="K__RTE")
            raster.descriptions = ["H__HE"]
        content = path.read_bytes()
        content = content.replace(b"K__RTE", b"K\xe4\xe4RTE")
        path.write_bytes(content.replace(b"H__HE", b"H\xf6\xf6HE"))

    status, result, image = convert(tmp_path, make, 1)
    assert status == 0, result["reason"]
    compare.assert_same_pixels(image, tmp_path / "image.tif")
    with rasterio.open(tmp_path / "image.tif") as raster:
        assert raster.descriptions == ("HööHE",)
        assert raster.tags()["TITLE"] == "KääRTE"


@pytest.mark.parametrize("options", [{}, {"compress": "LZW"}, {"tiled": True}])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_truncated_image_is_damaged(options: dict, share: float, tmp_path: Path):
    def make(path: Path) -> None:
        whole = rasters.write(path, 3, **options).read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])

    status, result, _ = convert(tmp_path, make, 3)

    assert (status, result["code"]) == (65, "damaged-image")
    assert "upload it again" in result["reason"]


@pytest.mark.parametrize("options", [{}, {"compress": "LZW"}])
@pytest.mark.parametrize("compressed", ["NONE", "DEFLATE"])
def test_a_truncated_mask_beside_an_image_is_damaged(
    compressed: str, options: dict, tmp_path: Path
):
    def make(path: Path) -> None:
        rasters.write(path, 1, **options)
        mask = path.with_name(f"{path.name}.msk")
        with rasterio.open(
            mask, "w", driver="GTiff", width=WIDTH, height=HEIGHT,
            count=1, dtype="uint8", compress=compressed,
        ) as raster:  # fmt: skip
            raster.update_tags(INTERNAL_MASK_FLAGS_1="2")
            raster.write(CHANCE.integers(1, 255, raster.shape, "u1"), 1)
        os.truncate(mask, mask.stat().st_size // 2)

    status, result, _ = convert(tmp_path, make, 1)
    assert (status, result["code"]) == (65, "damaged-image")
    assert "upload it again" in result["reason"]


@pytest.mark.parametrize("value", [0, 1])
def test_a_negative_of_one_bit_may_have_nodata(value: int, tmp_path: Path):
    make = filled(BITS, nbits=1, photometric="MINISWHITE", nodata=value)
    status, result, image = convert(tmp_path, make, 1)
    assert status == 0, result["reason"]
    compare.assert_same_pixels(image, tmp_path / "image.tif")
    with rasterio.open(tmp_path / "image.tif") as raster:
        assert raster.nodata == value


@pytest.mark.parametrize("marked", ["nodata", "mask"])
def test_the_jpeg_of_an_image_with_alpha_is_white_where_there_is_no_data(
    marked: str, tmp_path: Path
):
    values = numpy.full((4, HEIGHT, WIDTH), 80, "u1")
    values[3] = 255
    options = {"photometric": "RGB", "alpha": "YES"}
    if marked == "nodata":
        values[:3, :200] = 1
        options["nodata"] = 1

    def make(path: Path) -> None:
        filled(values, **options)(path)
        if marked == "mask":
            mask = numpy.full((HEIGHT, WIDTH), 255, "u1")
            mask[:200] = 0
            with (
                rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
                rasterio.open(path, "r+") as raster,
            ):
                raster.write_mask(mask)

    status, result, _ = convert(tmp_path, make, 4)
    assert status == 0, result["reason"]
    with Image.open(tmp_path / "image.jpg") as jpeg:
        pixels = numpy.asarray(jpeg).astype(int)
    assert pixels[100, 100].tolist() == pytest.approx([255] * 3, abs=5)
    assert pixels[400, 100].tolist() == pytest.approx([80] * 3, abs=5)


def test_complex_numbers_are_not_resampled_by_gauss(tmp_path: Path):
    make = plain(1, dtype="complex64")
    options = ("--overview-resampling", "gauss")
    status, result, _ = convert(tmp_path, make, 1, *options)
    assert status == 0, result["reason"]
    assert any("gauss is not for complex numbers" in w for w in result["warnings"])


def test_a_jpeg_in_a_tiff_that_has_a_hole_is_damaged(tmp_path: Path):
    def make(path: Path) -> None:
        content = bytearray(
            rasters.write(path, 3, compress="JPEG", photometric="YCBCR").read_bytes()
        )
        middle = len(content) // 2
        content[middle : middle + 2000] = bytes(2000)
        path.write_bytes(content)

    status, result, _ = convert(tmp_path, make, 3)
    assert (status, result["code"]) == (65, "damaged-image")


def test_an_image_that_claims_terabytes_is_refused(tmp_path: Path):
    def make(path: Path) -> None:
        # The file has a few megabytes, because it contains no tiles.
        rasters.write(path, 1)
        with rasterio.open(
            path, "w", driver="GTiff", width=2_000_000, height=2_000_000, count=1,
            dtype="uint8", crs="EPSG:32616", transform=rasters.TRANSFORM, tiled=True,
            blockxsize=4096, blockysize=4096, SPARSE_OK=True, BIGTIFF=True,
        ):  # fmt: skip
            pass

    status, result, _ = convert(tmp_path, make, 1)
    assert (status, result["code"]) == (65, "unsupported-raster")
    assert "2000000 x 2000000" in result["reason"]
