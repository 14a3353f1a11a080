"""Run each conversion in a process of its own, and report how it ended.

If one conversion is killed or hangs, the process that reports it and the other images
of the job are not harmed. If there are several images, the modules that they need are
imported once, beforehand: that takes as long as the conversion of a small image.
"""

import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from node import result
from node.errors import NodeError, Unconvertible, UnfitMachine, ended, killed
from node.exhaustion import exhaustion
from node.options import Options

Conversion = tuple[Path, int, Options]
Convert = Callable[[Path, int, Options], int]
_SCRATCH = "COG_PIPELINE_SCRATCH"
# linux/prctl.h
_PR_SET_PDEATHSIG = 1


def convert_each(conversions: Sequence[Conversion], convert: Convert) -> int:
    """Convert images one after the other; each leaves a result of its own.

    Args:
        convert: function that converts one image and returns an exit status.

    Returns:
        The exit status for all of them. If some failed, the status of a failure that
        another try may avoid takes precedence.
    """
    if len(conversions) > 1:
        _import_once(max(options.time_limit or 0 for _, _, options in conversions))
    statuses = {
        _convert_in_child(number, conversion, convert)
        for number, conversion in enumerate(conversions)
    }
    if UnfitMachine.exit_status in statuses:
        # This comes first: another machine may do it, and it costs no retry.
        return UnfitMachine.exit_status
    retried = statuses - {0, Unconvertible.exit_status}
    return min(retried) if retried else max(statuses)


def _import_once(seconds: int) -> None:
    def expire(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done within {seconds} s")

    signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        from node.convert import load_libraries

        load_libraries()
    except Exception as error:
        # Each conversion writes the reason to its result.
        print(f"importing: {error}", file=sys.stderr)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _convert_in_child(number: int, conversion: Conversion, convert: Convert) -> int:
    """Convert an image in a child process; return the exit status.

    Writes a result if the child left none.
    """
    image, _, options = conversion
    # The name tells the temporary files of this conversion from those of others.
    scratch = f"{os.environ.get(_SCRATCH, f'.cog-{os.getpid()}-')}{number}."
    began = time.monotonic()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.environ[_SCRATCH] = scratch
        status = 1
        try:
            _die_with(parent)
            status = _status(conversion, convert)
        finally:
            # The child must not go on with what its parent does next.
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status >= 0 and _is_written(options.result):
        return status
    for path in image.parent.glob(f"{scratch}*"):
        shutil.rmtree(path, ignore_errors=True)
    error = killed(-status, time.monotonic() - began) if status < 0 else ended(status)
    # If the disk is full, even of the log, the exit status must do.
    with suppress(OSError):
        result.write_failure(options.result, error.code, str(error), image, began)
    return error.exit_status


def _status(conversion: Conversion, convert: Convert) -> int:
    """Return the exit status of a conversion, even if it cannot report its failure."""
    try:
        return convert(*conversion)
    except BaseException as error:
        if shortage := _exhaustion(error, conversion[0].parent):
            return shortage.exit_status
        traceback.print_exc()
        return 1


def _exhaustion(error: BaseException, directory: Path) -> NodeError | None:
    try:
        return exhaustion(error, directory)
    except OSError:
        return None


def _is_written(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies.

    Otherwise it would go on to write files that nobody collects or removes.
    """
    # A Python without ctypes lacks this protection, nothing else.
    with suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
