"""Open an image, check that it can be converted, and read its pixels by window."""

import base64
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy
import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from node import decoders, safety, tiff
from node.attribute_tables import AttributeTables, attribute_tables
from node.errors import (
    DamagedImage,
    NoCrs,
    NotARaster,
    UnsupportedRaster,
    WrongBands,
    in_short,
)
from node.gdal import READ_ERRORS, authority_crs, band_elements
from node.masks import MaskOfPixels, is_nodata, straight
from node.options import Options
from node.profiles import Profile
from node.warp import WarpRequest, warped

# numpy has no complex integers.
_COMPLEX = {"complex_int16": "complex64"}

INTEGERS_OF_64_BITS = ("int64", "uint64")
# A double holds all integers up to this.
_MAX_EXACT = 2**53
_MAX_LISTED = 8  # values in a message


@dataclass(frozen=True)
class Source:
    """An image to convert.

    Attributes:
        pixels: the raster to read pixels from; a warped view of the dataset if the
            image is warped, otherwise the dataset itself.
        dataset: the file, with the metadata that a warped view lacks.
        crs: the file's or the assigned CRS, which is that of its ground control points
            if they place it; None if there is none.
        bands: number of bands of the COG.
        data_type: data type of the bands, as rasterio names it.
        nodata: value of each band that means "no data", an integer if the bands have
            integers of 64 bits; empty if no band has one.
        has_mask: whether the COG has a mask that is neither nodata nor a band.
        mask_of_pixels: how to make that mask; None if it is the image's own.
        alpha: index of the alpha band, from 0; None if there is none.
        premultiplied: whether colours are multiplied by alpha, as TIFF's associated
            alpha says.
        palette: array of shape (256, 4), or (65536, 4) for 16 bits: red, green, blue
            and alpha of each value; None if there is no colour table.
        categorical: whether values are categories, so that a mean of two values has
            no meaning.
        tables: what a file beside it says about its classes.
        lossy: whether the compression of the COG may change pixels.
        min_is_white: whether the smallest value is white, as in a scanned negative.
        bits: number of bits of a sample if that is less than 8 and there is no colour
            table, otherwise None.
        gdal_warnings: list to which GDAL's warnings are appended.
    """

    pixels: rasterio.DatasetReader | WarpedVRT
    dataset: rasterio.DatasetReader
    crs: CRS | None
    bands: int
    data_type: str
    nodata: tuple[float | None, ...]
    has_mask: bool
    mask_of_pixels: MaskOfPixels | None
    alpha: int | None
    premultiplied: bool
    palette: numpy.ndarray | None
    categorical: bool
    tables: AttributeTables
    lossy: bool
    min_is_white: bool
    bits: int | None
    gdal_warnings: list[str]

    @property
    def path(self) -> Path:
        """The image's file."""
        return Path(self.dataset.name)

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.pixels.width

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.pixels.height

    @property
    def warped(self) -> bool:
        """Whether the pixels are a warped view of the file."""
        return self.pixels is not self.dataset

    @property
    def keeps_pixels(self) -> bool:
        """Whether the COG has the pixels of the file, bit for bit."""
        return not (self.warped or self.lossy)

    @property
    def has_classes(self) -> bool:
        """Whether a mix of two values may be a class that is not there."""
        return self.categorical and self.dtype.kind != "c"

    @property
    def lacks_palette(self) -> bool:
        """Whether it has palette indices, and no colour table."""
        return self.bands == 1 and self.palette is None and _has_indices(self.dataset)

    @property
    def placed_by_points(self) -> bool:
        """Whether ground control points, and no transform, place it on the Earth."""
        has_points = not self.warped and bool(self.dataset.gcps[0])
        return has_points and self.dataset.transform.is_identity

    @property
    def has_spare_points(self) -> bool:
        """Whether there are ground control points beside the transform that counts.

        A GeoTIFF has either of them.
        """
        return bool(self.dataset.gcps[0]) and not (self.warped or self.placed_by_points)

    @cached_property
    def colour_profile(self) -> bytes | None:
        """ICC profile of the colours that `read` returns; None if there is none."""
        text = self.dataset.tags(ns="COLOR_PROFILE").get("SOURCE_ICC_PROFILE", "")
        try:
            profile = base64.b64decode(text, validate=True)
        except ValueError:
            return None  # A file beside the image can have anything.
        # ICC.1:2022, section 7.2: the header has 128 bytes.
        space = profile[16:20]
        # GDAL converts CMYK and CIELAB to RGB, and describes what they were.
        converted = _structure(self.dataset, "SOURCE_COLOR_SPACE")
        if len(profile) < 128 or (converted and space != b"RGB "):
            return None
        return profile

    @property
    def dtype(self) -> numpy.dtype:
        """Data type of the pixels in memory."""
        return _dtype(self.data_type)

    @cached_property
    def largest_alpha(self) -> float:
        """Alpha of an opaque pixel."""
        if self.dtype.kind == "f":
            return 1
        bits = _bits(self.dataset)
        return 2**bits - 1 if bits else numpy.iinfo(self.dtype).max

    def stored_as(self, profile: Profile) -> "Source":
        """Return the image with a mask of what the profile's compression loses."""
        if not profile.changes_any_value:
            return replace(self, lossy=profile.max_mean_error is not None)
        drops_alpha = (
            profile.compresses("JPEG")
            and self.bands in (2, 4)
            and self.alpha == self.bands - 1
        )
        # GDAL's rule: a mask comes before nodata.
        nodata = () if self.has_mask else self.nodata
        mask = MaskOfPixels(nodata, self.alpha, self.premultiplied, self.has_mask)
        return replace(
            self,
            lossy=True,
            bands=self.bands - drops_alpha,
            nodata=(),
            has_mask=self.has_mask or drops_alpha or bool(nodata),
            mask_of_pixels=mask if nodata or drops_alpha else None,
            alpha=None if drops_alpha else self.alpha,
            premultiplied=self.premultiplied and not drops_alpha,
        )

    @property
    def marks_pixels(self) -> bool:
        """Whether the value of a sample may say that it, or its pixel, has no data."""
        return bool(self.nodata) or self.alpha is not None or self.dtype.kind in "fc"

    @property
    def loses_alpha(self) -> bool:
        """Whether a pixel that was read has an alpha that the mask cannot have."""
        return bool(self.mask_of_pixels and self.mask_of_pixels.partly_transparent)

    @property
    def drops_alpha(self) -> bool:
        """Whether the mask is in place of the alpha band."""
        return self.bands < self.dataset.count

    def read(
        self,
        window: Window,
        pixels: numpy.ndarray,
        raster: rasterio.DatasetReader | WarpedVRT | None = None,
        resampling: Resampling = Resampling.nearest,
    ) -> numpy.ndarray | None:
        """Read a window's pixels and return its mask, if the COG has one.

        Args:
            pixels: array to fill, of shape (rows, columns, bands).
            raster: what to read; None for the image.
            resampling: method, if the window has another size than the array.

        Returns:
            Array of shape (rows, columns), False where there is no data.

        Raises:
            DamagedImage: the pixels cannot be read.
        """
        mask = None
        warning_count = len(self.gdal_warnings)
        raster = raster or self.pixels
        try:
            raster.read(
                list(range(1, self.bands + 1)),
                window=window,
                out=pixels.transpose(2, 0, 1),
                resampling=resampling,
            )
            if self.mask_of_pixels:
                mask = self._mask_of_pixels(
                    self.mask_of_pixels, raster, window, pixels, resampling
                )
            elif self.has_mask:
                mask = _own_mask(raster, window, pixels)
        except READ_ERRORS as error:
            raise DamagedImage(
                f"it is damaged, its pixels cannot be read ({in_short(error)}): "
                "upload it again"
            ) from error
        lossy = [
            message
            for message in self.gdal_warnings[warning_count:]
            if decoders.loses_pixels(message, self.path)
        ]
        if lossy:
            raise DamagedImage(
                f"some of its pixels may be lost, because GDAL warns ({lossy[0]}) when "
                "it reads them: upload it again, or rewrite it with a program that "
                "reads it correctly"
            )
        return mask

    def _mask_of_pixels(
        self,
        rule: MaskOfPixels,
        raster: rasterio.DatasetReader | WarpedVRT,
        window: Window,
        pixels: numpy.ndarray,
        resampling: Resampling,
    ) -> numpy.ndarray:
        """Return the mask of pixels that were read; see `read`."""
        alpha = None
        if self.drops_alpha:
            alpha = numpy.empty(pixels.shape[:2], self.dtype)
            raster.read(self.bands + 1, window=window, out=alpha, resampling=resampling)
            partly = (alpha > 0) & (alpha < self.largest_alpha)
            # Resampling makes more of them.
            if alpha.shape == (window.height, window.width) and partly.any():
                rule.partly_transparent.append(True)
            if rule.premultiplied:
                pixels[:] = straight(pixels, alpha, self.largest_alpha)
        elif self.alpha is not None:
            alpha = pixels[:, :, self.alpha]
        own = numpy.ones(pixels.shape[:2], bool)
        if rule.own:
            own = _own_mask(raster, window, pixels)
        return rule.of(pixels, alpha, own)

    def valid(
        self, pixels: numpy.ndarray, mask: numpy.ndarray | None
    ) -> numpy.ndarray | None:
        """Return which samples are data; None if all are.

        Args:
            pixels: array of shape (rows, columns, bands).
            mask: the mask that `read` returned for these pixels.

        Returns:
            Array of shape (rows, columns, bands), or (rows, columns, 1) if it applies
            to all bands.
        """
        valid = None
        for band, nodata in enumerate(self.nodata):
            if nodata is None:
                continue
            same = is_nodata(pixels[:, :, band], nodata)
            # Usually there is none. The test is cheaper than the rest.
            if same.any():
                valid = numpy.ones(pixels.shape, bool) if valid is None else valid
                valid[:, :, band] = ~same
        if self.alpha is not None and not pixels[:, :, self.alpha].all():
            valid = numpy.ones(pixels.shape, bool) if valid is None else valid
            # The alpha band itself is data even where it marks the others as none.
            opaque = pixels[:, :, self.alpha] > 0
            for band in range(self.bands):
                if band != self.alpha:
                    valid[:, :, band] &= opaque
        if mask is not None and not mask.all():
            unmasked = mask[:, :, None]
            valid = unmasked if valid is None else valid & unmasked
        return valid

    def data(self, pixels: numpy.ndarray, mask: numpy.ndarray | None) -> numpy.ndarray:
        """Return which samples are finite data, of shape (rows, columns, bands).

        Args:
            pixels, mask: as for `valid`.
        """
        valid = self.valid(pixels, mask)
        if pixels.dtype.kind in "fc":
            finite = numpy.isfinite(pixels)
            valid = finite if valid is None else finite & valid
        return numpy.broadcast_to(True if valid is None else valid, pixels.shape)


