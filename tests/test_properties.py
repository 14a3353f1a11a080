"""Between an image and its COG there is no difference, whatever the image is."""

import tempfile
from pathlib import Path

import numpy
import rasterio
from hypothesis import HealthCheck, example, given, settings, strategies as some
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


@some.composite
def images(draw: some.DrawFn) -> dict:
    tiled = draw(some.booleans())
    block = {"blockxsize": 16 * draw(some.integers(1, 20))} if tiled else {}
    return {
        "width": draw(some.integers(1, 1200)),
        "height": draw(some.integers(1, 1200)),
        "count": draw(some.integers(1, 5)),
        "dtype": draw(some.sampled_from(KINDS)),
        "nodata": draw(some.sampled_from((None, 0, 1, 7))),
        "interleave": draw(some.sampled_from(("pixel", "band"))),
        "compress": draw(some.sampled_from(("none", "lzw", "deflate", "zstd"))),
        "tiled": tiled,
        "blockysize": 16 * draw(some.integers(1, 20)),
        **block,
    }


@given(
    image=images(),
    profile=some.sampled_from(LOSSLESS),
    seed=some.integers(0, 2**32 - 1),
)
@example(  # a row of tiles is more than is read at a time
    image={"width": 40_000, "height": 30, "count": 3, "dtype": "float32"},
    profile="deflate",
    seed=0,
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_bit_is_lost(image: dict, profile: str, seed: int):
    chance = numpy.random.default_rng(seed)
    shape = image["count"], image["height"], image["width"]
    # Some equal, some not: both ways that a codec can take.
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

        # See test_a_single_column_is_as_valid_as_gdals_own.
        if image["width"] > 1 or image["height"] <= 512:
            compare.assert_valid(cog)
        compare.assert_same_pixels(source, cog)
        compare.assert_same_description(source, cog)


@given(
    kind=some.sampled_from(KINDS),
    bands=some.integers(1, 5),
    rows=some.integers(1, 9),
    columns=some.integers(1, 9),
    seed=some.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_an_average_is_that_of_the_data_among_four(
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
        found = halved[row, column, band]
        if not data.size:
            assert found == 7
        else:
            assert found != 7
            # Rounded, and moved off nodata by one where it had to be.
            assert abs(float(found) - data.mean()) <= 1.5
            assert int(data.min()) - 1 <= found <= int(data.max()) + 1
