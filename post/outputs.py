"""Compare the objects in the output bucket with the results of a run's nodes."""

import re
from collections.abc import Collection, Container, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from bucket import BucketMissing, ObjectMissing, StoredObject
from state.journal import Journal
from state.keys import jpeg_key
from state.launch import Launch
from state.results import NodeResult
from state.rows import load_rows
from state.run import Run

# The ETag of an object that was uploaded by one PUT and not encrypted is its MD5.
# https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
_MD5 = re.compile(r"[0-9a-f]{32}")
_END_OF_OUTPUT = re.compile(r"\.(tif|jpg)", re.IGNORECASE)
_MAX_STRANGE = 20


@dataclass(frozen=True, slots=True)
class _Output:
    """An output as the result of a node describes it; ``size`` is in bytes."""

    line: int
    size: int
    md5: str


def output_faults(
    run: Run, launch: Launch, results: Mapping[int, NodeResult], journal: Journal
) -> dict[int, str]:
    """Return what is wrong with the outputs of rows whose nodes succeeded, by line.

    HTCondor signs any output URL that begins with one of the job's URLs. So an
    execution point can write objects that no node reported: under the keys of a row
    whose node failed, or under longer keys. The journal lists these.

    Args:
        results: the nodes' results, by line number of their row.
    """
    cogs, expected = _expected_outputs(run, launch, results)
    claimed = _claim_time(run, launch)
    faults = {}
    # Rows whose outputs are new and of the right size, but have another MD5.
    replaced: dict[int, str] = {}
    same = different = 0
    strange = _StrangeOutputs(run, journal)
    for stored in _stored_outputs(launch, cogs):
        if output := expected.get(stored.key):
            expected[stored.key] = None
            is_same = stored.etag == output.md5
            same += is_same
            if fault := _fault(stored, output, claimed):
                faults[output.line] = fault
            elif _MD5.fullmatch(stored.etag) and not is_same:
                different += 1
                replaced[output.line] = (
                    f"{stored.key} in the output bucket is not the object that its "
                    "node wrote: somebody replaced it"
                )
        elif stored.modified >= claimed and is_output_key(stored.key, expected):
            strange.report(stored)
    for key, output in expected.items():
        if output:
            faults[output.line] = (
                f"its node succeeded, but {key} is not in the output bucket"
            )
    # The ETags of a store that encrypts only look like MD5s. So a difference counts
    # only if most ETags are the expected MD5s; one node alone cannot change that.
    return replaced | faults if same >= different else faults


def _expected_outputs(
    run: Run, launch: Launch, results: Mapping[int, NodeResult]
) -> tuple[list[str], dict[str, _Output | None]]:
    """Return the keys of a run's COGs, and the outputs of its nodes by their keys.

    The output is None where a row's node did not succeed.
    """
    cogs: list[str] = []
    expected: dict[str, _Output | None] = {}
    for row in load_rows(run):
        if row.reason is None:
            cog = launch.cog_key(row.key)
            cogs.append(cog)
            result = results.get(row.line)
            success = result.success if result else None
            expected[cog] = _Output(row.line, *success.cog) if success else None
            jpeg = launch.jpeg_key(row.key)
            expected[jpeg] = _Output(row.line, *success.jpeg) if success else None
    return cogs, expected


def is_output_key(key: str, outputs: Container[str]) -> bool:
    """Return whether a key is one of the outputs' keys, or begins with one.

    >>> is_output_key("a.tif.aux.xml", {"a.tif"})
    True
    >>> is_output_key("a.tiff", {"b.tif"})
    False
    """
    ends = (match.end() for match in _END_OF_OUTPUT.finditer(key))
    # For a.tiff, both a.tif and a.tiff may be an output.
    return any(key[:end] in outputs or key[: end + 1] in outputs for end in ends)


@dataclass
class _StrangeOutputs:
    """Reports objects that no node of the run reported, the first few by name."""

    run: Run
    journal: Journal
    count: int = 0

    def report(self, stored: StoredObject) -> None:
        self.count += 1
        if self.count <= _MAX_STRANGE:
            more = "; others are not listed" if self.count == _MAX_STRANGE else ""
            self.journal.say(
                "strange-output",
                f"{stored.key} was written to the output bucket during "
                f"{self.run.directory.name}, but no node of the run reported it{more}",
                "warning",
                key=stored.key,
            )


def _fault(stored: StoredObject, output: _Output, claimed: datetime) -> str | None:
    """Return what is wrong with an object; None if it can be this run's output."""
    if stored.size != output.size:
        return (
            f"{stored.key} in the output bucket has {stored.size} bytes, "
            f"but its node made {output.size}"
        )
    is_same = _MD5.fullmatch(stored.etag) and stored.etag == output.md5
    if not is_same and stored.modified < claimed:
        return f"{stored.key} in the output bucket is older than this run"
    return None


def _stored_outputs(launch: Launch, cogs: Collection[str]) -> Iterator[StoredObject]:
    try:
        yield from launch.outputs().find_objects(cogs, lambda cog: (jpeg_key(cog),))
    except BucketMissing:
        # Somebody deleted the bucket and all that was in it. Waiting does not help.
        return


def _claim_time(run: Run, launch: Launch) -> datetime:
    """Return a time at or before the start of the run, to compare with its outputs.

    It is by the clock of the store, which dates the outputs, unless that of this
    machine gives an earlier time.
    """
    try:
        claimed = launch.inputs().stat(run.processing_key).modified
    except ObjectMissing:
        return run.began
    # Somebody may have removed the object, and a poll may have put it back later.
    return min(claimed, run.began)
