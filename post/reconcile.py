"""Decide row by row, from what is in the output bucket, how a run ended."""

import itertools
import json
import re
import stat
import subprocess
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

from bucket import BucketMissing, ObjectMissing, StoredObject
from condor import eventlog, queue
from post import csvs, multipart
from post.reasons import failure_reason, may_be_collateral
from state import results
from state.errors import PipelineError
from state.files import write_atomically
from state.journal import Journal
from state.keys import jpeg_key
from state.launch import Launch
from state.multipart import abort_all
from state.results import NodeResult
from state.rows import (
    Refusal,
    Row,
    dag_node_of,
    load_header,
    load_rows,
    load_rows_as_last_tried,
    load_rows_with_nodes,
    node_name,
)
from state.run import Run, locked

# Of an object that was put in one piece and not encrypted, S3 gives the MD5.
_MD5 = re.compile(r"[0-9a-f]{32}")
_END_OF_OUTPUT = re.compile(r"\.(tif|jpg)", re.IGNORECASE)
_MOST_STRANGE = 20
# Of rows that failed, in a run's log.
_MOST_LINES = 5000


@dataclass(frozen=True)
class Outcome:
    """Which rows went where.

    Attributes:
        processed: how many were.
        failed_rows: the lines in the manifest of the others.
    """

    processed: int
    failed_rows: tuple[int, ...]

    @property
    def failed(self) -> int:
        return len(self.failed_rows)


@dataclass(frozen=True, slots=True)
class RowOutcome:
    """How a row ended; one that failed has its reason.

    Attributes:
        code: of a failure, a name for programs: the node's own, or how its job
            ended.
        attempt: how often its node was tried, None when it is not known.
        neighbours: whether the reason may be another row's that shared its node.
    """

    row: Row
    code: str = ""
    attempt: int | None = None
    neighbours: bool = False

    @property
    def ok(self) -> bool:
        return self.row.reason is None


class NodesStillThere(PipelineError):
    """Some nodes of a DAG that ended have not left the queue."""


class NotEnded(PipelineError):
    """It is too early to reconcile a run."""


def check_ended(run: Run) -> None:
    """Raise NotEnded while a run's DAG is in the queue, or is still to be submitted."""
    if job := queue.find(queue.RUN_ATTRIBUTE, str(run.directory)):
        raise NotEnded(
            f"its DAG is in the queue, as job {job.cluster}, and reconciles it when "
            f"all nodes have ended; 'condor_rm {job.cluster}' ends it before"
        )
    if run.has_begun or run.outcome_file.exists():
        return
    checked = run.rows_file.exists()
    if not checked or any(row.reason is None for row in load_rows(run)):
        raise NotEnded("its DAG is still to be submitted, which the next poll does")


def reconcile(
    run: Run, launch: Launch, journal: Journal, dag: str | None = None
) -> Outcome | None:
    """Put the two CSVs in place of a run's manifest.

    Can be repeated after a crash at any step, with the same CSVs in the end.

    Args:
        dag: the name of the DAG whose nodes have ended; if it is not said, that of
            the last one.

    Returns:
        How it ended; None if some of its rows are to get nodes of their own, in a DAG
        that a poll submits.

    Raises:
        BucketError, PipelineError: try again later.
    """
    with locked(run.directory):
        # Whoever speaks of the first DAG may be late.
        late = dag is not None and dag != run.dag_file.name
        if late or (run.solo_file.exists() and not run.has_begun):
            return None
        if not run.outcome_file.exists() and not _decide(run, launch, journal):
            return None
        outcome = Outcome(**json.loads(run.outcome_file.read_text()))
        if not run.done:
            _publish(run, launch, outcome, journal)
            _tidy(run, outcome)
            counts = {"processed": outcome.processed, "failed": outcome.failed}
            write_atomically(run.done_file, json.dumps(counts) + "\n")
    journal.say(
        "ended",
        f"{run.manifest_key}: {outcome.processed} rows processed, "
        f"{outcome.failed} failed",
        processed=outcome.processed,
        failed=outcome.failed,
    )
    return outcome


