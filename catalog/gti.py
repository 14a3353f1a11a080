"""The metadata by which GDAL's driver GTI opens a tile index as one mosaic.

https://gdal.org/en/stable/drivers/raster/gti.html
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.warp import transform

from catalog.rasters import Bands, common, crs_of

Floats = NDArray[np.float64]
_WGS_84 = "EPSG:4326"
_DEGREE = 111_320  # metres of latitude
_MAX_SIDE = 2e9  # pixels of a mosaic; GDAL has 2**31 - 1
# Corners and middles of the sides of an image, as shares of its width and height.
_OUTLINE = np.array(
    [(0, 0), (0.5, 0), (1, 0), (1, 0.5), (1, 1), (0.5, 1), (0, 1), (0, 0.5)]
)
# By so much a curved side may reach beyond its middle and its corners, as a share of
# the size of the image.
_MARGIN = 0.01
_POINTS = 100_000  # that are transformed at once


@dataclass(frozen=True)
class Places:
    """Where images are.

    Attributes:
        crs: the CRS of each, of shape (n,).
        transforms: from columns and rows to coordinates of the CRS, of shape (n, 6).
        sizes: width and height in pixels, of shape (n, 2).
        bboxes: west, south, east and north in degrees, of shape (n, 4); west is more
            than east across the antimeridian.
        gsd: side of a pixel in metres, of shape (n,).
    """

    crs: NDArray[np.object_]
    transforms: Floats
    sizes: Floats
    bboxes: Floats
    gsd: Floats

    def usable(self) -> NDArray[np.bool_]:
        """Return which images GTI can show, of shape (n,).

        It cannot place an image by control points, and it ignores the rotation of an
        image that it does not warp.
        """
        a, b, _, d, e, _ = self.transforms.T
        # Values that are not known are NaN. A hostile result may have any numbers.
        with np.errstate(over="ignore", invalid="ignore"):
            area = a * e - b * d
        placed = (area != 0) & np.isfinite(area)
        known = [crs for crs in set(self.crs) if crs_of(crs)]
        placed &= np.isin(self.crs, known)
        return placed & (self.gsd > 0) & ~(self._rotated() & (self.crs == _WGS_84))

    def __getitem__(self, chosen: NDArray[np.bool_]) -> "Places":
        return Places(
            self.crs[chosen],
            self.transforms[chosen],
            self.sizes[chosen],
            self.bboxes[chosen],
            self.gsd[chosen],
        )

    def mosaic(self) -> tuple[str, NDArray[np.object_], dict[str, str]]:
        """Return the mosaic of images that are all usable.

        Its CRS is theirs, or EPSG:4326 if they have several or one is rotated. In that
        case, GDAL warps each image when it reads it.

        Returns:
            The CRS; the extents of the images in it, as polygons of shape (n,); and the
            layer's metadata about the place of the mosaic.
        """
        if len(set(self.crs)) == 1 and not self._rotated().any():
            crs = str(self.crs[0])
            x, y = self._outlines(slice(None))
            boxes = np.stack((x.min(1), y.min(1), x.max(1), y.max(1)), axis=1)
            extents = shapely.box(*boxes.T)
            resolution = np.abs(self.transforms[:, (0, 4)]).min(axis=0)
        else:
            crs = _WGS_84
            boxes = self._boxes_in_degrees()
            extents = _boxes_on_globe(boxes)
            resolution = np.full(2, self.gsd.min() / _DEGREE)
        bounds = shapely.total_bounds(extents)
        resolution = np.maximum(resolution, (bounds[2:] - bounds[:2]) / _MAX_SIDE)
        names = ("RESX", "RESY", "MINX", "MINY", "MAXX", "MAXY")
        values = (*resolution, *bounds)
        metadata = {k: repr(float(v)) for k, v in zip(names, values, strict=True)}
        return crs, extents, {"SRS": crs} | metadata

    def _rotated(self) -> NDArray[np.bool_]:
        return (self.transforms[:, (1, 3)] != 0).any(axis=1)

    def _outlines(self, chosen: slice | NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Return points around images in their CRS, of shape (n, 8)."""
        a, b, c, d, e, f = self.transforms[chosen].T[:, :, None]
        width, height = self.sizes[chosen].T[:, :, None]
        columns, rows = width * _OUTLINE[:, 0], height * _OUTLINE[:, 1]
        return a * columns + b * rows + c, d * columns + e * rows + f

    def _boxes_in_degrees(self) -> Floats:
        boxes = self.bboxes.copy()
        step = _POINTS // len(_OUTLINE)
        crosses = boxes[:, 0] > boxes[:, 2]
        for crs in set(self.crs):
            (of_crs,) = np.nonzero((self.crs == crs) & ~crosses)
            for start in range(0, len(of_crs), step):
                part = of_crs[start : start + step]
                x, y = self._outlines(part)
                try:
                    points = transform(crs, _WGS_84, x.ravel(), y.ravel())
                except CPLE_BaseError:
                    # A point has no place on the Earth. The footprint has one.
                    continue
                lon, lat = (np.reshape(each, x.shape) for each in points)
                west, east, south, north = (
                    lon.min(1),
                    lon.max(1),
                    lat.min(1),
                    lat.max(1),
                )
                margin = _MARGIN * np.stack((east - west, north - south) * 2, axis=1)
                around = np.stack((west, south, east, north), axis=1)
                around += margin * (-1, -1, 1, 1)
                # Half of the globe is the extent of an image around a pole at least.
                good = np.isfinite(around).all(axis=1) & (east - west < 180)
                low = np.minimum(boxes[part, :2], around[:, :2])
                high = np.maximum(boxes[part, 2:], around[:, 2:])
                boxes[part[good]] = np.concatenate((low, high), axis=1)[good]
        return np.clip(boxes, (-180, -90, -180, -90), (180, 90, 180, 90))


def _boxes_on_globe(boxes: Floats) -> NDArray[np.object_]:
    """Return boxes in degrees as polygons, those across the antimeridian in two."""
    west, south, east, north = boxes.T
    crosses = west > east
    polygons = np.array(shapely.box(west, south, np.where(crosses, 180, east), north))
    others = shapely.box(-180, south[crosses], east[crosses], north[crosses])
    pairs = np.stack((polygons[crosses], others), axis=1)
    polygons[crosses] = [shapely.MultiPolygon(list(pair)) for pair in pairs]
    return polygons


def bands_metadata(kinds: Collection[Bands]) -> dict[str, str]:
    """Return the layer's metadata about the bands of a mosaic."""
    bands = common(kinds)
    metadata = {
        "BAND_COUNT": str(bands.count),
        "DATA_TYPE": bands.data_type,
        "COLOR_INTERPRETATION": ",".join(bands.colors),
    }
    # The driver does not mask integers of 64 bits that mean "no data".
    if bands.nodata and bands.data_type not in ("Int64", "UInt64"):
        metadata["NODATA"] = ",".join(bands.nodata)
    elif not bands.has_alpha:
        # Between the images, nothing else says that there is none.
        metadata["MASK_BAND"] = "YES"
    return metadata
