"""Group the rows of a run that failed, and make a manifest to try them again."""

import csv
import fnmatch
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

from post import csvs
from post.reasons import worth_another_try
from post.reconcile import load_outcome
from state.errors import PipelineError
from state.rows import load_header, load_rows
from state.run import Run, settings_of, sibling_key, timestamp_now

# The code of rows that failed in a version that did not record it.
UNKNOWN = "unknown"
_REASON = 2


@dataclass(frozen=True)
class Failure:
    """A row that failed."""

    run: Run
    line: int
    code: str
    image: str
    reason: str


@dataclass(frozen=True)
class Group:
    """Failed rows with the same code.

    Attributes:
        code: the code.
        rows: number of rows.
        example: one of them.
    """

    code: str
    rows: int
    example: Failure

    @property
    def worth_another_try(self) -> bool:
        """Whether another try may do better without a change."""
        return worth_another_try(self.code)


def failures(run: Run) -> Iterator[Failure]:
    """Yield the rows of a run that failed, one at a time; none before it has ended.

    Raises:
        PipelineError: the records of the run cannot be read.
    """
    if not run.done:
        return
    outcome = load_outcome(run)
    lines = zip_longest(outcome.failed_rows, outcome.codes, fillvalue=UNKNOWN)
    with run.failed_file.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        if outcome.failed and load_header(run) is not None:
            next(rows)
        for (line, code), fields in zip(lines, rows, strict=True):
            yield Failure(run, int(line), str(code), fields[0], fields[_REASON])


def groups(runs: Collection[Run]) -> list[Group]:
    """Return the failed rows of runs by code, the most frequent code first."""
    examples: dict[str, Failure] = {}
    counts: dict[str, int] = {}
    for run in runs:
        for failure in failures(run):
            examples.setdefault(failure.code, failure)
            counts[failure.code] = counts.get(failure.code, 0) + 1
    found = [Group(code, counts[code], examples[code]) for code in counts]
    return sorted(found, key=lambda group: -group.rows)


def rows_to_retry(run: Run, codes: Collection[str], *, everything: bool) -> set[int]:
    """Return the lines of the failed rows to try again.

    Args:
        codes: the codes of these rows; if there are none, those that may do better
            without a change.
        everything: take all rows that failed.

    Raises:
        PipelineError: the run has not ended, or no row failed with one of the codes.
    """
    if not run.done:
        raise PipelineError(
            f"{run.directory.name} has not ended yet: its rows are still tried"
        )
    known: set[str] = set()
    chosen: set[int] = set()
    for failure in failures(run):
        known.add(failure.code)
        if everything or (
            failure.code in codes if codes else worth_another_try(failure.code)
        ):
            chosen.add(failure.line)
    if missing := set(codes) - known:
        raise PipelineError(
            f"no row of {run.directory.name} failed with {', '.join(sorted(missing))}"
            f"; codes of this run: {', '.join(sorted(known)) or 'none'}"
        )
    return chosen


def upload_retry(run: Run, lines: Collection[int]) -> str:
    """Upload a manifest with some rows of a run, as they were; return its key.

    Raises:
        PipelineError: no launch would find such a manifest.
        BucketError: it cannot be uploaded.
    """
    launch = settings_of(run)
    key = retry_key(run.manifest_key, timestamp_now(), launch.pattern)
    inputs = launch.inputs()
    if inputs.exists(key):
        raise PipelineError(f"{inputs.name}/{key} is there already: it must run first")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "manifest.csv"
        with csvs.writing_rows(file, load_header(run), with_reasons=False) as add:
            for row in load_rows(run):
                if row.line in lines:
                    add(replace(row, reason=None))
        inputs.upload(key, file, "text/csv")
    return key


def retry_key(manifest_key: str, timestamp: str, pattern: str) -> str:
    """Return the key of a manifest that tries rows again.

    >>> retry_key("a/july-raw.csv", "20261120T193637Z", "*raw.csv")
    'a/july-retry-20261120T193637Z-raw.csv'
    >>> retry_key("july-raw.csv", "20261120T193637Z", "july-raw.csv")
    'july-raw.csv'
    """
    stem = sibling_key(manifest_key, "retry", timestamp).removesuffix(".csv")
    for key in (f"{stem}-raw.csv", f"{stem}.csv"):
        if fnmatch.fnmatchcase(key, pattern):
            return key
    return manifest_key
