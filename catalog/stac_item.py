"""STAC Items: what the catalog says about one image, as GeoJSON.

https://github.com/radiantearth/stac-spec/blob/v1.1.0/item-spec/item-spec.md
"""

import math
import re
from typing import Any

from catalog.collections import Collection
from catalog.record import Dates, Record
from catalog.target import Target, relative
from node.result import Band, Jpeg, Part, Result

VERSION = "1.1.0"
JSON, GEOJSON = "application/json", "application/geo+json"
ITEMS = "items/"
# STAC's names for extensions are the addresses of their schemas.
PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
_RASTER = "https://stac-extensions.github.io/raster/v2.0.0/schema.json"
_FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
_EO = "https://stac-extensions.github.io/eo/v2.0.0/schema.json"
# The extension of a field is the one with its prefix.
_EXTENSIONS = {"proj": PROJECTION, "raster": _RASTER, "file": _FILE, "eo": _EO}
# The earliest moment of an image of unknown date. Many readers keep dates as
# nanoseconds since 1970 in 64 bits, which begin in the year 1677.
EARLIEST = "1700-01-01T00:00:00Z"
_COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
# The head of a SHA-256 in the format Multihash: its code, and its length of 32 bytes.
_SHA256 = "1220"
_CODE = re.compile(r"[A-Za-z]\w*:\w+", re.ASCII)
# rasterio's names of pixel types that are other than STAC's.
_TYPES = {
    "complex_int16": "cint16",
    "complex64": "cfloat32",
    "complex128": "cfloat64",
}
_SAME_TYPES = re.compile(r"u?int(8|16|32|64)|float(16|32|64)")
_COMMON_NAMES = frozenset({"red", "green", "blue", "nir"})
_STATISTICS = ("minimum", "maximum", "mean", "stddev", "valid_percent")


def link(
    rel: str, href: str, title: str = "", media_type: str = JSON
) -> dict[str, str]:
    """Return a link to another file of the catalog."""
    named = {"title": title} if title else {}
    return {"rel": rel, "href": href, "type": media_type} | named


def link_to_self(target: Target, key: str, media_type: str = JSON) -> list[Any]:
    """Return the link of a file to itself, which only published files have."""
    url = target.url(key)
    return [link("self", url, media_type=media_type)] if target.public_url else []


def item_name(record_id: str) -> str:
    """Return where the item of a record is in its collection."""
    return f"{ITEMS}{record_id}.json"


def item(record: Record, page: str, target: Target) -> dict[str, Any]:
    """Return a record as an Item.

    Args:
        page: name of the page of the collection that links it.
    """
    result = record.result
    key = target.prefix + item_name(record.id)
    content: dict[str, Any] = {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": [],
        "id": record.id,
        "geometry": result.footprint,
    }
    if result.footprint and result.bbox:
        content["bbox"] = [*result.bbox]
    content |= {
        "properties": {
            "title": _file_name(record.key),
            **_when(time_range(record, target.collection)),
            "created": record.converted,
            **({"gsd": result.gsd} if result.gsd else {}),
            **_projection(result),
            "cog_pipeline:manifest": record.manifest,
            "cog_pipeline:run": record.run,
            "cog_pipeline:source": record.source,
        },
        # The names of all parts of these paths need no escape in URLs.
        "links": [
            *link_to_self(target, key, GEOJSON),
            link("root", "../../catalog.json"),
            link("parent", f"../pages/{page}/catalog.json"),
            link("collection", "../collection.json", target.collection.title),
        ],
        "assets": _assets(record, key),
        "collection": target.collection.id,
    }
    content["stac_extensions"] = extensions(content)
    return content


def time_range(record: Record, collection: Collection) -> Dates:
    """Return the first and the last moment at which an image may have been taken."""
    if record.dates:
        return record.dates
    start, end = collection.interval
    start = start or min(EARLIEST, end or EARLIEST)
    return Dates(start, end or max(record.converted, start))


def band(number: int, described: Band) -> dict[str, Any]:
    """Return the name and the type of a band; the first has the number 1."""
    content = {"name": f"b{number}"}
    if kind := described.data_type:
        same = _SAME_TYPES.fullmatch(kind)
        content["data_type"] = kind if same else _TYPES.get(kind, "other")
    if (meaning := described.color_interpretation) in _COMMON_NAMES:
        content["eo:common_name"] = str(meaning)
    return content


