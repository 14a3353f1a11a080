"""Find what ended runs have left, and remove what is safe to remove.

Nothing is removed whose owner is not certain. A claim, an upload or an object that
somebody else may need is only listed.
"""

import fnmatch
import os
import re
import subprocess
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from bucket import Bucket, BucketMissing, ObjectMissing, StoredObject
from condor import queue
from node import sidecars
from state import multipart
from state.catalog import is_pending
from state.errors import PipelineError
from state.files import check_nobody_else_wrote
from state.keys import CATALOG_FOLDER, MOSAICS_FOLDER, TIFF_SUFFIXES
from state.launch import Launch
from state.run import (
    CLAIM_SUFFIX,
    RUN_DIRECTORY_PREFIX,
    Run,
    is_processing,
    load_run,
    run_with_processing_key,
    settings_of,
    timestamp_of,
    try_locked,
)

# A directory that is being removed. No other command takes it for a run.
_REMOVED_PREFIX = f"removed-{RUN_DIRECTORY_PREFIX}"
_REMOVED = re.compile(rf"{_REMOVED_PREFIX}\d{{8}}T\d{{6}}Z", re.ASCII)
_SIDECARS = (".aux.xml", ".msk", ".ovr", *sidecars.WORLD_FILES)
_OF_CATALOG = (CATALOG_FOLDER, MOSAICS_FOLDER)
_OUTPUTS = (*TIFF_SUFFIXES, ".jpg")
# macOS writes such files beside others.
_APPLE_DOUBLE = "._"


class Kind(StrEnum):
    """The kind of a leftover."""

    RUN_DIRECTORY = "run-directory"
    MULTIPART_UPLOAD = "multipart-upload"
    CLAIM = "claim"
    UNKNOWN_OBJECT = "unknown-object"


@dataclass(frozen=True)
class Leftover:
    """Something that is left.

    Attributes:
        kind: what it is.
        name: name of a directory; bucket and key of anything else.
        modified: when it was last changed, or an upload was started.
        reason: why it is left, or why it is kept, as a sentence for people.
        bytes: size in bytes; None if it is not known.
        remove: function that removes it and returns whether it did; None if it is only
            listed.
    """

    kind: Kind
    name: str
    modified: datetime
    reason: str
    bytes: int | None = None
    remove: Callable[[], bool] | None = field(default=None, repr=False, compare=False)


def leftovers(
    directory: Path, launches: Collection[Launch], before: datetime
) -> Iterator[Leftover]:
    """Yield what is left from before a time.

    Args:
        directory: where the launches were made and the run directories are.
        launches: the launches; their buckets are searched.

    Raises:
        BucketError: a store does not answer, or refuses.
        SchedulerError: HTCondor does not answer.
    """
    runs, unreadable = _runs(directory)
    # First the uploads, because the directories of their runs say whose they are.
    for outputs, prefix in _output_places(launches):
        for upload in _uploads(outputs, prefix, runs):
            if upload.modified < before:
                yield upload
    for run in runs:
        if left := _run_directory(run, before):
            yield left
    yield from (left for left in unreadable if left.modified < before)
    for folder in sorted(directory.glob(f"{_REMOVED_PREFIX}*")):
        if _REMOVED.fullmatch(folder.name):
            yield _half_removed(folder)
    for place in _places(launches):
        for left in place.leftovers():
            if left.modified < before:
                yield left


def _runs(directory: Path) -> tuple[list[Run], list[Leftover]]:
    """Return the runs of a directory, and the run directories that cannot be read."""
    runs: list[Run] = []
    unreadable: list[Leftover] = []
    for folder in sorted(directory.glob(f"{RUN_DIRECTORY_PREFIX}*")):
        try:
            runs.append(load_run(folder))
        except PipelineError as error:
            facts = (Kind.RUN_DIRECTORY, folder.name, _modified(folder))
            unreadable.append(Leftover(*facts, f"it is kept: {error}"))
    return runs, unreadable


