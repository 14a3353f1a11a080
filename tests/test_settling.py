"""A multipart upload is completed or aborted after its node ended or never ran."""

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
class UploadRun:
    """A run of one large image, with a multipart upload, whose DAG has left the queue.

    The test decides what the node did.
    """

    run: Run
    launch: Launch
    cogs: Bucket
    messages: list[str]

    @property
    def journal(self) -> Journal:
        return Journal(self.messages.append, (self.run.directory / "log.jsonl",))

    @property
    def rows(self) -> list[Row]:
        return list(load_rows(self.run))

    @property
    def upload(self) -> str:
        return state_multipart.recorded(self.run)[1].id

    def open(self) -> None:
        multipart.open_all(self.run, self.launch, self.rows, self.journal)

    def send(self, parts: Sequence[bytes] = PARTS) -> None:
        """Upload these parts and the JPEG as HTCondor does after a node."""
        self.cogs.write("scenes/with ; sign.jpg", b"the jpeg", "image/jpeg")
        trust = self.launch.store.ca_certs
        http = urllib3.PoolManager(ca_certs=trust and str(trust))
        for number, content in enumerate(parts, start=1):
            url = self.cogs.url_to_write_part(KEY, self.upload, number, 3600)
            assert http.request("PUT", url, body=content).status == 200

    def write_result(self, parts: Sequence[bytes] = PARTS) -> None:
        """Write the result of a node that wrote these parts."""
        whole = b"".join(parts)
        entries = [{"bytes": len(part), "md5": md5(part)} for part in parts]
        cog = {"bytes": len(whole), "md5": md5(whole), "parts": entries}
        jpeg = {"bytes": len(b"the jpeg"), "md5": md5(b"the jpeg")}
        result = {"ok": True, "cog": cog, "jpeg": jpeg}
        (self.run.results_directory / "row1.json").write_text(json.dumps(result))

    def reason(self) -> str | None:
        """Reconcile, and return why the row failed, or None if it was processed."""
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
        """Reconcile in another process that is killed right after a step."""
        command = (sys.executable, "-m", "tests.support.killed", step, "reconcile")
        done = subprocess.run(
            [*command, str(self.run.directory)],
            cwd=PROJECT,
            env=os.environ | {"KILLED_NOTES": str(self.run.directory / "notes")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr


def begin(archive: Archive, proxy: FaultyS3 | None = None) -> UploadRun:
    endpoint = proxy.endpoint if proxy else archive.store.endpoint
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
    # The state after the claim, which would take some seconds.
    archive.maps.write(run.processing_key, content)
    archive.maps.remove("batch-raw.csv")
    row = Row(1, (KEY, "3"), key=KEY, bands=3, size=10_000)
    save_rows(run, Manifest((row,)))
    run.submitted_file.write_text(json.dumps({"dag": "convert.dag", "cluster": 2**30}))
    return UploadRun(run, launch, archive.cogs, [])


@pytest.fixture
def upload_run(archive: Archive) -> UploadRun:
    run = begin(archive)
    run.open()
    return run


def test_an_upload_with_all_parts_is_completed(upload_run: UploadRun):
    upload_run.send()
    upload_run.write_result()
    assert upload_run.reason() is None
    assert upload_run.cogs.read(KEY, ALL) == b"".join(PARTS)
    assert upload_run.cogs.list_multipart_uploads(KEY) == ()


def test_a_run_outlives_the_directory_of_its_launch(
    archive: Archive, upload_run: UploadRun
):
    upload_run.send()
    upload_run.write_result()
    shutil.rmtree(upload_run.launch.home)
    done = archive.call("reconcile", str(upload_run.run.directory))
    assert done.returncode == 0, done.stdout + done.stderr
    assert upload_run.run.done


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (PARTS[:2], "part 3 of the 3 of its COG is not in the output bucket"),
        ((PARTS[0], b"short", PARTS[2]), "part 2 of the 3 of its COG has 5 bytes"),
        (
            (PARTS[0], PARTS[1].upper(), PARTS[2]),
            "is not the object that its node wrote",
        ),
        ((), "part 1 of the 3 of its COG is not in the output bucket"),
    ],
)
def test_parts_of_another_attempt_fail_the_row(
    upload_run: UploadRun, sent: Sequence[bytes], message: str
):
    # An earlier run's object of the right size must not count as a success.
    old = b"o" * sum(map(len, PARTS))
    upload_run.cogs.write(KEY, old)
    upload_run.send(sent)
    upload_run.write_result()
    assert message in upload_run.reason()
    assert upload_run.cogs.read(KEY, ALL) == old
    assert upload_run.cogs.list_multipart_uploads(KEY) == ()


@pytest.mark.parametrize("result", [None, '{"ok": false, "reason": "broken"}', "{"])
def test_the_upload_of_a_failed_node_is_aborted(
    upload_run: UploadRun, result: str | None
):
    upload_run.send()
    if result is not None:
        (upload_run.run.results_directory / "row1.json").write_text(result)
    assert upload_run.reason() is not None
    assert upload_run.cogs.list_multipart_uploads(KEY) == ()
    assert not upload_run.cogs.exists(KEY)


