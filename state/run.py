"""A run: one claimed manifest, and the files of its directory.

The files of a run directory are the whole state of the run. Each file appears complete
or not at all:

==================  =======================================================
``run.json``        the run exists: which manifest it is for, and under which names
``claimed.json``    the manifest belongs to this run and may be renamed
``manifest.csv``    the manifest as it was uploaded, unless it could not be read
``waiting.json``    the run that has some of the same images and ends first
``launch.json``     the settings of the launch
``rows.jsonl``      the rows, read and checked; the first line is the header
``uploads.jsonl``   the multipart uploads that were started for large images
``convert.dag``     the DAG, with a node for each row, or for a few rows, that can be
                    converted
``solo.json``       the rows that shared a node that failed as a whole; the second DAG,
                    ``retry-solo.dag``, has a node for each of them
``refused.json``    the rows whose jobs HTCondor did not accept at the moment; the next
                    DAG, ``convert-2.dag`` or ``retry-solo-2.dag`` and so on, has them
``tried.json``      HTCondor accepts the jobs of this DAG
``reconcile.sh``    the script of a DAG's FINAL node; reconcile.log has its output
``submitted.json``  the last DAG is in HTCondor's queue: its name and job id; or why
                    HTCondor accepts none of its jobs
``sandbox/``        unexpected files of nodes; nothing in it is read
``results/``        one file for each result, until the next poll
``results.jsonl``   the results, gathered; if a row has several lines, the last counts
``thumbnails.bin``  the thumbnails of the gathered results, one after the other
``logs/``           the output of nodes; kept for those that failed
``log.jsonl``       what happened to the run, see state/journal.py
``lock``            the lock of the process that ends the run
``held.json``       the operator holds the run: no poll submits a DAG
``stopped.json``    the operator stopped the run, and why its rows are not converted
``attempts``        how often reconciling was tried
``processed.csv``   the two CSVs, as they are put into the bucket
``failed.csv``
``outcome.json``    both are written: which row goes where is decided for good
``done.json``       both CSVs are in the bucket and the manifest is gone
``catalog.json``    which products of the catalog were made, and which failed
==================  =======================================================
"""

import fcntl
import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Collection, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bucket import StoredObject
from state.errors import PipelineError
from state.files import check_nobody_else_wrote, write_atomically
from state.launch import UNREADABLE, Launch, load_launch, save_launch, settings_file
from state.moved import moved_from
from state.records import as_json, from_record

RUN_DIRECTORY_PREFIX = "workflow-run-"
# The key of a claim is that of its manifest and this.
CLAIM_SUFFIX = ".claim"
_RUN_FILE = "run.json"
TIMESTAMP = "%Y%m%dT%H%M%SZ"
_RAW = re.compile(r"raw$", re.IGNORECASE)
_MADE_BY_PIPELINE = re.compile(
    r"(processing|processed|failed|unreadable)-(\d{8}T\d{6}Z)\.csv$", re.ASCII
)
_PROCESSING = re.compile(r"processing-(\d{8}T\d{6}Z)\.csv$", re.ASCII)
_DAG = "convert.dag"
# The DAG of the rows that no longer share a node.
_DAG_SOLO = "retry-solo.dag"
# The names of these files in runs from before version 0.1.
_FORMER_DAG_SOLO = "apart.dag"
_FORMER_SOLO_FILE = "apart.json"