@contextmanager
def open_source(
    path: Path, bands: int, options: Options, gdal_warnings: list[str]
) -> Iterator[Source]:
    """Open an image and check that it can be converted.

    Args:
        bands: expected number of bands.
        gdal_warnings: list that `gdal.warning_log` yields.

    Raises:
        NodeError: the image cannot be converted.
    """
    safety.check_beside(path)
    with _open_dataset(path) as dataset:
        safety.check_references(dataset)
        if dataset.count != bands:
            raise WrongBands(
                f"the manifest says {bands} bands, but the image has "
                f"{dataset.count}: correct the row"
            )
        _check_dataset(dataset)
        sample_bytes = _dtype(dataset.dtypes[0]).itemsize
        size_limit = safety.SizeLimit(
            pixel_bytes=sample_bytes * dataset.count,
            tile=options.block_size,
            file_bytes=path.stat().st_size,
        )
        size_limit.check(dataset.width, dataset.height)
        safety.check_blocks(dataset, sample_bytes, options.block_size)
        crs = _crs(dataset, options)
        web_tiles = options.stored_as.tiling_scheme is not None
        if not options.reproject and not web_tiles:
            yield _source(dataset, dataset, crs, gdal_warnings)
            return
        safety.check_warping(dataset)
        if any(abs(value or 0) > _MAX_EXACT for value in _integers_of_nodata(dataset)):
            raise UnsupportedRaster(
                "its nodata value cannot be warped, because GDAL warps in floating "
                "point: give it one of less than 2**53, or convert it as it is"
            )
        categorical = _is_categorical(dataset)
        request = WarpRequest(
            crs=crs,
            target_crs=options.reproject,
            web_tiles=web_tiles,
            tile=options.block_size,
            resampling=Resampling.nearest if categorical else Resampling.bilinear,
            size_limit=size_limit,
        )
        with warped(dataset, request) as raster:
            yield _source(raster, dataset, raster.crs, gdal_warnings)


