"""A run: one claimed manifest, its directory and what the directory tells.

The files of a run directory are its whole state; each appears at once and whole:

==================  =======================================================
``run.json``        the run exists: which manifest, under which names
``claimed.json``    the manifest is this run's: it may be renamed
``manifest.csv``    the manifest as it was uploaded, unless it could not be read
``waiting.json``    which run has its images, and ends before this one's DAG begins
``launch.json``     the settings of the launch
``rows.jsonl``      its rows, read and checked; the first line is the header
``uploads.jsonl``   the uploads in parts that were begun for large images
``convert.dag``     the DAG, with a node for each row that can be converted, or for
                    each few of them
``solo.json``       which rows shared a node that failed as a whole: a second DAG,
                    ``retry-solo.dag``, has a node for each of them
``reconcile.sh``    what a DAG's FINAL node runs, and reconcile.log what that said
``submitted.json``  the last DAG is in HTCondor's queue: its name and job id
``sandbox/``        what nodes leave that nobody named; nothing is read from it
``results/``        what each node told, a file each until the next poll
``results.jsonl``   the same, gathered; of several lines of a row the last counts
``thumbnails.bin``  the thumbnails of the gathered results, one after the other
``logs/``           what each node printed; kept of those that failed
``log.jsonl``       what happened to the run, see dag/journal.py
``lock``            held by who ends the run
``attempts``        how often reconciling was tried
``processed.csv``   the two CSVs, as they are put into the bucket
``failed.csv``
``outcome.json``    both are written: which row goes where is decided for good
``done.json``       both CSVs are in the bucket and the manifest is gone
==================  =======================================================
"""

import fcntl
import json
import re
import secrets
import shutil
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bucket import StoredObject
from state.errors import PipelineError
from state.files import check_nobody_else_wrote, write_atomically
from state.launch import UNREADABLE, Launch, load_launch, save_launch, settings_file
from state.records import as_json, from_record

RUN_DIRECTORY_PREFIX = "workflow-run-"
_RUN_FILE = "run.json"
TIMESTAMP = "%Y%m%dT%H%M%SZ"
_RAW = re.compile(r"raw$", re.IGNORECASE)
_OURS = re.compile(
    r"(processing|processed|failed|unreadable)-(\d{8}T\d{6}Z)\.csv$", re.ASCII
)
_PROCESSING = re.compile(r"processing-(\d{8}T\d{6}Z)\.csv$", re.ASCII)
_DAG = "convert.dag"
# Of the rows that no longer share a node.
_DAG_SOLO = "retry-solo.dag"
# Runs of before version 0.1 have these files under these names.
_FORMER_DAG_SOLO = "apart.dag"
_FORMER_SOLO_FILE = "apart.json"


