"""Put COGs together that arrived in parts."""

import hashlib
from collections.abc import Collection, Iterable, Mapping

from bucket import Bucket, Refused, StoredPart, UploadMissing
from dag import uploads
from dag.manifest import Row
from dag.pipeline import Pipeline
from dag.run import Run
from post.results import NodeResult


def complete(
    run: Run,
    pipeline: Pipeline,
    rows: Iterable[Row],
    told: Mapping[int, NodeResult],
    ended_well: Collection[int],
) -> dict[int, str]:
    """Put together each COG whose parts are all there.

    Can be repeated after a crash at any step, with the same answer.

    Args:
        ended_well: numbers of the rows whose last job ended well.

    Returns:
        Why rows' COGs could not be put together, by their numbers. That an upload
        is gone is no such reason: it may have been completed before a crash, and
        what is in the bucket tells.

    Raises:
        BucketError: try again later.
    """
    begun = uploads.recorded(run)
    outputs = pipeline.outputs() if begun else None
    reasons = {}
    for row in rows:
        result = told.get(row.number)
        if row.number in begun and result and result.parts:
            key, upload = uploads.output_key(pipeline, row), begun[row.number]
            well = row.number in ended_well
            if why := _complete(outputs, key, upload, result.parts, well):
                reasons[row.number] = why
    return reasons


def etag(parts: Collection[tuple[int, str]]) -> str:
    """The ETag that S3 gives to an object that was put together of parts."""
    md5s = b"".join(bytes.fromhex(md5) for _, md5 in parts)
    whole = hashlib.md5(md5s, usedforsecurity=False).hexdigest()
    return f"{whole}-{len(parts)}"


def what_is_wrong(
    parts: Collection[tuple[int, str]],
    there: Mapping[int, StoredPart],
    ended_well: bool,
) -> str | None:
    """Why parts that arrived are not those that a node made; None if they are.

    Args:
        parts: size in bytes and MD5 of each part that the node made.
        there: what arrived, by number.
        ended_well: whether the node's last job sent all it had to. Of a node that
            was tried again, parts of several attempts may be there.
    """
    numbered = list(enumerate(parts, start=1))
    same = [n in there and there[n].etag == md5 for n, (_, md5) in numbered]
    # A store that encrypts gives ETags that are no MD5s, for any of the parts.
    told_by_etag = any(same) or not ended_well
    for (number, (size, _)), equal in zip(numbered, same, strict=True):
        part = f"part {number} of the {len(same)} of its COG"
        if number not in there:
            return f"{part} is not in the output bucket"
        if there[number].size != size:
            return (
                f"{part} has {there[number].size} bytes in the output bucket, "
                f"but its node made {size}"
            )
        if told_by_etag and not equal:
            return f"{part} in the output bucket is not what its node made"
    return None


def _complete(
    outputs: Bucket,
    key: str,
    upload: str,
    parts: Collection[tuple[int, str]],
    ended_well: bool,
) -> str | None:
    """Put an object together; returns why it cannot be."""
    try:
        there = outputs.parts(key, upload)
        wrong = what_is_wrong(parts, there, ended_well)
        if wrong is None:
            etags = [there[number].etag for number in range(1, len(parts) + 1)]
            outputs.complete_upload(key, upload, etags)
    except UploadMissing:
        return None
    except Refused as error:
        return f"its COG could not be put together of its parts: {error}"
    return wrong
