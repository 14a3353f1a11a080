"""One node: IMAGE BANDS and options in, two files and a result out.

In the working directory the image is replaced by its COG, the JPEG stands
beside it, and ``result.json`` tells what was done. On failure the image is left
as it is and ``result.json`` has the reason.
"""

import hashlib
import json
import math
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from node import parts
from node.errors import NodeError, UnfitMachine
from node.options import Misused, Options, parse

RESULT = Path("result.json")
_USAGE = 64  # sysexits.h: EX_USAGE


def main(image: Path, bands: int, options: Options) -> int:
    began = time.monotonic()
    try:
        try:
            told = _convert_in_place(image, bands, options)
            status = 0
        except ImportError as error:
            raise UnfitMachine(
                f"this machine's {sys.executable} lacks a package ({error}): use "
                "--container-image, or machines that have the node's environment"
            ) from error
    except NodeError as error:
        told = {"ok": False, "code": error.code, "reason": str(error)}
        status = error.exit_status
        print(f"{image.name}: {error}", file=sys.stderr)
    except Exception as error:
        # Not foreseen: the log has where, and the row a reason nevertheless.
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
        told = {"ok": False, "code": "unforeseen", "reason": reason}
        status = NodeError.exit_status
    told |= {"image": image.name, "seconds": round(time.monotonic() - began, 3)}
    RESULT.write_text(json.dumps(_jsonable(told), indent=2, allow_nan=False) + "\n")
    return status


def _convert_in_place(image: Path, bands: int, options: Options) -> dict[str, Any]:
    # Here, since a machine may lack what it imports.
    from node.convert import convert

    # In a folder of its own, since HTCondor brings back what is new in the
    # sandbox itself, even of a node that was killed half way.
    with tempfile.TemporaryDirectory(dir=image.parent, prefix=".cog-") as scratch:
        cog, jpeg = Path(scratch, "image.tif"), Path(scratch, "image.jpg")
        told = {"ok": True} | convert(image, bands, options, cog, jpeg)
        told["jpeg"] |= _describe_file(jpeg)
        limits = options.upload_limits
        if limits is not None:
            parts.check(cog, jpeg, limits)
            if cog.stat().st_size > limits.largest:
                told["cog"] = parts.describe(cog, limits.part)
                parts.put_in_place_of(image, cog, limits.part)
                jpeg.replace(image.with_suffix(".jpg"))
                return told
        told["cog"] = _describe_file(cog)
        jpeg.replace(image.with_suffix(".jpg"))
        cog.replace(image)
    # HTCondor brings back what differs from what it sent in size or, in whole
    # seconds, in time. The COG of a COG may have the same size.
    later = time.time() + 2
    os.utime(image, (later, later))
    return told


def _describe_file(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return {"bytes": path.stat().st_size, "md5": md5.hexdigest()}


def _jsonable(value: Any) -> Any:
    """A value as JSON can say it, which has no NaN and no infinity: as words."""
    if isinstance(value, dict):
        return {name: _jsonable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def run() -> None:
    try:
        name, bands, options = parse(sys.argv[1:])
    except Misused as error:
        example = "e.g. generate_cogs.sh scene.tif 4, or see --help"
        print(f"generate_cogs.sh: {error}\n{example}", file=sys.stderr)
        sys.exit(_USAGE)
    sys.exit(main(Path(name), bands, options))


if __name__ == "__main__":
    run()
