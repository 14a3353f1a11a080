"""What a node tells of an image, in a file that goes back to the access point."""

import json
import math
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write(file: Path, told: dict[str, Any], image: Path, began: float) -> None:
    """Write a result.

    Args:
        told: what was done, or the code and the reason for which it was not.
        began: when, by the monotonic clock.
    """
    took = os.times()
    told |= {
        "image": image.name,
        "seconds": round(time.monotonic() - began, 3),
        "cpu_seconds": round(took.user + took.system, 2),
    }
    if retry := os.environ.get("COG_PIPELINE_RETRY"):
        # DAGMan counts from 0.
        told["attempt"] = int(retry) + 1
    file.write_text(json.dumps(_jsonable(told), indent=2, allow_nan=False) + "\n")


def write_failure(
    file: Path, code: str, reason: str, image: Path, began: float
) -> None:
    """Write why there is nothing else, and say it; on a full disk, say it alone."""
    print(f"{image.name}: {reason}", file=sys.stderr)
    try:
        write(file, {"ok": False, "code": code, "reason": reason}, image, began)
    except OSError as error:
        # The exit status still says what was wrong.
        file.unlink(missing_ok=True)
        print(f"{file} cannot be written: {error}", file=sys.stderr)


def _jsonable(value: Any) -> Any:
    """A value as JSON can say it, which has no NaN and no infinity: as words."""
    if isinstance(value, dict):
        return {name: _jsonable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


# What of a result the access point keeps. The largest is one of a COG in 1,000 parts.
LARGEST = 256 * 1024  # bytes
_LONGEST_TEXT = 2000
_LONGEST_CRS = 16 * 1024
_MOST_WARNINGS = 100
_MOST_PARTS = 10_000
_LARGEST_INTEGER = 2**64
_CODE = re.compile(r"[a-z][a-z0-9-]{0,39}")
_MD5 = re.compile(r"[0-9a-f]{32}")
# How ``write`` spells what JSON has no number for.
_NO_NUMBERS = ("nan", "inf", "-inf")

Check = Callable[[Any], Any]


def read(content: bytes) -> dict[str, Any]:
    """Return a result as far as it is one: its known fields, with checked types.

    An execution point may send anything in a result's place.

    Raises:
        ValueError: the content is no result; the message says in a few words why.
    """
    if len(content) > LARGEST:
        raise ValueError(f"it has more than {LARGEST} bytes")
    try:
        told = json.loads(content.decode("utf-8"), parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    except ValueError as error:
        raise ValueError(f"it is not JSON ({str(error)[:100]})") from error
    return checked(told)


def checked(told: Any) -> dict[str, Any]:
    """Return the known fields of a result that was read from JSON.

    Raises:
        ValueError: a field is missing or is not of its type.
    """
    if not isinstance(told, dict) or not isinstance(told.get("ok"), bool):
        raise ValueError("it is no object with a field 'ok'")
    missing = {"cog", "jpeg"} if told["ok"] else {"code", "reason"}
    if missing - told.keys():
        raise ValueError(f"it has no field {min(missing - told.keys())!r}")
    return _object(_FIELDS)(told)


def _object(fields: dict[str, Check]) -> Check:
    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError("a field is no object")
        kept = {}
        for name in fields.keys() & value.keys():
            try:
                kept[name] = fields[name](value[name])
            except ValueError as error:
                raise ValueError(f"its field {name!r} is wrong: {error}") from error
        # In the order in which the table has them.
        return {name: kept[name] for name in fields if name in kept}

    return check


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("neither true nor false")
    return value


def _integer(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _LARGEST_INTEGER:
        raise ValueError("no whole number from 0 on")
    return value


def _number(value: Any) -> float | int | str:
    if isinstance(value, str) and value in _NO_NUMBERS:
        return value
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError("no number")
    return value


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < 10**9:
        raise ValueError("no number of seconds")
    return float(value)


def _text(longest: int) -> Check:
    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError("no text")
        return value[:longest]

    return check


def _matching(pattern: re.Pattern[str]) -> Check:
    def check(value: Any) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError("not in its form")
        return value

    return check


def _or_none(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def _list(check: Check, most: int, least: int = 0) -> Check:
    def check_list(value: Any) -> list[Any]:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise ValueError(f"no list of {least} to {most}")
        return [check(each) for each in value]

    return check_list


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")


_FILE: dict[str, Check] = {"bytes": _integer, "md5": _matching(_MD5)}


def _file(**more: Check) -> Check:
    """A check of what stands of a file; its size and its MD5 must."""

    def check(value: Any) -> dict[str, Any]:
        kept = _object(_FILE | more)(value)
        if _FILE.keys() - kept.keys():
            raise ValueError("its size or its MD5 is missing")
        return kept

    return check


_FIELDS: dict[str, Check] = {
    "ok": _flag,
    "code": _matching(_CODE),
    "reason": _text(_LONGEST_TEXT),
    "attempt": _integer,
    "image": _text(_LONGEST_TEXT),
    "seconds": _seconds,
    "cpu_seconds": _seconds,
    "width": _integer,
    "height": _integer,
    "bands": _integer,
    "data_type": _text(40),
    "crs": _or_none(_text(_LONGEST_CRS)),
    "bounds": _or_none(_list(_number, 4, 4)),
    "transform": _list(_number, 6, 6),
    "nodata": _or_none(_number),
    "profile": _text(40),
    "compression": _text(40),
    "overviews": _integer,
    "check_cpu_seconds": _seconds,
    "copied": _flag,
    "warnings": _list(_text(_LONGEST_TEXT), _MOST_WARNINGS),
    "jpeg": _file(width=_integer, height=_integer, quality=_integer),
    "cog": _file(parts=_list(_file(), _MOST_PARTS)),
}
