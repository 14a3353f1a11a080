"""What becomes of an upload in parts once its node has ended, or never began."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import urllib3

from bucket import Bucket, BucketError, S3Endpoint, UploadedPart
from condor import queue
from dag import multipart
from dag.manifest import parse
from post.multipart import parts_fault
from post.reconcile import NodesStillThere, reconcile
from state import multipart as state_multipart
from state.journal import Journal
from state.launch import Launch, save_launch
from state.project import PROJECT
from state.rows import Manifest, Row, load_rows, save_rows
from state.run import Run, create_run
from tests.support import seaweedfs
from tests.support.archive import ALL, Archive, archive_for, wait_for
from tests.support.faulty_s3 import Fault, FaultyS3

KEY = "scenes/with ; sign.tif"
PARTS = (b"first part " * 1000, b"second part " * 1000, b"last")


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Begun:
    """A run of one large image, for which an upload was begun.

    As it is when its DAG has left the queue; what its node did is up to the test.
    """

    run: Run
    launch: Launch
    cogs: Bucket
    said: list[str]

    @property
    def journal(self) -> Journal:
        return Journal(self.said.append, (self.run.directory / "log.jsonl",))

    @property
    def rows(self) -> list[Row]:
        return list(load_rows(self.run))

    @property
    def upload(self) -> str:
        return state_multipart.recorded(self.run)[1].id

    def open(self) -> None:
        multipart.open_all(self.run, self.launch, self.rows, self.journal)

    def send(self, parts: Sequence[bytes] = PARTS) -> None:
        """As HTCondor does when a node leaves these parts."""
        self.cogs.write("scenes/with ; sign.jpg", b"the jpeg", "image/jpeg")
        trust = self.launch.store.ca_certs
        http = urllib3.PoolManager(ca_certs=trust and str(trust))
        for number, content in enumerate(parts, start=1):
            url = self.cogs.url_to_write_part(KEY, self.upload, number, 3600)
            assert http.request("PUT", url, body=content).status == 200

    def tell(self, parts: Sequence[bytes] = PARTS) -> None:
        """As a node's result does that made these parts."""
        whole = b"".join(parts)
        described = [{"bytes": len(part), "md5": md5(part)} for part in parts]
        cog = {"bytes": len(whole), "md5": md5(whole), "parts": described}
        jpeg = {"bytes": len(b"the jpeg"), "md5": md5(b"the jpeg")}
        told = {"ok": True, "cog": cog, "jpeg": jpeg}
        (self.run.results_directory / "row1.json").write_text(json.dumps(told))

    def reason(self) -> str | None:
        """Reconcile; returns why the row failed, None if it did not."""
        outcome = reconcile(self.run, self.launch, self.journal)
        assert outcome.processed + outcome.failed == 1
        inputs = self.launch.inputs()
        if outcome.processed:
            assert inputs.exists(self.run.processed_key)
            return None
        ((*_, reason),) = [
            row.fields for row in parse(inputs.read(self.run.failed_key, ALL)).rows
        ]
        return reason

    def killed_after(self, step: str) -> None:
        """Reconcile in another process, until right after a step."""
        command = (sys.executable, "-m", "tests.support.killed", step, "reconcile")
        done = subprocess.run(
            [*command, str(self.run.directory)],
            cwd=PROJECT,
            env=os.environ | {"KILLED_NOTES": str(self.run.directory / "notes")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr


def begin(archive: Archive, by_way_of: FaultyS3 | None = None) -> Begun:
    endpoint = by_way_of.endpoint if by_way_of else archive.store.endpoint
    launch = Launch(
        directory=archive.directory,
        store=replace(archive.store, endpoint=endpoint),
        input_bucket=archive.maps.name,
        output_bucket=archive.cogs.name,
        max_put=10_000,
    )
    launch.home.mkdir(exist_ok=True)
    save_launch(launch, launch.file)
    archive.upload_manifest("batch-raw.csv", [(KEY, 3)])
    (manifest,) = archive.maps.list("batch-raw.csv")
    content = archive.maps.read("batch-raw.csv", ALL)
    downloaded = launch.home / "manifest.download"
    downloaded.write_bytes(content)
    run = create_run(launch, manifest, downloaded, ())
    # As after the claim, which takes some seconds.
    archive.maps.write(run.processing_key, content)
    archive.maps.remove("batch-raw.csv")
    row = Row(1, (KEY, "3"), key=KEY, bands=3, size=10_000)
    save_rows(run, Manifest((row,)))
    run.submitted_file.write_text(json.dumps({"dag": "convert.dag", "cluster": 2**30}))
    return Begun(run, launch, archive.cogs, [])


@pytest.fixture
def begun(archive: Archive) -> Begun:
    made = begin(archive)
    made.open()
    return made


def test_parts_are_put_together(begun: Begun):
    begun.send()
    begun.tell()
    assert begun.reason() is None
    assert begun.cogs.read(KEY, ALL) == b"".join(PARTS)
    assert begun.cogs.list_multipart_uploads(KEY) == ()


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (PARTS[:2], "part 3 of the 3 of its COG is not in the output bucket"),
        ((PARTS[0], b"short", PARTS[2]), "part 2 of the 3 of its COG has 5 bytes"),
        ((PARTS[0], PARTS[1].upper(), PARTS[2]), "is not what its node made"),
        ((), "part 1 of the 3 of its COG is not in the output bucket"),
    ],
)
def test_parts_of_another_attempt_are_no_success(
    begun: Begun, sent: Sequence[bytes], said: str
):
    # Of the right size, by an earlier run: no success either.
    old = b"o" * sum(map(len, PARTS))
    begun.cogs.write(KEY, old)
    begun.send(sent)
    begun.tell()
    assert said in begun.reason()
    assert begun.cogs.read(KEY, ALL) == old
    assert begun.cogs.list_multipart_uploads(KEY) == ()


