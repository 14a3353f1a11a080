"""An image opened: what it is, and its pixels window by window."""

import logging
import math
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy
import rasterio
from rasterio._err import CPLE_BaseError  # what GDAL's own errors come as
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from node import safety
from node.errors import (
    DamagedImage,
    NoCrs,
    NotARaster,
    UnsupportedRaster,
    WrongBands,
    in_short,
)
from node.options import Options

# What reading raises, of which GDAL's own errors are no RasterioErrors.
READ_ERRORS = (RasterioError, CPLE_BaseError)
_COMPLEX = {
    "complex_int16": "complex64",
    "complex64": "complex64",
    # Of 32 bits each: a float of as many would round them.
    "complex_int32": "complex128",
    "complex128": "complex128",
}


@dataclass(frozen=True)
class Source:
    """An image to convert.

    Attributes:
        raster: its pixels, maybe warped.
        image: the file itself, which has all that a warped one has not.
        crs: as it is or was assigned; None where there is none.
        data_type: of the bands, as rasterio names it.
        nodata: each band's value for no data.
        has_mask: whether it has a mask that is neither nodata nor a band.
        alpha: the index of the band that is one, None where none is.
        palette: of shape (256, 4), red, green, blue and alpha of each value.
        classes: whether a mean of two values means nothing.
        inverted: whether its least value is white, as in a scanned negative.
        heard: what GDAL warns of.
    """

    raster: rasterio.DatasetReader | WarpedVRT
    image: rasterio.DatasetReader
    crs: CRS | None
    data_type: str
    nodata: tuple[float | None, ...]
    has_mask: bool
    alpha: int | None
    palette: numpy.ndarray | None
    classes: bool
    inverted: bool
    heard: list[str]

    @property
    def width(self) -> int:
        return self.raster.width

    @property
    def height(self) -> int:
        return self.raster.height

    @property
    def bands(self) -> int:
        return self.image.count

    @property
    def warped(self) -> bool:
        return self.raster is not self.image

    @property
    def array_type(self) -> numpy.dtype:
        """What its pixels are in memory."""
        return numpy.dtype(_COMPLEX.get(self.data_type, self.data_type))

    def read(self, window: Window, pixels: numpy.ndarray) -> numpy.ndarray | None:
        """Read a window's pixels and return its mask, if it has one.

        Args:
            pixels: to be filled, of shape (rows, columns, bands).

        Returns:
            Of shape (rows, columns), False where there is no data.

        Raises:
            DamagedImage: its pixels cannot be read.
        """
        mask = None
        warned = len(self.heard)
        try:
            bands = list(range(1, self.bands + 1))
            self.raster.read(bands, window=window, out=pixels.transpose(2, 0, 1))
            if self.has_mask:
                mask = self.raster.dataset_mask(window=window) > 0
        except READ_ERRORS as error:
            raise DamagedImage(
                f"it is damaged, its pixels cannot be read ({in_short(error)}): "
                "upload it again"
            ) from error
        # Where a JPEG or a fax in a TIFF goes wrong, its decoder makes something
        # up and goes on with a warning.
        if len(self.heard) > warned:
            raise DamagedImage(
                f"it is damaged, not all of its pixels can be read "
                f"({self.heard[warned]}): upload it again"
            )
        return mask

    def valid(
        self, pixels: numpy.ndarray, mask: numpy.ndarray | None
    ) -> numpy.ndarray | None:
        """Which samples are data, None where all are.

        Returns:
            Of shape (rows, columns, bands), or with one band for all of them.
        """
        valid = None
        for band, nodata in enumerate(self.nodata):
            values = pixels[:, :, band]
            if nodata is None:
                continue
            same = numpy.isnan(values) if nodata != nodata else values == nodata
            # Mostly there is none, and what follows costs more than to look.
            if same.any():
                valid = numpy.ones(pixels.shape, bool) if valid is None else valid
                valid[:, :, band] = ~same
        if self.alpha is not None and not pixels[:, :, self.alpha].all():
            valid = numpy.ones(pixels.shape, bool) if valid is None else valid
            # Alpha is itself data where it says that nothing else is.
            seen = pixels[:, :, self.alpha] > 0
            for band in range(self.bands):
                if band != self.alpha:
                    valid[:, :, band] &= seen
        if mask is not None and not mask.all():
            seen = mask[:, :, None]
            valid = seen if valid is None else valid & seen
        return valid


