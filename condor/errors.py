"""Errors of HTCondor, in sentences that say what to do next."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from condor.bindings import htcondor2
from state.errors import PipelineError

# The bindings raise these besides their own exceptions.
_BINDINGS_ERRORS = (
    htcondor2.HTCondorException,
    RuntimeError,
    OSError,
    LookupError,
    ValueError,
)


class SchedulerError(PipelineError):
    """HTCondor refused a request or does not answer."""


@contextmanager
def translate_errors(what: str) -> Iterator[None]:
    """Raise a SchedulerError for any error of the bindings.

    Args:
        what: the subject of the sentence, such as "the submission".
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except _BINDINGS_ERRORS as error:
        raise SchedulerError(
            f"{what}: {error}. Is this an access point, and does 'condor_q' answer? "
            f"(These are HTCondor's bindings {_bindings_version()}; an access point "
            "that refuses them needs bindings of its own version.)"
        ) from error


def _bindings_version() -> str:
    number = re.search(r"\d+\.\d+\.\d+", htcondor2.version())
    return number[0] if number else htcondor2.version()
