"""The fields of a result that describe the image for catalogs and pages.

No conversion fails because of them: a field that cannot be computed is null, and a
warning says why.
"""

import json
import math
import re
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import rasterio

from node.curation import curation_warnings
from node.errors import in_short
from node.footprint import footprint
from node.gdal import band_elements
from node.georeference import (
    bounds,
    crs_fields,
    ground_sample_distance,
    lonlat_of_pixels,
)
from node.result import MAX_DESCRIPTION, MAX_PROJJSON_BYTES, Band
from node.sample import Sample
from node.source import Source
from node.thumbnail import thumbnails

# The form of a date in TIFF 6.0, tag 306, and in EXIF.
_DATETIME = re.compile(r"(\d{4}):(\d\d):(\d\d) (\d\d:\d\d:\d\d)", re.ASCII)

# Decoders replace bytes that are not UTF-8 by this character.
_REPLACED = "\N{REPLACEMENT CHARACTER}"


def describe(source: Source, sample: Sample) -> tuple[dict[str, Any], list[str]]:
    """Return fields of the result by their names, and warnings."""
    warnings: list[str] = []
    # GDAL warns of each point without a place on the Earth.
    count = len(source.gdal_warnings)

    def attempt(what: str, compute: Callable[[], Any], default: Any) -> Any:
        try:
            return compute()
        except Exception as error:
            # The log has the place in the code, and the result a warning.
            traceback.print_exception(error)
            warnings.append(f"its {what} cannot be computed: {in_short(error)}")
            return default

    crs, projjson = attempt("CRS", lambda: _crs(source), (None, None))
    limits = attempt("bounds", lambda: bounds(source), None)
    place = attempt("footprint", lambda: _place(source, sample), {})
    if "gsd" in place and "footprint" not in place and sample.mask.any():
        warnings.append(
            "its footprint cannot be computed: its pixels have no place on the Earth"
        )
    taken = attempt("date", lambda: _datetime(source), None)
    bands = attempt("statistics", lambda: _bands(source, sample), ())
    pictures = attempt("thumbnails", lambda: thumbnails(sample.picture), ())
    warnings += attempt(
        "warnings", lambda: curation_warnings(source, sample, place, limits), []
    )
    del source.gdal_warnings[count:]
    fields = {"crs": crs, "projjson": projjson, "bounds": limits, "bands_info": bands}
    fields |= {"datetime": taken, "thumbnails": pictures}
    return fields | place, warnings


def _crs(source: Source) -> tuple[str | None, dict[str, Any] | None]:
    crs, projjson = crs_fields(source.crs)
    if projjson and len(json.dumps(projjson)) > MAX_PROJJSON_BYTES:
        projjson = None
    return crs, projjson


def _datetime(source: Source) -> str | None:
    """Return when the image was taken, as its tags say; None if they do not."""
    exif, tags = source.dataset.tags(ns="EXIF"), source.dataset.tags()
    for text in (exif.get("EXIF_DateTimeOriginal"), tags.get("TIFFTAG_DATETIME")):
        if match := _DATETIME.fullmatch((text or "").strip()):
            # Many cameras write zeros for a date that they do not know.
            with suppress(ValueError):
                taken = datetime.fromisoformat("{}-{}-{}T{}".format(*match.groups()))
                return taken.isoformat()
    return None


def _place(source: Source, sample: Sample) -> dict[str, Any]:
    to_lonlat = lonlat_of_pixels(source)
    if not to_lonlat:
        return {}
    size = source.width, source.height
    fields: dict[str, Any] = {"gsd": ground_sample_distance(to_lonlat, *size)}
    if outline := footprint(sample.mask, sample.factor, *size, to_lonlat):
        fields |= {"footprint": outline.geometry, "bbox": outline.bbox}
    return fields


def _bands(source: Source, sample: Sample) -> tuple[Band, ...]:
    image = source.dataset
    # Each of these asks GDAL for all bands.
    meanings, scales, offsets = image.colorinterp, image.scales, image.offsets
    names, units = _names_and_units(image)
    pixels = sample.mask.size
    bands = []
    for index, valid in enumerate(sample.valid_counts):
        statistics: dict[str, float | None] = {}
        if valid and sample.bands:
            band = sample.bands[index]
            statistics = {
                "minimum": _finite(band.minimum),
                "maximum": _finite(band.maximum),
                "mean": _finite(band.mean),
                "stddev": _finite(band.stddev),
            }
        bands.append(
            Band(
                data_type=source.data_type,
                nodata=source.nodata[index] if source.nodata else None,
                color_interpretation=meanings[index].name,
                description=_short(names[index]),
                unit=_short(units[index]),
                scale=scales[index],
                offset=offsets[index],
                valid_percent=round(100 * valid / pixels, 4),
                **statistics,
            )
        )
    return tuple(bands)


def _names_and_units(
    image: rasterio.DatasetReader,
) -> tuple[Sequence[str | None], Sequence[str | None]]:
    """Return names and units of all bands, None for those that are not UTF-8."""
    try:
        return image.descriptions, image.units
    except UnicodeDecodeError:
        # rasterio reads those of all bands or of none, and GDAL writes them anyway.
        bands = band_elements(image)
    names, units = (
        [
            text if _REPLACED not in (text := band.findtext(tag, "")) else None
            for band in bands
        ]
        for tag in ("Description", "UnitType")
    )
    return names, units


def _finite(value: float) -> float | None:
    """Return a number, None for one that is too large for its type."""
    return value if math.isfinite(value) else None


def _short(text: str | None) -> str | None:
    return text[:MAX_DESCRIPTION] if text else None
