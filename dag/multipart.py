"""Uploads in parts, for COGs that one PUT cannot take.

AWS and Ceph end one PUT at 5 GiB. For each image that could become a larger COG an
upload in parts is begun when the DAG is written, and its node gets a presigned URL
for each part that it could need: the shadow cannot sign those. Whether parts come is
for the node to see. In the end post/uploads.py completes the upload or aborts it.
"""

import os
from collections.abc import Sequence

from bucket import Bucket
from node.parts import Limits, part_name
from state.files import write_atomically
from state.journal import Journal
from state.launch import Launch
from state.multipart import Upload, record_line, recorded, reported_if_refused
from state.rows import Row
from state.run import Run

# How many times larger than its image a COG can be: an image that lost much as a
# JPEG, stored without loss, with its overviews.
_GROWTH = 16
# One listing tells of so many parts; S3 takes ten times as many.
_MOST_PARTS = 1000
# Each part's URL stands in the DAG file and in the job, so images have no more of
# them than this unless larger parts would not do.
_FEW_PARTS = 64


def limits(row: Row, largest: int) -> Limits:
    """What a row's node may send back; ``largest`` is that of one PUT, in bytes."""
    expected = _GROWTH * row.size
    if expected <= largest:
        return Limits(largest)
    # Smaller than they could be: what fails is sent again, and is copied before.
    part = min(max(largest // 4, -(-expected // _FEW_PARTS)), largest)
    return Limits(largest, min(-(-expected // part), _MOST_PARTS), part)


def open_all(
    run: Run, launch: Launch, rows: Sequence[Row], journal: Journal
) -> dict[int, Upload]:
    """Begin an upload for each row that may need one; by the rows' numbers.

    Can be repeated after a crash: what was begun is recorded in the run directory,
    and what the crash kept from being recorded is looked for and aborted.
    """
    large = [row for row in rows if limits(row, launch.max_put).most_parts]
    if not large:
        return {}
    outputs = launch.outputs()
    begun = recorded(run)
    waiting = [
        (row.line, launch.output_prefix + row.key)
        for row in large
        if row.line not in begun
    ]
    if run.uploads_file.exists() and waiting:
        _abort_lost(run, launch, outputs, waiting[0][1], journal)
    # Without the line that a crash may have cut off.
    write_atomically(run.uploads_file, "".join(map(record_line, begun.values())))
    for number, key in waiting:
        begun[number] = Upload(
            number, key, outputs.start_multipart_upload(key, "image/tiff")
        )
        with run.uploads_file.open("a") as file:
            file.write(record_line(begun[number]))
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


def _abort_lost(
    run: Run, launch: Launch, outputs: Bucket, key: str, journal: Journal
) -> None:
    """Abort an upload that was begun, but not recorded.

    Uploads are begun one after the other: only the first row without a record, that
    of this key, can have one. No other run converts its image at the same time; an
    upload that is older than the run is somebody else's.
    """
    claimed = launch.inputs().stat(run.processing_key).modified
    with reported_if_refused(outputs, key, journal):
        for found in outputs.open_uploads(key):
            if found.begun >= claimed:
                outputs.abort_multipart_upload(key, found.id)