@dataclass(frozen=True)
class Run:
    """One claimed manifest.

    Attributes:
        directory: the run directory, absolute.
        launch: the name of the launch that began it.
        manifest_key: what the manifest was called when it was found.
        etag: of the manifest when it was read.
        modified: when that was uploaded, in ISO 8601; with the etag it tells this
            upload from every other under the same name.
        timestamp: UTC, as in ``20261120T193637Z``; part of all its names.
        token: what its claim is known by.
        unread: why its manifest was not downloaded; empty when it was.
    """

    directory: Path
    launch: str
    manifest_key: str
    etag: str
    modified: str
    timestamp: str
    token: str
    unread: str = ""

    @property
    def home(self) -> Path:
        """The folder of its launch's own files."""
        return self.directory.parent / Path(self.launch).name

    @property
    def began(self) -> datetime:
        return datetime.strptime(self.timestamp, TIMESTAMP).replace(tzinfo=UTC)

    @property
    def processing_key(self) -> str:
        return self._sibling("processing")

    @property
    def processed_key(self) -> str:
        return self._sibling("processed")

    @property
    def failed_key(self) -> str:
        return self._sibling("failed")

    @property
    def unreadable_key(self) -> str:
        """Where a manifest stays that cannot be read."""
        return self._sibling("unreadable")

    def _sibling(self, state: str) -> str:
        return sibling_key(self.manifest_key, state, self.timestamp)

    @property
    def launch_file(self) -> Path:
        """The launch's settings when the run began; a later launch may differ."""
        return settings_file(self.directory)

    @property
    def manifest_file(self) -> Path:
        return self.directory / "manifest.csv"

    @property
    def waiting_file(self) -> Path:
        return self.directory / "waiting.json"

    @property
    def claimed_file(self) -> Path:
        return self.directory / "claimed.json"

    @property
    def rows_file(self) -> Path:
        return self.directory / "rows.jsonl"

    @property
    def uploads_file(self) -> Path:
        return self.directory / "uploads.jsonl"

    @property
    def solo_file(self) -> Path:
        """Which rows no longer share a node."""
        former = self.directory / _FORMER_SOLO_FILE
        return former if former.exists() else self.directory / "solo.json"

    @property
    def dag_file(self) -> Path:
        """The DAG that is to be submitted, or was last."""
        return self.directory / (self._solo_dag if self.solo_file.exists() else _DAG)

    @property
    def _solo_dag(self) -> str:
        is_former = self.solo_file.name == _FORMER_SOLO_FILE
        return _FORMER_DAG_SOLO if is_former else _DAG_SOLO

    @property
    def node_log(self) -> Path:
        """Where DAGMan keeps the events of all nodes' jobs."""
        return self._beside_dag("nodes.log")

    @property
    def node_logs(self) -> tuple[Path, ...]:
        """Those of both DAGs, in their order; some may not be there."""
        dags = (_DAG, self._solo_dag)
        return tuple(self.directory / f"{dag}.nodes.log" for dag in dags)

    @property
    def dagman_log(self) -> Path:
        """What DAGMan says of itself, from its start on."""
        return self._beside_dag("dagman.out")

    @property
    def dagman_job_log(self) -> Path:
        """The events of DAGMan's own job."""
        return self._beside_dag("dagman.log")

    def _beside_dag(self, suffix: str) -> Path:
        return self.dag_file.with_name(f"{self.dag_file.name}.{suffix}")

    @property
    def submitted_file(self) -> Path:
        return self.directory / "submitted.json"

    @property
    def attempts_file(self) -> Path:
        return self.directory / "attempts"

    @property
    def sandbox_directory(self) -> Path:
        """Where HTCondor puts what a node leaves beyond what it is asked for."""
        return self.directory / "sandbox"

    @property
    def results_directory(self) -> Path:
        return self.directory / "results"

    @property
    def logs_directory(self) -> Path:
        return self.directory / "logs"

    @property
    def processed_file(self) -> Path:
        return self.directory / "processed.csv"

    @property
    def failed_file(self) -> Path:
        return self.directory / "failed.csv"

    @property
    def outcome_file(self) -> Path:
        return self.directory / "outcome.json"

    @property
    def thumbnails_file(self) -> Path:
        return self.directory / "thumbnails.bin"

    @property
    def results_file(self) -> Path:
        return self.directory / "results.jsonl"

    @property
    def done_file(self) -> Path:
        return self.directory / "done.json"

    @property
    def done(self) -> bool:
        return self.done_file.exists()

    @property
    def cluster(self) -> int | None:
        """The cluster of the DAGMan job of its DAG, once that was submitted."""
        if not self.submitted_file.exists():
            return None
        submitted = json.loads(self.submitted_file.read_text())
        return submitted["cluster"] if submitted["dag"] == self.dag_file.name else None

    @property
    def has_begun(self) -> bool:
        """Whether its DAG was submitted, as far as its directory tells."""
        return self.cluster is not None or self.dagman_log.exists()


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
    """Return the timestamp of an object that the pipeline made of a manifest.

    Of all other objects it returns None.
    """
    found = _OURS.search(key)
    return found and found[2]


def timestamp_now() -> str:
    """Return the timestamp of a run that begins now."""
    return datetime.now(UTC).strftime(TIMESTAMP)


def is_processing(key: str) -> bool:
    """Whether an object is a manifest that a run has claimed."""
    return _PROCESSING.search(key) is not None


