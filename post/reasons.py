"""The reason of a failed row, in one sentence a person can act on."""

from condor.eventlog import NodeEnd
from node.errors import EXIT_REASONS, InternalError, Unconvertible
from state.results import NodeResult

# What a node says of an image where the reason may be what else its job had to do.
_MAYBE_NOT_ITS_OWN = {
    *("killed", "out-of-memory", "out-of-disk", InternalError.code),
    # The former code of an internal error.
    "unforeseen",
}
# What no other try can change.
_OF_THE_IMAGE = {each.code for each in Unconvertible.__subclasses__()}
_GIVEN_UP = {
    "held": "{job} was held until it was given up: {reason}",
    "running": "{job} was given up, since it ran for longer than a node and slow "
    "transfers take (max_running_seconds): its machine may hang",
    "often": "{job} was given up after {starts} starts (max_starts, "
    "max_running_seconds): its machines vanish, hang or give it back",
    "idle": "{job} was given up, since no machine took it (max_idle_seconds): see "
    "'condor_q -better-analyze' for what it asks for",
}


def failure_reason(
    result: NodeResult | None,
    last: NodeEnd | None,
    missing: str,
    removal: str | None,
    *,
    shared: bool = False,
) -> tuple[str, str]:
    """Why a row was not processed: a code for programs, and a sentence.

    Args:
        result: what its node told, in its last try that told anything.
        last: what HTCondor last said of it.
        missing: what keeps it from being processed.
        removal: why the whole run was removed from the queue, if it was.
        shared: whether other rows had the same node, which may be the reason.
    """
    job = "the job that it shared with other rows" if shared else "its job"
    told = result.reason if result and not result.ok else ""
    before = f"; an earlier try: {told}" if told else ""
    if last and last.event == "given up":
        sentence = _GIVEN_UP["often" if _begun_often(last) else last.before]
        how = sentence.format(job=job, reason=last.reason, starts=last.starts)
        return "given-up", how + before
    if last and last.event == "held":
        return "held", f"{job} was held: {last.reason}{before}"
    if last and last.event == "removed":
        how = f"{job} was removed from the queue: {removal or last.reason}"
        return "removed", how + before
    if told and (last or not removal):
        return result.code, told
    if result is not None:
        return "not-stored", missing
    if last and last.event == "exited":
        word = EXIT_REASONS.get(int(last.reason), f"it ended with status {last.reason}")
        return "exited", f"{job} left no result: {word}; its log may have more"
    if last and last.event == "killed":
        return "killed", f"{job} left no result: it was killed by {last.reason}"
    if removal:
        how = f"the run was removed from the queue before this row's turn: {removal}"
        return "removed", how + before
    return "not-converted", "the run ended before this row was converted"


def may_be_collateral(result: NodeResult | None, last: NodeEnd | None) -> bool:
    """Whether a row may have failed for another one that shared its node.

    That is so where their job failed as a whole, and it has no reason of its own.
    Not where somebody removed the job, or no machine took it: whoever is alone would
    fare no better.
    """
    if last is None or last.event not in ("given up", "killed", "exited"):
        return False
    if last.before == "idle" and not _begun_often(last):
        return False
    if result is None or result.ok:
        return True
    of_last_try = result.attempt in (None, last.attempt)
    its_own = of_last_try and result.code not in _MAYBE_NOT_ITS_OWN
    return not its_own and result.code not in _OF_THE_IMAGE


def _begun_often(last: NodeEnd) -> bool:
    """Whether a job that was given up was so for its many starts."""
    return last.starts > 1 and last.before != "held"
