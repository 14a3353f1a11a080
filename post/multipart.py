"""Put COGs together that arrived in parts."""

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
    outputs = launch.outputs()
    reasons = {}
    for number, upload in state_multipart.recorded(run).items():
        result = told.get(number)
        if result and result.parts:
            well = number in ended_well
            if why := _complete(outputs, upload, result.parts, well):
                reasons[number] = why
    return reasons


def what_is_wrong(
    made: Collection[tuple[int, str]],
    there: Collection[UploadedPart | None],
    ended_well: bool,
) -> str | None:
    """Why parts that arrived are not those that a node made; None if they are.

    Args:
        made: size in bytes and MD5 of each part that the node made.
        there: what arrived of each.
        ended_well: whether the node's last job sent all it had to. Of a node that
            was tried again, parts of several attempts may be there.
    """
    pairs = list(zip(made, there, strict=True))
    # A store that encrypts gives ETags that are no MD5s, for any of the parts.
    any_same = any(found and found.etag == md5 for (_, md5), found in pairs)
    told_by_etag = any_same or not ended_well
    for number, ((size, md5), found) in enumerate(pairs, start=1):
        part = f"part {number} of the {len(pairs)} of its COG"
        if found is None:
            return f"{part} is not in the output bucket"
        if found.size != size:
            return (
                f"{part} has {found.size} bytes in the output bucket, "
                f"but its node made {size}"
            )
        if told_by_etag and found.etag != md5:
            return f"{part} in the output bucket is not what its node made"
    return None


def _complete(
    outputs: Bucket,
    upload: Upload,
    made: Collection[tuple[int, str]],
    ended_well: bool,
) -> str | None:
    """Put an object together; returns why it cannot be."""
    try:
        there = _those_made(made, outputs.parts(upload.key, upload.id))
        wrong = what_is_wrong(made, there, ended_well)
        if wrong is None:
            etags = [part.etag for part in there]
            outputs.complete_multipart_upload(upload.key, upload.id, etags)
    except (BucketMissing, UploadMissing):
        return None
    except PermanentS3Error as error:
        return f"its COG could not be put together of its parts: {error}"
    return wrong


def _those_made(
    made: Collection[tuple[int, str]], there: Collection[UploadedPart]
) -> list[UploadedPart | None]:
    """Of each part that a node made, what arrived; rather what is the same."""
    best: dict[int, UploadedPart] = {part.number: part for part in there}
    md5s = dict(enumerate((md5 for _, md5 in made), start=1))
    best |= {part.number: part for part in there if md5s.get(part.number) == part.etag}
    return [best.get(number) for number in md5s]
