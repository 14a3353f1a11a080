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


class WrongBands(Unconvertible):
    code = "wrong-bands"


class UnsupportedRaster(Unconvertible):
    code = "unsupported-raster"


class ConversionFailed(NodeError):
    """The machine may be the reason: another one may do it."""

    code = "conversion-failed"


class UnfitMachine(NodeError):
    """The machine lacks what a node needs: another one may have it."""

    code = "unfit-machine"
    # sysexits.h: EX_UNAVAILABLE
    exit_status = 69