@dataclass(frozen=True)
class Run:
    """One claimed manifest.

    Attributes:
        directory: the run directory, absolute.
        launch: name of the folder of the launch that began the run.
        manifest_key: key of the manifest when it was uploaded.
        etag: ETag of the manifest when it was read.
        modified: when the manifest was uploaded, in ISO 8601; together with the ETag,
            it identifies this upload among others with the same key.
        timestamp: start of the run in UTC, as in ``20261120T193637Z``; a part of all
            names of the run.
        token: secret text that identifies the run's claim.
        unread: why the manifest was not downloaded; empty if it was.
        moved_from: the run directory before it was moved; None if its jobs, if it has
            any, know it under ``directory``.
    """

    directory: Path
    launch: str
    manifest_key: str
    etag: str
    modified: str
    timestamp: str
    token: str
    unread: str = ""
    moved_from: Path | None = None

    @property
    def home(self) -> Path:
        """The folder of the files of its launch."""
        return self.directory.parent / Path(self.launch).name

    @property
    def began(self) -> datetime:
        """When the run began, by this machine's clock."""
        return datetime.strptime(self.timestamp, TIMESTAMP).replace(tzinfo=UTC)

    @property
    def id(self) -> str:
        """Its name among the runs of all access points."""
        digest = hashlib.sha256(self.token.encode()).hexdigest()[:8]
        return f"{self.timestamp}-{digest}"

    @property
    def processing_key(self) -> str:
        """The key of the manifest while the run lasts."""
        return self._sibling("processing")

    @property
    def processed_key(self) -> str:
        """The key of the CSV of the rows that were processed."""
        return self._sibling("processed")

    @property
    def failed_key(self) -> str:
        """The key of the CSV of the rows that failed."""
        return self._sibling("failed")

    @property
    def unreadable_key(self) -> str:
        """The key of a manifest that cannot be read, after the run."""
        return self._sibling("unreadable")

    def _sibling(self, state: str) -> str:
        return sibling_key(self.manifest_key, state, self.timestamp)

    @property
    def launch_file(self) -> Path:
        """The settings with which the run began; those of a later launch may differ."""
        return settings_file(self.directory)

    @property
    def manifest_file(self) -> Path:
        """The manifest as it was uploaded."""
        return self.directory / "manifest.csv"

    @property
    def waiting_file(self) -> Path:
        """The record of the run that this run waits for."""
        return self.directory / "waiting.json"

    @property
    def claimed_file(self) -> Path:
        """The record that the manifest belongs to this run."""
        return self.directory / "claimed.json"

    @property
    def rows_file(self) -> Path:
        """The rows of the manifest."""
        return self.directory / "rows.jsonl"

    @property
    def uploads_file(self) -> Path:
        """The multipart uploads that the run started."""
        return self.directory / "uploads.jsonl"

    @property
    def solo_file(self) -> Path:
        """The line numbers of the rows that no longer share a node."""
        former = self.directory / _FORMER_SOLO_FILE
        return former if former.exists() else self.directory / "solo.json"

    @property
    def refused_file(self) -> Path:
        """The rows whose jobs HTCondor did not accept at the moment, and their DAG."""
        return self.directory / "refused.json"

    @property
    def refused_rows(self) -> frozenset[int]:
        """The line numbers of these rows."""
        return frozenset(self._refused["rows"])

    @property
    def refused_times(self) -> int:
        """How many DAGs with the same rows ended with such rows."""
        return int(self._refused["times"])

    @property
    def _refused(self) -> dict[str, Any]:
        if not self.refused_file.exists():
            return {"times": 0, "rows": ()}
        return json.loads(self.refused_file.read_text())

    @property
    def dag_file(self) -> Path:
        """The DAG that is to be submitted next, or was submitted last."""
        first = self.directory / (self._solo_dag if self.solo_file.exists() else _DAG)
        times = self.refused_times
        return first.with_stem(f"{first.stem}-{times + 1}") if times else first

    @property
    def _solo_dag(self) -> str:
        is_former = self.solo_file.name == _FORMER_SOLO_FILE
        return _FORMER_DAG_SOLO if is_former else _DAG_SOLO

    @property
    def node_log(self) -> Path:
        """The events of all nodes' jobs, as DAGMan logs them."""
        return self._beside_dag("nodes.log")

    @property
    def node_logs(self) -> tuple[Path, ...]:
        """The event logs of all DAGs, in their order; they may not exist."""
        firsts = (self.directory / _DAG, self.directory / self._solo_dag)
        dags = (dag for first in firsts for dag in (first, *_later_dags(first)))
        return tuple(dag.with_name(f"{dag.name}.nodes.log") for dag in dags)

    @property
    def dagman_log(self) -> Path:
        """DAGMan's messages, which it writes from its start on."""
        return self._beside_dag("dagman.out")

    @property
    def dagman_job_log(self) -> Path:
        """The events of DAGMan's own job."""
        return self._beside_dag("dagman.log")

    def _beside_dag(self, suffix: str) -> Path:
        return self.dag_file.with_name(f"{self.dag_file.name}.{suffix}")

    @property
    def tried_file(self) -> Path:
        """Which DAG the jobs were tried for."""
        return self.directory / "tried.json"

    @property
    def submitted_file(self) -> Path:
        """The record of the last DAG that was submitted."""
        return self.directory / "submitted.json"

    @property
    def held_file(self) -> Path:
        """The record that the operator holds the run."""
        return self.directory / "held.json"

    @property
    def stopped_file(self) -> Path:
        """The record that the operator stopped the run."""
        return self.directory / "stopped.json"

    @property
    def is_held(self) -> bool:
        """Whether the operator holds the run, so that no DAG is submitted."""
        return self.held_file.exists()

    @property
    def stopped(self) -> str | None:
        """Why the operator stopped the run; None if it was not stopped."""
        if not self.stopped_file.exists():
            return None
        return str(json.loads(self.stopped_file.read_text())["reason"])

    @property
    def attempts_file(self) -> Path:
        """The number of attempts at reconciling."""
        return self.directory / "attempts"

    @property
    def sandbox_directory(self) -> Path:
        """The folder in which HTCondor puts unexpected files of nodes."""
        return self.directory / "sandbox"

    @property
    def results_directory(self) -> Path:
        """The folder of the results that are not gathered yet."""
        return self.directory / "results"

    @property
    def logs_directory(self) -> Path:
        """The folder of the nodes' output."""
        return self.directory / "logs"

    @property
    def processed_file(self) -> Path:
        """The CSV of the rows that were processed."""
        return self.directory / "processed.csv"

    @property
    def failed_file(self) -> Path:
        """The CSV of the rows that failed."""
        return self.directory / "failed.csv"

    @property
    def outcome_file(self) -> Path:
        """The record of which row goes to which CSV."""
        return self.directory / "outcome.json"

    @property
    def thumbnails_file(self) -> Path:
        return self.directory / "thumbnails.bin"

    @property
    def results_file(self) -> Path:
        """The gathered results."""
        return self.directory / "results.jsonl"

    @property
    def catalog_file(self) -> Path:
        """The record of what was made of the run for the catalog."""
        return self.directory / "catalog.json"

    @property
    def done_file(self) -> Path:
        """The record that the run has ended."""
        return self.directory / "done.json"

    @property
    def done(self) -> bool:
        """Whether the run has ended."""
        return self.done_file.exists()

    @property
    def cluster(self) -> int | None:
        """The cluster of its DAG's DAGMan job; None if the DAG was not submitted."""
        return self._submitted.get("cluster")

    @property
    def refusal(self) -> str | None:
        """Why HTCondor accepts none of the jobs of its DAG; None if it may."""
        return self._submitted.get("refusal")

    @property
    def _submitted(self) -> dict[str, Any]:
        """The record of its DAG's submission; empty if there is none."""
        if not self.submitted_file.exists():
            return {}
        submitted = json.loads(self.submitted_file.read_text())
        return submitted if submitted["dag"] == self.dag_file.name else {}

    @property
    def has_begun(self) -> bool:
        """Whether its DAG was submitted or refused, according to its directory."""
        return bool(self._submitted) or self.dagman_log.exists()


