"""Make a mask of what a lossy compression cannot keep: nodata values and alpha."""

from dataclasses import dataclass, field

import numpy


@dataclass(frozen=True)
class MaskOfPixels:
    """A mask that a COG has in place of nodata values, of an alpha band or of both.

    Attributes:
        nodata: value of each band that means "no data"; empty if no band has one.
        alpha: index of the alpha band, from 0; None if there is none.
        premultiplied: whether colours are multiplied by alpha.
        own: whether the image also has a mask of its own.
        partly_transparent: list to which True is appended when an alpha band that is
            left out has pixels that are neither transparent nor opaque.
    """

    nodata: tuple[float | None, ...]
    alpha: int | None
    premultiplied: bool
    own: bool
    partly_transparent: list[bool] = field(default_factory=list)

    def of(
        self, pixels: numpy.ndarray, alpha: numpy.ndarray | None, own: numpy.ndarray
    ) -> numpy.ndarray:
        """Return the mask, False where there is no data, of shape (rows, columns).

        Args:
            pixels: array of shape (rows, columns, bands).
            alpha: the alpha band; None if there is none.
            own: the image's own mask, or an array of True.
        """
        mask = own
        bands = [band for band in range(len(self.nodata)) if band != self.alpha]
        if bands:
            # GDAL's rule: one band of a colour may have the value.
            mask = mask & numpy.logical_or.reduce(
                [~is_nodata(pixels[:, :, band], self.nodata[band]) for band in bands]
            )
        return mask if alpha is None else mask & (alpha > 0)


def is_nodata(values: numpy.ndarray, nodata: float | None) -> numpy.ndarray:
    """Return which values mean "no data"."""
    if nodata is None:
        return numpy.zeros(values.shape, bool)
    return numpy.isnan(values) if nodata != nodata else values == nodata


def straight(
    pixels: numpy.ndarray, alpha: numpy.ndarray, largest: float
) -> numpy.ndarray:
    """Return pixels divided by their alpha, as a share of its largest value."""
    kind = pixels.dtype
    share = alpha.astype("f8") / largest
    # Without alpha there is no colour.
    colours = pixels / numpy.where(share > 0, share, 1)[:, :, None]
    if kind.kind != "f":
        colours = numpy.clip(numpy.rint(colours), 0, largest)
    return colours.astype(kind)


def can_hold(kind: numpy.dtype, value: float) -> bool:
    """Return whether a type can represent a value."""
    if kind.kind not in "iu":
        return True
    limits = numpy.iinfo(kind)
    return value == int(value) and limits.min <= value <= limits.max