def _run_directory(run: Run, before: datetime) -> Leftover | None:
    """Return the directory of a run that ended before a time, unless it has jobs."""
    if not run.done or _modified(run.done_file) >= before or _is_in_queue(run):
        return None
    try:
        fault = _csv_fault(run)
        if not fault and is_pending(run, settings_of(run)):
            fault = "it is kept, because its images are not in the catalog yet"
    except PipelineError as error:
        fault = f"it is kept: {error}"
    return Leftover(
        Kind.RUN_DIRECTORY,
        run.directory.name,
        _modified(run.done_file),
        fault or "it has ended, and both CSVs are in the bucket",
        _size(run.directory),
        None if fault else lambda: _remove_run(run),
    )


def _is_in_queue(run: Run) -> bool:
    directory = str(run.moved_from or run.directory)
    return (
        queue.find(queue.RUN_ATTRIBUTE, directory) is not None
        or queue.still_there(queue.NODE_ATTRIBUTE, directory) > 0
    )


def _csv_fault(run: Run) -> str | None:
    """Return why a run's directory may have the only copy of its CSVs; else None."""
    inputs = settings_of(run).inputs()
    files = {
        run.processed_key: run.processed_file,
        run.failed_key: run.failed_file,
    }
    for key, file in files.items():
        try:
            size = inputs.stat(key).size
        except (ObjectMissing, BucketMissing):
            return f"it is kept, because {inputs.name}/{key} is gone"
        if not file.exists() or file.stat().st_size != size:
            return f"it is kept, because {inputs.name}/{key} is not its {file.name}"
    return None


def _remove_run(run: Run) -> bool:
    """Remove the directory of a run that has ended, unless a process works on it."""
    gone = run.directory.with_name(f"removed-{run.directory.name}")
    try:
        with try_locked(run.directory) as is_free:
            if not (is_free and run.done):
                return False
            # In one step. What a crash leaves then is no run, and is found again.
            run.directory.rename(gone)
    except FileNotFoundError:
        # Another process was faster.
        return False
    return _remove_folder(gone)


def _half_removed(folder: Path) -> Leftover:
    return Leftover(
        Kind.RUN_DIRECTORY,
        folder.name,
        _modified(folder),
        "an earlier 'clean' began to remove it",
        _size(folder),
        lambda: _remove_folder(folder),
    )


def _remove_folder(folder: Path) -> bool:
    check_nobody_else_wrote(folder)
    # Folders may be nested more deeply than Python can remove.
    done = subprocess.run(["rm", "-rf", "--", folder], stderr=subprocess.DEVNULL)
    return done.returncode == 0


def _uploads(outputs: Bucket, prefix: str, runs: Collection[Run]) -> Iterator[Leftover]:
    """Yield the multipart uploads that no run here holds."""
    recorded = {
        upload.id: (run, upload)
        for run in runs
        for upload in multipart.recorded(run).values()
    }
    for found in outputs.multipart_uploads(prefix):
        name = f"{outputs.name}/{found.key}"
        run, upload = recorded.get(found.id, (None, None))
        if run is None or upload is None:
            reason = "no run here started it: somebody else may still need it"
            yield Leftover(Kind.MULTIPART_UPLOAD, name, found.started, reason)
        elif run.done:
            reason = f"{run.directory.name} started it and has ended"
            yield Leftover(
                *(Kind.MULTIPART_UPLOAD, name, found.started, reason),
                remove=_aborting(outputs, upload),
            )


def _aborting(outputs: Bucket, upload: multipart.Upload) -> Callable[[], bool]:
    def abort() -> bool:
        outputs.abort_multipart_upload(upload.key, upload.id)
        return True

    return abort