def crs_code(result: Result) -> str | None:
    """Return the code of the CRS of an image; None if it has none."""
    return result.crs if result.crs and _CODE.fullmatch(result.crs) else None


def _when(dates: Dates) -> dict[str, str | None]:
    if dates.start == dates.end:
        return {"datetime": dates.start}
    return {
        "datetime": None,
        "start_datetime": dates.start,
        "end_datetime": dates.end,
    }


def _projection(result: Result) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if result.width and result.height:
        content["proj:shape"] = [result.height, result.width]
    if not result.crs:
        return content
    if code := crs_code(result):
        content["proj:code"] = code
    elif result.projjson:
        content["proj:projjson"] = result.projjson
    else:
        content["proj:wkt2"] = result.crs
    if result.bounds and all(map(math.isfinite, result.bounds)):
        content["proj:bbox"] = [*result.bounds]
    if transform := _transform(result):
        content["proj:transform"] = transform
    return content


def _transform(result: Result) -> list[float]:
    """Return the six numbers from pixels to coordinates; nothing without a CRS."""
    numbers = result.transform if result.crs else None
    return [*numbers] if numbers and all(map(math.isfinite, numbers)) else []


def _assets(record: Record, item_key: str) -> dict[str, Any]:
    result = record.result
    assets: dict[str, Any] = {
        "cog": {
            "href": relative(record.key, item_key),
            "title": "Cloud Optimized GeoTIFF",
            "type": _COG_TYPE,
            "roles": ["data"],
            **_file(result.cog),
        }
    }
    if result.bands_info:
        numbered = enumerate(result.bands_info, start=1)
        assets["cog"]["bands"] = [_band(*each) for each in numbered]
    if result.jpeg:
        assets["jpeg"] = {
            "href": relative(record.jpeg_key, item_key),
            "title": "JPEG",
            "type": "image/jpeg",
            # The thumbnails of a run are in one file, which no reader of STAC knows.
            "roles": ["overview", "thumbnail"],
            **_file(result.jpeg),
            **_grid_of_jpeg(result, result.jpeg),
        }
    return assets


def _file(file: Part | None) -> dict[str, Any]:
    if file is None:
        return {}
    digest = getattr(file, "sha256", None)
    checksum = {"file:checksum": _SHA256 + digest} if digest else {}
    return {"file:size": file.bytes, **checksum}


def _grid_of_jpeg(result: Result, jpeg: Jpeg) -> dict[str, Any]:
    """Return the grid of the JPEG, which is other than that of the COG."""
    if not (jpeg.width and jpeg.height and result.width and result.height):
        return {}
    content: dict[str, Any] = {"proj:shape": [jpeg.height, jpeg.width]}
    if transform := _transform(result):
        across, down = result.width / jpeg.width, result.height / jpeg.height
        a, b, c, d, e, f = transform
        grid = [a * across, b * down, c, d * across, e * down, f]
        content["proj:transform"] = grid
    return content


def _band(number: int, described: Band) -> dict[str, Any]:
    content = band(number, described)
    if described.description:
        content["description"] = described.description
    if (nodata := described.nodata) is not None:
        # JSON has no NaN and no infinity; STAC has words for them.
        content["nodata"] = nodata if math.isfinite(nodata) else str(nodata)
    if described.unit:
        content["unit"] = described.unit
    for name, nothing in (("scale", 1), ("offset", 0)):
        value = getattr(described, name)
        if value is not None and value != nothing and math.isfinite(value):
            content[f"raster:{name}"] = value
    known = ((name, getattr(described, name)) for name in _STATISTICS)
    statistics = {name: value for name, value in known if value is not None}
    if statistics:
        content["statistics"] = statistics
    return content


def extensions(content: dict[str, Any]) -> list[str]:
    """Return the extensions whose fields an item has."""
    assets = content["assets"].values()
    bands = (each for asset in assets for each in asset.get("bands", ()))
    places = (content["properties"], *assets, *bands)
    prefixes = {name.partition(":")[0] for place in places for name in place}
    return [url for prefix, url in _EXTENSIONS.items() if prefix in prefixes]


def _file_name(key: str) -> str:
    return key.rpartition("/")[2]
