"""What a node can be told: the options of bin/generate_cogs.sh.

They are one table, since they are said in three places: to the node, to the
launch, which passes them on, and in columns of a manifest.
"""

import argparse
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from node.parts import Limits, read_limits
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
# Said by the DAG alone.
UPLOAD_LIMITS = "--upload-limits"
RESULT = "--result"
# Between two images that one job converts.
NEXT = "--next"
_TIME_LIMIT = "--time-limit"
# Of what is shown of a word that means nothing; it may be long.
_MAX_QUOTED = 60  # characters
_MAX_MESSAGE = 1000
_IMAGE = (".tif", ".tiff", ".TIF", ".TIFF")
_YES = ("yes", "true", "1", "x")
_NO = ("no", "false", "0", "")
_EXAMPLES = """\
examples:
  generate_cogs.sh scene.tif 4
  generate_cogs.sh scene.tif 3 --profile aerial-rgb --co JPEG_QUALITY=90
  generate_cogs.sh heights.tif 1 --profile elevation --op overview_resampling=bilinear

profiles:
"""


class UsageError(ValueError):
    """Options that cannot be; the message says which and what could."""


@dataclass(frozen=True)
class Options:
    """How to convert an image.

    Attributes:
        profile: the name of how to store it.
        co: creation options that change the profile, by name.
        op: overview options, likewise.
        assign_crs, reproject: as an authority's code.
        jpeg_max_size: of the JPEG's longer side, in pixels.
        jpeg_quality: as libjpeg counts it, 1 to 95.
        time_limit: in seconds, after which the node ends itself.
        upload_limits: None where nothing is to be uploaded. The DAG says it, no
            person does; result likewise.
        result: the file that tells what was done.
    """

    profile: str = DEFAULT
    co: tuple[tuple[str, str], ...] = ()
    op: tuple[tuple[str, str], ...] = ()
    allow_no_crs: bool = False
    assign_crs: str | None = None
    reproject: str | None = None
    copy_valid_cog: bool = False
    jpeg_max_size: int | None = None
    jpeg_quality: int = 80
    time_limit: int | None = None
    upload_limits: Limits | None = None
    result: Path = Path("result.json")

    @cached_property
    def stored_as(self) -> Profile:
        return PROFILES[self.profile].with_options(dict(self.co))

    @property
    def block_size(self) -> int:
        """Of a tile's side, in pixels."""
        return int(dict(self.co).get("BLOCKSIZE", 512))

    @property
    def overview_level(self) -> int | None:
        """How many overviews, None for down to one tile."""
        level = dict(self.op).get("overview_level")
        return None if level is None else int(level)

    @property
    def overview_resampling(self) -> str | None:
        """How to resample them, None for what suits the data."""
        return dict(self.op).get("overview_resampling")


