"""Classes, as of a palette or a thematic map, are never mixed."""

from pathlib import Path

import numpy
import pytest
import rasterio
from hypothesis import HealthCheck, example, given, settings, strategies
from PIL import Image
from rasterio.transform import from_origin

from node.convert import convert as convert_image
from node.options import RESAMPLINGS, parse
from tests.support.kinds import convert

SIDE = 1100
Y, X = numpy.mgrid[0:SIDE, 0:SIDE]
INSIDE = (X - 511) ** 2 + (Y - 511) ** 2 < 450**2
CLASSES = numpy.where(INSIDE, 1 + (X // 3 + Y // 3) % 2 * 6, 9)
COLOURS = {1: (255, 0, 0), 7: (0, 255, 0), 9: (0, 0, 0)}


def write_classes(
    path: Path,
    kind: str = "palette",
    classes: numpy.ndarray = CLASSES,
    mask: numpy.ndarray | None = None,
    **options,
) -> None:
    """Write a raster of classes of a kind: palette, thematic, bit or complex."""
    dtype = "complex64" if kind == "complex" else "uint8"
    if kind == "bit":
        classes = classes == 9
    form = {"palette": {"photometric": "palette"}, "bit": {"nbits": 1}}.get(kind, {})
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=classes.shape[1],
            height=classes.shape[0],
            count=1,
            dtype=dtype,
            crs="EPSG:32633",
            transform=from_origin(5e5, 5e6, 1, 1),
            **form,
            **options,
        ) as raster,
    ):
        if kind == "palette":
            raster.write_colormap(1, COLOURS)
        if kind == "thematic":
            raster.update_tags(1, LAYER_TYPE="thematic")
        raster.write(classes.astype(dtype), 1)
        if mask is not None:
            raster.write_mask(mask)


def valid_classes(path: Path, **options) -> set:
    with rasterio.open(path, **options) as raster:
        pixels, mask = raster.read(1), raster.dataset_mask() > 0
    assert mask.any()
    return set(numpy.unique(pixels[mask]).tolist())


@pytest.mark.parametrize("kind", ["palette", "thematic", "bit", "complex"])
def test_no_class_of_masked_pixels_is_in_an_overview(kind: str, tmp_path: Path):
    def make(path: Path) -> None:
        write_classes(path, kind, mask=INSIDE)

    status, result, image = convert(tmp_path, make, 1)
    assert status == 0, result["reason"]
    inside = valid_classes(image)
    assert inside == ({0} if kind == "bit" else {1, 7})
    for level in (0, 1):
        assert valid_classes(tmp_path / "image.tif", overview_level=level) <= inside


def test_nearest_pixels_of_a_colour_image_are_not_masked_ones(tmp_path: Path):
    def make(path: Path) -> None:
        write_classes(path, "plain", mask=INSIDE)

    options = ("--overview-resampling", "nearest")
    assert convert(tmp_path, make, 1, *options)[0] == 0
    assert valid_classes(tmp_path / "image.tif", overview_level=0) == {1, 7}


def test_no_class_of_masked_pixels_is_in_a_scaled_jpeg(tmp_path: Path):
    classes = numpy.where(INSIDE, 1, 9)

    def make(path: Path) -> None:
        write_classes(path, classes=classes, mask=INSIDE)

    assert convert(tmp_path, make, 1, "--jpeg-max-size", "300")[0] == 0
    with Image.open(tmp_path / "image.jpg") as jpeg:
        pixels = numpy.asarray(jpeg).astype(int)
    # Class 9 is black: all pixels are red, white or, at the edge, between.
    assert pixels[:, :, 0].min() > 100


def test_no_class_of_masked_pixels_is_in_an_overview_of_a_warped_image(tmp_path: Path):
    def make(path: Path) -> None:
        write_classes(path, mask=INSIDE)

    options = ("--reproject", "EPSG:3857")
    status, result, _ = convert(tmp_path, make, 1, *options)
    assert status == 0, result["reason"]
    for level in (0, 1):
        assert valid_classes(tmp_path / "image.tif", overview_level=level) == {1, 7}


@pytest.mark.parametrize("kind", ["palette", "thematic", "bit"])
@pytest.mark.parametrize("resampling", sorted(RESAMPLINGS))
def test_no_resampling_makes_a_class(kind: str, resampling: str, tmp_path: Path):
    options = ("--overview-resampling", resampling)
    status, result, image = convert(
        tmp_path, lambda path: write_classes(path, kind), 1, *options
    )
    assert status == 0, result["reason"]
    for level in (0, 1):
        found = valid_classes(tmp_path / "image.tif", overview_level=level)
        assert found <= valid_classes(image)
    warned = any("would mix its classes" in text for text in result["warnings"])
    assert warned == (resampling not in ("nearest", "mode"))


@given(
    kind=strategies.sampled_from(("palette", "thematic", "bit")),
    masked=strategies.booleans(),
    nodata=strategies.sampled_from((None, 0, 3)),
    resampling=strategies.sampled_from((None, *RESAMPLINGS)),
    warp=strategies.sampled_from(((), ("--reproject", "EPSG:3857"))),
    share=strategies.floats(0, 1),
    size=strategies.tuples(strategies.integers(1, 700), strategies.integers(1, 700)),
    seed=strategies.integers(0, 2**32 - 1),
)
@example("palette", True, None, "mode", (), 0.5, (600, 600), 0)
@example("palette", True, 3, "mode", (), 0.5, (1, 2), 1)
@example("thematic", True, None, "mode", ("--reproject", "EPSG:3857"), 0.9, (600, 9), 0)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_each_class_of_an_overview_is_among_the_valid_pixels_below(
    tmp_path_factory, kind, masked, nodata, resampling, warp, share, size, seed
):
    directory = tmp_path_factory.mktemp("image")
    source, cog, jpeg = (directory / name for name in ("a", "b", "c"))
    chance = numpy.random.default_rng(seed)
    classes = chance.integers(1, 5, size)
    classes[: size[0] // 2] += 9
    mask = chance.random(size) < share if masked else None
    if mask is not None:
        classes[~mask] = 200
        if warp:
            nodata = None  # A warp would lose the mask.
    # A colour table of one bit cannot have a transparent colour.
    write_classes(source, kind, classes, mask, nodata=None if kind == "bit" else nodata)
    words = ["a.tif", "1", *warp, "--overview-level", "2"]
    words += ["--overview-resampling", resampling] if resampling else []
    ((_, _, options),) = parse(words)

    convert_image(source, 1, options, cog, jpeg)

    with rasterio.open(cog) as raster:
        pixels, valid = raster.read(1), raster.dataset_mask() > 0
        levels = len(raster.overviews(1))
    for level in range(levels):
        with rasterio.open(cog, overview_level=level) as raster:
            overview, shown = raster.read(1), raster.dataset_mask() > 0
        step = 2 ** (level + 1)
        for row, column in zip(*numpy.nonzero(shown), strict=True):
            area = (
                slice(row * step, row * step + step),
                slice(column * step, column * step + step),
            )
            assert overview[row, column] in pixels[area][valid[area]]