@pytest.mark.parametrize("result", [None, '{"ok": false, "reason": "broken"}', "{"])
def test_a_node_that_failed_leaves_no_parts_behind(begun: Begun, result: str | None):
    begun.send()
    if result is not None:
        (begun.run.results_directory / "row1.json").write_text(result)
    assert begun.reason() is not None
    assert begun.cogs.list_multipart_uploads(KEY) == ()
    assert not begun.cogs.exists(KEY)


def test_a_cog_that_was_sent_whole_leaves_no_upload_behind(begun: Begun):
    begun.send(parts=())
    begun.cogs.write(KEY, b"whole")
    begun.tell(parts=(b"whole",))
    result = begun.run.results_directory / "row1.json"
    told = json.loads(result.read_text())
    del told["cog"]["parts"]
    result.write_text(json.dumps(told))
    assert begun.reason() is None
    assert begun.cogs.list_multipart_uploads(KEY) == ()


@pytest.mark.parametrize(
    ("good", "step"),
    [
        (True, "complete"),
        (True, "file outcome.json"),
        (True, "put batch-processed"),
        (False, "file outcome.json"),
        (False, "put batch-failed"),
        (False, "abort"),
        (False, "delete batch-processing"),
    ],
)
def test_reconcile_killed_after(begun: Begun, good: bool, step: str):
    begun.send(PARTS if good else PARTS[:2])
    begun.tell()
    begun.killed_after(step)

    again = begun.reason()

    assert (again is None) == good
    assert good or "part 3 of the 3" in again
    assert not good or begun.cogs.read(KEY, ALL) == b"".join(PARTS)
    assert begun.cogs.list_multipart_uploads(KEY) == ()


def test_parts_that_were_replaced_are_left_out(
    store: S3Endpoint, workplace: Path, tmp_path: Path
):
    # rclone's server takes no other part in place of one; this one takes none of
    # less than 5 MiB but the last.
    three = (b"1" * 5 * 2**20, b"2" * 5 * 2**20, b"3")
    two = (b"4" * 5 * 2**20, b"5")
    with seaweedfs.running(tmp_path, store) as other:
        for first, second in ((three, two), (two, three)):
            for archive in archive_for(other, workplace, "replaced"):
                begun = begin(archive)
                begun.open()
                # Another image's.
                archive.cogs.start_multipart_upload(f"{KEY}f", "image/tiff")
                for parts in (first, second):
                    begun.send(parts)
                    begun.tell(parts)
                assert begun.reason() is None
                assert begun.cogs.read(KEY, ALL) == b"".join(second)
                assert begun.cogs.list_multipart_uploads(KEY) == ()


def test_an_output_bucket_that_was_deleted_fails_the_row(begun: Begun):
    begun.tell()
    deleted = replace(begun.launch, output_bucket=f"{begun.cogs.name}-deleted")
    assert "is not in the output bucket" in replace(begun, launch=deleted).reason()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("POST", "uploadId", answer_lost=True), "completing the upload of"),
        # S3 answers before it is done; the error stands in an answer that says 200.
        (Fault("POST", "uploadId", status=200), "it may later"),
    ],
)
def test_completing_that_fails_is_tried_again(
    archive: Archive, faulty_s3_server: FaultyS3, fault: Fault, said: str
):
    begun = begin(archive, faulty_s3_server)
    begun.open()
    begun.send()
    begun.tell()
    refused = pytest.raises(BucketError, match=said)
    with faulty_s3_server.suffering(fault), refused:
        begun.reason()
    assert begun.reason() is None


def test_a_store_that_removes_no_parts_keeps_no_run_from_ending(
    archive: Archive, faulty_s3_server: FaultyS3
):
    begun = begin(archive, faulty_s3_server)
    begun.open()
    with faulty_s3_server.suffering(Fault("DELETE", "uploadId", status=403)):
        assert begun.reason() is not None
    assert any(f"parts of {KEY} may be left" in said for said in begun.said)


@pytest.mark.parametrize(
    ("method", "said"),
    [("GET", "the parts of"), ("POST", "completing the upload of")],
)
def test_a_store_that_puts_nothing_together_fails_the_row(
    archive: Archive, faulty_s3_server: FaultyS3, method: str, said: str
):
    begun = begin(archive, faulty_s3_server)
    begun.open()
    begun.send()
    begun.tell()
    with faulty_s3_server.suffering(Fault(method, "uploadId", status=403)):
        assert said in begun.reason()
    assert begun.cogs.list_multipart_uploads(KEY) == ()


