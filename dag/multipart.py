"""Multipart uploads, for COGs that are too large for one PUT.

AWS and Ceph limit one PUT to 5 GiB. When the DAG is written, a multipart upload is
started for each image whose COG could be larger. Its node gets a presigned URL for each
part that it could need, because the shadow cannot sign these. The node decides whether
it uses them. In the end ``post/multipart.py`` completes the upload or aborts it.
"""

import os
from collections.abc import Sequence

from bucket import Bucket
from node.multipart import UploadLimits, part_name
from state.files import write_atomically
from state.journal import Journal
from state.launch import Launch
from state.multipart import Upload, record_line, recorded, reported_if_refused
from state.rows import Row
from state.run import Run

# A COG can be this many times larger than its image: an image that is stored as a lossy
# JPEG becomes a lossless COG with overviews.
_GROWTH = 16
# One listing returns this many parts; S3 allows ten times as many.
_MAX_PARTS = 1000
# The DAG file and the job contain the URL of each part. So images have no more parts
# than this, unless the parts would be too large.
_USUAL_MAX_PARTS = 64


def limits(row: Row, max_put: int) -> UploadLimits:
    """Return what a row's node may upload.

    Args:
        max_put: the size of the largest object that one PUT may upload, in bytes.
    """
    max_cog = _GROWTH * row.size
    if max_cog <= max_put:
        return UploadLimits(max_put)
    # Smaller parts than possible: a part that fails is sent again, and each part is
    # copied before it is sent.
    part_size = min(max(max_put // 4, -(-max_cog // _USUAL_MAX_PARTS)), max_put)
    return UploadLimits(max_put, min(-(-max_cog // part_size), _MAX_PARTS), part_size)


def may_be_needed(row: Row, launch: Launch) -> bool:
    """Return whether a row's COG may be too large for one PUT."""
    return limits(row, launch.max_put).max_parts > 0


def open_all(
    run: Run, launch: Launch, rows: Sequence[Row], journal: Journal
) -> dict[int, Upload]:
    """Start an upload for each row that may need one; return them by line number.

    Can be repeated after a crash: uploads that were started are recorded in the run
    directory, and one that a crash kept from being recorded is found and aborted.
    """
    large = [row for row in rows if may_be_needed(row, launch)]
    if not large:
        return {}
    outputs = launch.outputs()
    uploads = recorded(run)
    missing = [
        (row.line, launch.cog_key(row.key)) for row in large if row.line not in uploads
    ]
    if run.uploads_file.exists() and missing:
        _abort_unrecorded(run, launch, outputs, missing[0][1], journal)
    # This drops a line that a crash cut off.
    write_atomically(run.uploads_file, "".join(map(record_line, uploads.values())))
    for line, key in missing:
        uploads[line] = Upload(
            line, key, outputs.start_multipart_upload(key, "image/tiff")
        )
        with run.uploads_file.open("a") as file:
            file.write(record_line(uploads[line]))
            file.flush()
            os.fsync(file.fileno())
    return uploads


def part_urls(
    outputs: Bucket, upload: Upload, count: int, seconds: int
) -> dict[str, str]:
    """Return presigned URLs for the parts that a node may leave, by file name."""
    write_part = outputs.url_to_write_part
    return {
        part_name(number): write_part(upload.key, upload.id, number, seconds)
        for number in range(1, count + 1)
    }


def _abort_unrecorded(
    run: Run, launch: Launch, outputs: Bucket, key: str, journal: Journal
) -> None:
    """Abort an upload that was started, but not recorded.

    Uploads are started one after the other, so only the first row without a record,
    which has this key, can have one. No other run converts its image at the same time.
    An upload that is older than the run belongs to somebody else.
    """
    claimed = launch.inputs().stat(run.processing_key).modified
    with reported_if_refused(outputs, key, journal):
        for upload in outputs.list_multipart_uploads(key):
            if upload.started >= claimed:
                outputs.abort_multipart_upload(key, upload.id)
