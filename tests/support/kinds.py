"""Make the kinds of rasters that several tests need, and convert them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy
import rasterio

from tests.support import rasters
from tests.support.node import files, run_node

HEIGHT, WIDTH = 600, 700
CHANCE = numpy.random.default_rng(1)
Make = Callable[[Path], object]
BITS = (CHANCE.random((1, HEIGHT, WIDTH)) > 0.5).astype("u1")


def plain(bands: int = 1, **options) -> Make:
    return lambda path: rasters.write(path, bands, **options)


def filled(values: numpy.ndarray, **options) -> Make:
    """Return a maker of an image of values of shape (bands, rows, columns)."""

    def make(path: Path) -> None:
        bands, height, width = values.shape
        dtype = options.pop("dtype", values.dtype.name)
        rasters.write(path, bands, width, height, dtype, **options)
        with rasterio.open(path, "r+") as raster:
            raster.write(values)

    return make


def with_mask(internal: bool, **options) -> Make:
    def make(path: Path) -> None:
        shape = options.get("height", HEIGHT), options.get("width", WIDTH)
        mask = numpy.full(shape, 255, "u1")
        mask[:, :350] = 0
        mask[::7, ::5] = 0
        rasters.write(path, **options)
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal),
            rasterio.open(path, "r+") as raster,
        ):
            raster.write_mask(mask)

    return make


def profile_of(path: Path) -> dict:
    with rasterio.open(path) as raster:
        return raster.profile | {"photometric": "palette"}


def with_palette(path: Path) -> None:
    classes = CHANCE.integers(0, 9, (1, HEIGHT, WIDTH)).astype("u1")
    filled(classes, photometric="palette")(path)
    colours = {
        value: (value, 255 - value, value * 7 % 256, 255) for value in range(256)
    }
    rasters.write(path, 1, photometric="palette")
    with rasterio.open(path, "w", **profile_of(path)) as raster:
        raster.write_colormap(1, colours)
        raster.write(classes)


def convert(
    directory: Path, make: Make, bands: int, *options: str
) -> tuple[int, dict, Path]:
    """Convert an image; return status, result and the path of an untouched copy."""
    kept = directory.with_name(directory.name + "-kept")
    kept.mkdir()
    make(kept / "image.tif")
    for file in kept.iterdir():
        shutil.copy(file, directory)
    before = files(directory)
    done = run_node(directory, "image.tif", str(bands), *options)
    result = json.loads((directory / "result.json").read_text())
    made = {"result.json"} | ({"image.jpg"} if result["ok"] else set())
    renamed = set(result.get("replaced_sidecars", []))
    made |= {f"{name}.replaced" for name in renamed}
    assert files(directory) == before - renamed | made
    assert (done.returncode == 0) == result["ok"]
    if not result["ok"]:
        assert done.stderr.strip() == f"image.tif: {result['reason']}"
        assert (directory / "image.tif").read_bytes() == (
            kept / "image.tif"
        ).read_bytes()
    return done.returncode, result, kept / "image.tif"
