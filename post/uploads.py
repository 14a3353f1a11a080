"""Put COGs together that arrived in parts."""

from collections.abc import Collection, Mapping

from bucket import Bucket, Refused, StoredPart, UploadMissing
from dag import uploads
from dag.pipeline import Pipeline
from dag.run import Run
from dag.uploads import Upload
from post.results import NodeResult


def complete(
    run: Run,
    pipeline: Pipeline,
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
    outputs = pipeline.outputs()
    reasons = {}
    for number, upload in uploads.recorded(run).items():
        result = told.get(number)
        if result and result.parts:
            well = number in ended_well
            if why := _complete(outputs, upload, result.parts, well):
                reasons[number] = why
    return reasons


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
    upload: Upload,
    parts: Collection[tuple[int, str]],
    ended_well: bool,
) -> str | None:
    """Put an object together; returns why it cannot be."""
    try:
        there = outputs.parts(upload.key, upload.id)
        wrong = what_is_wrong(parts, there, ended_well)
        if wrong is None:
            etags = [there[number].etag for number in range(1, len(parts) + 1)]
            outputs.complete_upload(upload.key, upload.id, etags)
    except UploadMissing:
        return None
    except Refused as error:
        return f"its COG could not be put together of its parts: {error}"
    return wrong
