"""How COGs are stored: creation options of GDAL's GTiff driver, by name.

Eleven have the names that rio-cogeo's profiles have; the presets are named for
what they hold. Each option says why it is there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

# PREDICTOR=YES is GDAL's COG driver's: 2 for integers, 3 for floating point. Here
# it is none where it would do harm: for palettes and complex numbers.
_PREDICTED = {"PREDICTOR": "YES"}


@dataclass(frozen=True)
class Profile:
    """How to store a COG.

    Attributes:
        options: of the GTiff driver, COMPRESS at least.
        max_mean_error: how much a pixel may differ from the source's in the
            mean, None where all must be the same bit for bit.
        tiling_scheme: whose tiles to warp to, e.g. WebMercatorQuad.
    """

    options: Mapping[str, str]
    about: str
    max_mean_error: float | None = None
    tiling_scheme: str | None = None

    def with_options(self, changed: Mapping[str, str]) -> "Profile":
        options = {**self.options, **changed}
        return replace(self, options=options, max_mean_error=_max_mean_error(options))


_JPEG = {
    "COMPRESS": "JPEG",
    # Half of what 95 takes, and no artefact that one sees at full size.
    "JPEG_QUALITY": "85",
}
_ZSTD = {
    "COMPRESS": "ZSTD",
    # Levels up to 9 make imagery a twentieth smaller, at four times the cost.
    "ZSTD_LEVEL": "1",
    **_PREDICTED,
}
_DEFLATE = {
    "COMPRESS": "DEFLATE",
    # Level 1 is ISA-L's, three times as fast as libdeflate's.
    "ZLEVEL": "1",
    **_PREDICTED,
}
_LERC = {
    # No loss, unless --co MAX_Z_ERROR allows it.
    "MAX_Z_ERROR": "0",
}


def _max_mean_error(options: Mapping[str, str]) -> float | None:
    kind = options["COMPRESS"]
    if kind == "JPEG" or (kind == "WEBP" and options.get("WEBP_LOSSLESS") != "YES"):
        # Of 255. Noise, which is what they leave out, reaches about 8 at the
        # lowest qualities that one would want; another image, 40 and more.
        return 16.0
    error = float(options.get("MAX_Z_ERROR", "0"))
    return error if kind.startswith("LERC") and error else None


def _profile(about: str, tiling_scheme: str | None = None, **options: str) -> Profile:
    return Profile(options, about, _max_mean_error(options), tiling_scheme)


PROFILES = {
    "zstd": _profile("lossless, the cheapest; see docs/profiles.md", **_ZSTD),
    "deflate": _profile("lossless, read by everything", **_DEFLATE),
    "lzw": _profile(
        "lossless, read by everything since 1992", COMPRESS="LZW", **_PREDICTED
    ),
    "packbits": _profile("lossless, for what has few colours", COMPRESS="PACKBITS"),
    "raw": _profile("not compressed", COMPRESS="NONE"),
    "jpeg": _profile("with loss, 8-bit, one or three bands", **_JPEG),
    "webp": _profile(
        "with loss, 8-bit, three or four bands", COMPRESS="WEBP", WEBP_LEVEL="75"
    ),
    "lerc": _profile("lossless, elevation", COMPRESS="LERC", **_LERC),
    "lerc_deflate": _profile("lossless", COMPRESS="LERC_DEFLATE", **_LERC),
    "lerc_zstd": _profile("lossless", COMPRESS="LERC_ZSTD", **_LERC),
    # A mapping agency's two: grey scans are kept as they are, colour is for the
    # eye and would be twenty times as large.
    "aerial-gray": _profile("grey aerial photographs, lossless", **_DEFLATE),
    "aerial-rgb": _profile("colour aerial photographs, with loss", **_JPEG),
    # Predictor 3 halves floating-point elevation; the level pays here, since
    # elevation is read far more often than it is written.
    "elevation": _profile(
        "floating-point or integer heights, lossless", **(_ZSTD | {"ZSTD_LEVEL": "9"})
    ),
    # Nothing that a reader of TIFF 6.0 with Deflate would not know: the classic
    # format below 4 GiB, no predictor 3, a thorough level as it is for ever.
    "archive": _profile(
        "lossless, widest compatibility",
        COMPRESS="DEFLATE",
        ZLEVEL="6",
        PREDICTOR="STANDARD",
    ),
    "web": _profile(
        "warped to the tiles of web maps, lossless", "WebMercatorQuad", **_DEFLATE
    ),
}
DEFAULT = "zstd"

# What --co may change: how pixels are stored, not what they are.
CREATION_OPTIONS = (
    *("BIGTIFF", "BLOCKSIZE", "COMPRESS", "DISCARD_LSB", "JPEG_QUALITY"),
    *("MAX_Z_ERROR", "PHOTOMETRIC", "PREDICTOR", "WEBP_LEVEL", "WEBP_LOSSLESS"),
    *("ZLEVEL", "ZSTD_LEVEL"),
)
COMPRESSIONS = {profile.options["COMPRESS"] for profile in PROFILES.values()}
