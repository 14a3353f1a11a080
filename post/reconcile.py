"""Decide row by row, from what is in the output bucket, how a run ended."""

import csv
import io
import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from bucket import BucketMissing, ObjectMissing, StoredObject
from dag import run as runs, schedd
from dag.errors import PipelineError
from dag.files import write_atomically
from dag.journal import Journal
from dag.manifest import Manifest, Row, jpeg_key
from dag.pipeline import Pipeline
from dag.run import Run, node_name
from dag.uploads import abort_all
from post import results, uploads
from post.reasons import why
from post.results import NodeResult

# Of an object that was put in one piece and not encrypted, S3 gives the MD5.
_MD5 = re.compile(r"[0-9a-f]{32}")


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


@dataclass(frozen=True)
class Failure:
    """A row that failed, with its reason.

    Attributes:
        code: a name for programs: the node's own, or how its job ended.
        attempt: how often its node was tried, None when it is not known.
    """

    row: Row
    code: str
    attempt: int | None


class NodesStillThere(PipelineError):
    """Some nodes of a DAG that ended have not left the queue."""


def reconcile(run: Run, pipeline: Pipeline, journal: Journal) -> Outcome:
    """Put the two CSVs in place of a run's manifest.

    Can be repeated after a crash at any step, with the same CSVs in the end.

    Raises:
        BucketError, PipelineError: try again later.
    """
    with runs.alone(run.directory):
        if not run.outcome_file.exists():
            _decide(run, pipeline, journal)
        outcome = Outcome(**json.loads(run.outcome_file.read_text()))
        if not run.done:
            _publish(run, pipeline, outcome, journal)
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


def _decide(run: Run, pipeline: Pipeline, journal: Journal) -> None:
    """Write both CSVs into the run directory: this is decided once and for all."""
    # A node that was removed may be sending its outputs until it is gone.
    if left := schedd.still_there(schedd.NODE_ATTRIBUTE, str(run.directory)):
        raise NodesStillThere(
            f"{left} jobs of it are still leaving the queue; 'condor_q' shows them, "
            "and 'condor_rm -forcex' makes those go that do not"
        )
    manifest = runs.load_rows(run)
    told = {
        row.number: result
        for row in runs.convertible(manifest.rows)
        if (result := results.read(run, row))
    }
    processed, failures = _judge(run, pipeline, manifest, told)
    journal.note(_line(journal, failure) for failure in failures)
    failed = [failure.row for failure in failures]
    results.gather(run, told)
    for file, rows in ((run.processed_file, processed), (run.failed_file, failed)):
        write_atomically(file, _as_csv(manifest, rows) if rows else "")
    outcome = Outcome(len(processed), tuple(row.number for row in failed))
    write_atomically(run.outcome_file, json.dumps(asdict(outcome)) + "\n")


def _publish(run: Run, pipeline: Pipeline, outcome: Outcome, journal: Journal) -> None:
    inputs = pipeline.inputs()
    for key, file, rows in (
        (run.processed_key, run.processed_file, outcome.processed),
        (run.failed_key, run.failed_file, outcome.failed),
    ):
        if rows:
            inputs.upload(key, file, "text/csv")
    # What was not put together never will be.
    abort_all(run, pipeline, journal)
    inputs.remove(run.processing_key)


def _judge(
    run: Run, pipeline: Pipeline, manifest: Manifest, told: dict[int, NodeResult]
) -> tuple[list[Row], list[Failure]]:
    """Part the rows into those processed and those failed."""
    last_words = schedd.last_words(run.node_log)
    removal = schedd.removal(
        schedd.RUN_ATTRIBUTE, str(run.directory), run.dagman_job_log
    )
    ended_well = {number for number in told if node_name(number) not in last_words}
    apart = uploads.complete(run, pipeline, told, ended_well)
    stored = _stored_outputs(pipeline, runs.convertible(manifest.rows))
    claimed = _claimed(run, pipeline)
    processed, failed = [], []
    for row in manifest.rows:
        if row.reason is not None:
            failed.append(Failure(row, "unusable", attempt=None))
            continue
        result, last = told.get(row.number), last_words.get(node_name(row.number))
        missing = apart.get(row.number) or _what_is_missing(
            row, pipeline, result, stored, claimed
        )
        if missing is None:
            processed.append(row)
            continue
        code, reason = why(result, last, missing, removal)
        attempt = last.attempt if last else result and result.told.get("attempt")
        failed.append(Failure(row.failed(reason), code, attempt))
    return processed, failed


