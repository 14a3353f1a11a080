"""Check that a file is a valid COG, and that it is the COG of its source."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
import rasterio
from isal import isal_zlib
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.transform import Affine
from rasterio.windows import Window

from node import cog, tiff
from node.encode import Codec
from node.errors import CheckFailed, in_short
from node.gdal import READ_ERRORS
from node.levels import Checksums, Plan, packed
from node.source import Source, is_premultiplied

# Number of tiles that GDAL reads and that are compared pixel by pixel.
_SAMPLES = 9
# GDAL's rule: a smaller image needs no overviews.
_MAX_WITHOUT_OVERVIEWS = 512  # pixels
_MAX_VALUE = 150  # characters of a value in a message


@dataclass(frozen=True)
class _Image:
    """Facts about one directory of a TIFF, for the rules of the layout.

    Attributes:
        index: index of the directory in the file, from 0.
        size: width and height, in pixels.
        kind: the directory's subfile type, a set of bits.
        position: position of the directory in the file, in bytes.
        tiled: whether the pixels are stored in tiles.
        first_tile: position of the first tile in the file, in bytes; 0 if no tile is
            stored.
        end: position behind the last tile, in bytes.
    """

    index: int
    size: tuple[int, int]
    kind: int
    position: int
    tiled: bool
    first_tile: int
    end: int


_Rule = Callable[[Sequence[_Image]], Iterator[str]]


def layout_faults(path: Path, want_overviews: bool = True) -> list[str]:
    """Return what keeps a TIFF from being a COG that is valid in the strictest sense.

    The rules are those of GDAL's validate_cloud_optimized_geotiff: the image is tiled
    and has overviews, all directories come before all pixels, the largest image's
    directory comes first, and the smallest overview's pixels come first.
    """
    try:
        with path.open("rb") as file:
            structure = tiff.read(file)
            length = file.seek(0, 2)
    except (tiff.NotATiff, OSError) as error:
        return [str(error)]
    directories = [_image(structure, n) for n in range(len(structure.directories))]
    if all(image.kind & tiff.MASK for image in directories):
        return ["no image"]
    # The other rules need the tiles.
    if faults := [*_untiled(directories), *_truncated(directories, length)]:
        return faults
    faults = [fault for rule in _LAYOUT_RULES for fault in rule(directories)]
    images = _images(directories)
    large = max(images[0].size) > _MAX_WITHOUT_OVERVIEWS
    if want_overviews and large and len(images) == 1:
        faults.append("it has no overviews")
    return faults


def _image(structure: tiff.Structure, index: int) -> _Image:
    offsets = structure.numbers(index, tiff.TILE_OFFSETS)
    stored = offsets[offsets > 0]
    ends = offsets + structure.numbers(index, tiff.TILE_BYTE_COUNTS)
    return _Image(
        index=index,
        size=(
            structure.number(index, tiff.IMAGE_WIDTH),
            structure.number(index, tiff.IMAGE_LENGTH),
        ),
        kind=structure.number(index, tiff.SUBFILE_TYPE),
        position=structure.positions[index],
        tiled=offsets.size > 0,
        first_tile=int(stored.min()) if stored.size else 0,
        end=int(ends.max()) if ends.size else 0,
    )


def _images(directories: Sequence[_Image]) -> list[_Image]:
    """Return the image and its overviews, without the masks."""
    return [image for image in directories if not image.kind & tiff.MASK]


def _untiled(directories: Sequence[_Image]) -> Iterator[str]:
    for image in directories:
        if not image.tiled:
            yield f"image {image.index} is not tiled"


def _truncated(directories: Sequence[_Image], length: int) -> Iterator[str]:
    for image in directories:
        if image.end > length:
            yield f"tiles of image {image.index} are beyond the end of the file"


def _directories_in_order(directories: Sequence[_Image]) -> Iterator[str]:
    if any(a.position > b.position for a, b in itertools.pairwise(directories)):
        yield "its directories are not in order"


def _directories_before_pixels(directories: Sequence[_Image]) -> Iterator[str]:
    tiles = [image.first_tile for image in directories if image.first_tile]
    if tiles and directories[-1].position > min(tiles):
        yield "a directory comes after pixels"


def _image_before_overviews(directories: Sequence[_Image]) -> Iterator[str]:
    image, *overviews = _images(directories)
    if image.kind != 0 or any(not each.kind & tiff.REDUCED for each in overviews):
        yield "an image that is not an overview comes after the first image"


def _overviews_by_size(directories: Sequence[_Image]) -> Iterator[str]:
    for larger, smaller in itertools.pairwise(_images(directories)):
        if smaller.size >= larger.size:
            yield "an overview is not smaller than the one before"
        if 0 < larger.first_tile < smaller.first_tile:
            yield "the pixels of an overview come after those of a larger one"


_LAYOUT_RULES: tuple[_Rule, ...] = (
    _directories_in_order,
    _directories_before_pixels,
    _image_before_overviews,
    _overviews_by_size,
)


def check(
    path: Path, plan: Plan, codec: Codec | None, checksums: Checksums
) -> list[str]:
    """Compare a COG with its source.

    If the profile is lossless, all pixels are compared. If this module knows the
    compression, it decompresses each tile and compares the checksum with that of what
    was compressed, which costs half as much as reading the COG with GDAL; then GDAL
    reads some windows, which must equal the image's. If GDAL compressed or warped the
    pixels, it reads all of them. If the profile is lossy, some windows are compared. A
    mask, and what a lossy profile could turn into data, are compared whole.

    Returns:
        One sentence for each tag and colour interpretation of the source that the COG
        lacks.

    Raises:
        CheckFailed: the file is not the source's COG.
    """
    want_overviews = plan.options.overview_level != 0
    if faults := layout_faults(path, want_overviews):
        raise CheckFailed(f"the COG that was written is not valid: {'; '.join(faults)}")
    source = plan.source
    max_mean_error = plan.options.stored_as.max_mean_error
    try:
        with rasterio.open(path, driver="GTiff", sharing=False) as raster:
            for name, expected, actual in _descriptions(source, raster):
                if expected != actual:
                    raise CheckFailed(
                        f"the {name} of its COG is {_cut(actual)} instead of "
                        f"{_cut(expected)}"
                    )
            if checksums.mask is not None:
                _compare_masks(raster, plan, checksums.mask)
            if checksums.data is not None:
                _compare_data(raster, plan, checksums.data)
            if checksums.pixels is not None:
                _compare_pixels(raster, plan, checksums.pixels)
            else:
                if codec and max_mean_error is None:
                    _compare_tiles(path, codec, checksums.tiles)
                _compare_samples(raster, plan, max_mean_error or 0.0)
            if source.premultiplied and not is_premultiplied(path):
                raise CheckFailed("its COG says that its colours are without alpha")
            if plan.written > 1:
                _read_smallest_overview(path, plan.written - 1)
            return _colours_not_kept(source, raster) + _tags_not_kept(source, raster)
    except READ_ERRORS as error:
        raise CheckFailed(f"its COG cannot be read: {in_short(error)}") from error


def _descriptions(
    source: Source, raster: rasterio.DatasetReader
) -> Iterator[tuple[str, object, object]]:
    """Yield names of properties, with the expected and the actual value of each."""
    dataset, pixels = source.dataset, source.pixels
    yield "size", (source.width, source.height), (raster.width, raster.height)
    yield "number of bands", source.bands, raster.count
    yield "data type", dataset.dtypes[: source.bands], raster.dtypes
    crs = cog.crs_of(raster, source)
    same_crs = (source.crs or None) == crs
    yield "CRS", *(("", "") if same_crs else (source.crs, crs))
    if not source.placed_by_points:
        same = _same_transform(pixels.transform, raster.transform)
        yield "transform", *(("", "") if same else (pixels.transform, raster.transform))
    # As text, in which NaN equals NaN.
    nodata = dataset.nodatavals if source.nodata else (None,) * source.bands
    for name, expected, actual in (
        ("nodata", nodata, raster.nodatavals),
        ("scales", dataset.scales[: source.bands], raster.scales),
        ("offsets", dataset.offsets[: source.bands], raster.offsets),
    ):
        yield name, [*map(str, expected)], [*map(str, actual)]
    alpha_bands = [band for band in _alpha_bands(dataset) if band <= source.bands]
    yield "list of alpha bands", alpha_bands, _alpha_bands(raster)
    for name, attribute in (("band descriptions", "descriptions"), ("units", "units")):
        try:
            expected = getattr(dataset, attribute)[: source.bands]
        except UnicodeDecodeError:
            continue  # The image has Latin-1, the COG has UTF-8.
        yield name, expected, getattr(raster, attribute)
    has_mask = raster.mask_flag_enums[0] == [MaskFlags.per_dataset]
    yield "mask", source.has_mask, has_mask
    if source.palette is not None:
        yield "colour table", *cog.colour_tables(dataset, raster)
    if not source.warped:
        points = dataset.gcps[0] if source.placed_by_points else []
        yield "number of ground control points", len(points), len(raster.gcps[0])
        yield "RPCs", bool(dataset.rpcs), bool(raster.rpcs)


def _alpha_bands(raster: rasterio.DatasetReader) -> list[int]:
    meanings = enumerate(raster.colorinterp, start=1)
    return [band for band, meaning in meanings if meaning == ColorInterp.alpha]


def _same_transform(expected: Affine, actual: Affine) -> bool:
    """Return whether transforms differ by less than a millionth of a pixel's size."""
    size = max(abs(term) for term in (expected.a, expected.b, expected.d, expected.e))
    return all(
        abs(a - b) <= 1e-6 * size or a == b
        for a, b in zip(expected, actual, strict=True)
    )