@dataclass
class _Place:
    """A bucket, and the launches that read from it and write into it."""

    bucket: Bucket
    inputs: list[Launch] = field(default_factory=list)
    outputs: list[Launch] = field(default_factory=list)

    def leftovers(self) -> Iterator[Leftover]:
        """Yield the claims that no run here holds, and objects of unknown purpose."""
        for prefix in self._prefixes():
            for stored in self.bucket.list(prefix):
                if self._is_claim(stored.key):
                    reason = "no run here holds it: another access point may"
                    yield self._leftover(Kind.CLAIM, stored, reason)
                elif not self._is_known(stored.key):
                    reason = "it is no image, manifest, CSV, output or sidecar file"
                    yield self._leftover(Kind.UNKNOWN_OBJECT, stored, reason)

    def _prefixes(self) -> list[str]:
        if self.inputs:
            return [""]
        return _distinct(launch.output_prefix for launch in self.outputs)

    def _leftover(self, kind: Kind, stored: StoredObject, reason: str) -> Leftover:
        name = f"{self.bucket.name}/{stored.key}"
        return Leftover(kind, name, stored.modified, reason, stored.size)

    def _is_claim(self, key: str) -> bool:
        if is_processing(key):
            return not any(_holds(launch, key) for launch in self.inputs)
        return key.endswith(CLAIM_SUFFIX) and self._is_manifest(
            key.removesuffix(CLAIM_SUFFIX)
        )

    def _is_manifest(self, key: str) -> bool:
        return any(fnmatch.fnmatchcase(key, each.pattern) for each in self.inputs)

    def _is_known(self, key: str) -> bool:
        if key.rpartition("/")[2].startswith(_APPLE_DOUBLE):
            return False
        name = key.lower()
        is_input = bool(self.inputs) and (
            name.endswith(TIFF_SUFFIXES)
            or name.removesuffix(sidecars.replaced("")).endswith(_SIDECARS)
            or timestamp_of(key) is not None
            or self._is_manifest(key)
        )
        return is_input or any(
            key.startswith(each.output_prefix)
            and (
                name.endswith(_OUTPUTS)
                or key.removeprefix(each.output_prefix).startswith(_OF_CATALOG)
            )
            for each in self.outputs
        )


def _holds(launch: Launch, key: str) -> bool:
    """Return whether a run here that has not ended processes a manifest."""
    try:
        run = run_with_processing_key(launch, key)
    except PipelineError:
        # It is here, though it cannot be read.
        return True
    return run is not None and not run.done


def _places(launches: Collection[Launch]) -> Iterator[_Place]:
    places: dict[tuple[str, str], _Place] = {}
    for launch in launches:
        for name in (launch.input_bucket, launch.output_bucket):
            place = launch.store.endpoint, name
            if place not in places:
                places[place] = _Place(Bucket(launch.store, name))
        places[launch.store.endpoint, launch.input_bucket].inputs.append(launch)
        places[launch.store.endpoint, launch.output_bucket].outputs.append(launch)
    yield from places.values()


def _output_places(launches: Collection[Launch]) -> Iterator[tuple[Bucket, str]]:
    """Yield each output bucket with the prefixes under which outputs are."""
    for place in _places(launches):
        for prefix in _distinct(launch.output_prefix for launch in place.outputs):
            yield place.bucket, prefix


def _distinct(prefixes: Iterator[str]) -> list[str]:
    """Return prefixes without those that begin with another one.

    >>> _distinct(iter(["b/", "a/", "a/x/", "a/"]))
    ['a/', 'b/']
    """
    distinct: list[str] = []
    for prefix in sorted(prefixes):
        if not (distinct and prefix.startswith(distinct[-1])):
            distinct.append(prefix)
    return distinct


def _modified(path: Path) -> datetime:
    return datetime.fromtimestamp(path.lstat().st_mtime, UTC)


def _size(folder: Path) -> int:
    """Return the bytes of all files of a folder; links are not followed."""
    return sum(
        (Path(place) / name).lstat().st_size
        for place, _, names in os.walk(folder)
        for name in names
    )
