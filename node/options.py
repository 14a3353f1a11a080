"""What a node can be told: the options of bin/generate_cogs.sh."""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

from node.profiles import (
    COMPRESSIONS,
    CREATION_OPTIONS,
    DEFAULT,
    PROFILES,
    Profile,
)

RESAMPLINGS = (
    *("nearest", "average", "bilinear", "cubic", "cubic_spline", "lanczos"),
    *("mode", "gauss", "rms"),
)
_BLOCK_SIZES = ("128", "256", "512", "1024", "2048")
_USAGE = 64  # sysexits.h: EX_USAGE
_EXAMPLE = """\
examples:
  generate_cogs.sh scene.tif 4
  generate_cogs.sh scene.tif 3 --profile aerial-rgb --co JPEG_QUALITY=90
  generate_cogs.sh heights.tif 1 --profile elevation --op overview_resampling=bilinear

profiles:
"""


@dataclass(frozen=True)
class Options:
    """How to convert an image.

    Attributes:
        profile: the name of how to store it.
        creation: what --co changes of the profile.
        overview_level: how many overviews, None for down to one tile.
        overview_resampling: None for what suits the data.
        assign_crs, reproject: as an authority's code.
        jpeg_max_size: of the JPEG's longer side, in pixels.
    """

    profile: str = DEFAULT
    creation: tuple[tuple[str, str], ...] = ()
    overview_level: int | None = None
    overview_resampling: str | None = None
    allow_no_crs: bool = False
    assign_crs: str | None = None
    reproject: str | None = None
    copy_valid_cog: bool = False
    jpeg_max_size: int | None = None
    jpeg_quality: int = 80

    @cached_property
    def stored_as(self) -> Profile:
        return PROFILES[self.profile].with_options(dict(self.creation))

    @property
    def block_size(self) -> int:
        """Of a tile's side, in pixels."""
        return int(dict(self.creation).get("BLOCKSIZE", 512))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message}\ne.g. {self.prog} scene.tif 4\n")
        raise SystemExit(_USAGE)


def parse(arguments: Sequence[str]) -> tuple[str, int, Options]:
    """The image's name, its number of bands and the options.

    Raises:
        SystemExit: with 64, the reason was printed; with 0, the help was.
    """
    parser = _Parser(
        prog="generate_cogs.sh",
        description="Make a COG and a JPEG of an image.",
        epilog=_EXAMPLE
        + "\n".join(f"  {name:13} {each.about}" for name, each in PROFILES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("image", metavar="IMAGE", help="replaced by its COG")
    parser.add_argument("bands", metavar="BANDS", type=_positive, help="that it has")
    add_options(parser)
    told = vars(parser.parse_args(arguments))
    return told.pop("image"), told.pop("bands"), options_of(told)


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--profile", choices=PROFILES, default=DEFAULT, metavar="NAME", help="below")
    add(
        *("--co", "--creation-option"),
        dest="creation",
        type=_creation_option,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change an option of the profile: " + ", ".join(sorted(CREATION_OPTIONS)),
    )
    add(
        *("--op", "--overview-option"),
        dest="overview",
        type=_overview_option,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="overview_level=NUMBER of overviews; overview_resampling=METHOD, of "
        + ", ".join(RESAMPLINGS),
    )
    add("--allow-no-crs", action="store_true", help="convert an image without a CRS")
    add("--assign-crs", type=_crs, metavar="EPSG:CODE", help="the CRS it is in")
    add("--reproject", type=_crs, metavar="EPSG:CODE", help="warp it to a CRS")
    add(
        "--copy-valid-cog",
        action="store_true",
        help="leave an image as it is that is a valid COG",
    )
    add("--jpeg-max-size", type=_positive, metavar="PIXELS", help="its longer side")
    add("--jpeg-quality", type=_quality, default=80, metavar="1-95", help="80")


def options_of(told: dict) -> Options:
    overview = dict(told.pop("overview"))
    return Options(
        **told
        | {
            "creation": tuple(told["creation"]),
            "overview_level": overview.get("overview_level"),
            "overview_resampling": overview.get("overview_resampling"),
        }
    )


def _positive(text: str) -> int:
    if not re.fullmatch(r"0*[1-9]\d{0,8}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def _quality(text: str) -> int:
    quality = _positive(text)
    if quality > 95:
        raise argparse.ArgumentTypeError("more than 95 makes it larger and no better")
    return quality


def _crs(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z]{2,16}:\d{1,9}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is no CRS: write e.g. EPSG:32616")
    return text.upper()


def _creation_option(text: str) -> tuple[str, str]:
    name, equals, value = text.upper().partition("=")
    if not equals or name not in CREATION_OPTIONS:
        raise argparse.ArgumentTypeError(
            f"{text!r}: write NAME=VALUE, NAME of {', '.join(sorted(CREATION_OPTIONS))}"
        )
    if not re.fullmatch(r"[A-Z0-9_.]{1,32}", value, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} has no value that could be one")
    allowed = {
        "COMPRESS": COMPRESSIONS,
        "BLOCKSIZE": _BLOCK_SIZES,
        "BIGTIFF": ("YES", "NO", "IF_NEEDED"),
        "PREDICTOR": ("YES", "NO", "STANDARD", "1", "2", "3"),
        "PHOTOMETRIC": ("RGB", "YCBCR", "MINISBLACK"),
        "WEBP_LOSSLESS": ("YES", "NO"),
    }.get(name)
    if allowed and value not in allowed:
        raise argparse.ArgumentTypeError(
            f"{text!r}: {name} is one of {', '.join(sorted(allowed))}"
        )
    if allowed is None and not re.fullmatch(r"\d+(\.\d+)?", value, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r}: {name} is a number")
    return name, value


def _overview_option(text: str) -> tuple[str, int | str]:
    name, _, value = text.partition("=")
    if name == "overview_level" and re.fullmatch(r"\d{1,2}", value, re.ASCII):
        return name, int(value)
    if name == "overview_resampling" and value in RESAMPLINGS:
        return name, value
    raise argparse.ArgumentTypeError(
        f"{text!r}: write overview_level=NUMBER, or overview_resampling= one of "
        + ", ".join(RESAMPLINGS)
    )
