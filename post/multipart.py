"""Complete the multipart uploads of COGs whose parts have arrived."""

from collections.abc import Collection, Mapping

from bucket import Bucket, BucketMissing, PermanentS3Error, UploadedPart, UploadMissing
from state import multipart as state_multipart
from state.launch import Launch
from state.multipart import Upload
from state.results import NodeResult
from state.run import Run


def complete(
    run: Run,
    launch: Launch,
    results: Mapping[int, NodeResult],
    ended_well: Collection[int],
) -> dict[int, str]:
    """Complete the multipart upload of each COG whose parts have all arrived.

    This can be repeated after a crash at any step, with the same outcome.

    Args:
        results: the nodes' results, by line number of their row.
        ended_well: line numbers of the rows whose last job ended well.

    Returns:
        Why a COG's upload could not be completed, by line number. An upload that is
        gone is not such a reason: it may have been completed before a crash, and the
        object in the bucket shows whether it was.

    Raises:
        BucketError: try again later.
    """
    outputs = launch.outputs()
    faults = {}
    for line, upload in state_multipart.recorded(run).items():
        result = results.get(line)
        if result and result.parts:
            fault = _complete(outputs, upload, result.parts, line in ended_well)
            if fault:
                faults[line] = fault
    return faults


def parts_fault(
    expected: Collection[tuple[int, str]],
    uploaded: Collection[UploadedPart | None],
    ended_well: bool,
) -> str | None:
    """Return why the uploaded parts are not those of a node's COG; None if they are.

    Args:
        expected: size in bytes and MD5 of each part of the COG.
        uploaded: the part that was uploaded for each of them; None if there is none.
        ended_well: whether the node's last job sent all its files. If it did not,
            parts of several tries may have been uploaded.
    """
    pairs = list(zip(expected, uploaded, strict=True))
    # The ETags of a store that encrypts are not MD5s, for none of the parts.
    any_same = any(part and part.etag == md5 for (_, md5), part in pairs)
    etags_are_md5s = any_same or not ended_well
    for number, ((size, md5), part) in enumerate(pairs, start=1):
        name = f"part {number} of the {len(pairs)} of its COG"
        if part is None:
            return f"{name} is not in the output bucket"
        if part.size != size:
            return (
                f"{name} has {part.size} bytes in the output bucket, "
                f"but its node made {size}"
            )
        if etags_are_md5s and part.etag != md5:
            return f"{name} in the output bucket is not the object that its node wrote"
    return None


def _complete(
    outputs: Bucket,
    upload: Upload,
    expected: Collection[tuple[int, str]],
    ended_well: bool,
) -> str | None:
    """Complete an upload; return why it cannot be completed."""
    try:
        listed = outputs.list_parts(upload.key, upload.id)
        parts = _parts_to_join(expected, listed)
        fault = parts_fault(expected, parts, ended_well)
        if fault is None:
            etags = [part.etag for part in parts if part]
            outputs.complete_multipart_upload(upload.key, upload.id, etags)
    except (BucketMissing, UploadMissing):
        return None
    except PermanentS3Error as error:
        return f"the multipart upload of its COG could not be completed: {error}"
    return fault


def _parts_to_join(
    expected: Collection[tuple[int, str]], uploaded: Collection[UploadedPart]
) -> list[UploadedPart | None]:
    """Return the uploaded part for each part of a COG; None where none arrived.

    Some stores list several parts of one number. One whose ETag is the MD5 of the
    node's part is preferred.
    """
    best: dict[int, UploadedPart] = {part.number: part for part in uploaded}
    md5s = dict(enumerate((md5 for _, md5 in expected), start=1))
    best |= {
        part.number: part for part in uploaded if md5s.get(part.number) == part.etag
    }
    return [best.get(number) for number in md5s]