def _later_dags(first: Path) -> list[Path]:
    """Return the DAGs that tried rows of a DAG again, in their order."""
    found = {
        int(number[1]): dag
        for dag in first.parent.glob(f"{first.stem}-*.dag")
        if (number := re.fullmatch(rf"{first.stem}-(\d+)", dag.stem, re.ASCII))
    }
    return [found[number] for number in sorted(found)]


def was_tried(run: Run) -> bool:
    """Tell whether HTCondor is known to accept the jobs of the run's DAG."""
    file = run.tried_file
    return file.exists() and json.loads(file.read_text()) == _trial(run)


def record_trial(run: Run) -> None:
    """Record that HTCondor accepts the jobs of the run's DAG."""
    write_atomically(run.tried_file, as_json(_trial(run)))


def _trial(run: Run) -> dict[str, str]:
    return {"dag": run.dag_file.name}


def record_submission(run: Run, cluster: int) -> None:
    """Record that the run's DAG is in the queue."""
    submitted = {"dag": run.dag_file.name, "cluster": cluster}
    write_atomically(run.submitted_file, as_json(submitted))


def record_refusal(run: Run, said: str) -> None:
    """Record why HTCondor accepts no job of the run's DAG."""
    refused = {"dag": run.dag_file.name, "refusal": said}
    write_atomically(run.submitted_file, as_json(refused))


