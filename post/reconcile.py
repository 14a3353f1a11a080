"""End a run: decide and record, row by row, how it ended, from the output bucket."""

import json
import stat
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from condor import queue
from post import csvs
from post.outcomes import RowOutcome, gather_evidence, row_outcomes
from post.same_pictures import same_pictures
from post.sidecars import rename_replaced
from state import results
from state.errors import PipelineError
from state.files import write_atomically
from state.journal import Journal
from state.launch import Launch
from state.multipart import abort_all
from state.records import as_json, from_record
from state.rows import load_header, load_rows, load_rows_with_nodes, log_name
from state.run import Run, locked, record_refused_rows
from state.text import counted

# Lines about failed rows in the log of a run, and as many about other rows.
_MAX_LINES = 5000


@dataclass(frozen=True)
class Outcome:
    """Outcome of a run.

    Attributes:
        processed: number of rows that were processed.
        failed_rows: line numbers of the rows that failed, in the order of their CSV.
        codes: the code of each of them; empty in records of before version 0.1.
    """

    processed: int
    failed_rows: tuple[int, ...]
    codes: tuple[str, ...] = ()

    @property
    def failed(self) -> int:
        """Number of rows that failed."""
        return len(self.failed_rows)


class NodesStillThere(PipelineError):
    """Some nodes of a DAG that ended have not left the queue."""


class NotEnded(PipelineError):
    """It is too early to reconcile a run."""


class _TryAgain(Exception):
    """Some rows get other nodes before the outcome of the run is decided.

    Attributes:
        lines: the line numbers of these rows.
        solo: whether each of them gets a node of its own. If not, HTCondor did not
            accept their jobs, for a reason that passes.
    """

    def __init__(self, lines: list[int], *, solo: bool) -> None:
        super().__init__(lines)
        self.lines = lines
        self.solo = solo


def check_ended(run: Run) -> None:
    """Raise NotEnded while a DAG is in the queue or has not been submitted yet."""
    if job := queue.find(queue.RUN_ATTRIBUTE, str(run.directory)):
        raise NotEnded(
            f"its DAG is in the queue (job {job.cluster}) and will reconcile the run "
            f"when all nodes have ended; 'stop {run.directory.name}' ends it earlier"
        )
    if run.has_begun or run.outcome_file.exists():
        return
    checked = run.rows_file.exists()
    if checked and run.stopped:
        return
    if not checked or any(row.reason is None for row in load_rows(run)):
        raise NotEnded("its DAG has not been submitted yet; the next poll submits it")


def reconcile(
    run: Run, launch: Launch, journal: Journal, dag: str | None = None
) -> Outcome | None:
    """Replace the manifest of a run by the two CSVs.

    This can be repeated after a crash at any step, with the same CSVs in the end.

    Args:
        dag: name of the DAG whose nodes have ended; by default the run's last DAG.

    Returns:
        How the run ended; None if some of its rows are tried again, in a DAG that the
        next poll submits.

    Raises:
        BucketError, PipelineError: try again later.
    """
    with locked(run.directory):
        # A caller that names the first DAG may be late.
        is_late = dag is not None and dag != run.dag_file.name
        is_retry = run.solo_file.exists() or run.refused_file.exists()
        is_early = is_retry and not run.has_begun and not run.stopped
        if is_late or is_early:
            return None
        if not run.outcome_file.exists() and not _decide(run, launch, journal):
            return None
        outcome = load_outcome(run)
        if not run.done:
            rename_replaced(run, launch, set(outcome.failed_rows))
            _publish(run, launch, journal)
            _tidy(run, outcome)
            counts = {"processed": outcome.processed, "failed": outcome.failed}
            write_atomically(run.done_file, as_json(counts))
    journal.say(
        "ended",
        f"{run.manifest_key}: {counted(outcome.processed, 'row')} processed, "
        f"{outcome.failed} failed",
        processed=outcome.processed,
        failed=outcome.failed,
    )
    return outcome


def load_outcome(run: Run) -> Outcome:
    """Return the outcome of a run that has ended."""
    saved = json.loads(run.outcome_file.read_text())
    return from_record(
        Outcome,
        saved,
        failed_rows=tuple(saved["failed_rows"]),
        codes=tuple(saved.get("codes", ())),
    )


def _decide(run: Run, launch: Launch, journal: Journal) -> bool:
    """Write both CSVs into the run directory, which decides the outcome for good.

    If rows may have failed because of other rows of their nodes, or because HTCondor
    did not accept their jobs at the moment, write down which ones instead, so that
    they are tried again.

    Returns:
        Whether the outcome is decided.
    """
    # A node that was removed may send its outputs until it has left the queue.
    if left := queue.still_there(queue.NODE_ATTRIBUTE, str(run.directory)):
        raise NodesStillThere(
            f"{left} jobs of the run are still leaving the queue; 'condor_q' shows "
            "them, and 'condor_rm -forcex' removes those that do not leave"
        )
    results.gather(run, settled=True)
    evidence = gather_evidence(run, launch, journal)
    outcomes = row_outcomes(run, evidence)
    can_retry = launch.rows_per_job != 1 and not run.solo_file.exists()
    try:
        outcome = _write_csvs(run, outcomes, journal, can_retry=can_retry)
    except _TryAgain as retry:
        # The attempts at reconciling the next DAG are counted from 1.
        run.attempts_file.unlink(missing_ok=True)
        if retry.solo:
            _retry_solo(run, retry.lines, journal)
        else:
            _retry_refused(run, retry.lines, journal)
        return False
    write_atomically(run.outcome_file, as_json(outcome))
    pairs = islice(same_pictures(evidence.results), _MAX_LINES)
    journal.note(_line_of_pair(journal, *pair) for pair in pairs)
    return True