def test_the_upload_of_a_cog_that_was_sent_whole_is_aborted(
    upload_run: UploadRun,
):
    upload_run.send(parts=())
    upload_run.cogs.write(KEY, b"whole")
    upload_run.write_result(parts=(b"whole",))
    file = upload_run.run.results_directory / "row1.json"
    result = json.loads(file.read_text())
    del result["cog"]["parts"]
    file.write_text(json.dumps(result))
    assert upload_run.reason() is None
    assert upload_run.cogs.list_multipart_uploads(KEY) == ()


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
def test_reconcile_killed_after(upload_run: UploadRun, good: bool, step: str):
    upload_run.send(PARTS if good else PARTS[:2])
    upload_run.write_result()
    upload_run.killed_after(step)

    reason = upload_run.reason()

    assert (reason is None) == good
    assert good or "part 3 of the 3" in reason
    assert not good or upload_run.cogs.read(KEY, ALL) == b"".join(PARTS)
    assert upload_run.cogs.list_multipart_uploads(KEY) == ()


def test_parts_that_were_replaced_are_left_out(
    store: S3Endpoint, workplace: Path, tmp_path: Path
):
    # rclone's server does not let a part be replaced. This one does, but refuses
    # parts of less than 5 MiB, except the last.
    three = (b"1" * 5 * 2**20, b"2" * 5 * 2**20, b"3")
    two = (b"4" * 5 * 2**20, b"5")
    with seaweedfs.running(tmp_path, store) as other:
        for first, second in ((three, two), (two, three)):
            for archive in archive_for(other, workplace, "replaced"):
                upload_run = begin(archive)
                upload_run.open()
                # This upload belongs to another image.
                archive.cogs.start_multipart_upload(f"{KEY}f", "image/tiff")
                for parts in (first, second):
                    upload_run.send(parts)
                    upload_run.write_result(parts)
                assert upload_run.reason() is None
                assert upload_run.cogs.read(KEY, ALL) == b"".join(second)
                assert upload_run.cogs.list_multipart_uploads(KEY) == ()


def test_a_cog_counts_though_the_manifest_was_put_back_after_it(
    store: S3Endpoint, workplace: Path, tmp_path: Path
):
    # Its ETags of multipart uploads are no MD5s, so that the date decides.
    with seaweedfs.running(tmp_path, store) as other:
        for archive in archive_for(other, workplace, "put-back"):
            upload_run = begin(archive)
            upload_run.open()
            parts = (b"1" * 5 * 2**20, b"2")
            upload_run.send(parts)
            upload_run.write_result(parts)
            upload_run.killed_after("complete")
            inputs, key = upload_run.launch.inputs(), upload_run.run.processing_key
            content = inputs.read(key, ALL)
            time.sleep(1.1)
            inputs.write(key, content)
            assert upload_run.reason() is None


def test_an_output_bucket_that_was_deleted_fails_the_row(
    upload_run: UploadRun,
):
    upload_run.write_result()
    deleted = replace(
        upload_run.launch, output_bucket=f"{upload_run.cogs.name}-deleted"
    )
    assert "is not in the output bucket" in replace(upload_run, launch=deleted).reason()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("POST", "uploadId", answer_lost=True), "completing the upload of"),
        # S3 answers with status 200 before it is done; the body then has the error.
        (Fault("POST", "uploadId", status=200), "it may later"),
    ],
)
def test_a_failed_completion_is_repeated(
    archive: Archive, faulty_s3_server: FaultyS3, fault: Fault, message: str
):
    upload_run = begin(archive, faulty_s3_server)
    upload_run.open()
    upload_run.send()
    upload_run.write_result()
    refused = pytest.raises(BucketError, match=message)
    with faulty_s3_server.suffering(fault), refused:
        upload_run.reason()
    assert upload_run.reason() is None


def test_a_run_ends_although_the_store_refuses_to_remove_parts(
    archive: Archive, faulty_s3_server: FaultyS3
):
    upload_run = begin(archive, faulty_s3_server)
    upload_run.open()
    with faulty_s3_server.suffering(Fault("DELETE", "uploadId", status=403)):
        assert upload_run.reason() is not None
    assert any(
        f"parts of {KEY} may be left" in message for message in upload_run.messages
    )


@pytest.mark.parametrize(
    ("method", "message"),
    [("GET", "the parts of"), ("POST", "completing the upload of")],
)
def test_a_row_fails_if_the_store_refuses_to_complete_its_upload(
    archive: Archive, faulty_s3_server: FaultyS3, method: str, message: str
):
    upload_run = begin(archive, faulty_s3_server)
    upload_run.open()
    upload_run.send()
    upload_run.write_result()
    with faulty_s3_server.suffering(Fault(method, "uploadId", status=403)):
        assert message in upload_run.reason()
    assert upload_run.cogs.list_multipart_uploads(KEY) == ()