def record_refused_rows(run: Run, lines: Collection[int]) -> None:
    """Record the rows that the next DAG tries again, because of a passing refusal."""
    refused = {"times": run.refused_times + 1, "rows": sorted(lines)}
    write_atomically(run.refused_file, as_json(refused))


def record_hold(run: Run) -> None:
    """Record that the operator holds the run."""
    write_atomically(run.held_file, as_json({"since": timestamp_now()}))


def record_stop(run: Run, reason: str) -> None:
    """Record that the operator stopped the run, before it is removed."""
    stopped = {"since": timestamp_now(), "reason": reason}
    write_atomically(run.stopped_file, as_json(stopped))


def sibling_key(manifest_key: str, state: str, timestamp: str) -> str:
    """Return the key of an object that is made from a manifest, beside it.

    >>> sibling_key("maps/july-raw.csv", "failed", "20261120T193637Z")
    'maps/july-failed-20261120T193637Z.csv'
    >>> sibling_key("july.txt", "failed", "20261120T193637Z")
    'july-failed-20261120T193637Z.csv'
    """
    folder, slash, name = manifest_key.rpartition("/")
    stem = name.rpartition(".")[0] or name
    stem = _RAW.sub(state, stem) if _RAW.search(stem) else f"{stem}-{state}"
    return f"{folder}{slash}{stem}-{timestamp}.csv"


def timestamp_of(key: str) -> str | None:
    """Return the timestamp in the key of an object that a run made; None for others.

    >>> timestamp_of("maps/july-failed-20261120T193637Z.csv")
    '20261120T193637Z'
    """
    match = _MADE_BY_PIPELINE.search(key)
    return match[2] if match else None


def timestamp_now() -> str:
    """Return the timestamp of a run that begins now."""
    return datetime.now(UTC).strftime(TIMESTAMP)


def is_processing(key: str) -> bool:
    """Return whether a key is that of a manifest that a run has claimed."""
    return _PROCESSING.search(key) is not None


def run_with_processing_key(launch: Launch, key: str) -> Run | None:
    """Return the run of this launch directory with this key; None if there is none."""
    if not (match := _PROCESSING.search(key)):
        return None
    directory = launch.directory / f"{RUN_DIRECTORY_PREFIX}{match[1]}"
    if not (directory / _RUN_FILE).exists():
        return None
    run = load_run(directory)
    return run if run.processing_key == key else None


def create_run(
    launch: Launch,
    manifest: StoredObject,
    downloaded: Path | None,
    taken: Container[str],
    unread: str = "",
) -> Run:
    """Create the run directory of a manifest.

    Args:
        manifest: the object in the input bucket.
        downloaded: file with its content, which moves into the run directory; None if
            it was not downloaded.
        taken: keys that exist, so that the run must not use them.
        unread: why the manifest was not downloaded.
    """
    moment = datetime.now(UTC)
    while True:
        timestamp = moment.strftime(TIMESTAMP)
        run = Run(
            directory=launch.directory / f"{RUN_DIRECTORY_PREFIX}{timestamp}",
            launch=launch.home.name,
            manifest_key=manifest.key,
            etag=manifest.etag,
            modified=manifest.modified.isoformat(),
            timestamp=timestamp,
            token=secrets.token_hex(16),
            unread=unread,
        )
        names = (
            *(run.processing_key, run.processed_key),
            *(run.failed_key, run.unreadable_key),
        )
        if not any(name in taken for name in names) and _created(run.directory):
            break
        # No two runs share a second.
        moment += timedelta(seconds=1)
    try:
        if downloaded:
            downloaded.replace(run.manifest_file)
        save_launch(launch, run.launch_file)
        make_folders_of_nodes(run)
        write_atomically(run.directory / _RUN_FILE, as_json(run, indent=2))
    except OSError:
        # The disk may be full. The next poll starts again, once there is room.
        shutil.rmtree(run.directory)
        raise
    return run


