"""Profiles: how COGs are stored, as creation options of GDAL's GTiff driver.

Ten profiles have the names of rio-cogeo's; the others are named for what they store.
A comment gives the reason for each option.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

# PREDICTOR=YES is an option of GDAL's COG driver: 2 for integers, 3 for floating point.
# Here it means no predictor where that would do harm: for palettes and complex numbers.
_PREDICTED = {"PREDICTOR": "YES"}


@dataclass(frozen=True)
class Profile:
    """How to store a COG.

    Attributes:
        options: creation options of the GTiff driver, at least COMPRESS.
        about: description for the help page.
        max_mean_error: how much pixels may differ from the source's in the mean; None
            if all bits must be the same.
        tiling_scheme: name of the tile grid to warp to, such as WebMercatorQuad; None
            if the image is not warped.
    """

    options: Mapping[str, str]
    about: str
    max_mean_error: float | None = None
    tiling_scheme: str | None = None

    @property
    def changes_any_value(self) -> bool:
        """Whether pixels of all values may change, so that none can mean "no data"."""
        return self.max_mean_error is not None and not self.compresses("LERC")

    def compresses(self, kind: str) -> bool:
        """Return whether the compression is of a kind, such as JPEG or LERC."""
        return self.options["COMPRESS"].partition("_")[0] == kind

    def with_options(self, changed: Mapping[str, str]) -> "Profile":
        """Return the profile with some options changed."""
        options = {**self.options, **changed}
        return replace(self, options=options, max_mean_error=_max_mean_error(options))


_JPEG = {
    "COMPRESS": "JPEG",
    # 85 takes half as much as 95, and no artefact is visible at full size.
    "JPEG_QUALITY": "85",
}
_ZSTD = {
    "COMPRESS": "ZSTD",
    # Level 9 makes imagery 5 % smaller, at four times the cost.
    "ZSTD_LEVEL": "1",
    **_PREDICTED,
}
_DEFLATE = {
    "COMPRESS": "DEFLATE",
    # ISA-L has level 1, and is three times as fast as libdeflate.
    "ZLEVEL": "1",
    **_PREDICTED,
}
_LERC = {
    # Nothing is lost, unless --co MAX_Z_ERROR allows it.
    "MAX_Z_ERROR": "0",
}


def _max_mean_error(options: Mapping[str, str]) -> float | None:
    kind = options["COMPRESS"]
    if kind == "JPEG" or (kind == "WEBP" and options.get("WEBP_LOSSLESS") != "YES"):
        # The scale is 255. The noise that these compressions remove reaches about 8 at
        # the lowest useful qualities; another image differs by 40 or more.
        return 16.0
    error = float(options.get("MAX_Z_ERROR", "0"))
    return error if kind.startswith("LERC") and error else None


def _profile(about: str, tiling_scheme: str | None = None, **options: str) -> Profile:
    return Profile(options, about, _max_mean_error(options), tiling_scheme)


PROFILES = {
    "zstd": _profile("lossless, the cheapest; see docs/conversion.md", **_ZSTD),
    "deflate": _profile("lossless, read by everything", **_DEFLATE),
    "lzw": _profile(
        "lossless, read by everything since 1992", COMPRESS="LZW", **_PREDICTED
    ),
    "packbits": _profile("lossless, for images of few colours", COMPRESS="PACKBITS"),
    "raw": _profile("not compressed", COMPRESS="NONE"),
    "jpeg": _profile("lossy, 8-bit, one or three bands", **_JPEG),
    "webp": _profile(
        "lossy, 8-bit, three or four bands", COMPRESS="WEBP", WEBP_LEVEL="75"
    ),
    "lerc": _profile("lossless, elevation", COMPRESS="LERC", **_LERC),
    "lerc_deflate": _profile("lossless", COMPRESS="LERC_DEFLATE", **_LERC),
    "lerc_zstd": _profile("lossless", COMPRESS="LERC_ZSTD", **_LERC),
    # Two profiles of a mapping agency: grey scans stay bit for bit, colour is for the
    # eye and would be twenty times as large.
    "aerial-gray": _profile("grey aerial photographs, lossless", **_DEFLATE),
    "aerial-rgb": _profile("colour aerial photographs, lossy", **_JPEG),
    # Predictor 3 halves floating-point elevation. A high level pays because elevation
    # is read far more often than it is written.
    "elevation": _profile(
        "floating-point or integer heights, lossless", **(_ZSTD | {"ZSTD_LEVEL": "9"})
    ),
    # A reader of TIFF 6.0 with Deflate can read this: the classic format below 4 GiB,
    # no predictor 3. The level is higher because files are kept for a long time.
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

# Options that --co may change: they say how pixels are stored, not which.
CREATION_OPTIONS = (
    *("BIGTIFF", "BLOCKSIZE", "COMPRESS", "JPEG_QUALITY", "MAX_Z_ERROR"),
    *("PHOTOMETRIC", "PREDICTOR", "WEBP_LEVEL", "WEBP_LOSSLESS", "ZLEVEL"),
    "ZSTD_LEVEL",
)
COMPRESSIONS = {profile.options["COMPRESS"] for profile in PROFILES.values()}
