"""Whether a COG is one, and whether it is the source's."""

import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy
import rasterio
from rasterio.enums import MaskFlags
from rasterio.transform import Affine
from rasterio.windows import Window

from node import cog, tiff
from node.encode import Codec
from node.errors import CheckFailed, in_short
from node.gdal import READ_ERRORS
from node.levels import Checksums, Plan
from node.source import Source

# Tiles that GDAL reads and that are compared pixel by pixel.
_SAMPLES = 9


def layout_faults(path: Path, want_overviews: bool = True) -> list[str]:
    """What keeps a TIFF from being a COG that is valid in the strictest sense.

    The rules are those of GDAL's validate_cloud_optimized_geotiff: tiled, with
    overviews, every directory before all pixels, the largest image first and the
    smallest overview's pixels first.
    """
    try:
        with path.open("rb") as file:
            structure = tiff.read(file)
            length = file.seek(0, 2)
    except (tiff.NotATiff, OSError) as error:
        return [str(error)]
    directories = range(len(structure.directories))
    if not directories:
        return ["no image"]
    faults = []
    data, images = [], []
    for index in directories:
        offsets = structure.numbers(index, tiff.TILE_OFFSETS)
        ends = offsets + structure.numbers(index, tiff.TILE_BYTE_COUNTS)
        kind = structure.number(index, tiff.SUBFILE_TYPE)
        if not offsets.size:
            faults.append(f"image {index} is not tiled")
            continue
        if int(ends.max()) > length:
            faults.append(f"tiles of image {index} lie behind the file's end")
        there = offsets[offsets > 0]
        data.append(int(there.min()) if there.size else 0)
        if not kind & tiff.MASK:
            size = (
                structure.number(index, tiff.IMAGE_WIDTH),
                structure.number(index, tiff.IMAGE_LENGTH),
            )
            images.append((size, data[-1], kind))
    if faults:
        return faults
    if list(structure.positions) != sorted(structure.positions):
        faults.append("its directories are not in order")
    if structure.positions[-1] > min(offset for offset in data if offset):
        faults.append("a directory stands behind pixels")
    if images[0][2] != 0 or any(not kind & tiff.REDUCED for *_, kind in images[1:]):
        faults.append("an image that is no overview stands behind the first one")
    for (larger, behind, _), (smaller, before, _) in itertools.pairwise(images):
        if smaller >= larger:
            faults.append("an overview is not smaller than the one before")
        if 0 < behind < before:
            faults.append("an overview's pixels stand behind those of a larger one")
    if want_overviews and max(images[0][0]) > 512 and len(images) == 1:
        faults.append("it has no overviews")
    return faults


def check(
    path: Path, plan: Plan, codec: Codec | None, checksums: Checksums
) -> list[str]:
    """Compare a COG with its source.

    A lossless one's pixels are compared all. Where the compression is known,
    each tile is decompressed and its checksum compared with that of what was
    compressed, which costs half of what it costs to have GDAL read it; GDAL
    then reads some windows, which must be the image's. What GDAL has compressed
    or warped, it reads whole. A lossy one's pixels are compared in some windows.

    Returns:
        What else of the source the COG has not, a sentence each.

    Raises:
        CheckFailed: it is not the source's COG.
    """
    want_overviews = plan.options.overview_level != 0
    if faults := layout_faults(path, want_overviews):
        raise CheckFailed(f"what was written is no valid COG: {'; '.join(faults)}")
    source = plan.source
    max_mean_error = plan.options.stored_as.max_mean_error
    try:
        with rasterio.open(path, driver="GTiff", sharing=False) as raster:
            for name, ours, theirs in _descriptions(source, raster):
                if ours != theirs:
                    raise CheckFailed(
                        f"its COG has another {name}: {_cut(theirs)}, not {_cut(ours)}"
                    )
            if checksums.pixels is not None:
                _compare_pixels(raster, plan, checksums.pixels)
            else:
                if codec and max_mean_error is None:
                    _compare_tiles(path, codec, checksums.tiles)
                _compare_samples(raster, plan, max_mean_error or 0.0)
            if plan.written > 1:
                _read_smallest_overview(path, plan.written - 1)
            return _tags_not_kept(source, raster)
    except READ_ERRORS as error:
        raise CheckFailed(f"its COG cannot be read: {in_short(error)}") from error


