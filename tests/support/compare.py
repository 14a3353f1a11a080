"""Compare a COG with its source, with other readers than those of the node."""

from pathlib import Path

import numpy
import rasterio
from rasterio.enums import MaskFlags
from rio_cogeo.cogeo import cog_validate


def assert_valid(cog: Path, tile: int = 512) -> None:
    """Assert that a file is a strict COG for rio-cogeo, with tiles of such a side.

    Those of a level that is one tile wide, and large, have half the width.
    """
    valid, errors, warnings = cog_validate(cog, strict=True, quiet=True)
    assert valid, (errors, warnings)
    with rasterio.open(cog) as raster:
        assert set(raster.block_shapes) == {_tile_shape(raster, tile)}
        overviews = len(raster.overviews(1))
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        smallest = max(raster.shape)
    for level in range(overviews):
        with rasterio.open(cog, overview_level=level) as overview:
            assert set(overview.block_shapes) == {_tile_shape(overview, tile)}
            smallest = max(overview.shape)
    assert smallest <= tile


def _tile_shape(level: rasterio.DatasetReader, tile: int) -> tuple[int, int]:
    halved = level.width == tile and max(level.shape) > 512
    return tile, tile // 2 if halved else tile


def assert_same_pixels(image: Path, cog: Path) -> None:
    """Assert that each bit of each pixel, and the mask, are equal."""
    with rasterio.open(image) as ours, rasterio.open(cog) as theirs:
        assert ours.dtypes == theirs.dtypes
        assert ours.shape == theirs.shape
        for band in ours.indexes:
            assert ours.read(band).tobytes() == theirs.read(band).tobytes()
            our_mask, their_mask = ours.read_masks(band), theirs.read_masks(band)
            assert (our_mask == their_mask).all()


def assert_same_description(image: Path, cog: Path) -> None:
    """Assert that all metadata that do not depend on the storage are equal."""
    with rasterio.open(image) as ours, rasterio.open(cog) as theirs:
        for name in (
            *("crs", "transform", "colorinterp", "descriptions", "units"),
            *("scales", "offsets", "count"),
        ):
            assert getattr(ours, name) == getattr(theirs, name), name
        assert [str(n) for n in ours.nodatavals] == [str(n) for n in theirs.nodatavals]
        assert _points(ours) == _points(theirs)
        assert bool(ours.rpcs) == bool(theirs.rpcs)
        if ours.rpcs:
            assert ours.rpcs.to_gdal() == theirs.rpcs.to_gdal()
        assert _has_mask(ours) == _has_mask(theirs)
        for band in (0, *ours.indexes):
            for namespace in ours.tag_namespaces(band):
                if namespace not in ("IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "RPC"):
                    assert ours.tags(band, namespace) == theirs.tags(band, namespace)
            assert ours.tags(band).items() <= theirs.tags(band).items()
        if ours.colorinterp[0].name == "palette":
            entries, found = ours.colormap(1), theirs.colormap(1)
            assert entries == {value: found[value] for value in entries}


def _points(raster: rasterio.DatasetReader) -> tuple:
    points, crs = raster.gcps
    return [(p.row, p.col, p.x, p.y, p.z) for p in points], crs


def _has_mask(raster: rasterio.DatasetReader) -> bool:
    return raster.mask_flag_enums[0] == [MaskFlags.per_dataset]


def assert_same_image(cog, source):
    valid, errors, _ = cog_validate(cog, strict=True, quiet=True)
    assert valid, errors
    with rasterio.open(cog) as made, rasterio.open(source) as given:
        assert made.crs == given.crs
        assert made.bounds == given.bounds
        assert made.compression.name == "zstd"
        numpy.testing.assert_array_equal(made.read(), given.read())