def test_an_upload_that_was_not_recorded_is_removed(
    archive: Archive, faulty_s3_server: FaultyS3
):
    # Somebody else's, older than the run.
    older = archive.cogs.start_multipart_upload(KEY, "image/tiff")
    time.sleep(1.1)
    begun = begin(archive, faulty_s3_server)
    fault = Fault("POST", "uploads", answer_lost=True)
    refused = pytest.raises(BucketError, match="starting to upload")
    with faulty_s3_server.suffering(fault), refused:
        begun.open()
    assert len(archive.cogs.list_multipart_uploads(KEY)) == 2
    beside = f"{KEY}f"
    archive.cogs.start_multipart_upload(beside, "image/tiff")

    begun.open()

    left = {upload.id for upload in archive.cogs.list_multipart_uploads(KEY)}
    assert left == {older, begun.upload}
    assert archive.cogs.list_multipart_uploads(beside)
    begun.open()
    assert {upload.id for upload in archive.cogs.list_multipart_uploads(KEY)} == left
    assert begun.said == []


def test_a_record_that_was_cut_off_is_none(begun: Begun):
    file = begun.run.uploads_file
    lost = begun.upload
    file.write_text(file.read_text()[:-2])
    begun.open()
    assert begun.upload != lost
    (left,) = begun.cogs.list_multipart_uploads(KEY)
    assert left.id == begun.upload


def test_a_store_that_lists_no_uploads_is_lived_with(
    archive: Archive, faulty_s3_server: FaultyS3
):
    begun = begin(archive, faulty_s3_server)
    begun.run.uploads_file.write_text("")
    with faulty_s3_server.suffering(Fault("GET", "uploads", status=403)):
        begun.open()
    assert "may be left" in begun.said[0]
    assert begun.upload


def test_small_images_cost_no_request(archive: Archive, faulty_s3_server: FaultyS3):
    begun = begin(archive, faulty_s3_server)
    small = replace(begun.launch, max_put=16 * 10_000)
    before = len(faulty_s3_server.requests)
    multipart.open_all(begun.run, small, begun.rows, begun.journal)
    state_multipart.abort_all(begun.run, small, begun.journal)
    assert len(faulty_s3_server.requests) == before
    assert not begun.run.uploads_file.exists()


def test_what_was_decided_stays_decided(begun: Begun):
    begun.send()
    begun.tell()
    begun.killed_after("put batch-processed-")
    # As tidying up does, before it is done.
    shutil.rmtree(begun.run.results_directory)
    begun.cogs.remove(KEY)
    assert begun.reason() is None


def test_nodes_that_are_leaving_the_queue_are_waited_for(begun: Begun):
    directory = begun.run.directory
    job = queue.submit(
        "executable = /bin/true\nhold = true\n"
        f'My.{queue.NODE_ATTRIBUTE} = "{directory}"\nqueue\n'
    )
    with pytest.raises(NodesStillThere, match="1 jobs of it"):
        begun.reason()
    assert not begun.run.outcome_file.exists()
    queue.remove(job, "the test")
    wait_for(lambda: not queue.still_there(queue.NODE_ATTRIBUTE, str(directory)))
    assert begun.reason() is not None


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (b"WHOLE", None, "older than this run"),
        (b"", b"much longer", "its node made 5"),
        (b"", b"WHOLE", "not what its node made: somebody replaced it"),
    ],
)
def test_a_cog_that_another_run_sent_whole_is_no_success(
    archive: Archive, before: bytes, after: bytes | None, said: str
):
    archive.cogs.write(KEY, before)
    time.sleep(1.1)
    begun = begin(archive)
    begun.send(parts=())
    if after:
        archive.cogs.write(KEY, after)
    cog, jpeg = ({"bytes": len(c), "md5": md5(c)} for c in (b"whole", b"the jpeg"))
    told = {"ok": True, "cog": cog, "jpeg": jpeg}
    (begun.run.results_directory / "row1.json").write_text(json.dumps(told))
    assert said in (begun.reason() or "processed")


MADE = ((10, md5(b"a")), (3, md5(b"b")))


@pytest.mark.parametrize(
    ("etags", "ended_well", "wrong"),
    [
        ((md5(b"a"), md5(b"b")), False, None),
        # A store that encrypts: the ETags are no MD5s, though they look like some.
        ((md5(b"x"), md5(b"y")), True, None),
        ((md5(b"x"), md5(b"y")), False, "part 1 of the 2"),
        ((md5(b"a"), md5(b"y")), True, "part 2 of the 2"),
    ],
)
def test_parts_are_known_by_their_etags_or_by_a_job_that_ended_well(
    etags: tuple[str, str], ended_well: bool, wrong: str | None
):
    there = [
        UploadedPart(number, size, etag)
        for number, ((size, _), etag) in enumerate(
            zip(MADE, etags, strict=True), start=1
        )
    ]
    said = parts_fault(MADE, there, ended_well)
    assert said is None if wrong is None else wrong in said
