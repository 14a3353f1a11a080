"""Errors, warnings and CRS codes of GDAL, for the modules of the node."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from xml.etree import ElementTree

import numpy
import rasterio
import rasterio.shutil
from rasterio._err import (
    CPLE_AppDefinedError,
    CPLE_BaseError,
    CPLE_NotSupportedError,
)
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.io import MemoryFile
from rasterio.warp import transform

from node.errors import UnsupportedRaster

# Errors that reading raises. GDAL's own errors are not subclasses of RasterioError.
READ_ERRORS = (RasterioError, CPLE_BaseError)
_MAX_WARNING = 300  # characters


@contextmanager
def warning_log() -> Iterator[list[str]]:
    """Yield a list to which each warning of GDAL is appended, on one line."""
    messages: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = re.sub(r"^CPLE_\w+( in |:)", "", record.getMessage())
            messages.append(" ".join(message.split())[:_MAX_WARNING])

    listener = Listener(logging.WARNING)
    logger = logging.getLogger("rasterio")
    logger.addHandler(listener)
    try:
        yield messages
    finally:
        logger.removeHandler(listener)


def authority_crs(code: str) -> CRS:
    """Return the CRS that has an authority's code such as EPSG:32616.

    Raises:
        UnsupportedRaster: PROJ does not know the code.
    """
    try:
        return CRS.from_string(code)
    except CRSError as error:
        raise UnsupportedRaster(
            f"PROJ does not know the CRS {code}: correct the option"
        ) from error


def authority_code(crs: CRS | None) -> str | None:
    """Return the code of a CRS, such as EPSG:32616; None if it is not just that CRS.

    rasterio finds the code of one that is similar, whose datum may be another.
    """
    found = crs.to_authority() if crs else None
    if not found:
        return None
    code = ":".join(found)
    return code if CRS.from_string(code) == crs else None


def band_elements(dataset: rasterio.DatasetReader) -> list[ElementTree.Element]:
    """Return what GDAL knows of the bands, as a VRT says it: more than rasterio says.

    Bytes that are not UTF-8 are replaced by U+FFFD.
    """
    with MemoryFile(ext=".vrt") as memory:
        rasterio.shutil.copy(dataset, memory.name, driver="VRT")
        text = bytes(memory.getbuffer()).decode(errors="replace")
    # GDAL wrote it, so it has no entities that could expand.
    return ElementTree.fromstring(text).findall("VRTRasterBand")  # noqa: S314


def transformed(
    crs: CRS, target: CRS | str, x: numpy.ndarray, y: numpy.ndarray
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return points in another CRS; those that have no place in it are not finite."""
    try:
        xs, ys = transform(crs, target, x, y)[:2]
        return numpy.asarray(xs), numpy.asarray(ys)
    except CPLE_NotSupportedError:
        # The CRS is of another planet, or of no place.
        return numpy.full(len(x), numpy.nan), numpy.full(len(x), numpy.nan)
    except CPLE_AppDefinedError:
        # One point without a place is an error of them all.
        if len(x) == 1:
            return numpy.array([numpy.nan]), numpy.array([numpy.nan])
    half = len(x) // 2
    halves = [
        transformed(crs, target, x[part], y[part])
        for part in (slice(half), slice(half, None))
    ]
    return numpy.concatenate([each[0] for each in halves]), numpy.concatenate(
        [each[1] for each in halves]
    )
