"""Several images in one job: each is converted in a process of its own.

So what kills one of them, or makes it hang, leaves its neighbours alone. What they
all import is imported once, before: that takes as long as to convert a small image.
"""

import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from node import result
from node.errors import Unconvertible, UnfitMachine
from node.options import Options

Conversion = tuple[Path, int, Options]
_SCRATCH = "COG_PIPELINE_SCRATCH"


def convert_each(
    conversions: Sequence[Conversion], convert: Callable[[Path, int, Options], int]
) -> int:
    """Convert images one after the other; each leaves a result of its own.

    Args:
        convert: one of them; returns an exit status.

    Returns:
        The exit status of all: if any failed, rather one that another try may mend.
    """
    _import_before(max(options.time_limit or 0 for _, _, options in conversions))
    statuses = {
        _in_a_process(number, conversion, convert)
        for number, conversion in enumerate(conversions)
    }
    if UnfitMachine.exit_status in statuses:
        # Before all else: another machine may do it, at the cost of no try.
        return UnfitMachine.exit_status
    again = statuses - {0, Unconvertible.exit_status}
    return min(again) if again else max(statuses)


def _import_before(seconds: int) -> None:
    signal.alarm(seconds)
    try:
        import node.convert  # noqa: F401
    except Exception as error:
        # Each of them says why in its result.
        print(f"importing: {error}", file=sys.stderr)
    signal.alarm(0)


def _in_a_process(
    number: int, conversion: Conversion, convert: Callable[[Path, int, Options], int]
) -> int:
    # By this name, what it leaves when it is killed is known from what is not its.
    scratch = f"{os.environ.get(_SCRATCH, '.cog-')}{number}."
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.environ[_SCRATCH] = scratch
        status = 1
        try:
            status = convert(*conversion)
        except BaseException:
            traceback.print_exc()
        finally:
            # What its caller would do next is not for it to do.
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    status = os.waitstatus_to_exitcode(ended)
    if status >= 0:
        return status
    image, _, options = conversion
    for left in image.parent.glob(f"{scratch}*"):
        shutil.rmtree(left, ignore_errors=True)
    code, reason, status = _death(-status, time.monotonic() - began)
    result.write_failure(options.result, code, reason, image, began)
    return status


def _death(number: int, seconds: float) -> tuple[str, str, int]:
    """What bin/generate_cogs.sh says of a node of one image that is killed."""
    if number == signal.SIGALRM:
        return (
            "time-limit",
            f"it was not done after {seconds:.0f} s, its time limit: --time-limit "
            "sets another",
            75,
        )
    why = (
        " (signal 9), most often because its machine had too little memory for it: "
        "ask for more, as in --submit-option 'request_memory = 4096'"
        if number == signal.SIGKILL
        else f" by signal {number}"
    )
    return "killed", f"it was killed after {seconds:.0f} s{why}", 128 + number