def _retry_solo(run: Run, lines: list[int], journal: Journal) -> None:
    # In this order: a crash in between leaves a DAG that has ended.
    run.refused_file.unlink(missing_ok=True)
    write_atomically(run.solo_file, json.dumps(lines) + "\n")
    journal.say(
        "rows-solo",
        f"{run.manifest_key}: {len(lines)} rows shared jobs that failed as a whole; "
        "from the next poll on, each is tried in a job of its own",
        rows=len(lines),
    )


def _retry_refused(run: Run, lines: list[int], journal: Journal) -> None:
    record_refused_rows(run, lines)
    journal.say(
        "rows-postponed",
        f"{run.manifest_key}: HTCondor did not accept the jobs of {len(lines)} rows, "
        "because of a limit or because it did not answer; the next poll tries again",
        "warning",
        rows=len(lines),
    )


def _write_csvs(
    run: Run, outcomes: Iterable[RowOutcome], journal: Journal, *, can_retry: bool
) -> Outcome:
    """Write each row to one of the two CSVs, and log the rows that failed.

    It makes one pass and keeps no row, because there may be a million. The log has at
    most ``_MAX_LINES`` lines about rows.

    Args:
        can_retry: whether rows that others may have failed can still be tried alone.

    Raises:
        _TryAgain: there are such rows, or some whose jobs HTCondor did not accept at
            the moment; nothing was written.
    """
    header = load_header(run)
    processed = 0
    failed: list[int] = []
    codes: list[str] = []
    solo: list[int] = []
    postponed: list[int] = []
    log_lines: list[str] = []
    with (
        csvs.writing_rows(run.failed_file, header, with_reasons=True) as add_failed,
        csvs.writing_rows(run.processed_file, header, with_reasons=False) as add,
    ):
        for outcome in outcomes:
            if outcome.ok:
                processed += 1
                add(outcome.row)
                continue
            failed.append(outcome.row.line)
            codes.append(outcome.code)
            add_failed(outcome.row)
            if len(log_lines) < _MAX_LINES:
                log_lines.append(_log_line(journal, outcome))
            if outcome.is_postponed:
                postponed.append(outcome.row.line)
            elif can_retry and outcome.is_collateral:
                solo.append(outcome.row.line)
        # The DAG after the next one has the solo rows, if they fail again.
        if postponed:
            raise _TryAgain(postponed, solo=False)
        if solo:
            raise _TryAgain(solo, solo=True)
    if more := len(failed) - len(log_lines):
        message = f"{more} more rows failed: {run.failed_file.name} has all of them"
        log_lines.append(
            journal.line("more-rows-failed", message, "warning", rows=more)
        )
    journal.note(log_lines)
    return Outcome(processed, tuple(failed), tuple(codes))


def _log_line(journal: Journal, outcome: RowOutcome) -> str:
    return journal.line(
        "row-failed",
        outcome.row.reason or "",
        "warning",
        line=outcome.row.line,
        attempt=outcome.attempt,
        code=outcome.code,
    )


def _line_of_pair(journal: Journal, first: int, later: int) -> str:
    return journal.line(
        "same-picture",
        f"the images of lines {first} and {later} look the same",
        "warning",
        lines=[first, later],
    )


def _publish(run: Run, launch: Launch, journal: Journal) -> None:
    """Put the CSVs into the input bucket in place of the manifest."""
    inputs = launch.inputs()
    # Both, because somebody may wait for two objects.
    inputs.upload(run.processed_key, run.processed_file, "text/csv")
    inputs.upload(run.failed_key, run.failed_file, "text/csv")
    # An upload that is not complete by now never will be.
    abort_all(run, launch, journal)
    inputs.remove(run.processing_key)


def _tidy(run: Run, outcome: Outcome) -> None:
    """Remove the nodes' files, except the logs of rows that failed."""
    failed = set(outcome.failed_rows)
    rows = load_rows_with_nodes(run) if failed else ()
    kept = {
        log_name(node) for row, nodes in rows if row.line in failed for node in nodes
    }
    for log in run.logs_directory.iterdir():
        if log.name in kept and stat.S_ISREG(log.lstat().st_mode):
            # HTCondor makes it readable by all.
            log.chmod(0o600)
        else:
            results.remove(run, log)
    # The results are gathered in one file. Folders may be nested more deeply than
    # Python can remove.
    folders = (run.results_directory, run.sandbox_directory)
    subprocess.run(["rm", "-rf", "--", *folders], stderr=subprocess.DEVNULL)
