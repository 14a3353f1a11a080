"""The multipart uploads that a run started, as its directory records them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from bucket import Bucket, PermanentS3Error
from state.journal import Journal
from state.launch import Launch
from state.run import Run


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


def recorded(run: Run) -> dict[int, Upload]:
    """The uploads that a run began, by their rows' numbers."""
    if not run.uploads_file.exists():
        return {}
    lines = run.uploads_file.read_text().splitlines(keepends=True)
    begun = [Upload(**json.loads(line)) for line in lines if line.endswith("\n")]
    return {upload.row: upload for upload in begun}


def abort_all(run: Run, launch: Launch, journal: Journal) -> None:
    """Abort the uploads that a run began; those that are complete stay so."""
    outputs = launch.outputs()
    for upload in recorded(run).values():
        with reported_if_refused(outputs, upload.key, journal):
            outputs.abort_multipart_upload(upload.key, upload.id)


def record_line(upload: Upload) -> str:
    return json.dumps(asdict(upload)) + "\n"


@contextmanager
def reported_if_refused(outputs: Bucket, key: str, journal: Journal) -> Iterator[None]:
    """Let a store that will never remove parts not keep a run from going on."""
    try:
        yield
    except PermanentS3Error as error:
        sentence = f"parts of {key} may be left in {outputs.name}: {error}"
        journal.say("parts-left", sentence, "warning")