def _descriptions(source: Source, raster: rasterio.DatasetReader) -> Iterator[tuple]:
    image, pixels = source.dataset, source.pixels
    yield "size", (source.width, source.height), (raster.width, raster.height)
    yield "number of bands", source.bands, raster.count
    yield "data type", source.dataset.dtypes, raster.dtypes
    same_crs = (source.crs or None) == (raster.crs or None)
    yield "CRS", *(("", "") if same_crs else (source.crs, raster.crs))
    if source.warped or not image.gcps[0]:
        same = _same_transform(pixels.transform, raster.transform)
        yield "transform", *(("", "") if same else (pixels.transform, raster.transform))
    yield (
        "nodata",
        [str(each) for each in image.nodatavals],
        [str(each) for each in raster.nodatavals],
    )
    yield "colour interpretation", image.colorinterp, raster.colorinterp
    for name, tag in (("band descriptions", "descriptions"), ("units", "units")):
        try:
            ours = getattr(image, tag)
        except UnicodeDecodeError:
            continue  # Latin-1, which the COG has as UTF-8
        yield name, ours, getattr(raster, tag)
    yield "scales", image.scales, raster.scales
    yield "offsets", image.offsets, raster.offsets
    has_mask = raster.mask_flag_enums[0] == [MaskFlags.per_dataset]
    yield "mask", source.has_mask, has_mask
    if source.palette is not None:
        ours, theirs = image.colormap(1), raster.colormap(1)
        # A TIFF's has an entry for every value, an image's may end earlier.
        yield "colour table", ours, {value: theirs.get(value) for value in ours}
    if not source.warped:
        yield "number of ground control points", len(image.gcps[0]), len(raster.gcps[0])
        yield "RPCs", bool(image.rpcs), bool(raster.rpcs)


def _same_transform(ours: Affine, theirs: Affine) -> bool:
    """Whether they differ by less than a millionth of a pixel's size."""
    size = max(abs(each) for each in (ours.a, ours.b, ours.d, ours.e))
    return all(
        abs(a - b) <= 1e-6 * size or a == b for a, b in zip(ours, theirs, strict=True)
    )


def _compare_tiles(path: Path, codec: Codec, checksums: tuple[int, ...]) -> None:
    with path.open("rb") as file:
        found = tiff.tiles(tiff.read(file), file)
        for number, (tile, checksum) in enumerate(zip(found, checksums, strict=True)):
            try:
                same = zlib.crc32(codec.decompress(tile)) == checksum
            except codec.error:
                same = False
            if not same:
                raise CheckFailed(f"tile {number} of its COG is not as it was written")


def _compare_pixels(raster: rasterio.DatasetReader, plan: Plan, checksum: int) -> None:
    found = 0
    for window in plan.windows(0):
        shape = (window.height, window.width, raster.count)
        pixels = numpy.empty(shape, plan.source.dtype)
        raster.read(window=window, out=pixels.transpose(2, 0, 1))
        found = zlib.crc32(pixels, found)
    if found != checksum:
        raise CheckFailed("its COG has other pixels than the image")


def _compare_samples(
    raster: rasterio.DatasetReader, plan: Plan, max_mean_error: float
) -> None:
    source, tile = plan.source, plan.options.block_size
    for window in _samples(source.width, source.height, tile):
        shape = (window.height, window.width, source.bands)
        ours, theirs = (numpy.empty(shape, source.dtype) for _ in range(2))
        mask = source.read(window, ours)
        raster.read(window=window, out=theirs.transpose(2, 0, 1))
        if mask is not None and not source.warped:
            theirs_seen = raster.dataset_mask(window=window) > 0
            if (theirs_seen != mask).any():
                raise CheckFailed("its COG has another mask than the image")
        if max_mean_error == 0:
            if ours.tobytes() != theirs.tobytes():
                raise CheckFailed("its COG has other pixels than the image")
            continue
        valid = source.valid(ours, mask)
        difference = numpy.abs(ours.astype("f8") - theirs)
        if valid is not None:
            difference = difference[numpy.broadcast_to(valid, shape)]
        finite = difference[numpy.isfinite(difference)]
        if finite.size and (mean := float(finite.mean())) > max_mean_error:
            raise CheckFailed(
                f"its COG's pixels differ from the image's by {mean:.3g} in the "
                f"mean, and {max_mean_error:g} is what the profile may lose"
            )


def _samples(width: int, height: int, tile: int) -> Iterator[Window]:
    """Tiles all over the image, the first and the last among them."""
    columns, rows = -(-width // tile), -(-height // tile)
    count = min(_SAMPLES, columns * rows)
    chosen = {round(n * (columns * rows - 1) / max(1, count - 1)) for n in range(count)}
    for index in sorted(chosen):
        row, column = index // columns * tile, index % columns * tile
        yield Window(column, row, min(tile, width - column), min(tile, height - row))


def _cut(value: object) -> str:
    said = " ".join(str(value).split())
    return said if len(said) < 150 else f"{said[:150]}…"


def _read_smallest_overview(path: Path, count: int) -> None:
    with rasterio.open(path, driver="GTiff", overview_level=count - 1) as overview:
        overview.read(1)


def _tags_not_kept(source: Source, raster: rasterio.DatasetReader) -> list[str]:
    lost = []
    for band in range(source.bands + 1):
        where = f"band {band}'s" if band else "the image's"
        spaces = [None, *source.dataset.tag_namespaces(band)]
        for space in spaces:
            if space in cog.OWN_NAMESPACES:
                continue
            ours, theirs = source.dataset.tags(band, space), raster.tags(band, space)
            lost += [
                f"{where} tag {name[:60]} is not kept"
                for name, value in ours.items()
                if theirs.get(name) != value and name != "AREA_OR_POINT"
            ]
    return lost
