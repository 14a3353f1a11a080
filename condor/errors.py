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
# The bindings raise these messages if they reach no daemon, or none accepts them.
_NO_CONNECTION = re.compile(
    r"locate|connect|fetch ads|acquire its ad|performing action|DENIED|timed? ?out",
    re.IGNORECASE,
)
# They raise these if HTCondor does not accept the job itself.
_NO_SUCH_JOB = re.compile(
    r"(?:Failed to create (?:job|a cluster) ad, errmsg=|Unable to commit transaction:)"
    r"\s*(?:Submit:-?\d+:)?\s*(?P<why>\S.*)",
    re.DOTALL,
)
# This is in the message if a limit prevents the submission.
_LIMIT = re.compile(r"would exceed MAX_JOBS")
# Some versions give no other message for a limit.
_MAYBE_A_LIMIT = re.compile(r"Failed to create new (?:cluster|proc ID)")


class SchedulerError(PipelineError):
    """HTCondor refused a request or does not answer."""


class JobRefused(SchedulerError):
    """HTCondor does not accept a job, and will not accept it later.

    Attributes:
        why: HTCondor's message.
    """

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"HTCondor refuses {what}: {why}")
        self.why = why


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
        raise SchedulerError(f"{what}: {_explained(str(error))}") from error


@contextmanager
def translate_refusals(what: str) -> Iterator[None]:
    """Raise JobRefused if HTCondor does not accept a job; else as above.

    Args:
        what: the job, such as "the DAGMan job".
    """
    try:
        with translate_errors(f"the submission of {what}"):
            yield
    except SchedulerError as error:
        refusal = _NO_SUCH_JOB.search(str(error.__cause__))
        if refusal and not _LIMIT.search(refusal["why"]):
            raise JobRefused(what, " ".join(refusal["why"].split())) from error
        raise


def _explained(message: str) -> str:
    """Return a message of the bindings, and what can be done about it."""
    if _NO_CONNECTION.search(message):
        return (
            f"{message.removesuffix('.')}. Is this an access point, and does "
            f"'condor_q' answer? These are HTCondor's bindings {_bindings_version()}, "
            "and an access point that refuses them needs bindings of its own version"
        )
    if _MAYBE_A_LIMIT.search(message):
        return (
            f"{message.removesuffix('.')}. Perhaps the queue has as many of your jobs "
            "as this access point allows: 'condor_config_val MAX_JOBS_PER_OWNER "
            "MAX_JOBS_SUBMITTED' shows the limits"
        )
    return message


def _bindings_version() -> str:
    number = re.search(r"\d+\.\d+\.\d+", htcondor2.version())
    return number[0] if number else htcondor2.version()
