"""Find images of a run that look the same, for the curators of the archive."""

from collections.abc import Iterator, Mapping
from itertools import pairwise

from state.results import NodeResult


def same_pictures(results: Mapping[int, NodeResult]) -> Iterator[tuple[int, int]]:
    """Yield the line of a row, and that of a later row whose JPEG is the same file.

    Args:
        results: the nodes' results, by the line of their row.
    """
    # A number a row, not a text: there may be a million.
    successes = (result.success for result in results.values())
    known = sorted(_number(success) for success in successes if success)
    repeated = {one for one, other in pairwise(known) if one == other}
    first: dict[int, int] = {}
    for line in sorted(results):
        success = results[line].success
        if success and (number := _number(success)) in repeated:
            if number in first:
                yield first[number], line
            first.setdefault(number, line)


def _number(success: NodeResult) -> int:
    """Return 64 bits of the MD5 of a row's JPEG."""
    return int(success.jpeg[1][:16], 16)
