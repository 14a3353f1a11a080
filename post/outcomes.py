"""Decide for each row of a run whether it was processed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from condor import dagman, eventlog, queue
from condor.eventlog import NodeEnd
from post import multipart
from post.outputs import output_faults
from post.reasons import failure_reason, may_be_collateral
from state import results as state_results
from state.journal import Journal
from state.launch import Launch
from state.results import NodeResult
from state.rows import Refusal, Row, dag_node_of, load_rows_as_last_tried, node_name
from state.run import Run


@dataclass(frozen=True, slots=True)
class RowOutcome:
    """Outcome of a row.

    Attributes:
        row: the row; it has a reason if it failed.
        code: name of the reason for programs: the node's code, or how its job ended.
        attempt: number of tries of its node; None if that is not known.
        is_collateral: whether another row of the same node may be the reason.
        is_postponed: whether HTCondor did not accept its last job, for a reason that
            passes.
    """

    row: Row
    code: str = ""
    attempt: int | None = None
    is_collateral: bool = False
    is_postponed: bool = False

    @property
    def ok(self) -> bool:
        """Whether the row was processed."""
        return self.row.reason is None


@dataclass(frozen=True)
class Evidence:
    """Evidence about a run whose nodes have ended.

    Attributes:
        results: the nodes' results, by line number of their row.
        node_ends: how the last job of each node ended, by name of the node; the
            nodes whose last job ended well are absent.
        faults: what is wrong with the outputs of a row, by line number.
        removal: why the run was removed from the queue; None if it was not.
        refusals: the nodes of the last DAG whose jobs HTCondor did not accept, by name.
        refusal: why HTCondor accepts none of the jobs of the last DAG; None if it may.
    """

    results: Mapping[int, NodeResult]
    node_ends: Mapping[str, NodeEnd]
    faults: Mapping[int, str]
    removal: str | None
    refusals: Mapping[str, dagman.Refusal] = field(default_factory=dict)
    refusal: str | None = None


def gather_evidence(run: Run, launch: Launch, journal: Journal) -> Evidence:
    """Gather what is known about a run, and complete its multipart uploads.

    Raises:
        BucketError, SchedulerError: try again later.
    """
    node_ends = {
        node: end
        for log in run.node_logs
        for node, end in eventlog.node_ends(log).items()
    }
    removal = _removal_reason(run)
    results = state_results.load(run)
    # A row with a multipart upload never shares its node.
    ended_well = {line for line in results if node_name(line) not in node_ends}
    upload_faults = multipart.complete(run, launch, results, ended_well)
    faults = output_faults(run, launch, results, journal) | upload_faults
    refusals = dagman.refusals(run.dagman_log)
    return Evidence(results, node_ends, faults, removal, refusals, run.refusal)


def row_outcomes(run: Run, evidence: Evidence) -> Iterator[RowOutcome]:
    """Yield the outcome of each row, one at a time: there may be a million."""
    for row in load_rows_as_last_tried(run):
        yield _row_outcome(row, evidence)


def _row_outcome(row: Row, evidence: Evidence) -> RowOutcome:
    if row.reason is not None:
        return RowOutcome(row, row.code or Refusal.UNUSABLE)
    result = evidence.results.get(row.line)
    fault = evidence.faults.get(row.line)
    if result and result.success and fault is None:
        return RowOutcome(row)
    node = dag_node_of(row)
    end = evidence.node_ends.get(node)
    shared = row.group > 0
    refused = evidence.refusals.get(node)
    code, reason = failure_reason(
        result,
        end,
        fault or "",
        evidence.removal,
        refusal=refused.reason if refused else evidence.refusal,
        shared=shared,
    )
    return RowOutcome(
        row.failed(code, reason),
        code,
        _attempt(result, end),
        # A job of this row alone asks for less disk.
        shared
        and evidence.removal is None
        and (refused is not None or may_be_collateral(result, end)),
        refused is not None and not refused.for_good and evidence.removal is None,
    )


def _attempt(result: NodeResult | None, end: NodeEnd | None) -> int | None:
    if end:
        return end.attempt
    return result.attempt if result else None


def _removal_reason(run: Run) -> str | None:
    """Return why a run's DAGMan was removed or is being removed; None if it was not.

    A run that the operator stopped may have had no DAGMan.
    """
    if run.stopped:
        return run.stopped
    reason = queue.removal_reason(queue.RUN_ATTRIBUTE, str(run.directory))
    return eventlog.abort_reason(run.dagman_job_log) if reason is None else reason
