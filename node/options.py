"""The options of a node, which are those of bin/generate_cogs.sh.

They are one table because they can be given in three places: to the node, to the
launch, which passes them on, and in columns of a manifest.
"""

import argparse
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from node.multipart import UploadLimits, read_limits
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
_CREATION_VALUES = {
    "BIGTIFF": ("YES", "NO", "IF_NEEDED"),
    "BLOCKSIZE": _BLOCK_SIZES,
    "COMPRESS": sorted(COMPRESSIONS),
    "PHOTOMETRIC": ("RGB", "YCBCR", "MINISBLACK"),
    "PREDICTOR": ("YES", "NO", "STANDARD", "1", "2", "3"),
    "WEBP_LOSSLESS": ("YES", "NO"),
}
# The highest levels and qualities; the lowest is 1.
_CREATION_LIMITS = {
    "JPEG_QUALITY": 100,
    "WEBP_LEVEL": 100,
    "ZLEVEL": 12,
    "ZSTD_LEVEL": 22,
}
# Only the DAG gives these two.
UPLOAD_LIMITS = "--upload-limits"
RESULT = "--result"
# Separates two images that one job converts.
NEXT = "--next"
# A word that is not an option may be long: how much of it a message shows.
_MAX_QUOTED = 60  # characters
_MAX_MESSAGE = 1000  # characters
_IMAGE = (".tif", ".tiff", ".TIF", ".TIFF")
_YES = ("yes", "true", "1", "x")
_NO = ("no", "false", "0", "")
_EXAMPLES = """\
examples:
  generate_cogs.sh scene.tif 4
  generate_cogs.sh scene.tif 3 --profile aerial-rgb --co JPEG_QUALITY=90
  generate_cogs.sh heights.tif 1 --profile elevation --overview-resampling cubic

profiles:
"""


class UsageError(ValueError):
    """An option is wrong; the message says which one and what to write."""


@dataclass(frozen=True)
class Options:
    """How to convert an image.

    Attributes:
        profile: name of the profile, which says how the COG is stored.
        co: creation options that change the profile, as names and values.
        overview_level: number of overviews; None to go down to one tile.
        overview_resampling: method that computes the overviews; None for the one that
            suits the data.
        allow_no_crs: whether to convert an image that has no CRS.
        assign_crs: CRS to use instead of the image's, as an authority's code.
        reproject: CRS to warp the image to, as an authority's code.
        copy_valid_cog: whether to leave an image that is a valid COG unchanged.
        jpeg_max_size: limit on the longer side of the JPEG, in pixels.
        jpeg_quality: quality of the JPEG as libjpeg counts it, 1 to 95.
        time_limit: time after which the node ends itself, in seconds.
        upload_limits: limits on the sizes of the outputs; None if nothing is uploaded.
        result: file to write the result to.
    """

    profile: str = DEFAULT
    co: tuple[tuple[str, str], ...] = ()
    overview_level: int | None = None
    overview_resampling: str | None = None
    allow_no_crs: bool = False
    assign_crs: str | None = None
    reproject: str | None = None
    copy_valid_cog: bool = False
    jpeg_max_size: int | None = None
    jpeg_quality: int = 80
    time_limit: int | None = None
    upload_limits: UploadLimits | None = None
    result: Path = Path("result.json")

    @cached_property
    def stored_as(self) -> Profile:
        """The profile with its changes."""
        return PROFILES[self.profile].with_options(dict(self.co))

    @property
    def block_size(self) -> int:
        """Side of a tile, in pixels."""
        return int(dict(self.co).get("BLOCKSIZE", 512))


@dataclass(frozen=True)
class NodeOption:
    """An option of a node.

    Attributes:
        name: name of the option; that of a field of `Options`, except for ``op``.
        help: description for the help page, without a period.
        parse: function that makes the field's value from text; raises ValueError.
        metavar: placeholder for the value in the help page; None for a flag.
        multiple: whether the option may be given several times.
        hidden: whether help pages leave it out.
    """

    name: str
    help: str
    parse: Callable[[str], object]
    metavar: str | None = None
    multiple: bool = False
    hidden: bool = False

    @property
    def flag(self) -> str:
        """The option as it is written on a command line."""
        return "--" + self.name.replace("_", "-")