def test_an_upload_that_was_not_recorded_is_removed(
    archive: Archive, faulty_s3_server: FaultyS3
):
    # This upload is older than the run and belongs to somebody else.
    older = archive.cogs.start_multipart_upload(KEY, "image/tiff")
    time.sleep(1.1)
    upload_run = begin(archive, faulty_s3_server)
    fault = Fault("POST", "uploads", answer_lost=True)
    refused = pytest.raises(BucketError, match="starting to upload")
    with faulty_s3_server.suffering(fault), refused:
        upload_run.open()
    assert len(archive.cogs.list_multipart_uploads(KEY)) == 2
    similar_key = f"{KEY}f"
    archive.cogs.start_multipart_upload(similar_key, "image/tiff")

    upload_run.open()

    left = {upload.id for upload in archive.cogs.list_multipart_uploads(KEY)}
    assert left == {older, upload_run.upload}
    assert archive.cogs.list_multipart_uploads(similar_key)
    upload_run.open()
    assert {upload.id for upload in archive.cogs.list_multipart_uploads(KEY)} == left
    assert upload_run.messages == []


def test_a_record_that_was_cut_off_is_ignored(upload_run: UploadRun):
    file = upload_run.run.uploads_file
    lost = upload_run.upload
    file.write_text(file.read_text()[:-2])
    upload_run.open()
    assert upload_run.upload != lost
    (left,) = upload_run.cogs.list_multipart_uploads(KEY)
    assert left.id == upload_run.upload


def test_uploads_start_although_the_store_refuses_to_list_them(
    archive: Archive, faulty_s3_server: FaultyS3
):
    upload_run = begin(archive, faulty_s3_server)
    upload_run.run.uploads_file.write_text("")
    with faulty_s3_server.suffering(Fault("GET", "uploads", status=403)):
        upload_run.open()
    assert "may be left" in upload_run.messages[0]
    assert upload_run.upload


def test_small_images_cost_no_request(archive: Archive, faulty_s3_server: FaultyS3):
    upload_run = begin(archive, faulty_s3_server)
    small = replace(upload_run.launch, max_put=16 * 10_000)
    before = len(faulty_s3_server.requests)
    multipart.open_all(upload_run.run, small, upload_run.rows, upload_run.journal)
    state_multipart.abort_all(upload_run.run, small, upload_run.journal)
    assert len(faulty_s3_server.requests) == before
    assert not upload_run.run.uploads_file.exists()


def test_a_recorded_outcome_is_final(upload_run: UploadRun):
    upload_run.send()
    upload_run.write_result()
    upload_run.killed_after("put batch-processed-")
    # The cleanup after the outcome may have removed these.
    shutil.rmtree(upload_run.run.results_directory)
    upload_run.cogs.remove(KEY)
    assert upload_run.reason() is None


def test_reconcile_waits_for_nodes_that_are_still_in_the_queue(
    upload_run: UploadRun,
):
    directory = upload_run.run.directory
    job = queue.submit(
        "executable = /bin/true\nhold = true\n"
        f'My.{queue.NODE_ATTRIBUTE} = "{directory}"\nqueue\n'
    )
    with pytest.raises(NodesStillThere, match="1 jobs of the run"):
        upload_run.reason()
    assert not upload_run.run.outcome_file.exists()
    queue.remove(job, "the test")
    wait_for(lambda: not queue.still_there(queue.NODE_ATTRIBUTE, str(directory)))
    assert upload_run.reason() is not None


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (b"WHOLE", None, "older than this run"),
        (b"", b"much longer", "its node made 5"),
        (b"", b"WHOLE", "not the object that its node wrote: somebody replaced it"),
    ],
)
def test_a_cog_that_another_run_sent_whole_fails_the_row(
    archive: Archive, before: bytes, after: bytes | None, message: str
):
    archive.cogs.write(KEY, before)
    time.sleep(1.1)
    upload_run = begin(archive)
    upload_run.send(parts=())
    if after:
        archive.cogs.write(KEY, after)
    cog, jpeg = ({"bytes": len(c), "md5": md5(c)} for c in (b"whole", b"the jpeg"))
    result = {"ok": True, "cog": cog, "jpeg": jpeg}
    (upload_run.run.results_directory / "row1.json").write_text(json.dumps(result))
    assert message in (upload_run.reason() or "processed")


EXPECTED = ((10, md5(b"a")), (3, md5(b"b")))


@pytest.mark.parametrize(
    ("etags", "ended_well", "fault"),
    [
        ((md5(b"a"), md5(b"b")), False, None),
        # The ETags of a store that encrypts look like MD5s, but are not.
        ((md5(b"x"), md5(b"y")), True, None),
        ((md5(b"x"), md5(b"y")), False, "part 1 of the 2"),
        ((md5(b"a"), md5(b"y")), True, "part 2 of the 2"),
    ],
)
def test_parts_are_accepted_by_their_etags_or_after_a_successful_job(
    etags: tuple[str, str], ended_well: bool, fault: str | None
):
    stored = [
        UploadedPart(number, size, etag)
        for number, ((size, _), etag) in enumerate(
            zip(EXPECTED, etags, strict=True), start=1
        )
    ]
    actual = parts_fault(EXPECTED, stored, ended_well)
    assert actual is None if fault is None else fault in actual
