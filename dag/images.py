"""Find the images of a manifest's rows in the bucket."""

import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from bucket import Bucket, StoredObject
from dag.manifest import TIFF_SUFFIXES
from node import sidecars
from state.keys import MAX_NAME, key_stem, sandbox_name
from state.rows import Manifest, Refusal, Row

# What tells of an image and stands beside it: GDAL's names, which follow the whole
# name of the image, and world files, which follow its stem.
_AFTER_NAME = (".aux.xml", ".msk", ".ovr")
_AFTER_STEM = (".tfw", ".TFW", ".tifw", ".wld")
_SUFFIXES_AS_WRITTEN = tuple(
    "".join(letters)
    for suffix in TIFF_SUFFIXES
    for letters in itertools.product(*({c.lower(), c.upper()} for c in suffix))
)


def candidate_keys(row: Row, bucket: str) -> tuple[str, ...]:
    """The keys that a row's image can have, the likelier first."""
    written = row.key
    without_bucket = written.removeprefix(f"{bucket}/")
    return tuple(dict.fromkeys((without_bucket, written)))


def sidecar_keys(key: str) -> tuple[str, ...]:
    """Where what tells of an image may stand."""
    return (
        *(key + suffix for suffix in _AFTER_NAME),
        *(key_stem(key) + suffix for suffix in _AFTER_STEM),
    )


def look_up(
    manifest: Manifest, inputs: Bucket, listed_anyway: str
) -> Iterator[StoredObject]:
    """What is stored of the images that rows can mean, and of what tells of them.

    Args:
        listed_anyway: all that is stored under this prefix is told of as well.
    """
    yield from inputs.list(listed_anyway)
    candidates = [candidate_keys(row, inputs.name) for row in manifest.convertible]
    likely = {keys[0] for keys in candidates}
    unlikely = {keys[-1] for keys in candidates} - likely
    # Apart, since keys with and without the bucket's name share no prefix.
    for keys in (likely, unlikely):
        others = {key for key in keys if not key_stem(key).startswith(listed_anyway)}
        yield from inputs.find_objects(others, sidecar_keys)


def resolve(
    manifest: Manifest, bucket: str, stored: Iterable[StoredObject]
) -> Manifest:
    """Find every row's image in the bucket.

    Rows are failed whose image is not there, or whose COG or JPEG would have
    the name of an earlier row's.

    Args:
        stored: at least every object that a row can mean, in any order.
    """
    wanted = {
        key for row in manifest.convertible for key in candidate_keys(row, bucket)
    }
    sizes: dict[str, int] = {}
    # By the image's key: the sizes of the files beside it, by theirs.
    beside: dict[str, dict[str, int]] = {}
    for found in stored:
        if found.key in wanted:
            sizes[found.key] = found.size
        for image in _images_it_may_tell_of(found.key):
            if image in wanted:
                beside.setdefault(image, {})[found.key] = found.size
    taken: dict[str, Row] = {}
    rows = []
    for row in manifest.rows:
        if row.reason is None:
            row = _find(row, bucket, sizes, beside)
        if row.reason is None:
            row = _reserve_outputs(row, taken)
        rows.append(row)
    return replace(manifest, rows=tuple(rows))


def _images_it_may_tell_of(key: str) -> Iterator[str]:
    if not key.endswith(_AFTER_NAME + _AFTER_STEM):
        return
    for suffix in _AFTER_NAME:
        if key.endswith(suffix):
            yield key.removesuffix(suffix)
    for suffix in _AFTER_STEM:
        if key.endswith(suffix):
            stem = key.removesuffix(suffix)
            yield from (stem + written for written in _SUFFIXES_AS_WRITTEN)


def _find(
    row: Row,
    bucket: str,
    sizes: dict[str, int],
    beside: dict[str, dict[str, int]],
) -> Row:
    for key in candidate_keys(row, bucket):
        if key in sizes:
            others = _that_fit(key, beside.get(key, {}))
            for other in others:
                name = other.rpartition("/")[2]
                if fault := sidecars.fault(name, beside[key][other]):
                    return row.failed(Refusal.BAD_SIDECAR, fault)
            size = sizes[key] + sum(beside[key][other] for other in others)
            return replace(row, key=key, size=size, sidecars=others)
    return row.failed(
        Refusal.NOT_FOUND, f"not in the bucket {bucket}: upload it, or correct its name"
    )


def _that_fit(key: str, others: Collection[str]) -> tuple[str, ...]:
    if not others:
        return ()
    return tuple(
        other
        for other in sidecar_keys(key)
        if other in others and len(sandbox_name(other)) <= MAX_NAME
    )


def _reserve_outputs(row: Row, taken: dict[str, Row]) -> Row:
    """Fail a row whose outputs would have the names of those of an earlier one."""
    earlier = taken.setdefault(key_stem(row.key), row)
    if earlier is row:
        return row
    if earlier.key == row.key:
        return row.failed(
            Refusal.DUPLICATE, f"twice in the manifest: line {earlier.line} is the same"
        )
    return row.failed(
        Refusal.OUTPUT_COLLISION,
        f"its JPEG would replace that of line {earlier.line}: rename one image",
    )