def _decide(run: Run, launch: Launch, journal: Journal) -> bool:
    """Write both CSVs into the run directory: this is decided once and for all.

    Unless rows may have failed for their neighbours, which are first tried apart.
    """
    # A node that was removed may be sending its outputs until it is gone.
    if left := queue.still_there(queue.NODE_ATTRIBUTE, str(run.directory)):
        raise NodesStillThere(
            f"{left} jobs of it are still leaving the queue; 'condor_q' shows them, "
            "and 'condor_rm -forcex' makes those go that do not"
        )
    results.gather(run, settled=True)
    judge = _judge(run, launch, journal)
    apart = []
    if launch.rows_per_job > 1 and not run.solo_file.exists():
        apart = [each.row.line for each in judge() if each.neighbours]
    if apart:
        write_atomically(run.solo_file, json.dumps(apart) + "\n")
        # Those at reconciling the second DAG are counted anew.
        run.attempts_file.unlink(missing_ok=True)
        journal.say(
            "rows-apart",
            f"{run.manifest_key}: {len(apart)} rows shared jobs that failed as a "
            "whole; from the next poll on, each is tried in a job of its own",
            rows=len(apart),
        )
        return False
    journal.note(_lines(run, journal, (each for each in judge() if not each.ok)))
    header = load_header(run)
    processed, failed = (
        csvs.write(file, header, (each.row for each in judge() if each.ok is ok))
        for file, ok in ((run.processed_file, True), (run.failed_file, False))
    )
    outcome = Outcome(len(processed), tuple(failed))
    write_atomically(run.outcome_file, json.dumps(asdict(outcome)) + "\n")
    return True


def _publish(run: Run, launch: Launch, outcome: Outcome, journal: Journal) -> None:
    inputs = launch.inputs()
    for key, file, rows in (
        (run.processed_key, run.processed_file, outcome.processed),
        (run.failed_key, run.failed_file, outcome.failed),
    ):
        if rows:
            inputs.upload(key, file, "text/csv")
    # What was not put together never will be.
    abort_all(run, launch, journal)
    inputs.remove(run.processing_key)


def _judge(
    run: Run, launch: Launch, journal: Journal
) -> Callable[[], Iterator[RowOutcome]]:
    """Look at all there is to see of a run.

    Returns:
        What tells, as often as it is called, of each row how it ended: one after
        the other, since there may be a million.
    """
    node_ends = {
        node: word
        for log in run.node_logs
        for node, word in eventlog.node_ends(log).items()
    }
    removal = _removal_reason(run)
    told = results.load(run)
    # Of the rows that have a node to themselves, as all that come in parts have.
    ended_well = {number for number in told if node_name(number) not in node_ends}
    unjoined = multipart.complete(run, launch, told, ended_well)
    wrong = _what_is_wrong(run, launch, told, journal)

    def judge() -> Iterator[RowOutcome]:
        for row in load_rows_as_last_tried(run):
            if row.reason is not None:
                yield RowOutcome(row, row.code or Refusal.UNUSABLE)
                continue
            result, last = told.get(row.line), node_ends.get(dag_node_of(row))
            missing = unjoined.get(row.line) or wrong.get(row.line)
            if result and result.success and missing is None:
                yield RowOutcome(row)
                continue
            shared = row.group > 0
            code, reason = failure_reason(
                result, last, missing or "", removal, shared=shared
            )
            attempt = last.attempt if last else result and result.attempt
            neighbours = shared and removal is None and may_be_collateral(result, last)
            yield RowOutcome(row.failed(code, reason), code, attempt, neighbours)

    return judge


def _removal_reason(run: Run) -> str | None:
    """Return why a run's DAGMan was removed or is being removed; None if it was not."""
    reason = queue.removal_reason(queue.RUN_ATTRIBUTE, str(run.directory))
    return eventlog.abort_reason(run.dagman_job_log) if reason is None else reason


def _lines(run: Run, journal: Journal, failed: Iterator[RowOutcome]) -> Iterator[str]:
    """Yield a line for each row that failed, but not for each of a million."""
    for judgement in itertools.islice(failed, _MOST_LINES):
        yield _line(journal, judgement)
    if more := sum(1 for _ in failed):
        said = f"{more} more rows failed: {run.failed_file.name} has all of them"
        yield journal.line("more-rows-failed", said, "warning", rows=more)


def _line(journal: Journal, judgement: RowOutcome) -> str:
    return journal.line(
        "row-failed",
        judgement.row.reason,
        "warning",
        row=judgement.row.line,
        attempt=judgement.attempt,
        code=judgement.code,
    )


