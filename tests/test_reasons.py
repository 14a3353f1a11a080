"""The reason of a failed row follows from the result and the events of its node."""

import pytest

from condor.eventlog import NodeEnd
from post.reasons import failure_reason
from state.results import NodeResult

FAILED = NodeResult(1, ok=False, code="no-crs", reason="it has no CRS")
SUCCEEDED = NodeResult(1, ok=True)


def given_up(reason: str, before: str, starts: int = 0) -> NodeEnd:
    return NodeEnd("given up", reason, before, starts)


@pytest.mark.parametrize(
    ("code", "words", "result", "end", "removal"),
    [
        ("given-up", "no machine took it", None, given_up("", "idle"), None),
        ("given-up", "its machine may hang", None, given_up("", "running", 1), None),
        ("given-up", "after 7 starts", None, given_up("", "idle", 7), None),
        (
            "given-up",
            "given up while it was held: why",
            FAILED,
            given_up("why", "held"),
            None,
        ),
        ("held", "its job was held: why", None, NodeEnd("held", "why"), None),
        ("removed", "by me", None, NodeEnd("removed", "the DAG's end"), "by me"),
        ("removed", "via condor_rm", None, NodeEnd("removed", "via condor_rm"), None),
        ("no-crs", "it has no CRS", FAILED, NodeEnd("exited", "65"), None),
        ("no-crs", "it has no CRS", FAILED, None, None),
        # The node succeeded, or waited for another attempt when the run was removed.
        ("not-stored", "gone from the bucket", SUCCEEDED, None, None),
        ("not-stored", "gone from the bucket", FAILED, None, "by me"),
        ("exited", "too little memory", None, NodeEnd("exited", "71"), None),
        ("exited", "ended with status 3", None, NodeEnd("exited", "3"), None),
        ("killed", "killed by signal 9", None, NodeEnd("killed", "signal 9"), None),
        ("removed", "before this row's turn: by me", None, None, "by me"),
        ("not-converted", "the run ended before", None, NodeEnd("idle"), None),
        # An execution point can forge these events.
        ("given-up", "its job was given up", None, given_up("", "given up"), None),
        ("exited", "ended with status none", None, NodeEnd("exited", "none"), None),
    ],
)
def test_each_end_of_a_node_has_a_code_and_a_sentence(
    code: str,
    words: str,
    result: NodeResult | None,
    end: NodeEnd | None,
    removal: str | None,
):
    actual_code, sentence = failure_reason(result, end, "gone from the bucket", removal)
    assert actual_code == code
    assert words in sentence


def test_the_reason_of_a_row_says_that_it_shared_its_job():
    _, sentence = failure_reason(None, NodeEnd("held", "why"), "", None, shared=True)
    assert sentence == "the job that it shared with other rows was held: why"
