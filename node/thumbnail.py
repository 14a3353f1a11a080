"""Thumbnails of an image, as WebP."""

import base64
import io

import numpy

# Pillow imports all of its formats, which takes 40 ms, to find one that is not among
# the usual ones.
from PIL import Image, WebPImagePlugin  # noqa: F401

from node.result import THUMBNAIL_LIMITS, Thumbnail

# Detailed images need a lower quality to keep within the limit.
_QUALITIES = (45, 20, 5, 0)
# Higher methods take twice the time and more to save a tenth of the bytes.
_METHOD = 1


def thumbnails(picture: numpy.ndarray) -> tuple[Thumbnail, ...]:
    """Return two thumbnails, the larger one first; one that is too large is left out.

    Args:
        picture: 8-bit pixels, of shape (rows, columns) or (rows, columns, 3).
    """
    image = Image.fromarray(picture).convert("RGB")
    encoded = []
    for side, max_bytes in THUMBNAIL_LIMITS:
        scale = min(1.0, side / max(image.size))
        width, height = (max(1, round(length * scale)) for length in image.size)
        # With the gap, halves and thirds are simple means, which are faster.
        image = image.resize(
            (width, height), Image.Resampling.BILINEAR, reducing_gap=1.0
        )
        if content := _encoded(image, max_bytes):
            encoded.append(
                Thumbnail(
                    width=width,
                    height=height,
                    bytes=len(content),
                    webp=base64.b64encode(content).decode("ascii"),
                )
            )
    return tuple(encoded)


def _encoded(image: Image.Image, max_bytes: int) -> bytes | None:
    for quality in _QUALITIES:
        file = io.BytesIO()
        image.save(file, "WEBP", quality=quality, method=_METHOD)
        if file.tell() <= max_bytes:
            return file.getvalue()
    return None
