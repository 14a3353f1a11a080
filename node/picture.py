"""Turn an image's pixels into what the JPEG shows."""

from dataclasses import dataclass

import numpy
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from node.masks import straight
from node.source import Source

_WHITE = 255
_SHOWN_PERCENT = (2, 98)
_SAMPLED_ROWS = 64
# A JPEG holds 16 MB of a profile; those of real devices have 3 MB at most.
_MAX_PROFILE = 8 * 2**20  # bytes
# This is libjpeg's limit, in pixels; the format allows 35 more.
MAX_JPEG_SIDE = 65_500


@dataclass(frozen=True)
class Picture:
    """How an image is shown.

    Attributes:
        source: the image.
        bands: indices of the shown bands, one or three.
        limits: for each of them, the values that are shown as black and as white;
            empty if the values are shown unchanged.
    """

    source: Source
    bands: tuple[int, ...]
    limits: tuple[tuple[float, float], ...]

    @property
    def colour_profile(self) -> bytes | None:
        """ICC profile of what is shown; None if there is none for its colours."""
        profile = self.source.colour_profile
        coloured = len(self.bands) == 3 or self.source.palette is not None
        space = b"RGB " if coloured else b"GRAY"
        if not profile or profile[16:20] != space or len(profile) > _MAX_PROFILE:
            return None
        return profile

    def show(self, pixels: numpy.ndarray, valid: numpy.ndarray | None) -> numpy.ndarray:
        """Return pixels as they are shown, white where there is no data.

        Args:
            pixels: array of shape (rows, columns, bands).
            valid: which samples are data, as `Source.valid` returns it.

        Returns:
            8-bit array of shape (rows, columns), (rows, columns, 3) or, with a fourth
            band to ignore, (rows, columns, 4).
        """
        source = self.source
        if source.palette is not None:
            colours = source.palette[pixels[:, :, 0]]
            shown, alpha = colours[:, :, :3], colours[:, :, 3]
        else:
            alpha = None
            if source.alpha is not None:
                alpha = pixels[:, :, source.alpha]
                if source.premultiplied:
                    pixels = straight(pixels, alpha, source.largest_alpha)
                if source.bits:
                    alpha = _between(alpha, 0, 2**source.bits - 1)
            unchanged = not self.limits and not source.min_is_white
            if (
                unchanged
                and self.bands == (0, 1, 2)
                and pixels.shape[2] in (3, 4)
                and alpha is None
                and valid is None
            ):
                return pixels
            shown = pixels[:, :, list(self.bands)]
            shown = self._stretched(shown) if self.limits else shown
            shown = 255 - shown if source.min_is_white else shown
        if valid is not None:
            # One band of a colour may have the value that means no data.
            is_data = valid if valid.shape[2] == 1 else valid[:, :, list(self.bands)]
            shown = numpy.where(is_data.any(axis=2, keepdims=True), shown, _WHITE)
        if alpha is not None:
            largest = source.largest_alpha if source.premultiplied else None
            shown = _on_white(shown, alpha, largest)
        shown = numpy.ascontiguousarray(shown, "u1")
        return shown[:, :, 0] if shown.shape[2] == 1 else shown

    def _stretched(self, pixels: numpy.ndarray) -> numpy.ndarray:
        shown = numpy.empty(pixels.shape, "u1")
        kind = pixels.dtype
        for band, limits in enumerate(self.limits):
            values = pixels[:, :, band]
            if kind.kind in "iu" and kind.itemsize <= 2:
                # There are few values: use a table.
                index = f"u{kind.itemsize}"
                table = numpy.arange(256**kind.itemsize).astype(index).view(kind)
                shown[:, :, band] = _between(table, *limits)[values.view(index)]
            else:
                shown[:, :, band] = _between(values, *limits)
        return shown


def picture(source: Source) -> Picture:
    """Return how to show an image.

    8-bit values are shown unchanged, those of
    fewer bits up to their largest value, others stretched between percentiles of
    sampled rows.
    """
    bands = _shown_bands(source)
    if source.bits:
        return Picture(source, bands, ((0, 2**source.bits - 1),) * len(bands))
    if source.dtype == numpy.uint8 or source.palette is not None:
        return Picture(source, bands, ())
    values: list[list[numpy.ndarray]] = [[] for _ in bands]
    rows = numpy.linspace(0, source.height - 1, min(_SAMPLED_ROWS, source.height))
    for row in rows.astype(int).tolist():
        pixels = numpy.empty((1, source.width, source.bands), source.dtype)
        mask = source.read(Window(0, row, source.width, 1), pixels)
        valid = source.valid(pixels, mask)
        if source.premultiplied and source.alpha is not None:
            alpha = pixels[:, :, source.alpha]
            pixels = straight(pixels, alpha, source.largest_alpha)
        for band, samples in zip(bands, values, strict=True):
            sample = _real(pixels[0, :, band])
            data = numpy.isfinite(sample)
            if valid is not None:
                data &= valid[0, :, band if valid.shape[2] > 1 else 0]
            samples.append(sample[data].astype("f8"))
    return Picture(
        source, bands, tuple(_limits(numpy.concatenate(samples)) for samples in values)
    )


def _shown_bands(source: Source) -> tuple[int, ...]:
    """Return the indices of red, green and blue, else of bands 1 to 3 or of band 1."""
    colours = source.dataset.colorinterp
    named = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(colour in colours for colour in named):
        return tuple(colours.index(colour) for colour in named)
    bands = tuple(band for band in range(source.bands) if band != source.alpha)
    return bands[:3] if len(bands) >= 3 else bands[:1] or (0,)


def _between(values: numpy.ndarray, black: float, white: float) -> numpy.ndarray:
    """Return values as 8 bits, from black to white."""
    with numpy.errstate(invalid="ignore", over="ignore"):
        scaled = (_real(values).astype("f8") - black) * (255 / (white - black))
    scaled = numpy.nan_to_num(scaled, nan=_WHITE, posinf=_WHITE, neginf=0)
    return numpy.clip(numpy.rint(scaled), 0, 255).astype("u1")


def _limits(values: numpy.ndarray) -> tuple[float, float]:
    if not values.size:
        return 0.0, 1.0
    black, white = numpy.percentile(values, _SHOWN_PERCENT).tolist()
    # A single value is shown as grey. Halves are used because the span of all values
    # that a double can hold is more than a double can hold.
    span = white / 2 - black / 2
    if not span > 0 or not numpy.isfinite(white - black):
        margin = max(1.0, abs(black) * 1e-6)
        return black - margin, black + margin
    return black, white


def _real(values: numpy.ndarray) -> numpy.ndarray:
    return numpy.abs(values) if values.dtype.kind == "c" else values


def _on_white(
    shown: numpy.ndarray, alpha: numpy.ndarray, largest: float | None
) -> numpy.ndarray:
    """Return colours blended with white by their alpha.

    Args:
        largest: alpha of more than 8 bits that is surely opaque; None if not known.
    """
    if alpha.dtype.kind == "f" or (largest and alpha.dtype.itemsize > 1):
        share = alpha.astype("f8") / (largest or 1)
        opaque: numpy.ndarray = numpy.clip(share, 0, 1) * 255
    elif alpha.dtype.itemsize > 1:
        # 16-bit alpha is opaque at 65535; some images use 0 and any other value.
        opaque = (alpha > 0) * 255
    else:
        opaque = alpha
    if opaque.min(initial=255) == 255:
        return shown
    opaque = opaque.astype("u4")[:, :, None]
    return (shown * opaque + _WHITE * (255 - opaque) + 127) // 255