def _compare_tiles(path: Path, codec: Codec, checksums: tuple[int | None, ...]) -> None:
    with path.open("rb") as file:
        tiles = tiff.tiles(tiff.read(file), file)
        for number, (tile, checksum) in enumerate(zip(tiles, checksums, strict=True)):
            try:
                same = isal_zlib.crc32(codec.decompress(tile)) == checksum
            except codec.error:
                same = False
            if not same:
                raise CheckFailed(
                    f"tile {number} of its COG differs from what was written"
                )


def _compare_pixels(raster: rasterio.DatasetReader, plan: Plan, checksum: int) -> None:
    actual = 0
    for window in plan.windows(0):
        shape = (window.height, window.width, raster.count)
        pixels = numpy.empty(shape, plan.source.dtype)
        raster.read(window=window, out=pixels.transpose(2, 0, 1))
        actual = isal_zlib.crc32(pixels.data, actual)
    if actual != checksum:
        raise CheckFailed("the pixels of its COG differ from those of the image")


def _compare_masks(raster: rasterio.DatasetReader, plan: Plan, checksum: int) -> None:
    actual = 0
    for window in plan.windows(0):
        mask = raster.dataset_mask(window=window) > 0
        actual = isal_zlib.crc32(packed(mask).data, actual)
    if actual != checksum:
        raise CheckFailed("the mask of its COG differs from that of the image")


