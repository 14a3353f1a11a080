"""Read ▸ check ▸ COG ▸ JPEG ▸ check: from an image to the two files made of it."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import rasterio
from PIL import Image
from rasterio.enums import Compression

from node import (
    beside,
    check,
    cog,
    encode,
    levels,
    multipart,
    overviews,
    safety,
    sidecars,
    tiff,
)
from node.description import describe
from node.errors import (
    ConversionFailed,
    ImageMissing,
    UnsupportedRaster,
    in_short,
)
from node.exhaustion import exhaustion
from node.gdal import READ_ERRORS, warning_log
from node.options import Options
from node.picture import MAX_JPEG_SIDE, Picture, picture
from node.result import Jpeg, Result
from node.sample import Sample
from node.source import INTEGERS_OF_64_BITS, Source, open_source

_MIB = 1024 * 1024
_GDAL_OPTIONS = {
    "GDAL_CACHEMAX": 64 * _MIB,  # bytes
    # GeoTIFF 1.0 has vertical coordinate reference systems, too.
    "GTIFF_REPORT_COMPD_CS": True,
    # References in an image must not lead to other hosts.
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": "{none}",
}
_LARGEST_CACHE = 96 * _MIB
_MAX_WARNINGS = 20


def load_libraries() -> None:
    """Load what each conversion needs, for child processes that convert."""
    with rasterio.Env():  # registers GDAL's drivers
        Image.preinit()


def convert(
    image: Path, bands: int, options: Options, cog_path: Path, jpeg_path: Path
) -> Result:
    """Make a COG and a JPEG of an image, and leave the image as it is.

    Args:
        bands: number of bands that the image should have.
        cog_path, jpeg_path: in a folder for temporary files.

    Raises:
        NodeError: it cannot be converted; neither file is complete then.
    """
    if not image.is_file():
        raise ImageMissing(f"{image.name} is not in the node's directory")
    scratch = cog_path.parent
    needed = None
    try:
        with _opened(image, bands, options) as source:
            needed = _room_for(source)
            copied = options.copy_valid_cog and _is_complete_cog(source, options, image)
            if not copied:
                source = source.stored_as(options.stored_as)
            planned = plan(source, options, scratch)
            if copied:
                fields = _copy(planned, image, cog_path, jpeg_path)
            else:
                fields = _make_and_check(planned, cog_path, jpeg_path)
            gdal_warnings = list(dict.fromkeys(source.gdal_warnings))[:_MAX_WARNINGS]
            description, warnings = describe(source, fields.pop("sample"))
            replaced = beside.overriding(
                cog_path, image.name, source.dataset.files, scratch
            )
            warnings = [
                *fields["warnings"],
                *_warnings(planned),
                *gdal_warnings,
                *warnings,
                *map(_sidecar_warning, replaced),
            ]
            fields["replaced_sidecars"] = tuple(replaced)
            fields |= _fields(planned) | description | {"warnings": tuple(warnings)}
            width, height = planned.sizes[planned.jpeg_level]
        limits = options.upload_limits
        part_size = 0
        if limits is not None:
            multipart.check(cog_path, jpeg_path, limits)
            if cog_path.stat().st_size > limits.max_size:
                part_size = limits.part_size
        jpeg = multipart.describe(jpeg_path)
        return Result(
            ok=True,
            cog=multipart.describe(cog_path, part_size),
            jpeg=Jpeg(
                bytes=jpeg.bytes,
                md5=jpeg.md5,
                sha256=jpeg.sha256,
                width=width,
                height=height,
                quality=options.jpeg_quality,
            ),
            **fields,
        )
    except Exception as error:
        # Check this first: an image may seem damaged because the machine lacks the
        # memory to read it.
        if short := exhaustion(error, scratch, needed):
            raise short from error
        if isinstance(error, (*READ_ERRORS, OSError)):
            raise ConversionFailed(
                f"it cannot be converted: {in_short(error)}"
            ) from error
        raise


@contextmanager
def _opened(image: Path, bands: int, options: Options) -> Iterator[Source]:
    """Open an image, with the options of GDAL that it needs."""
    safety.check_directories(image)
    safety.check_tags(image)
    with ExitStack() as stack:
        gdal_warnings = stack.enter_context(warning_log())
        # Read past GDAL's cache, but only if the file is whole: direct reads do not
        # notice the end of a file, or that of a mask, which they read, too.
        whole = tiff.is_plain_and_whole(image) and not safety.has_mask_beside(image)
        direct = {"GTIFF_DIRECT_IO": whole}
        stack.enter_context(rasterio.Env(**_GDAL_OPTIONS | direct))
        source = stack.enter_context(open_source(image, bands, options, gdal_warnings))
        cache = {"GDAL_CACHEMAX": _cache_for(source)}
        stack.enter_context(rasterio.Env(**_GDAL_OPTIONS | direct | cache))
        yield source


def _is_complete_cog(source: Source, options: Options, image: Path) -> bool:
    """Return whether an image is already a COG that needs no addition."""
    changed = source.warped or options.assign_crs
    alone = len(source.dataset.files) == 1
    return alone and not changed and not check.layout_faults(image)


def plan(source: Source, options: Options, scratch: Path) -> levels.Plan:
    """Plan the overviews of an image, and choose the one that becomes the JPEG."""
    tile = options.block_size
    sizes = overviews.sizes(source.width, source.height, tile, options.overview_level)
    written = len(sizes)
    limit = min(options.jpeg_max_size or MAX_JPEG_SIDE, MAX_JPEG_SIDE)
    while max(sizes[-1]) > limit:
        sizes += overviews.sizes(*sizes[-1], tile, 1)[1:]
    jpeg_level = next(n for n, size in enumerate(sizes) if max(size) <= limit)
    return levels.Plan(source, options, sizes, written, jpeg_level, scratch)


def make(
    plan: levels.Plan,
    cog_path: Path,
    jpeg_path: Path,
    look: Picture,
    sample: Sample | None = None,
) -> tuple[encode.Codec | None, levels.Checksums]:
    """Write a COG and a JPEG, and return the checksums for the check of the COG.

    Raises:
        NodeError: they cannot be made; neither file is complete then.
    """
    source, profile, tile = plan.source, plan.options.stored_as, plan.options.block_size
    stored = cog.creation_options(source, profile.options)
    # First, since it fails for what a GeoTIFF cannot hold.
    directory = cog.directory(source, stored, tile, plan.scratch)
    codec = encode.codec(stored, source.data_type)
    with _workers() as apply:
        spools, checksums = levels.make(
            plan,
            encode.encoder(stored, source, apply),
            look,
            jpeg_path,
            # Warped pixels depend slightly on the window: only pixels that were read
            # can be compared.
            whole_checksum=profile.max_mean_error is None
            and (codec is None or source.warped),
            data_checksum=profile.max_mean_error is not None and source.marks_pixels,
            sample=sample,
        )
    mask = tiff.mask_directory(tile) if source.has_mask else None
    written = [
        tiff.Level(
            *size,
            tiff.overview_directory(directory) if number else directory,
            mask,
            plan.tile_width(number),
            spool,
        )
        for number, (size, spool) in enumerate(zip(plan.sizes, spools, strict=False))
    ]
    big = {"YES": True, "NO": False}.get(profile.options.get("BIGTIFF", "IF_NEEDED"))
    try:
        tiff.write(cog_path, written, big)
    except tiff.TooLarge as error:
        raise UnsupportedRaster(f"{error}: leave BIGTIFF=NO out") from error
    return codec, checksums


def _make_and_check(
    plan: levels.Plan, cog_path: Path, jpeg_path: Path
) -> dict[str, Any]:
    look = picture(plan.source)
    sample = Sample(
        plan.source, plan.sizes, max(plan.written, plan.jpeg_level + 1), look
    )
    codec, checksums = make(plan, cog_path, jpeg_path, look, sample)
    began = time.process_time()
    warnings = check.check(cog_path, plan, codec, checksums)
    return {
        "compression": plan.options.stored_as.options["COMPRESS"],
        "overviews": plan.written - 1,
        "check_cpu_seconds": round(time.process_time() - began, 3),
        "warnings": warnings + _changes(plan),
        "sample": sample,
    }


def _copy(
    plan: levels.Plan, image: Path, cog_path: Path, jpeg_path: Path
) -> dict[str, Any]:
    """Keep an image that is a COG, and make only the JPEG."""
    jpeg_only = levels.Plan(
        plan.source, plan.options, plan.sizes, 0, plan.jpeg_level, plan.scratch
    )
    look = picture(plan.source)
    sample = Sample(plan.source, plan.sizes, plan.jpeg_level + 1, look)
    levels.make(jpeg_only, lambda *_: iter(()), look, jpeg_path, sample=sample)
    os.link(image.resolve(), cog_path)
    raster = plan.source.dataset
    return {
        "compression": _compression(raster),
        "overviews": len(raster.overviews(1)),
        "copied": True,
        "warnings": [],
        "sample": sample,
    }


def _fields(plan: levels.Plan) -> dict[str, Any]:
    source = plan.source
    raster = source.pixels
    return {
        "width": source.width,
        "height": source.height,
        "bands": source.bands,
        "data_type": source.data_type,
        "transform": tuple(raster.transform)[:6],
        "nodata": source.nodata[0] if source.nodata else None,
        "profile": plan.options.profile,
    }


def _warnings(plan: levels.Plan) -> list[str]:
    source = plan.source
    warnings = []
    placed = source.placed_by_points or source.dataset.rpcs
    if not source.crs and not placed:
        warnings.append("it has no coordinate reference system")
    elif source.pixels.transform.is_identity and source.crs and not placed:
        warnings.append("it has a coordinate reference system, but no georeferencing")
    if pages := len(source.dataset.subdatasets):
        warnings.append(f"it has {pages} images: the first one is converted")
    if source.warped and source.data_type in INTEGERS_OF_64_BITS:
        warnings.append("warping rounds its integers above 2**53, as GDAL computes it")
    if source.has_spare_points:
        warnings.append(
            "its ground control points are not in its COG, because its transform "
            "places it"
        )
    if source.pixels.transform.is_degenerate:
        warnings.append(
            "its transform gives different pixels the same place: correct it"
        )
    if source.tables.kinds:
        warnings.append(
            f"a GeoTIFF cannot hold its {' and '.join(source.tables.kinds)}: keep "
            f"{source.tables.file} beside the COG"
        )
    if source.lacks_palette:
        warnings.append(
            "its values are palette indices, but it has no colour table: they are "
            "shown as grey"
        )
    if plan.jpeg_level:
        width, height = plan.sizes[plan.jpeg_level]
        warnings.append(
            f"its JPEG is scaled down to {width} x {height} pixels, "
            f"1/{2**plan.jpeg_level} of its size"
        )
    return warnings


def _changes(plan: levels.Plan) -> list[str]:
    """Return a sentence for each difference of the COG from the image or the plan."""
    source, options = plan.source, plan.options
    changes = []
    if refusal := plan.refusal_of_resampling:
        changes.append(
            f"its overviews are made with {plan.overview_resampling}: {refusal}"
        )
    lossy = options.stored_as.max_mean_error is not None
    if _compression(source.dataset) == "JPEG" and lossy:
        changes.append(
            "it was compressed as JPEG before: each JPEG compression loses more"
        )
    if source.drops_alpha:
        changes.append("its alpha band becomes a mask: JPEG has no alpha")
    if source.loses_alpha:
        changes.append(
            "its partly transparent pixels become opaque, because a mask has no "
            "degrees: choose another --profile to keep them, such as zstd"
        )
    return changes


def _compression(raster: rasterio.DatasetReader) -> str:
    # rasterio gives GDAL's text for a compression that it does not know.
    known: Compression | str | None = raster.compression
    name = known.name if isinstance(known, Compression) else known
    return (name or "NONE").upper()


def _sidecar_warning(name: str) -> str:
    return (
        f"{name} describes the image, and would override its COG: beside the COG, it "
        f"is renamed to {sidecars.replaced(name)}"
    )


@contextmanager
def _workers() -> Iterator[encode.Apply]:
    """Give a ``map`` for the cores of the job, which HTCondor puts in a variable."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if not given.isdigit() or int(given) < 2:
        yield map
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(int(given)) as executor:
        yield executor.map


def _room_for(source: Source) -> int:
    """Return how many bytes of disk a COG and its temporary files may need.

    As if nothing could be compressed: the pixels, a third more for the overviews,
    and the largest of these once more.
    """
    pixels = source.width * source.height * source.bands * source.dtype.itemsize
    return pixels * 4 // 3 + pixels // 4


def _cache_for(source: Source) -> int:
    """Return a cache size for a row of the image's blocks, in bytes."""
    image = source.dataset
    rows = max(height for height, _ in image.block_shapes)
    row = rows * image.width * image.count * source.dtype.itemsize
    return min(max(_GDAL_OPTIONS["GDAL_CACHEMAX"], row + 16 * _MIB), _LARGEST_CACHE)
