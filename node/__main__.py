"""One node: IMAGE BANDS and options in, two files and a result out.

In the working directory the image is replaced by its COG, the JPEG stands
beside it, and ``result.json`` tells what was done. On failure the image is left
as it is and ``result.json`` has the reason.
"""

import gc
import hashlib
import json
import math
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from node import parts
from node.errors import NodeError, UnfitMachine, Unforeseen
from node.options import Misused, Options, parse
from node.shortage import shortage

RESULT = Path("result.json")
_USAGE = 64  # sysexits.h: EX_USAGE


def main(image: Path, bands: int, options: Options) -> int:
    began = time.monotonic()
    try:
        _convert_in_place(image, bands, options, began)
        return 0
    except Exception as error:
        failure = _failure(error, image.parent)
        code, reason, status = failure.code, str(failure), failure.exit_status
    # What an error refers to may be files that were removed but are still open, on
    # a disk that is full.
    del failure
    gc.collect()
    print(f"{image.name}: {reason}", file=sys.stderr)
    told = {"ok": False, "code": code, "reason": reason}
    try:
        _write_result(RESULT, told, image, began)
    except OSError as error:
        # The exit status still says what was wrong.
        RESULT.unlink(missing_ok=True)
        print(f"result.json cannot be written: {error}", file=sys.stderr)
    return status


def _failure(error: Exception, directory: Path) -> NodeError:
    """What a node says of an error."""
    if isinstance(error, NodeError):
        return error
    if short := shortage(error, directory):
        return short
    if isinstance(error, ImportError):
        return UnfitMachine(
            f"this machine's {sys.executable} lacks a package ({error}): use "
            "--container-image, or machines that have the node's environment"
        )
    # Not foreseen: the log has where, and the row a reason nevertheless.
    traceback.print_exception(error)
    return Unforeseen(f"{type(error).__name__}: {error}")


def _convert_in_place(image: Path, bands: int, options: Options, began: float) -> None:
    # Here, since a machine may lack what it imports.
    from node.convert import convert

    # In a folder of its own, since HTCondor brings back what is new in the
    # sandbox itself, even of a node that was killed half way.
    # Named after the shell that cleans up after a node that was killed.
    prefix = f".cog-{os.getppid()}-"
    with tempfile.TemporaryDirectory(dir=image.parent, prefix=prefix) as scratch:
        cog, jpeg = Path(scratch, "image.tif"), Path(scratch, "image.jpg")
        told = {"ok": True} | convert(image, bands, options, cog, jpeg)
        told["jpeg"] |= _describe_file(jpeg)
        limits = options.upload_limits
        if limits is not None:
            parts.check(cog, jpeg, limits)
        part = limits.part if limits and cog.stat().st_size > limits.largest else 0
        told["cog"] = parts.describe(cog, part) if part else _describe_file(cog)
        # Nothing is replaced before everything is written, and then all at once.
        signal.alarm(0)
        _write_result(RESULT, told, image, began)
        if part:
            parts.put_in_place_of(image, cog, part)
        else:
            cog.replace(image)
            # HTCondor brings back what differs from what it sent in size or, in whole
            # seconds, in time. The COG of a COG may have the same size.
            later = time.time() + 2
            os.utime(image, (later, later))
        jpeg.replace(image.with_suffix(".jpg"))


def _write_result(file: Path, told: dict[str, Any], image: Path, began: float) -> None:
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
    # A signal that nothing here catches, not even code that hangs in a library.
    # It ends this process, and bin/generate_cogs.sh says so.
    signal.alarm(options.time_limit or 0)
    sys.exit(main(Path(name), bands, options))


if __name__ == "__main__":
    run()
