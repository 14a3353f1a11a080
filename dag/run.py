"""A run: one claimed manifest, its directory and what the directory tells.

The files of a run directory are its whole state; each appears at once and whole:

==================  =======================================================
``run.json``        the run exists: which manifest, under which names
``manifest.csv``    the manifest as it was uploaded
``rows.jsonl``      its rows, read and checked; the first line is the header
``convert.dag``     the DAG, with one node for each row that can be converted
``submitted.json``  the DAG is in HTCondor's queue: its job id
``results/``        what each node told, a file each while the run lasts
``results.jsonl``   all of them, in one file, when it is over
``done.json``       both CSVs are in the bucket and the manifest is gone
==================  =======================================================
"""

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from dag.files import write_atomically
from dag.manifest import Manifest, Row
from dag.pipeline import Pipeline

RUN_DIRECTORY_PREFIX = "workflow-run-"
_RAW = re.compile(r"raw$", re.IGNORECASE)
_OURS = re.compile(r"(processing|processed|failed)-\d{8}T\d{6}Z\.csv$")


@dataclass(frozen=True)
class Run:
    """One claimed manifest.

    Attributes:
        directory: the run directory, absolute.
        pipeline_file: of the launch that began it.
        manifest_key: what the manifest was called when it was found.
        etag: of the manifest when it was read.
        timestamp: UTC, as in ``20261120T193637Z``; part of all its names.
    """

    directory: Path
    pipeline_file: Path
    manifest_key: str
    etag: str
    timestamp: str

    @property
    def processing_key(self) -> str:
        return self._sibling("processing")

    @property
    def processed_key(self) -> str:
        return self._sibling("processed")

    @property
    def failed_key(self) -> str:
        return self._sibling("failed")

    def _sibling(self, state: str) -> str:
        folder, slash, name = self.manifest_key.rpartition("/")
        stem = name.rpartition(".")[0] or name
        stem = _RAW.sub(state, stem) if _RAW.search(stem) else f"{stem}-{state}"
        return f"{folder}{slash}{stem}-{self.timestamp}.csv"

    @property
    def manifest_file(self) -> Path:
        return self.directory / "manifest.csv"

    @property
    def rows_file(self) -> Path:
        return self.directory / "rows.jsonl"

    @property
    def dag_file(self) -> Path:
        return self.directory / "convert.dag"

    @property
    def node_log(self) -> Path:
        """Where DAGMan keeps the events of all nodes' jobs."""
        return self.directory / "convert.dag.nodes.log"

    @property
    def submitted_file(self) -> Path:
        return self.directory / "submitted.json"

    @property
    def results_directory(self) -> Path:
        return self.directory / "results"

    @property
    def logs_directory(self) -> Path:
        return self.directory / "logs"

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
    def job_id(self) -> int | None:
        """The cluster of the run's DAGMan job, once it was submitted."""
        if not self.submitted_file.exists():
            return None
        return json.loads(self.submitted_file.read_text())["cluster"]


def node_name(row: Row) -> str:
    """The name of a row's DAG node, and of its files in the run directory."""
    return f"row{row.number}"


def is_ours(key: str) -> bool:
    """Whether an object is one that the pipeline itself made of a manifest."""
    return _OURS.search(key) is not None


def create(pipeline: Pipeline, manifest_key: str, etag: str, content: bytes) -> Run:
    """Make the run directory of a manifest that was just read."""
    timestamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    name = RUN_DIRECTORY_PREFIX + timestamp
    place = _make_new(pipeline.directory / name)
    run = Run(place, pipeline.file, manifest_key, etag, timestamp)
    write_atomically(run.manifest_file, content)
    run.results_directory.mkdir()
    run.logs_directory.mkdir()
    saved = json.dumps(asdict(run), indent=2, default=str)
    write_atomically(place / "run.json", saved + "\n")
    return run


def _make_new(wanted: Path) -> Path:
    """Make a directory of this name, or of the next that is free."""
    for number in itertools.count(1):
        place = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            place.mkdir(mode=0o700)
        except FileExistsError:
            continue
        return place


def load(directory: Path) -> Run:
    saved = json.loads((directory / "run.json").read_text())
    paths = {name: Path(saved[name]) for name in ("directory", "pipeline_file")}
    return Run(**saved | paths)


def all_runs(pipeline: Pipeline) -> Iterator[Run]:
    """Every run that a launch began, the oldest first."""
    pattern = f"{RUN_DIRECTORY_PREFIX}*/run.json"
    for file in sorted(pipeline.directory.glob(pattern)):
        run = load(file.parent)
        if run.pipeline_file == pipeline.file:
            yield run


def save_rows(run: Run, manifest: Manifest) -> None:
    lines = [json.dumps(manifest.header)]
    lines += [json.dumps(asdict(row)) for row in manifest.rows]
    write_atomically(run.rows_file, "\n".join(lines) + "\n")


def load_rows(run: Run) -> Manifest:
    with run.rows_file.open() as file:
        header = json.loads(next(file))
        rows = tuple(_row(json.loads(line)) for line in file)
    return Manifest(rows, tuple(header) if header is not None else None)


def _row(saved: dict) -> Row:
    return Row(**saved | {"fields": tuple(saved["fields"])})


def convertible(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.reason is None]


def count_attempt(run: Run) -> int:
    """Count one more attempt at reconciling; returns which one it is."""
    file = run.directory / "attempts"
    attempt = int(file.read_text()) + 1 if file.exists() else 1
    write_atomically(file, str(attempt))
    return attempt
