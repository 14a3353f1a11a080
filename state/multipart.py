"""The record of the multipart uploads that a run started."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bucket import Bucket, PermanentS3Error
from state.journal import Journal
from state.launch import Launch
from state.records import as_json, from_record
from state.run import Run


@dataclass(frozen=True)
class Upload:
    """The multipart upload of one row's COG.

    Attributes:
        line: line number of the row.
        key: key of the COG.
        id: the upload ID that the store gave.
    """

    line: int
    key: str
    id: str


def recorded(run: Run) -> dict[int, Upload]:
    """Return the uploads that a run started, by line number of their row."""
    if not run.uploads_file.exists():
        return {}
    # A crash may have cut off the last line.
    records = run.uploads_file.read_text().splitlines(keepends=True)
    uploads = [_upload(json.loads(text)) for text in records if text.endswith("\n")]
    return {upload.line: upload for upload in uploads}


def _upload(saved: dict[str, Any]) -> Upload:
    if "row" in saved:
        # The name of the field before version 0.1.
        saved["line"] = saved.pop("row")
    return from_record(Upload, saved)


def abort_all(run: Run, launch: Launch, journal: Journal) -> None:
    """Abort the uploads that a run started; completed ones stay complete."""
    outputs = launch.outputs()
    for upload in recorded(run).values():
        with reported_if_refused(outputs, upload.key, journal):
            outputs.abort_multipart_upload(upload.key, upload.id)


def record_line(upload: Upload) -> str:
    """Return the line of ``uploads.jsonl`` that records an upload."""
    return as_json(upload)


@contextmanager
def reported_if_refused(outputs: Bucket, key: str, journal: Journal) -> Iterator[None]:
    """Report it if the store refuses for good to remove parts; the run continues."""
    try:
        yield
    except PermanentS3Error as error:
        sentence = f"parts of {key} may be left in {outputs.name}: {error}"
        journal.say("parts-left", sentence, "warning")