def _compare_data(raster: rasterio.DatasetReader, plan: Plan, checksum: int) -> None:
    """Compare which samples are data, under a lossy profile."""
    source, actual = plan.source, 0
    for window in plan.windows(0):
        shape = (window.height, window.width, raster.count)
        pixels = numpy.empty(shape, source.dtype)
        raster.read(window=window, out=pixels.transpose(2, 0, 1))
        mask = raster.dataset_mask(window=window) > 0 if source.has_mask else None
        actual = isal_zlib.crc32(packed(source.data(pixels, mask)).data, actual)
    if actual != checksum:
        raise CheckFailed(
            "the pixels without data of its COG are not those of the image"
        )


def _compare_samples(
    raster: rasterio.DatasetReader, plan: Plan, max_mean_error: float
) -> None:
    source, tile = plan.source, plan.options.block_size
    for window in _samples(source.width, source.height, tile):
        shape = (window.height, window.width, source.bands)
        expected, actual = (numpy.empty(shape, source.dtype) for _ in range(2))
        mask = source.read(window, expected)
        raster.read(window=window, out=actual.transpose(2, 0, 1))
        if mask is not None and not source.warped:
            actual_mask = raster.dataset_mask(window=window) > 0
            if (actual_mask != mask).any():
                raise CheckFailed("the mask of its COG differs from that of the image")
        if max_mean_error == 0:
            if expected.tobytes() != actual.tobytes():
                raise CheckFailed(
                    "the pixels of its COG differ from those of the image"
                )
            continue
        mean = _mean_error(expected, actual, source.valid(expected, mask))
        if mean > max_mean_error:
            raise CheckFailed(
                f"on average, the pixels of its COG differ by {mean:.3g} from those of "
                f"the image, and the profile allows {max_mean_error:g}: if the image "
                "has much noise, use a lossless profile or a higher quality"
            )


