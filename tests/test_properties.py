"""A COG has the same pixels as its image, for randomly chosen images."""

import tempfile
from pathlib import Path

import numpy
import rasterio
from hypothesis import HealthCheck, example, given, settings, strategies
from rasterio.transform import from_origin

from node import overviews
from node.convert import convert
from node.options import parse
from tests.support import compare

KINDS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
LOSSLESS = (
    *("zstd", "deflate", "lzw", "packbits", "raw", "lerc", "lerc_zstd", "elevation"),
    *("archive", "aerial-gray"),
)
# Widths of images of which a level is one tile wide.
ONE_TILE = (511, 512, 513, 1023, 1024)


@strategies.composite
def images(draw: strategies.DrawFn) -> dict:
    tiled = draw(strategies.booleans())
    block = {"blockxsize": 16 * draw(strategies.integers(1, 20))} if tiled else {}
    return {
        "width": draw(strategies.integers(1, 1200) | strategies.sampled_from(ONE_TILE)),
        "height": draw(strategies.integers(1, 1200)),
        "count": draw(strategies.integers(1, 5)),
        "dtype": draw(strategies.sampled_from(KINDS)),
        "nodata": draw(strategies.sampled_from((None, 0, 1, 7))),
        "interleave": draw(strategies.sampled_from(("pixel", "band"))),
        "compress": draw(strategies.sampled_from(("none", "lzw", "deflate", "zstd"))),
        "tiled": tiled,
        "blockysize": 16 * draw(strategies.integers(1, 20)),
        **block,
    }


@given(
    image=images(),
    profile=strategies.sampled_from(LOSSLESS),
    seed=strategies.integers(0, 2**32 - 1),
)
@example(  # one row of tiles is larger than the amount that is read at a time
    image={"width": 40_000, "height": 30, "count": 3, "dtype": "float32"},
    profile="deflate",
    seed=0,
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_each_pixel_is_stored_exactly(image: dict, profile: str, seed: int):
    chance = numpy.random.default_rng(seed)
    shape = image["count"], image["height"], image["width"]
    # Half of the samples are zero, so codecs get both compressible and random data.
    samples = chance.integers(0, 256, shape) * (chance.random(shape) < 0.5)
    with tempfile.TemporaryDirectory() as directory:
        source, cog, jpeg = (Path(directory, name) for name in ("a", "b", "c"))
        with rasterio.open(
            source,
            "w",
            driver="GTiff",
            crs="EPSG:32616",
            transform=from_origin(3e5, 48e5, 10, 10),
            **image,
        ) as raster:
            raster.write(samples.astype(image["dtype"]))
        ((_, _, options),) = parse(["image.tif", "1", "--profile", profile])

        convert(source, image["count"], options, cog, jpeg)

        # See test_an_image_of_a_single_column_is_converted.
        if image["width"] != 1 or image["height"] <= 512:
            compare.assert_valid(cog)
        compare.assert_same_pixels(source, cog)
        compare.assert_same_description(source, cog)


@given(
    kind=strategies.sampled_from(KINDS),
    bands=strategies.integers(1, 5),
    rows=strategies.integers(1, 9),
    columns=strategies.integers(1, 9),
    seed=strategies.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_an_average_uses_only_the_valid_pixels_of_four(
    kind: str, bands: int, rows: int, columns: int, seed: int
):
    chance = numpy.random.default_rng(seed)
    pixels = chance.integers(0, 100, (rows, columns, bands)).astype(kind)
    valid = chance.random(pixels.shape) < chance.random()
    nodata = (7.0,) * bands
    pixels[~valid] = 7
    valid = pixels != 7

    halved = overviews.average(pixels, valid, nodata)

    assert halved.shape == (-(-rows // 2), -(-columns // 2), bands)
    assert halved.dtype == pixels.dtype
    for row, column, band in numpy.ndindex(halved.shape):
        area = (
            slice(2 * row, 2 * row + 2),
            slice(2 * column, 2 * column + 2),
            band,
        )
        data = pixels[area][valid[area]]
        average = halved[row, column, band]
        if not data.size:
            assert average == 7
        else:
            assert average != 7
            # The mean is rounded, and differs by one if it would be the nodata value.
            assert abs(float(average) - data.mean()) <= 1.5
            assert int(data.min()) - 1 <= average <= int(data.max()) + 1
