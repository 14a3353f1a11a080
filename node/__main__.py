"""One node: IMAGE BANDS and options in, two files and a result out.

In the working directory, the COG replaces the image, the JPEG is beside it, and
``result.json`` describes both. After a failure the image is unchanged, and
``result.json`` has the reason. A node of several images leaves a result for each,
under the names that its options give.
"""

import gc
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from node import batch, multipart, result, sidecars
from node.errors import InternalError, NodeError, UnfitMachine, in_short
from node.exhaustion import exhaustion
from node.options import Options, UsageError, parse

_USAGE = 64  # sysexits.h: EX_USAGE


def main(image: Path, bands: int, options: Options) -> int:
    began = time.monotonic()
    try:
        _convert_in_place(image, bands, options, began)
        return 0
    except Exception as error:
        failure = _failure(error, image.parent)
        code, reason, status = failure.code, str(failure), failure.exit_status
    # The error may refer to removed files that are still open, on a full disk.
    del failure
    gc.collect()
    result.write_failure(options.result, code, reason, image, began)
    return status


def _failure(error: Exception, directory: Path) -> NodeError:
    """Return the error that a node reports."""
    if isinstance(error, NodeError):
        return error
    if short := exhaustion(error, directory):
        return short
    if isinstance(error, ImportError):
        return UnfitMachine(
            f"this machine's {sys.executable} lacks a package ({in_short(error)}): use "
            "--node-environment packed, or machines that have the node's environment"
        )
    # The log has the traceback, the row the message.
    traceback.print_exception(error)
    return InternalError(f"{type(error).__name__}: {error}")


def _convert_in_place(image: Path, bands: int, options: Options, began: float) -> None:
    try:
        # Imported here, since a machine may lack its packages.
        from node.convert import convert
    except RuntimeError as error:
        # numpy raises this if the processor is too old for it.
        raise ImportError(str(error)) from error

    # A separate folder: HTCondor sends back new files of the sandbox itself, even
    # those of a node that was killed. bin/generate_cogs.sh removes it by its name.
    prefix = os.environ.get("COG_PIPELINE_SCRATCH", ".cog-")
    with tempfile.TemporaryDirectory(dir=image.parent, prefix=prefix) as scratch:
        cog, jpeg = Path(scratch, "image.tif"), Path(scratch, "image.jpg")
        converted = convert(image, bands, options, cog, jpeg)
        # Replace files only after all are written.
        signal.alarm(0)
        result.write(options.result, converted, image, began)
        if converted.cog and converted.cog.parts:
            part_size = converted.cog.parts[0].bytes
            multipart.replace_by_parts(image, cog, part_size)
        else:
            cog.replace(image)
            # HTCondor sends back a file whose size or time, in whole seconds, has
            # changed. The COG of a COG may have the same size.
            later = time.time() + 2
            os.utime(image, (later, later))
        jpeg.replace(image.with_suffix(".jpg"))
        for name in converted.replaced_sidecars:
            sidecar = image.with_name(name)
            sidecar.replace(sidecar.with_name(sidecars.replaced(name)))


def run() -> None:
    try:
        conversions = parse(sys.argv[1:])
    except UsageError as error:
        example = "e.g. generate_cogs.sh scene.tif 4, or see --help"
        print(f"generate_cogs.sh: {error}\n{example}", file=sys.stderr)
        sys.exit(_USAGE)
    # rasterio imports boto3 where a machine has it, which takes longer than all other
    # imports together. A node speaks to no store. This makes the import fail.
    sys.modules["boto3"] = None  # type: ignore[assignment]
    sys.exit(batch.convert_each(conversions, in_time))


def in_time(image: Path, bands: int, options: Options) -> int:
    """Convert an image; SIGALRM kills this process when it takes too long.

    Nothing catches the signal, so that it ends even code that hangs in a library.
    `batch` reports it.
    """
    signal.alarm(options.time_limit or 0)
    return main(image, bands, options)


if __name__ == "__main__":
    run()
