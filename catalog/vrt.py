"""The mosaic as a VRT: one file that opens a collection in GDAL and QGIS.

``mosaic.vrt`` names each image and its place in the mosaic. GDAL opens only the images
that lie in the window that it reads. GDAL from 3.3 on reads it:
https://gdal.org/en/stable/drivers/raster/vrt.html
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ElementTree, SubElement

from catalog.rasters import Bands, bands_of, common, crs_of, geotransform
from catalog.record import Record
from catalog.records import Records
from catalog.target import Target

_NAME = "mosaic.vrt"
_INSTEAD = "tileindex.gti.gpkg"
# GDAL reads the whole file when it opens it: 20 MB of XML take it a second.
_MAX_IMAGES = 10_000
_MAX_SOURCES = 50_000  # bands of images
_MAX_SIDE = 2**31 - 1  # pixels
_DECIMALS = 6  # of a pixel
# A complex source computes with floating-point numbers, which do not hold these.
_ONLY_SIMPLE = ("Int64", "UInt64", "CInt16", "CFloat32", "CFloat64")
# A key may have characters that XML has no way to write.
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _NoMosaic(Exception):
    """The images do not fit into one VRT; the message says why."""


@dataclass(frozen=True)
class _Image:
    """An image of a mosaic.

    Attributes:
        path: where GDAL finds it.
        start: when it was taken, empty if that is not known.
        size: width and height in pixels.
        pixel: width and height of a pixel in units of the CRS.
        corner: left and top of the image in the CRS.
    """

    path: str
    start: str
    size: tuple[int, int]
    pixel: tuple[float, float]
    corner: tuple[float, float]


def write(records: Records, target: Target) -> None:
    """Write the VRT of a collection, or remove it if its images do not fit into one.

    Images without a CRS or a geotransform are left out.

    Raises:
        BucketError: the bucket refuses the file.
    """
    try:
        crs, bands, images = _images(records, target)
        tree = ElementTree(_mosaic(crs, bands, images))
    except _NoMosaic as reason:
        target.warn(
            f"the collection {target.collection.id} gets no VRT: {reason}. Use "
            f"{_INSTEAD} instead"
        )
        target.remove(_NAME)
        return
    file = target.scratch / _NAME
    tree.write(file, encoding="utf-8")
    target.put(_NAME, file, "application/xml")


def _images(records: Records, target: Target) -> tuple[str, Bands, Sequence[_Image]]:
    """Return the CRS of all images, the bands of their mosaic, and the images.

    The images are in the order of their dates, because the last one lies above.
    """
    images: list[_Image] = []
    kinds: set[Bands] = set()
    shared: dict[str, tuple[object, str]] = {}
    crs = ""
    for record in records:
        bands, matrix = bands_of(record.result), geotransform(record.result)
        crs = record.result.crs or ""
        if not (bands and matrix and crs and not _NOT_IN_XML.search(record.key)):
            continue
        _check_same("CRS", crs, record.key, shared)
        _check_same("number of bands", bands.count, record.key, shared)
        _check_same("data type", bands.data_type, record.key, shared)
        _check_same("use of a palette", bands.is_palette, record.key, shared)
        kinds.add(bands)
        images.append(_image(record, matrix, target))
        if len(images) > _MAX_IMAGES or len(images) * bands.count > _MAX_SOURCES:
            raise _NoMosaic(
                f"it has more than {_MAX_IMAGES:,} images, or than {_MAX_SOURCES:,} "
                "bands in all of them"
            )
    if not images:
        raise _NoMosaic("none of its images has a CRS and a geotransform")
    crs = str(shared["CRS"][0])
    if not crs_of(crs):
        raise _NoMosaic("GDAL does not know the CRS of its images")
    return crs, common(kinds), sorted(images, key=lambda image: image.start)


def _check_same(
    what: str, value: object, key: str, shared: dict[str, tuple[object, str]]
) -> None:
    first, first_key = shared.setdefault(what, (value, key))
    if value != first:
        raise _NoMosaic(f"the {what} of {key!r} is not that of {first_key!r}")


def _image(record: Record, matrix: tuple[float, ...], target: Target) -> _Image:
    a, b, left, d, e, top = matrix
    result = record.result
    if b or d or not (a > 0 > e):
        raise _NoMosaic(f"north is not at the top of {record.key!r}")
    return _Image(
        target.gdal_path(record.key),
        record.dates.start if record.dates else "",
        (result.width or 0, result.height or 0),
        (a, -e),
        (left, top),
    )


def _mosaic(crs: str, bands: Bands, images: Sequence[_Image]) -> Element:
    x_size, y_size = (min(image.pixel[axis] for image in images) for axis in (0, 1))
    left = min(image.corner[0] for image in images)
    top = max(image.corner[1] for image in images)
    right = max(i.corner[0] + i.size[0] * i.pixel[0] for i in images)
    bottom = min(i.corner[1] - i.size[1] * i.pixel[1] for i in images)
    across, down = (right - left) / x_size, (top - bottom) / y_size
    if not (0.5 <= across <= _MAX_SIDE and 0.5 <= down <= _MAX_SIDE):
        raise _NoMosaic(f"it would be {across:.0f} x {down:.0f} pixels large")
    root = Element(
        "VRTDataset", rasterXSize=str(round(across)), rasterYSize=str(round(down))
    )
    SubElement(root, "SRS").text = crs
    corners = (left, x_size, 0.0, top, 0.0, -y_size)
    SubElement(root, "GeoTransform").text = ", ".join(map(repr, corners))
    windows = [_windows(image, left, top, x_size, y_size) for image in images]
    for index, color in enumerate(bands.colors):
        band = SubElement(root, "VRTRasterBand")
        band.attrib = {"dataType": bands.data_type, "band": str(index + 1)}
        if bands.nodata:
            SubElement(band, "NoDataValue").text = bands.nodata[index]
        SubElement(band, "ColorInterp").text = color
        for image, window in zip(images, windows, strict=True):
            band.append(_source(image, window, bands, index))
    if not bands.nodata and not bands.has_alpha:
        # Between the images, nothing else says that there is none.
        mask = SubElement(
            SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte"
        )
        for image, window in zip(images, windows, strict=True):
            source = _part("ComplexSource", image, "mask,1", window)
            # Another image below it may have valid pixels where this one has none.
            SubElement(source, "NODATA").text = "0"
            mask.append(source)
    return root


def _windows(
    image: _Image, left: float, top: float, x_size: float, y_size: float
) -> tuple[Element, Element]:
    """Return all of an image in its own pixels, and in those of the mosaic."""
    place = (
        (image.corner[0] - left) / x_size,
        (top - image.corner[1]) / y_size,
        image.size[0] * image.pixel[0] / x_size,
        image.size[1] * image.pixel[1] / y_size,
    )
    own = (0, 0, *image.size)
    # Differences of large coordinates have errors, which would move the image.
    return _rectangle("SrcRect", own), _rectangle(
        "DstRect", [round(value, _DECIMALS) for value in place]
    )


def _rectangle(name: str, numbers: Sequence[float]) -> Element:
    names = ("xOff", "yOff", "xSize", "ySize")
    return Element(name, dict(zip(names, map(str, numbers), strict=True)))


def _source(
    image: _Image, window: tuple[Element, Element], bands: Bands, index: int
) -> Element:
    if bands.data_type in _ONLY_SIMPLE:
        return _part("SimpleSource", image, str(index + 1), window)
    if bands.is_palette:
        source = _part("ComplexSource", image, "1", window)
        SubElement(source, "ColorTableComponent").text = str(index + 1)
    else:
        source = _part("ComplexSource", image, str(index + 1), window)
    # Where an image has no data, one below it shows.
    if bands.nodata:
        SubElement(source, "NODATA").text = bands.nodata[index]
    else:
        SubElement(source, "UseMaskBand").text = "true"
    return source


def _part(
    kind: str, image: _Image, band: str, window: tuple[Element, Element]
) -> Element:
    source = Element(kind)
    # A relative path would begin with "../", which GDAL does not resolve in S3.
    SubElement(source, "SourceFilename", relativeToVRT="0").text = image.path
    SubElement(source, "SourceBand").text = band
    source.extend(window)
    return source