def _line(journal: Journal, failure: Failure) -> str:
    return journal.line(
        "row-failed",
        failure.row.reason,
        "warning",
        row=failure.row.number,
        attempt=failure.attempt,
        code=failure.code,
    )


def _what_is_missing(
    row: Row,
    pipeline: Pipeline,
    result: NodeResult | None,
    stored: dict[str, StoredObject],
    claimed: datetime,
) -> str | None:
    """What keeps a row from being processed; None when both outputs are right."""
    if result is None or not result.ok:
        return "it was not converted"
    for kind, key in _output_keys(row, pipeline).items():
        size, md5 = result.files[kind]
        found = stored.get(key)
        if found is None:
            return f"its node ended well, but {key} is not in the output bucket"
        if found.size != size:
            return (
                f"{key} in the output bucket has {found.size} bytes, "
                f"but its node made {size}"
            )
        same = _MD5.fullmatch(found.etag) and found.etag == md5
        if not same and found.modified < claimed:
            return f"{key} in the output bucket is older than this run"
    return None


def _stored_outputs(pipeline: Pipeline, rows: list[Row]) -> dict[str, StoredObject]:
    keys = [key for row in rows for key in _output_keys(row, pipeline).values()]
    try:
        return pipeline.outputs().find(keys)
    except BucketMissing:
        # Nothing is in a bucket that somebody deleted, and waiting brings none back.
        return {}


def _output_keys(row: Row, pipeline: Pipeline) -> dict[str, str]:
    prefix = pipeline.output_prefix
    return {"cog": prefix + row.key, "jpeg": prefix + jpeg_key(row.key)}


def _claimed(run: Run, pipeline: Pipeline) -> datetime:
    """When the run began, by the clock that also dates its outputs."""
    try:
        return pipeline.inputs().stat(run.processing_key).modified
    except ObjectMissing:
        began = datetime.strptime(run.timestamp, runs.TIMESTAMP)
        return began.replace(tzinfo=UTC)


def _as_csv(manifest: Manifest, rows: Iterable[Row]) -> str:
    """The rows as they were, failed ones with their reason as third column."""
    text = io.StringIO()
    rows = list(rows)
    lines = [row.fields for row in rows]
    header = manifest.header
    if rows[0].reason is not None:
        lines = [_with_reason(row.fields, row.reason, header) for row in rows]
        header = header and _with_reason(header, "reason", header)
    for fields in (header, *lines) if header else lines:
        # By itself the module leaves a carriage return unquoted.
        quoting = csv.QUOTE_ALL if "\r" in "".join(fields) else csv.QUOTE_MINIMAL
        csv.writer(text, lineterminator="\n", quoting=quoting).writerow(fields)
    return text.getvalue()


def _with_reason(
    fields: tuple[str, ...], reason: str, header: tuple[str, ...] | None
) -> tuple[str, ...]:
    """The fields with the reason as the third.

    It replaces an earlier run's, where the header tells that there is one.
    """
    first_two = (*fields, "", "")[:2]
    had_reason = header is not None and header[2:3] == ("reason",)
    return (*first_two, reason, *fields[3 if had_reason else 2 :])


def _tidy(run: Run, outcome: Outcome) -> None:
    """A success leaves no file of its own; a failure keeps its log."""
    kept = {f"{node_name(number)}.log" for number in outcome.failed_rows}
    for log in run.logs_directory.iterdir():
        if log.name in kept:
            # HTCondor made it for all to read.
            log.chmod(0o600)
        else:
            log.unlink()
    # What they told is gathered in one file.
    shutil.rmtree(run.results_directory, ignore_errors=True)