def _mean_error(
    expected: numpy.ndarray, actual: numpy.ndarray, valid: numpy.ndarray | None
) -> float:
    """Return the mean difference of the samples that are data; 0.0 if none are."""
    error = numpy.abs(expected.astype("f8") - actual)
    if valid is not None:
        error = error[numpy.broadcast_to(valid, expected.shape)]
    finite = error[numpy.isfinite(error)]
    return float(finite.mean()) if finite.size else 0.0


def _samples(width: int, height: int, tile: int) -> Iterator[Window]:
    """Yield tiles spread over the image, the first and the last among them."""
    columns, rows = -(-width // tile), -(-height // tile)
    count = min(_SAMPLES, columns * rows)
    chosen = {round(n * (columns * rows - 1) / max(1, count - 1)) for n in range(count)}
    for index in sorted(chosen):
        row, column = index // columns * tile, index % columns * tile
        yield Window(column, row, min(tile, width - column), min(tile, height - row))


def _cut(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) < _MAX_VALUE else f"{text[:_MAX_VALUE]}…"


def _read_smallest_overview(path: Path, count: int) -> None:
    with rasterio.open(path, driver="GTiff", overview_level=count - 1) as overview:
        overview.read(1)


def _colours_not_kept(source: Source, raster: rasterio.DatasetReader) -> list[str]:
    """Return a sentence for each band that has another meaning in the COG.

    A GeoTIFF has no word for some meanings; the pixels are the same.
    """
    expected_ones = source.dataset.colorinterp[: source.bands]
    pairs = zip(expected_ones, raster.colorinterp, strict=True)
    return [
        f"band {band}'s colour interpretation, {expected.name}, is not kept: it is "
        f"{actual.name} in the COG"
        for band, (expected, actual) in enumerate(pairs, start=1)
        if actual != expected
    ]


def _tags_not_kept(source: Source, raster: rasterio.DatasetReader) -> list[str]:
    """Return a sentence for each of the source's tags that the COG lacks."""
    lost = []
    # Statistics of other pixels are left out with intent.
    statistics = () if source.keeps_pixels else (cog.STATISTICS,)
    ignored = ("AREA_OR_POINT", *statistics)
    for band in range(source.bands + 1):
        owner = f"band {band}'s" if band else "the image's"
        for namespace in (None, *source.dataset.tag_namespaces(band)):
            if namespace in cog.OWN_NAMESPACES - {"COLOR_PROFILE"}:
                continue
            expected = source.dataset.tags(band, namespace)
            actual = raster.tags(band, namespace)
            lost += [
                f"{owner} tag {name[:60]} is not kept"
                for name, value in expected.items()
                if actual.get(name) != value and not name.startswith(ignored)
            ]
    return lost