def _created(directory: Path) -> bool:
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        return False
    return True


def make_folders_of_nodes(run: Run) -> None:
    """Create the folders for the nodes' files, unless they exist."""
    for folder in (run.sandbox_directory, run.results_directory, run.logs_directory):
        folder.mkdir(mode=0o700, exist_ok=True)


def record_move(run: Run) -> Run:
    """Record where the directory of a run is now, and return the run."""
    moved = replace(run, moved_from=None)
    write_atomically(run.directory / _RUN_FILE, as_json(moved, indent=2))
    return moved


def discard_run(run: Run) -> None:
    """Remove the directory of a run that never claimed its manifest."""
    # Without this file, what is left after a crash is not taken for a run.
    (run.directory / _RUN_FILE).unlink()
    shutil.rmtree(run.directory)


def load_run(directory: Path) -> Run:
    """Return the run of a directory.

    Raises:
        OthersCanChange: the directory is not the operator's alone.
        PipelineError: it is not a run directory.
    """
    check_nobody_else_wrote(directory)
    file = directory / _RUN_FILE
    try:
        saved = json.loads(file.read_text())
        named = Path(saved["directory"])
        former = moved_from(file, named)
        place = directory.absolute() if former else named
        return from_record(Run, saved, directory=place, moved_from=former)
    except UNREADABLE as error:
        raise PipelineError(
            f"{file} cannot be read ({type(error).__name__}: {error}): name a "
            f"directory {RUN_DIRECTORY_PREFIX}…"
        ) from error


def settings_of(run: Run) -> Launch:
    """Return the settings with which a run began, with the store of its launch.

    The endpoint and the key files always come from the launch, not from the run's own
    directory, unless the folder of the launch was removed.

    Raises:
        PipelineError: the settings cannot be read, or belong to another launch.
    """
    run_settings = load_launch(run.launch_file)
    launch = settings_file(run.home)
    if not launch.exists():
        return run_settings
    launched = load_launch(launch)
    if run_settings.identity != launched.identity:
        raise PipelineError(
            f"{run.directory.name} says that it belongs to {run.launch}, but has "
            "another endpoint, bucket or pattern: remove it if you did not make it"
        )
    return replace(run_settings, store=launched.store)


def all_runs(launch: Launch) -> tuple[list[Run], list[PipelineError]]:
    """Return the runs of a launch, and the errors of unreadable run directories.

    The oldest run comes first. An unreadable run directory may belong to any launch
    of the directory.
    """
    runs: list[Run] = []
    unreadable: list[PipelineError] = []
    pattern = f"{RUN_DIRECTORY_PREFIX}*/{_RUN_FILE}"
    for file in sorted(launch.directory.glob(pattern)):
        try:
            run = load_run(file.parent)
        except PipelineError as error:
            unreadable.append(error)
            continue
        if run.launch == launch.home.name:
            runs.append(run)
    return runs, unreadable


@contextmanager
def locked(directory: Path, lock_name: str = "lock") -> Iterator[None]:
    """Hold the lock of a directory; wait while another process holds it."""
    with (directory / lock_name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def try_locked(directory: Path) -> Iterator[bool]:
    """Hold the lock of a directory if it is free; give whether it was."""
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def count_attempt(run: Run) -> int:
    """Count one more attempt at reconciling, and return its number, from 1."""
    file = run.attempts_file
    attempt = int(file.read_text()) + 1 if file.exists() else 1
    write_atomically(file, str(attempt))
    return attempt
