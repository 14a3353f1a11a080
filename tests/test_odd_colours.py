"""Images whose colours GDAL does not know are converted: their pixels are there."""

from pathlib import Path

import numpy
import pytest
import rasterio

from tests.support import compare, rasters, raw_tiff
from tests.support.kinds import Make, convert
from tests.support.raw_tiff import SHORT

WIDTH, HEIGHT = 200, 100
GREY, PALETTE, MASK, FILTER_ARRAY, LOG_L, LOG_LUV = 1, 3, 4, 32803, 32844, 32845
SGILOG = 34676
SAMPLES = numpy.tile(numpy.arange(WIDTH), (HEIGHT, 1))


def raw(photometric: int, dtype: str = "<u1") -> Make:
    """Return a maker of an uncompressed image of one band."""
    pixels = SAMPLES.astype(dtype)
    tags = {
        258: (SHORT, (8 * pixels.itemsize,)),
        259: (SHORT, (1,)),
        262: (SHORT, (photometric,)),
    }
    strips = [pixels.tobytes()]
    return lambda path: raw_tiff.write(path, WIDTH, HEIGHT, HEIGHT, strips, tags)


def log_luv(bands: int) -> Make:
    """Return a maker of an image of luminances, or of colours, in logarithms.

    A row has a byte of all pixels after the other, the most significant one first, in
    runs of at most 127 bytes.
    """
    size = 2 if bands == 1 else 4
    values = 16384 + SAMPLES[0] * 20
    if bands == 3:
        values = (values << 16) | 0x567F
    row = b""
    for place in reversed(range(size)):
        plane = ((values >> (8 * place)) & 255).astype("u1").tobytes()
        for start in range(0, WIDTH, 127):
            run = plane[start : start + 127]
            row += bytes([len(run)]) + run
    tags = {
        258: (SHORT, (16,) * bands),
        259: (SHORT, (SGILOG,)),
        262: (SHORT, (LOG_L if bands == 1 else LOG_LUV,)),
        277: (SHORT, (bands,)),
        339: (SHORT, (2,) * bands),
    }
    return lambda path: raw_tiff.write(
        path, WIDTH, HEIGHT, HEIGHT, [row * HEIGHT], tags
    )


def with_sidecar(*meanings: str) -> Make:
    """Return a maker of an image whose .aux.xml file gives bands these meanings."""

    def make(path: Path) -> None:
        rasters.write(path, len(meanings))
        bands = "".join(
            f'<PAMRasterBand band="{band}"><ColorInterp>{meaning}</ColorInterp>'
            "</PAMRasterBand>"
            for band, meaning in enumerate(meanings, start=1)
        )
        path.with_name(f"{path.name}.aux.xml").write_text(
            f"<PAMDataset>{bands}</PAMDataset>"
        )

    return make


ODD = {
    "palette without colours": (raw(PALETTE), 1, "no colour table"),
    "16-bit palette without colours": (raw(PALETTE, "<u2"), 1, "no colour table"),
    "palette beside it, without colours": (with_sidecar("Palette"), 1, "no colour"),
    "transparency mask": (raw(MASK), 1, "undefined, is not kept"),
    "colour filter array": (raw(FILTER_ARRAY), 1, "undefined, is not kept"),
    "unknown colours": (raw(99), 1, "undefined, is not kept"),
    "LogL": (log_luv(1), 1, "undefined, is not kept"),
    "LogLuv": (log_luv(3), 3, "undefined, is not kept"),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_image_of_odd_colours_is_converted_with_a_warning(kind: str, tmp_path: Path):
    make, bands, warning = ODD[kind]

    status, result, image = convert(tmp_path, make, bands)

    assert status == 0, result["reason"]
    compare.assert_valid(tmp_path / "image.tif")
    compare.assert_same_pixels(image, tmp_path / "image.tif")
    assert any(warning in text for text in result["warnings"]), result["warnings"]
    with rasterio.open(tmp_path / "image.tif") as raster:
        assert len(numpy.unique(raster.read(1))) > 100


def test_palette_indices_without_colours_are_classes(tmp_path: Path):
    def make(path: Path) -> None:
        pixels = numpy.where(numpy.indices((1200, 1200)).sum(0) % 2, 10, 200)
        tags = {259: (SHORT, (1,)), 262: (SHORT, (PALETTE,))}
        strips = [pixels.astype("u1").tobytes()]
        raw_tiff.write(path, 1200, 1200, 1200, strips, tags)

    convert(tmp_path, make, 1)
    with rasterio.open(tmp_path / "image.tif", overview_level=0) as overview:
        assert set(numpy.unique(overview.read())) <= {10, 200}


@pytest.mark.parametrize("profile", ["jpeg", "lzw"])
def test_log_luv_under_another_profile_never_ends_in_a_defect(
    profile: str, tmp_path: Path
):
    _, result, _ = convert(tmp_path, log_luv(3), 3, "--profile", profile)
    assert result["ok"] or result["code"] == "unsupported-raster"


@pytest.mark.parametrize("meanings", [("Hue", "Saturation", "Lightness"), ("NIR",)])
def test_meanings_that_gdal_can_keep_are_kept(
    meanings: tuple[str, ...], tmp_path: Path
):
    status, result, image = convert(tmp_path, with_sidecar(*meanings), len(meanings))
    assert status == 0, result["reason"]
    assert result["warnings"] == []
    cog = (tmp_path / "image.tif").rename(tmp_path / "cog.tif")
    with rasterio.open(image) as source, rasterio.open(cog) as raster:
        assert raster.colorinterp == source.colorinterp


def test_few_bits_of_a_palette_without_colours_have_a_remedy(tmp_path: Path):
    def make(path: Path) -> None:
        tags = {258: (SHORT, (4,)), 259: (SHORT, (1,)), 262: (SHORT, (PALETTE,))}
        pixels = bytes(WIDTH * HEIGHT // 2)
        raw_tiff.write(path, WIDTH, HEIGHT, HEIGHT, [pixels], tags)

    status, result, _ = convert(tmp_path, make, 1)
    assert (status, result["code"]) == (65, "unsupported-raster")
    assert "tiffset" in result["reason"]