@contextmanager
def _open_dataset(path: Path) -> Iterator[rasterio.DatasetReader]:
    absolute = os.path.abspath(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            # Allow no other driver: some follow references in the file to other files
            # and addresses.
            dataset = rasterio.open(absolute, driver="GTiff", sharing=False)
        except (*READ_ERRORS, UnicodeDecodeError) as error:
            message = in_short(error).replace(f"{os.path.dirname(absolute)}/", "")  # noqa: PTH120
            if "MissingRequired" in message and '"Colormap"' in message:
                raise UnsupportedRaster(
                    "it says that its values are indices of a colour table, and has "
                    "none: add the table, or make it grey with tiffset -s 262 1 IMAGE"
                ) from error
            if codec := decoders.missing_codec(message):
                raise UnsupportedRaster(
                    f"it is compressed as {codec}, which the node's GDAL cannot read: "
                    "rewrite it with a GDAL that can, as in gdal_translate -co "
                    "COMPRESS=DEFLATE, or use a node environment with such a GDAL"
                ) from error
            raise NotARaster(
                f"GDAL cannot read it as a GeoTIFF ({message}): "
                "upload it again, or leave it out"
            ) from error
        with dataset:
            yield dataset


def _check_dataset(dataset: rasterio.DatasetReader) -> None:
    data_types = set(dataset.dtypes)
    if len(data_types) > 1:
        raise UnsupportedRaster(
            f"its bands are of different types ({', '.join(sorted(data_types))}): "
            "make one image for each type"
        )
    # rasterio reads these into complex floats of 32 bits, which cannot hold them.
    if data_types == {"complex64"} and band_elements(dataset)[0].get("dataType") == (
        "CInt32"
    ):
        raise UnsupportedRaster(
            "its pixels are complex integers of 32 bits, which the node cannot read: "
            "convert it with gdal_translate -ot CFloat64"
        )
    nodata = _nodata(dataset)
    if len(set(map(str, nodata))) > 1:
        values = ", ".join(map(str, nodata[:_MAX_LISTED]))
        raise UnsupportedRaster(
            f"its bands have different nodata values ({values}), and a GeoTIFF has one "
            "for all: give them one value, or make one image for each value"
        )
    if not all(map(math.isfinite, dataset.transform)):
        raise UnsupportedRaster(
            "its transform has values that are not numbers: correct its georeferencing"
        )
    if any(not flags for flags in dataset.mask_flag_enums):
        raise UnsupportedRaster(
            "each of its bands has its own mask, and a COG has one for all: "
            "use nodata or one mask"
        )


def _crs(dataset: rasterio.DatasetReader, options: Options) -> CRS | None:
    if options.assign_crs:
        return authority_crs(options.assign_crs)
    points, points_crs = dataset.gcps
    georeferenced = dataset.crs or (points and points_crs) or dataset.rpcs
    if not georeferenced and not options.allow_no_crs:
        raise NoCrs(
            "it has no coordinate reference system: convert it with --assign-crs "
            "EPSG:… if you know it, or with --allow-no-crs"
        )
    by_points = points and dataset.transform.is_identity
    if by_points and points_crs:
        return points_crs
    # If an image has both, rasterio gives only the CRS of the points.
    return dataset.crs or (points_crs if points else None)


def _source(
    pixels: rasterio.DatasetReader | WarpedVRT,
    dataset: rasterio.DatasetReader,
    crs: CRS | None,
    gdal_warnings: list[str],
) -> Source:
    colours = dataset.colorinterp
    palette = _palette(dataset)
    if pixels is dataset:
        has_mask = dataset.mask_flag_enums[0] == [MaskFlags.per_dataset]
    else:
        has_mask = pixels.count > dataset.count
    nodata = _nodata(dataset)
    has_nodata = any(value is not None for value in nodata)
    has_alpha = ColorInterp.alpha in colours
    bits = _bits(dataset)
    return Source(
        pixels=pixels,
        dataset=dataset,
        crs=crs,
        bands=dataset.count,
        data_type=dataset.dtypes[0],
        nodata=nodata if has_nodata else (),
        has_mask=has_mask,
        mask_of_pixels=None,
        alpha=colours.index(ColorInterp.alpha) if has_alpha else None,
        premultiplied=has_alpha and is_premultiplied(Path(dataset.name)),
        palette=palette,
        categorical=_is_categorical(dataset),
        tables=attribute_tables(dataset),
        lossy=False,
        min_is_white=palette is None and _structure(dataset, "MINISWHITE") == "YES",
        bits=bits if palette is None and bits and bits < 8 else None,
        gdal_warnings=gdal_warnings,
    )


def _own_mask(
    raster: rasterio.DatasetReader | WarpedVRT, window: Window, pixels: numpy.ndarray
) -> numpy.ndarray:
    shape = pixels.shape[:2]
    if isinstance(raster, WarpedVRT):
        # To GDAL, a band of most types is no alpha, but all are valid.
        return raster.read(raster.count, window=window, out_shape=shape) > 0
    return raster.dataset_mask(window=window, out_shape=shape) > 0


def _nodata(dataset: rasterio.DatasetReader) -> tuple[float | None, ...]:
    """Return the nodata value of each band, exact even if a double cannot hold it."""
    if dataset.dtypes[0] not in INTEGERS_OF_64_BITS:
        return dataset.nodatavals
    texts = [band.findtext("NoDataValue") for band in band_elements(dataset)]
    return tuple(None if text is None else int(text) for text in texts)


def _integers_of_nodata(dataset: rasterio.DatasetReader) -> tuple[float | None, ...]:
    return _nodata(dataset) if dataset.dtypes[0] in INTEGERS_OF_64_BITS else ()


def _palette(dataset: rasterio.DatasetReader) -> numpy.ndarray | None:
    """Return a dataset's colour table; see `Source.palette`."""
    if dataset.count != 1 or dataset.colorinterp[0] != ColorInterp.palette:
        return None
    try:
        colours = dataset.colormap(1)
    except ValueError:
        return None  # A file beside the image can say so without a colour table.
    size = 256 if _dtype(dataset.dtypes[0]).itemsize == 1 else 65536
    palette = numpy.zeros((size, 4), "u1")
    known = [value for value in colours if value < size]
    palette[known] = [colours[value] for value in known]
    return palette


def _is_categorical(dataset: rasterio.DatasetReader) -> bool:
    return (
        _has_indices(dataset)
        or "complex" in dataset.dtypes[0]
        or _structure(dataset, "NBITS") == "1"
        or dataset.tags(1).get("LAYER_TYPE", "").lower() == "thematic"
        or attribute_tables(dataset).thematic
    )


def _has_indices(dataset: rasterio.DatasetReader) -> bool:
    """Return whether values are palette indices, even if there is no palette."""
    if ColorInterp.palette in dataset.colorinterp or dataset.count > 1:
        return ColorInterp.palette in dataset.colorinterp
    # Without a colour table, GDAL calls them grey.
    with Path(dataset.name).open("rb") as file, suppress(tiff.NotATiff):
        return tiff.has_palette(file)
    return False


def is_premultiplied(path: Path) -> bool:
    """Return whether the alpha of a TIFF is associated alpha.

    GDAL opens files of which some tags are damaged. Then it is not known.
    """
    with path.open("rb") as file, suppress(tiff.NotATiff):
        structure = tiff.read(file)
        return tiff.ASSOCIATED_ALPHA in structure.numbers(0, tiff.EXTRA_SAMPLES)
    return False


def _bits(dataset: rasterio.DatasetReader) -> int | None:
    """Return the number of bits of a sample; None if it is that of its type."""
    if _structure(dataset, "NBITS") is None:
        return None
    # A file beside the image can have the item, too, but not change the samples.
    with Path(dataset.name).open("rb") as file, suppress(tiff.NotATiff):
        return tiff.read(file).number(0, tiff.BITS_PER_SAMPLE, 1)
    return None


def _structure(dataset: rasterio.DatasetReader, name: str) -> str | None:
    """Return an item of GDAL's description of how an image is stored."""
    tags = dataset.tags(ns="IMAGE_STRUCTURE") | dataset.tags(1, ns="IMAGE_STRUCTURE")
    return tags.get(name)


def _dtype(data_type: str) -> numpy.dtype:
    """Return the type that holds rasterio's data type in memory."""
    return numpy.dtype(_COMPLEX.get(data_type, data_type))
