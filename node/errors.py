"""Why an image was not converted; codes are stable, sentences may change."""


class NodeError(Exception):
    """An image was not converted.

    Attributes:
        code: a stable name of the reason, for programs.
        exit_status: what the node ends with.
    """

    code = "failed"
    exit_status = 1


class Unconvertible(NodeError):
    """The image itself is the reason: trying again cannot help."""

    # sysexits.h: EX_DATAERR. DAGMan is told not to try again at this one.
    exit_status = 65


class ImageMissing(Unconvertible):
    code = "image-missing"


class NotARaster(Unconvertible):
    code = "not-a-raster"


class DamagedImage(Unconvertible):
    """It can be opened, but not be read to its end."""

    code = "damaged-image"


class WrongBands(Unconvertible):
    code = "wrong-bands"


class NoCrs(Unconvertible):
    code = "no-crs"


class UnsupportedRaster(Unconvertible):
    """A kind of raster that cannot be converted, or not as was asked for."""

    code = "unsupported-raster"


class OutputTooLarge(Unconvertible):
    """What was made of it cannot be uploaded."""

    code = "output-too-large"


class ConversionFailed(NodeError):
    """The machine may be the reason: another one may do it."""

    code = "conversion-failed"


class CheckFailed(NodeError):
    """What was written is not what it should be."""

    code = "check-failed"


class Unforeseen(NodeError):
    """A defect of ours, or a machine that is not sound."""

    code = "unforeseen"


class UnfitMachine(NodeError):
    """The machine lacks what a node needs: another one may have it."""

    code = "unfit-machine"
    # sysexits.h: EX_UNAVAILABLE
    exit_status = 69


class OutOfMemory(NodeError):
    """The machine, or what the job was given of it, is too small."""

    code = "out-of-memory"
    # sysexits.h: EX_OSERR
    exit_status = 71


class OutOfDisk(NodeError):
    """There is no room for the outputs or for temporary files."""

    code = "out-of-disk"
    # sysexits.h: EX_IOERR
    exit_status = 74


def in_short(error: BaseException) -> str:
    """What an error says, on one line; what GDAL said rather than rasterio."""
    said = error.__cause__ or error
    return " ".join(str(said).split())[:300] or type(said).__name__