@dataclass(frozen=True)
class NodeOption:
    """One of the options, as it is offered.

    Attributes:
        name: a field of `Options`.
        parse: from what was written to the field's value; raises ValueError.
        metavar: what is to be written, None for a flag.
        multiple: whether it may be said several times.
    """

    name: str
    help: str
    parse: Callable[[str], object]
    metavar: str | None = None
    multiple: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def arguments(said: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Command line arguments that say options, checked.

    Args:
        said: by the options' names, what was written for each of them.

    Raises:
        UsageError: there is no such option or value.
    """
    words = []
    for name, values in said.items():
        option = _BY_NAME[name]
        for value in values:
            try:
                option.parse(value)
            except ValueError as error:
                raise UsageError(f"{option.flag}: {error}") from error
            if option.metavar:
                words += [option.flag, value]
            elif value.lower() in _YES:
                words.append(option.flag)
    return tuple(words)


def time_limit(words: Sequence[str]) -> int:
    """Return the longest time limit among arguments, in seconds; 0 if there is none."""
    pairs = itertools.pairwise(words)
    limits = (int(value) for word, value in pairs if word == _TIME_LIMIT)
    return max(limits, default=0)


def parse(words: Sequence[str]) -> list[tuple[Path, int, Options]]:
    """Of each image, its name, its number of bands and the options.

    Raises:
        UsageError: they are no options.
        SystemExit: the help was asked for and printed.
    """
    parser = _parser()
    groups = itertools.groupby(words, NEXT.__eq__)
    of_each = [list(its) for is_next, its in groups if not is_next]
    return [_parse(parser, its) for its in of_each or [[]]]


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
        how = {"action": "append" if option.multiple else "store"}
        if option.metavar:
            how |= {"metavar": option.metavar, "type": _as_type(option.parse)}
        else:
            how["action"] = "store_true"
        parser.add_argument(
            option.flag, help=option.help, default=argparse.SUPPRESS, **how
        )
    for flag, read in ((UPLOAD_LIMITS, read_limits), (RESULT, _file)):
        parser.add_argument(
            flag, type=_as_type(read), help=argparse.SUPPRESS, default=argparse.SUPPRESS
        )
    return parser


def _parse(
    parser: argparse.ArgumentParser, words: Sequence[str]
) -> tuple[Path, int, Options]:
    # The image first and by itself: its name may begin with a dash.
    if words and (words[0].endswith(_IMAGE) or not words[0].startswith("-")):
        words = [*words[2:], "--", *words[:2]]
    told = vars(parser.parse_args(words))
    image, bands = told.pop("image"), told.pop("bands")
    # A list stands where an option may be said several times.
    for name, value in told.items():
        told[name] = tuple(value) if isinstance(value, list) else value
    return Path(image), bands, Options(**told)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        cut = message[: _MAX_MESSAGE - 1] + "…"
        raise UsageError(message if len(message) <= _MAX_MESSAGE else cut)


def _as_type(read: Callable[[str], object]) -> Callable[[str], object]:
    def checked(text: str) -> object:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return checked


def _file(text: str) -> Path:
    # What bin/generate_cogs.sh can tell from its other words.
    if not re.fullmatch(r"[A-Za-z0-9._-]+", text):
        raise ValueError(f"{_quoted(text)} is no name of letters, digits and '._-'")
    return Path(text)


def _profile(text: str) -> str:
    if text not in PROFILES:
        raise ValueError(
            f"there is no profile {_quoted(text)}: choose of {_list(PROFILES)}"
        )
    return text


def _creation_option(text: str) -> tuple[str, str]:
    name, _, value = text.upper().partition("=")
    if name not in CREATION_OPTIONS:
        raise ValueError(
            f"{_quoted(text)}: write NAME=VALUE, NAME of {_list(CREATION_OPTIONS)}"
        )
    values = _CREATION_VALUES.get(name)
    if values and value not in values:
        raise ValueError(f"{_quoted(text)}: {name} is one of {_list(values)}")
    if not values and not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value, re.ASCII):
        raise ValueError(f"{_quoted(text)}: {name} is a number")
    return name, value


def _overview_option(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if name == "overview_level" and re.fullmatch(r"\d{1,2}", value, re.ASCII):
        return name, value
    if name == "overview_resampling" and value in RESAMPLINGS:
        return name, value
    raise ValueError(
        f"{_quoted(text)}: write overview_level=NUMBER or overview_resampling=METHOD, "
        f"METHOD of {_list(RESAMPLINGS)}"
    )


def _crs(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z]{2,16}:\d{1,9}", text, re.ASCII):
        raise ValueError(f"{_quoted(text)} is no CRS: write e.g. EPSG:32616")
    return text.upper()


def _positive(text: str) -> int:
    if not re.fullmatch(r"0*[1-9]\d{0,8}", text, re.ASCII):
        raise ValueError(f"{_quoted(text)} is no number above 0")
    return int(text)


def _quality(text: str) -> int:
    if _positive(text) > 95:
        raise ValueError("more than 95 makes it larger and no better")
    return int(text)


def _yes(text: str) -> bool:
    if text.lower() not in (*_YES, *_NO):
        raise ValueError(f"{_quoted(text)} is neither yes nor no")
    return text.lower() in _YES


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _MAX_QUOTED else text[: _MAX_QUOTED - 1] + "…")


def _list(names: object) -> str:
    return ", ".join(names)


NODE_OPTIONS = (
    NodeOption("profile", f"how to store it; {DEFAULT} if not said", _profile, "NAME"),
    NodeOption(
        "co",
        "change an option of the profile: " + _list(CREATION_OPTIONS),
        _creation_option,
        "NAME=VALUE",
        multiple=True,
    ),
    NodeOption(
        "op",
        "overview_level=NUMBER of overviews; overview_resampling=METHOD, of "
        + _list(RESAMPLINGS),
        _overview_option,
        "NAME=VALUE",
        multiple=True,
    ),
    NodeOption("allow_no_crs", "convert an image that has no CRS", _yes),
    NodeOption("assign_crs", "the CRS it is in, whatever it says", _crs, "EPSG:CODE"),
    NodeOption("reproject", "warp it to another CRS first", _crs, "EPSG:CODE"),
    NodeOption("copy_valid_cog", "leave an image as it is that is a valid COG", _yes),
    NodeOption("jpeg_max_size", "of the JPEG's longer side", _positive, "PIXELS"),
    NodeOption("jpeg_quality", "of the JPEG; 80 if not said", _quality, "1-95"),
    NodeOption(
        "time_limit",
        "after which a node ends itself, to be tried again; in a run, if not said, "
        "half an hour and 10 s for each MiB of the image",
        _positive,
        "SECONDS",
    ),
)
_BY_NAME = {option.name: option for option in NODE_OPTIONS}
OPTION_NAMES = frozenset(_BY_NAME)
