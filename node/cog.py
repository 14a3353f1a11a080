"""Make a COG's directories as GDAL would write them for the same image.

GDAL decides the value of every tag, such as the coordinate reference system, metadata
and colour table: it writes a GeoTIFF of one pixel that has everything of the image
except its size and its pixels.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rasterio
import rasterio.shutil
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from node import tiff
from node.errors import UnsupportedRaster
from node.source import Source

# Elements of a VRT that describe the source's pixels: remove them for one pixel.
_PIXELS = {
    *("SimpleSource", "ComplexSource", "AveragedSource", "KernelFilteredSource"),
    *("MaskBand", "Overview", "OverviewList", "Histograms"),
    # A GeoTIFF cannot hold these.
    *("CategoryNames", "GDALRasterAttributeTable"),
}
_RED_GREEN_BLUE = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
_MAX_NAME = 80  # characters of the name of a CRS
# A VRT's names for the coordinates of a ground control point.
_OF_A_POINT = ("Pixel", "Line", "X", "Y", "Z")
# How the names of GDAL's tags for statistics of pixels begin.
STATISTICS = "STATISTICS_"
# Namespaces of tags that GDAL makes itself, from how an image is stored.
OWN_NAMESPACES = {
    *("IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "SUBDATASETS", "RPC"),
    *("COLOR_PROFILE", "GEOLOCATION", "OVERVIEWS", "TIFF", "IMD"),
}


def creation_options(source: Source, options: Mapping[str, str]) -> dict[str, str]:
    """Return creation options for the GTiff driver, resolved for an image's pixels.

    Raises:
        UnsupportedRaster: the compression cannot hold the pixels.
    """
    _check_compression(source, options)
    resolved = dict(options)
    resolved.pop("BLOCKSIZE", None)
    resolved.pop("BIGTIFF", None)
    predictor = resolved.pop("PREDICTOR", "NO")
    if source.bits and not _too_large(source.nodata, source.bits):
        resolved["NBITS"] = str(source.bits)
        predictor = "NO"  # It works on whole bytes.
    kind = source.dtype.kind
    if predictor in ("YES", "STANDARD"):
        # Neighbouring indices of a palette have nothing in common.
        if source.palette is not None or kind not in "iuf":
            predictor = "NO"
        elif kind == "f":
            predictor = "3" if predictor == "YES" else "NO"
        else:
            predictor = "2"
    kinds = {"2": "iuf", "3": "f"}.get(predictor)
    if kinds and kind not in kinds:
        raise UnsupportedRaster(
            f"PREDICTOR={predictor} is not for {source.data_type}: use PREDICTOR=YES, "
            "which suits each type"
        )
    if predictor != "NO":
        resolved["PREDICTOR"] = predictor
    if resolved["COMPRESS"] == "JPEG" and source.bands == 3:
        # YCbCr stores three bands as the colours red, green and blue.
        coloured = source.dataset.colorinterp[:3] == _RED_GREEN_BLUE
        resolved.setdefault("PHOTOMETRIC", "YCBCR" if coloured else "MINISBLACK")
    if source.min_is_white:
        resolved["PHOTOMETRIC"] = "MINISWHITE"
    return resolved


def _too_large(nodata: tuple[float | None, ...], bits: int) -> bool:
    """Return whether a nodata value, which warping adds as pixels, needs more bits."""
    return any(value is not None and not 0 <= value < 2**bits for value in nodata)


def _check_compression(source: Source, options: Mapping[str, str]) -> None:
    compression = options["COMPRESS"]
    dtype, bands = source.dtype, source.bands
    requirement, met = {
        "JPEG": ("8-bit images of 1 or 3 bands", dtype == "u1" and bands in (1, 3)),
        "WEBP": ("8-bit images of 3 or 4 bands", dtype == "u1" and bands in (3, 4)),
        "LERC": (
            "integers of up to 32 bits and floating point",
            dtype.kind == "f" or (dtype.kind in "iu" and dtype.itemsize <= 4),
        ),
    }.get(compression.partition("_")[0], ("", True))
    if source.palette is not None and compression in ("JPEG", "WEBP"):
        requirement, met = "true colours, and this image has a colour table", False
    name = source.data_type
    if source.bits:
        name = f"of {source.bits} bits"
        if compression.startswith(("JPEG", "WEBP", "LERC")):
            requirement, met = "samples of at least 8 bits", False
    if met and not _keeps_alpha(source, options):
        place = "last of 2 or 4 bands" if compression == "JPEG" else "fourth band"
        requirement, met = f"alpha only as the {place}", False
    if options.get("PHOTOMETRIC") == "YCBCR" and (compression, bands) != ("JPEG", 3):
        raise UnsupportedRaster(
            f"PHOTOMETRIC=YCBCR is for JPEG of 3 bands, and this is {compression} of "
            f"{bands}: leave it out"
        )
    if not met:
        raise UnsupportedRaster(
            f"{compression} takes {requirement}; this one is {name} with "
            f"{bands} bands: choose another --profile"
        )


def _keeps_alpha(source: Source, options: Mapping[str, str]) -> bool:
    """Return whether the compression keeps an alpha band exactly, if there is one."""
    if source.alpha is None:
        return True
    if options["COMPRESS"] == "WEBP":
        return source.alpha == 3 or options.get("WEBP_LOSSLESS") == "YES"
    # Where a mask can hold alpha, it is no band of the COG.
    return options["COMPRESS"] != "JPEG"


def directory(
    source: Source, options: Mapping[str, str], tile: int, scratch: Path
) -> tiff.Directory:
    """Return the image's directory, without its size and its tiles.

    Args:
        options: creation options that `creation_options` returned.
        tile: side of a tile, in pixels.
        scratch: directory for temporary files.

    Raises:
        UnsupportedRaster: a GeoTIFF cannot hold what describes the image.
    """
    description, pixel = scratch / "pixel.vrt", scratch / "pixel.tif"
    rasterio.shutil.copy(source.dataset, description, driver="VRT")
    description.write_bytes(_of_one_pixel(description.read_bytes(), source))
    with rasterio.open(description, driver="VRT") as raster:
        rasterio.shutil.copy(
            raster,
            pixel,
            driver="GTiff",
            TILED="YES",
            BLOCKXSIZE=str(tile),
            BLOCKYSIZE=str(tile),
            INTERLEAVE="PIXEL",
            **options,
        )
    # GDAL writes what a GeoTIFF cannot hold into a file beside it.
    pixel.with_name(f"{pixel.name}.aux.xml").unlink(missing_ok=True)
    _add_namespaces(source.dataset, pixel)
    with rasterio.open(pixel, driver="GTiff") as raster:
        _check_kept(source, raster)
    with pixel.open("rb") as file:
        directory = tiff.read(file).directories[0]
    # GDAL does not say how an image's alpha is associated.
    if source.premultiplied:
        return tiff.with_premultiplied_alpha(directory)
    return directory


def _add_namespaces(image: rasterio.DatasetReader, pixel: Path) -> None:
    """Copy the tags in namespaces: a VRT has only those that it knows."""
    tags = [
        (band, namespace, image.tags(band, namespace))
        for band in range(image.count + 1)
        for namespace in image.tag_namespaces(band)
        if namespace not in OWN_NAMESPACES and not namespace.startswith("xml:")
    ]
    if tags:
        with rasterio.open(pixel, "r+", driver="GTiff") as raster:
            for band, namespace, values in tags:
                raster.update_tags(band, namespace, **values)


def _of_one_pixel(description: bytes, source: Source) -> bytes:
    # Old images often have tags in Latin-1, which GDAL passes on unchanged.
    text = re.sub(
        "[\udc80-\udcff]",
        lambda match: chr(ord(match[0]) - 0xDC00),
        description.decode("utf-8", "surrogateescape"),
    )
    # A parser of XML makes a line feed of a carriage return, unless it is a reference.
    text = text.replace("\r", "&#13;")
    try:
        # GDAL wrote it, so it has no entities that could expand.
        root = ElementTree.fromstring(text)  # noqa: S314
    except ElementTree.ParseError as error:
        raise UnsupportedRaster(
            f"its tags have bytes that are not text ({error}): rewrite it without them"
        ) from error
    _remove_what_becomes_a_mask(root, source)
    root.set("rasterXSize", "1")
    root.set("rasterYSize", "1")
    for parent in [root, *root.findall("VRTRasterBand")]:
        for child in list(parent):
            # The COG is not stored as the image is.
            structure = child.get("domain") == "IMAGE_STRUCTURE"
            # GDAL presents a min-is-white image with a colour table that it lacks.
            artificial = child.tag == "ColorTable" and source.min_is_white
            # Geolocation names other files, which readers of the COG would look for.
            geolocation = child.get("domain") == "GEOLOCATION"
            if child.tag in _PIXELS or structure or artificial or geolocation:
                parent.remove(child)
    if source.warped or source.has_spare_points:
        for child in list(root):
            of_warp = source.warped and child.get("domain") == "RPC"
            if child.tag == "GCPList" or of_warp:
                root.remove(child)
        _set(
            root,
            "GeoTransform",
            ", ".join(map(repr, source.pixels.transform.to_gdal())),
        )
    if not source.keeps_pixels:
        _remove_statistics(root)
    _add_colour_tags(root, source)
    if source.placed_by_points:
        _set_points(root, source)
    elif source.crs and source.crs != source.dataset.crs:
        _set(root, "SRS", source.crs.to_wkt())
    return ElementTree.tostring(root).replace(b"\r", b"&#13;")


def _remove_what_becomes_a_mask(root: ElementTree.Element, source: Source) -> None:
    for band in root.findall("VRTRasterBand")[source.bands :]:
        root.remove(band)
    if not source.nodata:
        for band in root.findall("VRTRasterBand"):
            for nodata in band.findall("NoDataValue"):
                band.remove(nodata)


def _remove_statistics(root: ElementTree.Element) -> None:
    for metadata in root.findall("VRTRasterBand/Metadata"):
        for tag in list(metadata):
            if tag.get("key", "").startswith(STATISTICS):
                metadata.remove(tag)


def _check_kept(source: Source, raster: rasterio.DatasetReader) -> None:
    """Raise UnsupportedRaster for what a GeoTIFF cannot hold.

    Args:
        raster: a GeoTIFF that GDAL wrote to hold it.
    """
    if source.crs and crs_of(raster, source) != source.crs:
        raise UnsupportedRaster(
            f"a GeoTIFF cannot hold its CRS ({_name(source.crs)}): warp it to another "
            "one with --reproject, or store it in another format"
        )
    if source.palette is not None:
        expected, actual = colour_tables(source.dataset, raster)
        if not actual:
            raise UnsupportedRaster(
                f"a GeoTIFF cannot hold a colour table of {source.data_type}: store "
                "its values as uint8 or uint16, or remove the colour table"
            )
        if expected != actual:
            raise UnsupportedRaster(
                "a GeoTIFF cannot hold the transparent colours of its colour table: "
                "use nodata or a mask, or make it RGBA with gdal_translate -expand rgba"
            )


def crs_of(raster: rasterio.DatasetReader, source: Source) -> CRS | None:
    """Return the CRS of a GeoTIFF that places an image as its source is placed."""
    return (raster.gcps[1] if source.placed_by_points else raster.crs) or None


def colour_tables(
    image: rasterio.DatasetReader, raster: rasterio.DatasetReader
) -> tuple[dict[int, Any], dict[int, Any]]:
    """Return the colours of an image, and those that a GeoTIFF has for its values.

    That of the nodata value is left out: GDAL makes it transparent, or does not.
    """
    expected = image.colormap(1)
    expected.pop(raster.nodata, None)
    try:
        actual = raster.colormap(1)
    except ValueError:
        return expected, {}
    # A TIFF has an entry for every value, other images may have fewer.
    return expected, {value: actual.get(value) for value in expected}


def _name(crs: CRS) -> str:
    words = re.findall(r'"([^"]*)"', crs.to_wkt())
    return " ".join(words[:1])[:_MAX_NAME] or "without a name"


def _add_colour_tags(root: ElementTree.Element, source: Source) -> None:
    """Add what the image's colours look like, which a VRT lacks."""
    tags = source.dataset.tags(ns="COLOR_PROFILE")
    if source.colour_profile is None:
        tags.pop("SOURCE_ICC_PROFILE", None)
    if tags:
        metadata = ElementTree.SubElement(root, "Metadata", domain="COLOR_PROFILE")
        for name, value in tags.items():
            ElementTree.SubElement(metadata, "MDI", key=name).text = value


def _set_points(root: ElementTree.Element, source: Source) -> None:
    """Set the ground control points, which a VRT has rounded, and their CRS."""
    for points in root.findall("GCPList"):
        if source.crs:
            points.attrib.clear()
            points.set("Projection", source.crs.to_wkt())
        for element, point in zip(points, source.dataset.gcps[0], strict=True):
            values = point.col, point.row, point.x, point.y, point.z or 0.0
            for name, value in zip(_OF_A_POINT, values, strict=True):
                element.set(name, repr(value))
    # A GeoTIFF has one CRS.
    for other in root.findall("SRS"):
        root.remove(other)


def _set(root: ElementTree.Element, tag: str, text: str) -> None:
    element = root.find(tag)
    if element is None:
        element = ElementTree.Element(tag)
        root.insert(0, element)
    element.attrib.clear()
    element.text = text