@contextmanager
def open_source(
    path: Path, bands: int, options: Options, heard: list[str]
) -> Iterator[Source]:
    """Open an image and check that it can be converted.

    Args:
        heard: what `gdal_warnings` yields.

    Raises:
        NodeError: it cannot be.
    """
    safety.check_beside(path)
    with _opened(path) as image:
        safety.check_references(image)
        if image.count != bands:
            raise WrongBands(
                f"the manifest says {bands} bands, but the image has "
                f"{image.count}: mend the row"
            )
        _check(image)
        sample = numpy.dtype(_COMPLEX.get(image.dtypes[0], image.dtypes[0])).itemsize

        def check_size(width: int, height: int) -> None:
            pixel = sample * image.count
            file = path.stat().st_size
            safety.check_size(width, height, pixel, options.block_size, file)

        check_size(image.width, image.height)
        safety.check_blocks(image, sample, options.block_size)
        crs = _crs(image, options)
        tiling_scheme = options.stored_as.tiling_scheme
        if options.reproject or tiling_scheme:
            from node.warp import warped

            safety.check_warping(image)
            with warped(
                image,
                crs,
                options.reproject,
                tiling_scheme,
                options.block_size,
                Resampling.nearest if _classes(image) else Resampling.bilinear,
                check_size,
            ) as raster:
                yield _source(raster, image, raster.crs, heard)
        else:
            yield _source(image, image, crs, heard)


@contextmanager
def gdal_warnings() -> Iterator[list[str]]:
    """A list that grows with each warning of GDAL's."""
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said = re.sub(r"^CPLE_\w+( in |:)", "", record.getMessage())
            heard.append(" ".join(said.split())[:300])

    listener = Listener(logging.WARNING)
    logger = logging.getLogger("rasterio")
    logger.addHandler(listener)
    try:
        yield heard
    finally:
        logger.removeHandler(listener)


@contextmanager
def _opened(path: Path) -> Iterator[rasterio.DatasetReader]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            # No other driver may look at it: some follow what a file says to
            # other files and addresses.
            image = rasterio.open(os.path.abspath(path), driver="GTiff", sharing=False)
        except (*READ_ERRORS, UnicodeDecodeError) as error:
            said = in_short(error).replace(f"{os.path.abspath(path.parent)}/", "")
            raise NotARaster(
                f"GDAL cannot read it as a GeoTIFF ({said}): "
                "upload it again, or leave it out"
            ) from error
        with image:
            yield image


def _check(image: rasterio.DatasetReader) -> None:
    kinds = set(image.dtypes)
    if len(kinds) > 1:
        raise UnsupportedRaster(
            f"its bands are of different types ({', '.join(sorted(kinds))}): "
            "make an image of each"
        )
    if not all(map(math.isfinite, image.transform)):
        raise UnsupportedRaster(
            "its transform is not made of numbers: mend its georeferencing"
        )
    if any(not flags for flags in image.mask_flag_enums):
        raise UnsupportedRaster(
            "its bands have a mask each, and a COG has one for all: "
            "make it nodata or one mask"
        )


def _crs(image: rasterio.DatasetReader, options: Options) -> CRS | None:
    if options.assign_crs:
        return authority_crs(options.assign_crs)
    points, points_crs = image.gcps
    georeferenced = image.crs or (points and points_crs) or image.rpcs
    if not georeferenced and not options.allow_no_crs:
        raise NoCrs(
            "it has no coordinate reference system: convert it with --assign-crs "
            "EPSG:… if you know it, or with --allow-no-crs"
        )
    return image.crs


def authority_crs(code: str) -> CRS:
    """The CRS that has a code such as EPSG:32616.

    Raises:
        UnsupportedRaster: PROJ has none.
    """
    try:
        return CRS.from_string(code)
    except CRSError as error:
        raise UnsupportedRaster(f"PROJ knows no CRS {code}: mend the option") from error


def _source(
    raster: rasterio.DatasetReader | WarpedVRT,
    image: rasterio.DatasetReader,
    crs: CRS | None,
    heard: list[str],
) -> Source:
    colours = image.colorinterp
    palette = None
    if image.count == 1 and colours[0] == ColorInterp.palette:
        table = image.colormap(1)
        palette = numpy.zeros((256, 4), "u1")
        for value, colour in table.items():
            if value < 256:
                palette[value] = colour
    alpha = colours.index(ColorInterp.alpha) if ColorInterp.alpha in colours else None
    nodata = () if all(each is None for each in image.nodatavals) else image.nodatavals
    if raster is image:
        has_mask = image.mask_flag_enums[0] == [MaskFlags.per_dataset]
    else:
        has_mask = raster.count > image.count
    return Source(
        raster=raster,
        image=image,
        crs=crs,
        data_type=image.dtypes[0],
        nodata=nodata,
        has_mask=has_mask,
        alpha=alpha,
        palette=palette,
        classes=_classes(image),
        inverted=palette is None and _says(image, "MINISWHITE") == "YES",
        heard=heard,
    )


def _classes(image: rasterio.DatasetReader) -> bool:
    return (
        ColorInterp.palette in image.colorinterp
        or "complex" in image.dtypes[0]
        or _says(image, "NBITS") == "1"
        or image.tags(1).get("LAYER_TYPE", "").lower() == "thematic"
    )


def _says(image: rasterio.DatasetReader, name: str) -> str | None:
    """What GDAL tells of how the image is stored."""
    tags = image.tags(ns="IMAGE_STRUCTURE") | image.tags(1, ns="IMAGE_STRUCTURE")
    return tags.get(name)