def run_with_processing_key(launch: Launch, key: str) -> Run | None:
    """Return the run of this directory that has an object of this name, if any."""
    if not (found := _PROCESSING.search(key)):
        return None
    directory = launch.directory / f"{RUN_DIRECTORY_PREFIX}{found[1]}"
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
    """Make the run directory of a manifest.

    Args:
        downloaded: the manifest, which moves into the run directory.
        taken: keys that none of the run's own may be.
        unread: why it was not downloaded.
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
        if not any(name in taken for name in names) and _made(run.directory):
            break
        # Each second is one run's alone.
        moment += timedelta(seconds=1)
    try:
        if downloaded:
            downloaded.replace(run.manifest_file)
        save_launch(launch, run.launch_file)
        make_folders_of_nodes(run)
        write_atomically(run.directory / _RUN_FILE, as_json(run, indent=2))
    except OSError:
        # A disk that is full: the next poll begins anew, and wants room for it.
        shutil.rmtree(run.directory)
        raise
    return run


def _made(directory: Path) -> bool:
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        return False
    return True


def make_folders_of_nodes(run: Run) -> None:
    """Make the folders that nodes' files arrive in; those that are there stay."""
    for folder in (run.sandbox_directory, run.results_directory, run.logs_directory):
        folder.mkdir(mode=0o700, exist_ok=True)


def discard_run(run: Run) -> None:
    """Remove the directory of a run that never claimed its manifest."""
    # First what makes it a run, so that half of it is none.
    (run.directory / _RUN_FILE).unlink()
    shutil.rmtree(run.directory)


def load_run(directory: Path) -> Run:
    """Return the run of a directory.

    Raises:
        OthersCanChange: the directory is not the operator's alone.
        PipelineError: it is no run directory.
    """
    check_nobody_else_wrote(directory)
    file = directory / _RUN_FILE
    try:
        saved = json.loads(file.read_text())
        return from_record(Run, saved, directory=Path(saved["directory"]))
    except UNREADABLE as error:
        raise PipelineError(
            f"{file} cannot be read ({type(error).__name__}: {error}): name a "
            f"directory {RUN_DIRECTORY_PREFIX}…"
        ) from error


def settings_of(run: Run) -> Launch:
    """Return the settings that a run began with, at the store of its launch.

    Its endpoint and key files are those of the launch that it belongs to, whatever
    its own directory says; unless the launch's folder was removed.

    Raises:
        PipelineError: they cannot be read, or the launch is another one.
    """
    its_own = load_launch(run.launch_file)
    launch = settings_file(run.home)
    if not launch.exists():
        return its_own
    launched = load_launch(launch)
    if its_own.identity != launched.identity:
        raise PipelineError(
            f"{run.directory.name} says that it is of the launch {run.launch}, but has "
            "another endpoint, bucket or pattern: remove it if you did not make it"
        )
    return replace(its_own, store=launched.store)


def all_runs(launch: Launch) -> tuple[list[Run], list[PipelineError]]:
    """Return every run that a launch began, the oldest first.

    Also returns why other run directories beside them cannot be read: nobody can tell
    of which launch those are.
    """
    found: list[Run] = []
    unreadable: list[PipelineError] = []
    pattern = f"{RUN_DIRECTORY_PREFIX}*/{_RUN_FILE}"
    for file in sorted(launch.directory.glob(pattern)):
        try:
            run = load_run(file.parent)
        except PipelineError as error:
            unreadable.append(error)
            continue
        if run.launch == launch.home.name:
            found.append(run)
    return found, unreadable


@contextmanager
def locked(directory: Path, lock_name: str = "lock") -> Iterator[None]:
    """Wait until no other process has this directory for itself, and have it."""
    with (directory / lock_name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def try_locked(directory: Path) -> Iterator[bool]:
    """Have this directory for oneself, unless another process has; tells which."""
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def count_attempt(run: Run) -> int:
    """Count one more attempt at reconciling; returns which one it is."""
    file = run.attempts_file
    attempt = int(file.read_text()) + 1 if file.exists() else 1
    write_atomically(file, str(attempt))
    return attempt
