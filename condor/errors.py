"""Errors of HTCondor, in sentences that say what to do next."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from condor.bindings import htcondor2
from state.errors import PipelineError

# Besides its own exceptions, the bindings are known to raise these.
_REFUSALS = (
    htcondor2.HTCondorException,
    RuntimeError,
    OSError,
    LookupError,
    ValueError,
)


class SchedulerError(PipelineError):
    """HTCondor refused something or does not answer."""


@contextmanager
def translate_errors(what: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except _REFUSALS as error:
        raise SchedulerError(
            f"{what}: {error}. Is this an access point, and does 'condor_q' answer? "
            f"(These are HTCondor's bindings {_bindings_version()}; an access point "
            "that refuses them wants bindings of its own version.)"
        ) from error


def _bindings_version() -> str:
    found = re.search(r"\d+\.\d+\.\d+", htcondor2.version())
    return found[0] if found else htcondor2.version()
