"""What a node tells of an image, in a file that goes back to the access point."""

import json
import math
import os
import sys
import time
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
