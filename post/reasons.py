"""Say why a row failed: a code for programs, and one sentence that people can act on.

The codes are stable; docs/reference.md lists them.
"""

from condor.eventlog import JobState, NodeEnd
from node.errors import EXIT_REASONS, InternalError, Unconvertible
from state.results import NodeResult
from state.rows import Refusal

# Codes of a result that another row of the same job may have caused.
_MAYBE_COLLATERAL = {
    *("killed", "out-of-memory", "out-of-disk", InternalError.code),
    # The former code of an internal error.
    "unforeseen",
}
# Codes of a result that no other try can change.
_CAUSED_BY_IMAGE = {error.code for error in Unconvertible.__subclasses__()}
_GIVEN_UP = "given-up"
REFUSED = "job-refused"
# By how a job was stopped from outside: code and sentence.
_STOPS = {
    "held": ("held", "{job} was held: {reason}"),
    "removed": ("removed", "{job} was removed from the queue: {reason}"),
    "given up": (_GIVEN_UP, "{job} was given up"),
    "given up, held": (
        _GIVEN_UP,
        "{job} was given up while it was held: {reason}",
    ),
    "given up, running": (
        _GIVEN_UP,
        "{job} was given up because it ran for longer than a node and slow transfers "
        "take (max_running_seconds): its machine may hang",
    ),
    "given up, often": (
        _GIVEN_UP,
        "{job} was given up after {starts} starts (max_starts, "
        "max_running_seconds): its machines vanish, hang or give it back",
    ),
    "given up, idle": (
        _GIVEN_UP,
        "{job} was given up because no machine took it (max_idle_seconds): see "
        "'condor_q -better-analyze' for what it asks for",
    ),
}
# An execution point can forge events, so that a status may be any text.
_EXIT_SENTENCES = {str(status): text for status, text in EXIT_REASONS.items()}


def failure_reason(
    result: NodeResult | None,
    end: NodeEnd | None,
    missing: str,
    removal: str | None,
    *,
    refusal: str | None = None,
    shared: bool = False,
) -> tuple[str, str]:
    """Return why a row was not processed: a code for programs, and a sentence.

    Args:
        result: the result of the node's last try that left one.
        end: how the node's last job stands or ended; None if it ended well, or if
            there was none.
        missing: what is wrong with the row's outputs in the output bucket.
        removal: why the whole run was removed from the queue; None if it was not.
        refusal: what HTCondor said when it did not accept the node's job; None if it
            accepted the job or was not asked.
        shared: whether other rows had the same node, and may be the reason.
    """
    job = "the job that it shared with other rows" if shared else "its job"
    own_reason = result.reason if result and not result.ok else ""
    if end and (stop := _STOPS.get(_stop_of(end))):
        code, sentence = stop
        why = removal if code == "removed" and removal else end.reason
        sentence = sentence.format(job=job, reason=why, starts=end.starts)
        return code, sentence + (
            f"; an earlier try: {own_reason}" if own_reason else ""
        )
    if result and own_reason and (end or not removal):
        return result.code, own_reason
    if result is not None:
        return "not-stored", missing
    if end and end.event == JobState.EXITED:
        status = _EXIT_SENTENCES.get(end.reason, f"it ended with status {end.reason}")
        return "exited", f"{job} left no result: {status}; its log may have more"
    if end and end.event == JobState.KILLED:
        return "killed", f"{job} left no result: it was killed by {end.reason}"
    if removal:
        return (
            "removed",
            f"the run was removed from the queue before this row's turn: {removal}",
        )
    if refusal is not None:
        said = refusal or "DAGMan could not submit it"
        return REFUSED, f"HTCondor did not accept {job}: {said}"
    return "not-converted", "the run ended before this row was converted"


def worth_another_try(code: str) -> bool:
    """Return whether another try of a row may do better, without any change of it.

    >>> worth_another_try("given-up"), worth_another_try("no-crs")
    (True, False)
    """
    return code not in _CAUSED_BY_IMAGE and code not in set(Refusal)


def _stop_of(end: NodeEnd) -> str:
    """Return how a job was stopped from outside, as a key of ``_STOPS``."""
    if end.event != JobState.GIVEN_UP:
        return end.event
    detail = "often" if _started_often(end) else end.before
    stop = f"given up, {detail}"
    # An execution point can forge events, so any event may come before the removal.
    return stop if stop in _STOPS else end.event


def may_be_collateral(result: NodeResult | None, end: NodeEnd | None) -> bool:
    """Return whether a row may have failed because of another row of its node.

    It may if the job failed as a whole and the row has no reason of its own. It may
    not if somebody removed the job or no machine took it, because a job for this row
    alone would not do better.
    """
    if end is None or end.event not in (
        JobState.GIVEN_UP,
        JobState.KILLED,
        JobState.EXITED,
    ):
        return False
    if end.before == JobState.IDLE and not _started_often(end):
        return False
    if result is None or result.ok:
        return True
    of_last_try = result.attempt in (None, end.attempt)
    is_own = of_last_try and result.code not in _MAYBE_COLLATERAL
    return not is_own and result.code not in _CAUSED_BY_IMAGE


def _started_often(end: NodeEnd) -> bool:
    """Return whether a job was given up because of its many starts."""
    return end.starts > 1 and end.before != JobState.HELD
