"""Uploads in parts, for COGs that one PUT cannot take.

AWS and Ceph end one PUT at 5 GiB. For each image that could become a larger COG an
upload in parts is begun when the DAG is written, and its node gets a presigned URL
for each part that it could need: the shadow cannot sign those. Whether parts come is
for the node to see. In the end post/uploads.py completes the upload or aborts it.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from bucket import Bucket, Refused
from dag.files import write_atomically
from dag.journal import Journal
from dag.manifest import Row
from dag.pipeline import Pipeline
from dag.run import Run
from node.parts import Limits, part_name

# How many times larger than its image a COG can be: an image that lost much as a
# JPEG, stored without loss, with its overviews.
_GROWTH = 16
# One listing tells of so many parts; S3 takes ten times as many.
_MOST_PARTS = 1000
# Each part's URL stands in the DAG file and in the job, so images have no more of
# them than this unless larger parts would not do.
_FEW_PARTS = 64


@dataclass(frozen=True)
class Upload:
    """The upload in parts of one row's COG.

    Attributes:
        row: its number.
        key: of the COG.
    """

    row: int
    key: str
    id: str


def limits(row: Row, largest: int) -> Limits:
    """What a row's node may send back; ``largest`` is that of one PUT, in bytes."""
    expected = _GROWTH * row.size
    if expected <= largest:
        return Limits(largest)
    # Smaller than they could be: what fails is sent again, and is copied before.
    part = min(max(largest // 4, -(-expected // _FEW_PARTS)), largest)
    return Limits(largest, min(-(-expected // part), _MOST_PARTS), part)


def open_all(
    run: Run, pipeline: Pipeline, rows: Sequence[Row], journal: Journal
) -> dict[int, Upload]:
    """Begin an upload for each row that may need one; by the rows' numbers.

    Can be repeated after a crash: what was begun is recorded in the run directory,
    and what the crash kept from being recorded is looked for and aborted.
    """
    large = [row for row in rows if limits(row, pipeline.largest_put).most_parts]
    if not large:
        return {}
    outputs = pipeline.outputs()
    begun = recorded(run)
    waiting = [
        (row.number, pipeline.output_prefix + row.key)
        for row in large
        if row.number not in begun
    ]
    if run.uploads_file.exists() and waiting:
        _abort_lost(run, pipeline, outputs, waiting[0][1], journal)
    # Without the line that a crash may have cut off.
    write_atomically(run.uploads_file, "".join(map(_line, begun.values())))
    for number, key in waiting:
        begun[number] = Upload(number, key, outputs.begin_upload(key, "image/tiff"))
        with run.uploads_file.open("a") as file:
            file.write(_line(begun[number]))
            file.flush()
            os.fsync(file.fileno())
    return begun


def part_urls(
    outputs: Bucket, upload: Upload, count: int, seconds: int
) -> dict[str, str]:
    """Return where the parts that a node may leave go, by the names of the files."""
    write_part = outputs.url_to_write_part
    return {
        part_name(number): write_part(upload.key, upload.id, number, seconds)
        for number in range(1, count + 1)
    }


def recorded(run: Run) -> dict[int, Upload]:
    """The uploads that a run began, by their rows' numbers."""
    if not run.uploads_file.exists():
        return {}
    lines = run.uploads_file.read_text().splitlines(keepends=True)
    begun = [Upload(**json.loads(line)) for line in lines if line.endswith("\n")]
    return {upload.row: upload for upload in begun}


def abort_all(run: Run, pipeline: Pipeline, journal: Journal) -> None:
    """Abort the uploads that a run began; those that are complete stay so."""
    outputs = pipeline.outputs()
    for upload in recorded(run).values():
        with _said_if_refused(outputs, upload.key, journal):
            outputs.abort_upload(upload.key, upload.id)


def _line(upload: Upload) -> str:
    return json.dumps(asdict(upload)) + "\n"


def _abort_lost(
    run: Run, pipeline: Pipeline, outputs: Bucket, key: str, journal: Journal
) -> None:
    """Abort an upload that was begun, but not recorded.

    Uploads are begun one after the other: only the first row without a record, that
    of this key, can have one. No other run converts its image at the same time; an
    upload that is older than the run is somebody else's.
    """
    claimed = pipeline.inputs().stat(run.processing_key).modified
    with _said_if_refused(outputs, key, journal):
        for found in outputs.open_uploads(key):
            if found.begun >= claimed:
                outputs.abort_upload(key, found.id)


@contextmanager
def _said_if_refused(outputs: Bucket, key: str, journal: Journal) -> Iterator[None]:
    """Let a store that will never remove parts not keep a run from going on."""
    try:
        yield
    except Refused as error:
        sentence = f"parts of {key} may be left in {outputs.name}: {error}"
        journal.say("parts-left", sentence, "warning")
