"""Images and mosaics of them as GDAL's files describe them: place, CRS and bands."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError

from node.result import Result

# A name that GDAL does not know would make a file that it cannot open, so only known
# names come into files. The keys are rasterio's names.
_DATA_TYPES: Mapping[str, str] = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "uint64": "UInt64",
    "int64": "Int64",
    "float32": "Float32",
    "float64": "Float64",
    "complex_int16": "CInt16",
    "complex64": "CFloat32",
    "complex128": "CFloat64",
}
_NAMES = {gdal: name for name, gdal in _DATA_TYPES.items()}
ALPHA = "Alpha"
_UNDEFINED = "Undefined"
_RGB = ("Red", "Green", "Blue")
# Both programs have further names for the bands of satellites. GDAL before 3.10 does
# not know them.
_COLORS: Mapping[str | None, str] = {
    "gray": "Gray",
    "red": "Red",
    "green": "Green",
    "blue": "Blue",
    "alpha": ALPHA,
    "hue": "Hue",
    "saturation": "Saturation",
    "lightness": "Lightness",
    "cyan": "Cyan",
    "magenta": "Magenta",
    "yellow": "Yellow",
    "black": "Black",
    "Y": "YCbCr_Y",
    "Cb": "YCbCr_Cb",
    "Cr": "YCbCr_Cr",
}
_MAX_COUNT = 65_535  # of bands in a TIFF
_CODE = re.compile(r"\w+:\w+", re.ASCII)
_IDENTITY = (1, 0, 0, 0, 1, 0)


@dataclass(frozen=True, slots=True)
class Bands:
    """The bands of an image.

    Attributes:
        count: how many a mosaic makes of them: three of a palette, since each image
            may have another one.
        data_type: type of their pixels, as GDAL names it.
        colors: what each shows, as GDAL names it.
        nodata: values that mean "no data", one a band; empty if there are none.
        is_palette: whether the image has indices of colours in place of them.
    """

    count: int
    data_type: str
    colors: tuple[str, ...]
    nodata: tuple[str, ...] = ()
    is_palette: bool = False

    @property
    def has_alpha(self) -> bool:
        """Whether the last band says how opaque the pixels are."""
        return self.colors[-1] == ALPHA


def geotransform(result: Result) -> tuple[float, ...] | None:
    """Return the transform of an image; None if it has none.

    rasterio has the identity for an image that has none. Such an image is placed by
    control points or not at all.
    """
    return result.transform if result.transform != _IDENTITY else None


def crs_of(text: str) -> CRS | None:
    """Return the CRS that the text in a result names; None if GDAL does not know it.

    Only codes and WKT go to GDAL. It takes other texts for files and URLs, and would
    read what they name.
    """
    try:
        return CRS.from_string(text) if _CODE.fullmatch(text) else CRS.from_wkt(text)
    except CRSError:
        return None


def bands_of(result: Result) -> Bands | None:
    """Return the bands of an image; None if not all is known that GDAL wants."""
    data_type = _DATA_TYPES.get(result.data_type or "")
    if not data_type or not result.bands or not 0 < result.bands <= _MAX_COUNT:
        return None
    known = result.bands_info[: result.bands]
    if result.bands == 1 and known and known[0].color_interpretation == "palette":
        return Bands(len(_RGB), data_type, _RGB, is_palette=True)
    further = result.bands - len(known)
    colors = [_COLORS.get(band.color_interpretation, _UNDEFINED) for band in known]
    # A GeoTIFF has one "no data" for all bands.
    nodata = () if result.nodata is None else (_text(result.nodata),) * result.bands
    return Bands(result.bands, data_type, (*colors, *[_UNDEFINED] * further), nodata)


def _text(nodata: float) -> str:
    # For integers of 64 bits, GDAL reads -9.2e+18 as -9.
    return str(nodata) if isinstance(nodata, int) else f"{nodata:.17g}"


def common(kinds: Collection[Bands]) -> Bands:
    """Return the bands that a mosaic of images can have, at least one.

    It has as many bands as all images, or one more if that is the alpha band of some.
    Its type holds the values of all.
    """
    count = min(kind.count for kind in kinds)
    # GDAL gives an alpha band to the images that lack one.
    most = max(kind.count for kind in kinds)
    if most == count + 1 and all(k.has_alpha for k in kinds if k.count == most):
        count = most
    whole = [kind for kind in kinds if kind.count >= count]
    colors = {kind.colors[:count] for kind in whole}
    nodata = {kind.nodata[:count] for kind in kinds}
    return Bands(
        count,
        _common_type({kind.data_type for kind in kinds}),
        colors.pop() if len(colors) == 1 else (_UNDEFINED,) * count,
        nodata.pop() if len(nodata) == 1 else (),
        any(kind.is_palette for kind in kinds),
    )


def _common_type(data_types: set[str]) -> str:
    if len(data_types) == 1:
        return data_types.pop()
    # numpy has no complex integers.
    names = [_NAMES[each].replace("complex_int16", "complex64") for each in data_types]
    return _DATA_TYPES[np.result_type(*names).name]
