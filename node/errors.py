"""Why an image was not converted, and the exit status of a node for each reason.

Codes and exit statuses are stable, sentences may change. docs/conversion.md lists them.
"""

import signal


class NodeError(Exception):
    """An image was not converted.

    Attributes:
        code: stable name of the reason, for programs.
        exit_status: exit status of the node.
    """

    code = "failed"
    exit_status = 1


class Unconvertible(NodeError):
    """The image itself is the reason, so that trying again cannot help."""

    # sysexits.h: EX_DATAERR. DAGMan does not retry a node with this status.
    exit_status = 65


class ImageMissing(Unconvertible):
    """The image is not in the node's directory."""

    code = "image-missing"


class NotARaster(Unconvertible):
    """GDAL cannot open the image as a GeoTIFF."""

    code = "not-a-raster"


class DamagedImage(Unconvertible):
    """The image can be opened, but not read to its end."""

    code = "damaged-image"


class WrongBands(Unconvertible):
    """The image does not have the number of bands that the manifest says."""

    code = "wrong-bands"


class NoCrs(Unconvertible):
    """The image has no coordinate reference system."""

    code = "no-crs"


class UnsupportedRaster(Unconvertible):
    """This kind of raster cannot be converted, or not with these options."""

    code = "unsupported-raster"


class OutputTooLarge(Unconvertible):
    """The COG or the JPEG is too large to be uploaded."""

    code = "output-too-large"


class ConversionFailed(NodeError):
    """The conversion failed; another machine may succeed."""

    code = "conversion-failed"


class CheckFailed(NodeError):
    """The file that was written is not what it should be."""

    code = "check-failed"


class InternalError(NodeError):
    """The node has a defect, or its machine is faulty."""

    code = "internal-error"


class UnfitMachine(NodeError):
    """The machine lacks something that a node needs; another one may have it."""

    code = "unfit-machine"
    # sysexits.h: EX_UNAVAILABLE. The job goes to another machine, and no retry counts.
    exit_status = 69


class OutOfMemory(NodeError):
    """The machine, or the part of it that the job got, has too little memory."""

    code = "out-of-memory"
    # sysexits.h: EX_OSERR
    exit_status = 71


class OutOfDisk(NodeError):
    """There is no room for the outputs or for temporary files."""

    code = "out-of-disk"
    # sysexits.h: EX_IOERR
    exit_status = 74


class TimeLimitExceeded(NodeError):
    """The conversion was not done within its time limit."""

    code = "time-limit"
    # sysexits.h: EX_TEMPFAIL
    exit_status = 75


class Killed(NodeError):
    """A signal ended the conversion."""

    code = "killed"
    # As in a shell; the number of the signal is added.
    exit_status = 128


# Exit statuses that explain a failure even if the disk was too full for a result.
EXIT_REASONS = {
    OutOfMemory.exit_status: "its machine had too little memory for it",
    OutOfDisk.exit_status: (
        "the disk of its machine was full, without room even for a longer reason"
    ),
    TimeLimitExceeded.exit_status: "it was not done within its time limit",
    Killed.exit_status + signal.SIGKILL: (
        "it was killed (signal 9), most often because of too little memory"
    ),
}


def killed(number: int, seconds: float) -> NodeError:
    """Return the error for a conversion that a signal ended.

    Args:
        number: number of the signal.
        seconds: time that the conversion took, in seconds.
    """
    if number == signal.SIGALRM:
        return TimeLimitExceeded(
            f"it was not done after {seconds:.0f} s, its time limit: --time-limit "
            "sets another"
        )
    cause = f"by signal {number}"
    if number == signal.SIGKILL:
        cause = (
            "(signal 9), most often because its machine had too little memory for it: "
            "ask for more, as in --submit-option 'request_memory = 4096'"
        )
    error = Killed(f"it was killed after {seconds:.0f} s {cause}")
    error.exit_status = Killed.exit_status + number
    return error


def ended(status: int) -> NodeError:
    """Return the error for a conversion that ended without a result.

    Args:
        status: exit status of the conversion.
    """
    by_status = {each.exit_status: each for each in (OutOfMemory, OutOfDisk)}
    kind = by_status.get(status, InternalError)
    error = kind(
        EXIT_REASONS.get(
            status, f"it ended with status {status} and no reason: see its log"
        )
    )
    # A conversion without a result has failed, whatever its status says.
    error.exit_status = status or InternalError.exit_status
    return error


def in_short(error: BaseException) -> str:
    """Return an error's message on one line; GDAL's message rather than rasterio's."""
    cause = error.__cause__ or error
    return " ".join(str(cause).split())[:300] or type(cause).__name__