def checked(values_by_name: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return the values of options, checked and without flags that are off.

    Args:
        values_by_name: values given for each option, by the option's name.

    Raises:
        UsageError: there is no such value.
    """
    result: dict[str, tuple[str, ...]] = {}
    for name, values in values_by_name.items():
        option = _BY_NAME[name]
        for value in values:
            try:
                option.parse(value)
            except ValueError as error:
                raise UsageError(f"{option.flag}: {error}") from error
        given = tuple(v for v in values if option.metavar or v.lower() in _YES)
        if given:
            result[name] = given
    return result


def arguments(values_by_name: Mapping[str, Sequence[str]]) -> list[str]:
    """Return options that were checked as command line arguments.

    >>> arguments({"co": ("LEVEL=3", "BIGTIFF=YES"), "allow_no_crs": ("yes",)})
    ['--co', 'LEVEL=3', '--co', 'BIGTIFF=YES', '--allow-no-crs']
    """
    words: list[str] = []
    for name, values in values_by_name.items():
        option = _BY_NAME[name]
        if option.metavar is None:
            words.append(option.flag)
            continue
        for value in values:
            words += [option.flag, value]
    return words


def from_arguments(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the values of options by name: the reverse of ``arguments``.

    >>> from_arguments(["--co", "LEVEL=3", "--allow-no-crs"])
    {'co': ('LEVEL=3',), 'allow_no_crs': ('yes',)}

    Raises:
        KeyError: there is no such option.
    """
    by_flag = {option.flag: option for option in NODE_OPTIONS}
    result: dict[str, tuple[str, ...]] = {}
    rest = iter(words)
    for flag in rest:
        option = by_flag[flag]
        value = "yes" if option.metavar is None else next(rest, "")
        result[option.name] = (*result.get(option.name, ()), value)
    return result


def time_limit(values_by_name: Mapping[str, Sequence[str]]) -> int:
    """Return the longest time limit among options, in seconds; 0 if there is none."""
    return max(map(int, values_by_name.get("time_limit", ())), default=0)


def parse(words: Sequence[str]) -> list[tuple[Path, int, Options]]:
    """Parse a node's command line.

    Returns:
        The name of each image, its number of bands and its options.

    Raises:
        UsageError: the arguments are wrong.
        SystemExit: the arguments ask for help, which was printed.
    """
    parser = _parser()
    groups = itertools.groupby(words, NEXT.__eq__)
    calls = [list(group) for is_separator, group in groups if not is_separator]
    conversions = [_parse(parser, call) for call in calls or [[]]]
    jpegs = [image.with_suffix(".jpg") for image, *_ in conversions]
    for (image, *_), jpeg in zip(conversions, jpegs, strict=True):
        if jpeg == image or jpegs.count(jpeg) > 1:
            raise UsageError(
                f"the JPEG {_quoted(jpeg.name)} would replace another file: rename "
                f"the image {_quoted(image.name)}"
            )
    return conversions


def _parser() -> argparse.ArgumentParser:
    profiles = "\n".join(f"  {name:13} {PROFILES[name].about}" for name in PROFILES)
    parser = _Parser(
        prog="generate_cogs.sh",
        description="Make a COG and a JPEG of an image.",
        epilog=_EXAMPLES + profiles,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("image", metavar="IMAGE", help="replaced by its COG")
    parser.add_argument("bands", metavar="BANDS", type=_as_type(_positive))
    for option in NODE_OPTIONS:
        settings: dict[str, Any] = {"action": "store_true"}
        if option.metavar:
            action = "append" if option.multiple else "store"
            settings = {
                "action": _OverviewOption if option.name == "op" else action,
                "metavar": option.metavar,
                "type": _as_type(option.parse),
            }
        parser.add_argument(
            option.flag,
            help=argparse.SUPPRESS if option.hidden else option.help,
            default=argparse.SUPPRESS,
            **settings,
        )
    for flag, read in ((UPLOAD_LIMITS, read_limits), (RESULT, _file)):
        parser.add_argument(
            flag, type=_as_type(read), help=argparse.SUPPRESS, default=argparse.SUPPRESS
        )
    return parser


def _parse(
    parser: argparse.ArgumentParser, words: Sequence[str]
) -> tuple[Path, int, Options]:
    # Handle the image separately: its name may begin with a dash.
    if words and (words[0].endswith(_IMAGE) or not words[0].startswith("-")):
        words = [*words[2:], "--", *words[:2]]
    values = vars(parser.parse_args(words))
    image, bands = values.pop("image"), values.pop("bands")
    # An option that may be given several times has a list.
    for name, value in values.items():
        values[name] = tuple(value) if isinstance(value, list) else value
    return Path(image), bands, Options(**values)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        cut = message[: _MAX_MESSAGE - 1] + "…"
        raise UsageError(message if len(message) <= _MAX_MESSAGE else cut)


class _OverviewOption(argparse.Action):
    """Set the option that ``--op NAME=VALUE`` names."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        name, value = values
        setattr(namespace, name, value)


def _as_type(read: Callable[[str], object]) -> Callable[[str], object]:
    def checked(text: str) -> object:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return checked


def _file(text: str) -> Path:
    # bin/generate_cogs.sh recognizes only these names.
    if not re.fullmatch(r"[A-Za-z0-9._-]+", text):
        raise ValueError(f"{_quoted(text)} may contain only letters, digits and '._-'")
    return Path(text)


def _profile(text: str) -> str:
    if text not in PROFILES:
        raise ValueError(
            f"there is no profile {_quoted(text)}: choose one of {_list(PROFILES)}"
        )
    return text


def _creation_option(text: str) -> tuple[str, str]:
    name, _, value = text.upper().partition("=")
    if name == "DISCARD_LSB":
        raise ValueError(
            f"{_quoted(text)}: this option of GDAL is not offered; use --profile "
            "lerc_zstd --co MAX_Z_ERROR=2 to leave out 2 bits, MAX_Z_ERROR=4 for 3 bits"
        )
    if name not in CREATION_OPTIONS:
        raise ValueError(
            f"{_quoted(text)}: write NAME=VALUE, with one of {_list(CREATION_OPTIONS)}"
        )
    values = _CREATION_VALUES.get(name)
    if values and value not in values:
        raise ValueError(f"{_quoted(text)}: {name} must be one of {_list(values)}")
    if limit := _CREATION_LIMITS.get(name):
        if not re.fullmatch(r"0*[1-9]\d?\d?", value, re.ASCII) or int(value) > limit:
            raise ValueError(
                f"{_quoted(text)}: {name} must be a whole number from 1 to {limit}"
            )
    elif not values and not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value, re.ASCII):
        raise ValueError(f"{_quoted(text)}: {name} must be a number")
    return name, value


def _overview_option(text: str) -> tuple[str, object]:
    """Parse the former spelling of the two overview options."""
    name, _, value = text.partition("=")
    if name == "overview_level":
        return name, _level(value)
    if name == "overview_resampling":
        return name, _resampling(value)
    raise ValueError(
        f"{_quoted(text)}: write overview_level=N or overview_resampling=METHOD"
    )


def _level(text: str) -> int:
    if not re.fullmatch(r"\d{1,2}", text, re.ASCII):
        raise ValueError(f"{_quoted(text)} is not a number from 0 to 99")
    return int(text)


def _resampling(text: str) -> str:
    if text not in RESAMPLINGS:
        raise ValueError(
            f"there is no method {_quoted(text)}: choose one of {_list(RESAMPLINGS)}"
        )
    return text


def _crs(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z]\w{1,15}:\d{1,9}", text, re.ASCII):
        raise ValueError(f"{_quoted(text)} is not a CRS: write e.g. EPSG:32616")
    return text.upper()


def _positive(text: str) -> int:
    if not re.fullmatch(r"0*[1-9]\d{0,8}", text, re.ASCII):
        raise ValueError(f"{_quoted(text)} is not a number above 0")
    return int(text)


def _quality(text: str) -> int:
    if _positive(text) > 95:
        raise ValueError("more than 95 makes the JPEG larger and not better")
    return int(text)


def _yes(text: str) -> bool:
    if text.lower() not in (*_YES, *_NO):
        raise ValueError(f"{_quoted(text)} is neither yes nor no")
    return text.lower() in _YES


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _MAX_QUOTED else text[: _MAX_QUOTED - 1] + "…")


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


NODE_OPTIONS = (
    NodeOption(
        "profile", f"how the COG is stored; {DEFAULT} by default", _profile, "NAME"
    ),
    NodeOption(
        "co",
        "change an option of the profile: " + _list(CREATION_OPTIONS),
        _creation_option,
        "NAME=VALUE",
        multiple=True,
    ),
    # The former spelling of the next two.
    NodeOption(
        "op",
        "overview_level=N or overview_resampling=METHOD",
        _overview_option,
        "NAME=VALUE",
        multiple=True,
        hidden=True,
    ),
    NodeOption(
        "overview_level",
        "number of overviews; by default they go down to one tile",
        _level,
        "N",
    ),
    NodeOption(
        "overview_resampling",
        "how overviews are computed, by default as suits the data: "
        + _list(RESAMPLINGS),
        _resampling,
        "METHOD",
    ),
    NodeOption("allow_no_crs", "convert an image that has no CRS", _yes),
    NodeOption(
        "assign_crs",
        "the CRS of the image, even if it names another one",
        _crs,
        "EPSG:CODE",
    ),
    NodeOption("reproject", "warp the image to this CRS first", _crs, "EPSG:CODE"),
    NodeOption("copy_valid_cog", "leave an image that is a valid COG unchanged", _yes),
    NodeOption(
        "jpeg_max_size", "limit on the longer side of the JPEG", _positive, "PIXELS"
    ),
    NodeOption("jpeg_quality", "quality of the JPEG; 80 by default", _quality, "1-95"),
    NodeOption(
        "time_limit",
        "time after which a node ends itself, to be tried again; by default, in a run, "
        "half an hour and 10 s for each MiB of the image",
        _positive,
        "SECONDS",
    ),
)
_BY_NAME = {option.name: option for option in NODE_OPTIONS}
OPTION_NAMES = frozenset(_BY_NAME)