def _what_is_wrong(
    run: Run, launch: Launch, told: Mapping[int, NodeResult], journal: Journal
) -> dict[int, str]:
    """Return what keeps rows whose nodes ended well from being processed, by row.

    What was put under a row's keys though its node made nothing, or under longer ones,
    is told in the journal. HTCondor signs any output URL that begins with one of the
    job's, so an execution point can write such objects.
    """
    # None once it was found in the bucket, and of rows whose nodes did not end well.
    expected: dict[str, tuple[int, tuple[int, str]] | None] = {}
    cogs = []
    for row in load_rows(run):
        if row.reason is None:
            cog = launch.cog_key(row.key)
            cogs.append(cog)
            result = told.get(row.line)
            made = result.success if result else None
            expected[cog] = (row.line, made.cog) if made else None
            expected[launch.jpeg_key(row.key)] = (row.line, made.jpeg) if made else None
    claimed = _claimed(run, launch)
    wrong = {}
    # Of rows whose outputs are new and have the right size, but another MD5.
    replaced: dict[int, str] = {}
    same = different = 0
    strange = _Strange(run, journal)
    for found in _stored_outputs(launch, cogs):
        if made := expected.get(found.key):
            expected[found.key] = None
            row, (size, md5) = made
            same += found.etag == md5
            if complaint := _complaint(found, size, md5, claimed):
                wrong[row] = complaint
            elif _MD5.fullmatch(found.etag) and found.etag != md5:
                different += 1
                replaced[row] = (
                    f"{found.key} in the output bucket is not what its node made: "
                    "somebody replaced it"
                )
        elif found.modified >= claimed and _may_be_of_a_node(found.key, expected):
            strange.tell(found)
    for key, made in expected.items():
        if made:
            wrong[made[0]] = (
                f"its node ended well, but {key} is not in the output bucket"
            )
    # A store that encrypts gives ETags that only look like MD5s. So a difference means
    # something where most are the same: one node alone cannot make it so.
    return replaced | wrong if same >= different else wrong


def _may_be_of_a_node(key: str, outputs: Container[str]) -> bool:
    """Return whether a key is that of an output, or begins with one."""
    ends = (found.end() for found in _END_OF_OUTPUT.finditer(key))
    # Of a.tiff, both a.tif and the whole may be an output.
    return any(key[:end] in outputs or key[: end + 1] in outputs for end in ends)


@dataclass
class _Strange:
    """Tells the journal of objects that no node of ours made, the first few by name."""

    run: Run
    journal: Journal
    count: int = 0

    def tell(self, found: StoredObject) -> None:
        self.count += 1
        if self.count <= _MOST_STRANGE:
            more = "; more are not told" if self.count == _MOST_STRANGE else ""
            self.journal.say(
                "strange-output",
                f"{found.key} was written to the output bucket during "
                f"{self.run.directory.name}, by none of its nodes{more}",
                "warning",
                key=found.key,
            )


def _complaint(
    found: StoredObject, size: int, md5: str, claimed: datetime
) -> str | None:
    """What is wrong with an output; None when it is what this run made."""
    if found.size != size:
        return (
            f"{found.key} in the output bucket has {found.size} bytes, "
            f"but its node made {size}"
        )
    same = _MD5.fullmatch(found.etag) and found.etag == md5
    if not same and found.modified < claimed:
        return f"{found.key} in the output bucket is older than this run"
    return None


def _stored_outputs(launch: Launch, cogs: Collection[str]) -> Iterator[StoredObject]:
    try:
        yield from launch.outputs().find_objects(cogs, lambda cog: (jpeg_key(cog),))
    except BucketMissing:
        # Nothing is in a bucket that somebody deleted, and waiting brings none back.
        return


def _claimed(run: Run, launch: Launch) -> datetime:
    """When the run began, by the clock that also dates its outputs."""
    try:
        return launch.inputs().stat(run.processing_key).modified
    except ObjectMissing:
        return run.began


def _tidy(run: Run, outcome: Outcome) -> None:
    """A success leaves no file of its own; a failure keeps its log."""
    failed = set(outcome.failed_rows)
    rows = load_rows_with_nodes(run) if failed else ()
    kept = {
        f"{name}.log" for row, names in rows if row.line in failed for name in names
    }
    for log in run.logs_directory.iterdir():
        if log.name in kept and stat.S_ISREG(log.lstat().st_mode):
            # HTCondor made it for all to read.
            log.chmod(0o600)
        else:
            results.remove(run, log)
    # What they told is gathered in one file. Folders may be nested more deeply than
    # Python can remove.
    folders = (run.results_directory, run.sandbox_directory)
    subprocess.run(["rm", "-rf", "--", *folders], stderr=subprocess.DEVNULL)
