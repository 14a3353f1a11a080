"""Warnings for curators of the archive: signs of a wrong CRS or empty image.

Each begins with a stable code. None of them fails a conversion. Pixels are judged by
the sample, which is an overview.
"""

from typing import Any

from rasterio.crs import CRS

from node.gdal import authority_code
from node.sample import Sample
from node.source import Source

# Finer than any camera of a survey, coarser than any grid of the Earth: metres.
_FINEST_GSD, _COARSEST_GSD = 0.002, 2_000_000
# Longitudes of global grids reach from 0 to 360 degrees, and some a little further.
_MAX_LONGITUDE, _MAX_LATITUDE = 540, 91

Box = tuple[float, float, float, float]


def curation_warnings(
    source: Source, sample: Sample, place: dict[str, Any], bounds: Box | None
) -> list[str]:
    """Return sentences, each with its code before a colon.

    Args:
        place: the fields of the result for the image's place on the Earth.
        bounds: left, bottom, right and top in the image's CRS.
    """
    found = (
        _outside_area_of_use(source.crs, place.get("bbox")),
        _absurd_resolution(source.crs, place.get("gsd"), bounds),
        _monotony(sample),
    )
    return [f"{code}: {sentence}" for code, sentence in filter(None, found)]


def _outside_area_of_use(crs: CRS | None, bbox: Box | None) -> tuple[str, str] | None:
    code = authority_code(crs)
    if not code or not bbox:
        return None
    # A CRS of a file does not say where it is used, the one of PROJ does.
    area = CRS.from_string(code).to_dict(projjson=True).get("bbox")
    if not area:
        return None
    sides = ("west_longitude", "south_latitude", "east_longitude", "north_latitude")
    if _overlap(bbox, tuple(area[side] for side in sides)):
        return None
    return (
        "outside-area-of-use",
        f"its footprint lies outside the area of use of {code}: the code may be wrong",
    )


def _overlap(one: Box, other: Box) -> bool:
    if one[3] < other[1] or other[3] < one[1]:
        return False
    # West is more than east across the antimeridian.
    (west, east), (other_west, other_east) = (
        (box[0], box[2] + (360 if box[2] < box[0] else 0)) for box in (one, other)
    )
    return any(
        west + shift <= other_east and other_west <= east + shift
        for shift in (-360, 0, 360)
    )


def _absurd_resolution(
    crs: CRS | None, gsd: float | None, bounds: Box | None
) -> tuple[str, str] | None:
    code = "absurd-resolution"
    if crs and crs.is_geographic and bounds:
        left, bottom, right, top = bounds
        if (
            max(abs(left), abs(right)) > _MAX_LONGITUDE
            or max(abs(bottom), abs(top)) > _MAX_LATITUDE
        ):
            return code, (
                "its coordinates are not degrees, although its CRS is in degrees: they "
                "may be metres"
            )
    if gsd is None or _FINEST_GSD <= gsd <= _COARSEST_GSD:
        return None
    return code, (
        f"a pixel has {gsd:.3g} m on the ground: its CRS, or the unit of its "
        "transform, may be wrong"
    )


def _monotony(sample: Sample) -> tuple[str, str] | None:
    if not sample.mask.any() or not any(sample.valid_counts):
        return "no-data", "none of its sampled pixels is data"
    bands = [
        band
        for index, band in enumerate(sample.bands)
        if index != sample.alpha and band.count
    ]
    if bands and all(band.minimum == band.maximum for band in bands):
        return "one-value", "all of its sampled pixels have the same value"
    if sample.bands_1_to_3_equal:
        return "identical-bands", "its bands 1 to 3 are identical"
    return None
