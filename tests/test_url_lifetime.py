"""Presigned URLs live for hours, and jobs that wait longer than that get new ones."""

import json
import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import urllib3

from condor import queue
from dag import signing, submission
from state.journal import Journal
from state.launch import load_launch
from state.project import PROJECT
from state.run import all_runs
from tests.support.archive import Archive, wait_for
from tests.support.command_line import BUCKETS, assert_wrong, invoke
from tests.support.compare import assert_same_image

# In seconds: a job may begin with URLs that have half of that left.
SHORT = 30
SHORT_LIVED = ("--url-seconds", str(SHORT))
PRESIGNED = ("--signing", "presigned")
# Jobs wait, held, until they are released.
WAITING = ("--submit-option", "hold = true")
# The COG of a raster of 700 x 600 pixels and 3 bands has some 700 kB.
IN_PARTS = ("--max-put", "400000")
SMALL = {"width": 90, "height": 90}
# In place of bin/generate_cogs.sh, which it goes on with.
NODE = """\
#!/bin/sh
{first}
exec {script} "$@"
"""
URLS = ("TransferInput", "TransferOutputRemaps", queue.URLS_EXPIRE)
IDLE, RUNNING, HELD = 1, 2, 5


def with_node(archive: Archive, first: str) -> tuple[str, str]:
    node = archive.directory / "node.sh"
    script = PROJECT / "bin" / "generate_cogs.sh"
    node.write_text(NODE.format(first=first, script=script))
    node.chmod(0o755)
    return "--submit-option", f"executable = {node}"


def upload(archive: Archive, **bands: int) -> dict:
    """Upload a raster of each name, small where it has one band; and a manifest."""
    sources = {}
    for name, count in bands.items():
        size = SMALL if count == 1 else {}
        sources[f"{name}.tif"] = archive.upload_raster(f"{name}.tif", count, **size)
    rows = [(f"{name}.tif", count) for name, count in bands.items()]
    archive.upload_manifest("batch-raw.csv", rows)
    return sources


def jobs(archive: Archive, status: int) -> dict[str, queue.classad2.ClassAd]:
    """The archive's jobs with this status, by the names of their nodes."""
    (run,) = archive.directory.glob("workflow-run-*")
    ours = f'{queue.NODE_ATTRIBUTE} =?= "{run}" && JobStatus == {status}'
    return {ad["DAGNodeName"]: ad for ad in queue.htcondor2.Schedd().query(ours)}


def await_jobs(archive: Archive, status: int, count: int) -> dict:
    wait_for(lambda: len(jobs(archive, status)) == count)
    return jobs(archive, status)


def release(archive: Archive) -> None:
    (run,) = archive.directory.glob("workflow-run-*")
    ours = f'{queue.NODE_ATTRIBUTE} =?= "{run}"'
    command = ["condor_release", "-constraint", ours]
    subprocess.run(command, check=True, capture_output=True)


def await_refusal(archive: Archive, count: int) -> None:
    """Wait until so many jobs found no machine, and were begun on none since."""

    def refused() -> bool:
        idle = jobs(archive, IDLE).values()
        return sum("LastRejMatchTime" in ad for ad in idle) == count

    wait_for(refused)
    before = {ad["LastRejMatchTime"] for ad in jobs(archive, IDLE).values()}
    # In several cycles, by other times than those of their release.
    wait_for(
        lambda: (
            min(ad["LastRejMatchTime"] for ad in jobs(archive, IDLE).values())
            > max(before)
        )
    )
    assert len(jobs(archive, IDLE)) == count
    assert not jobs(archive, RUNNING)


def urls_of(ad: queue.classad2.ClassAd) -> list[str]:
    remaps = [each.partition("=")[2] for each in ad["TransferOutputRemaps"].split(";")]
    entries = [*ad["TransferInput"].split(","), *remaps]
    return [entry for entry in entries if "X-Amz-Signature" in entry]


def others_of(ad: queue.classad2.ClassAd) -> list[str]:
    """All else that is transferred: each entry, without what signatures differ in."""
    entries = [*ad["TransferInput"].split(","), *ad["TransferOutputRemaps"].split(";")]
    return [entry.partition("?")[0] for entry in entries]


def can_be_read(url: str, archive: Archive) -> bool:
    http = urllib3.PoolManager(ca_certs=str(archive.store.ca_certs))
    status = http.request("GET", url).status
    assert status in (200, 400, 403)
    return status == 200


@pytest.mark.parametrize(("said", "hours"), [((), 24), (("--url-hours", "2"), 2)])
def test_presigned_urls_expire_after_the_time_said(
    archive: Archive, said: tuple[str, ...], hours: int
):
    upload(archive, small=1, large=3)
    archive.launch_to_poll_by_hand(*PRESIGNED, *WAITING, *IN_PARTS, *said)
    for ad in await_jobs(archive, HELD, 2).values():
        moments = []
        for url in urls_of(ad):
            query = parse_qs(urlsplit(url).query)
            assert query["X-Amz-Expires"] == [str(hours * 3600)]
            signed = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ")
            moments.append(signed.replace(tzinfo=UTC).timestamp() + hours * 3600)
        assert len(moments) >= 3
        # What the job goes by is no later than the first of them, or hardly earlier.
        assert -5 <= ad[queue.URLS_EXPIRE] - min(moments) <= 0


def test_jobs_whose_urls_are_too_old_wait_for_new_ones(archive: Archive):
    sources = upload(archive, a=1, b=1, single=1, large=3)
    archive.launch_to_poll_by_hand(
        *PRESIGNED, *SHORT_LIVED, *WAITING, *IN_PARTS, *("--rows-per-job", "2")
    )
    old = await_jobs(archive, HELD, 3)
    assert set(old) == {"rows1", "row3", "row4"}
    (readable,) = [
        each for each in old["row3"]["TransferInput"].split(",") if "X-Amz" in each
    ]
    assert can_be_read(readable, archive)
    wait_for(lambda: not can_be_read(readable, archive))
    release(archive)
    await_refusal(archive, 3)

    told = poll_until_all_are_processed(archive, sources)
    assert [result["attempt"] for result in told] == [1] * 4, "none was tried twice"
    in_parts = [each["image"] for each in told if "parts" in each.get("cog", {})]
    assert in_parts == ["large.tif"]
    (run,) = archive.directory.glob("workflow-run-*")
    events = [json.loads(line) for line in (run / "log.jsonl").open()]
    assert [e["jobs"] for e in events if e["event"] == "urls-renewed"] == [3]
    assert "X-Amz" not in (run / "log.jsonl").read_text()
    for key, source in sources.items():
        assert_same_image(archive.fetch(archive.cogs, key), source)


def poll_until_all_are_processed(
    archive: Archive, sources: Mapping[str, Path]
) -> list[dict[str, Any]]:
    """Return what the nodes told."""
    assert archive.poll().returncode == 0
    processed, failed = archive.outcome("batch-")
    assert [row[0] for row in processed] == list(sources)
    assert failed == []
    (run,) = archive.directory.glob("workflow-run-*")
    return [json.loads(line) for line in (run / "results.jsonl").open()]


def test_a_renewed_job_differs_in_its_signatures_alone(archive: Archive):
    upload(archive, a=1, b=1, single=1, large=3)
    archive.launch_to_poll_by_hand(
        *PRESIGNED, *SHORT_LIVED, *WAITING, *IN_PARTS, *("--rows-per-job", "2")
    )
    old = await_jobs(archive, HELD, 3)
    # Signatures are of whole seconds.
    time.sleep(1.1)
    assert archive.poll().returncode == 0
    new = await_jobs(archive, HELD, 3)
    for node, ad in old.items():
        assert others_of(new[node]) == others_of(ad)
        before, after = urls_of(ad), urls_of(new[node])
        assert len(before) == len(after)
        assert not set(before) & set(after)
        without = [signing._unsigned(url) for url in before]
        assert [signing._unsigned(url) for url in after] == without
        assert new[node][queue.URLS_EXPIRE] > ad[queue.URLS_EXPIRE]
        changed = {name for name in ad if new[node].get(name) != ad[name]}
        assert changed - {"ServerTime", "LastHoldReason"} <= set(URLS)
    # The node's code comes first, as it was submitted.
    first, *_ = new["row3"]["TransferInput"].split(",")
    assert Path(first).name == "node.zip"


def test_a_job_that_is_submitted_late_waits_for_new_urls(archive: Archive):
    """As a second try: DAGMan has the URLs of the DAG file for it, none newer."""
    sources = upload(archive, a=1, b=1)
    first = f'[ "$COG_PIPELINE_RETRY" = 0 ] && sleep {SHORT} && exit 1'
    archive.launch_to_poll_by_hand(
        *(*PRESIGNED, *SHORT_LIVED, *with_node(archive, first)),
        *("--rows-per-job", "2"),
    )
    await_jobs(archive, RUNNING, 1)
    await_refusal(archive, 1)
    assert "rows1" in jobs(archive, IDLE)

    told = poll_until_all_are_processed(archive, sources)
    assert [result["attempt"] for result in told] == [2, 2]


def test_parts_are_renewed_where_the_shadow_signs_the_rest(archive: Archive):
    source = upload(archive, large=3)["large.tif"]
    archive.launch_to_poll_by_hand(*SHORT_LIVED, *WAITING, *IN_PARTS)
    old = await_jobs(archive, HELD, 1)["row1"]
    wait_for(lambda: time.time() > old[queue.URLS_EXPIRE])
    release(archive)
    await_refusal(archive, 1)

    assert archive.poll().returncode == 0
    processed, failed = archive.outcome("batch-")

    assert (processed, failed) == ([["large.tif", "3"]], [])
    if queue.version() < (25, 10, 0):
        assert "https://" not in old["TransferInput"]
        assert "large.tif=s3://" in old["TransferOutputRemaps"]
    assert_same_image(archive.fetch(archive.cogs, "large.tif"), source)


def test_jobs_whose_transfers_the_shadow_signs_are_left_alone(archive: Archive):
    upload(archive, a=1, b=1)
    # Held, so that no HTCondor has to sign anything.
    archive.launch_to_poll_by_hand("--signing", "shadow", *SHORT_LIVED, *WAITING)
    old = await_jobs(archive, HELD, 2)
    assert archive.poll().returncode == 0
    new = await_jobs(archive, HELD, 2)
    for node, ad in old.items():
        assert str(ad.lookup(queue.URLS_EXPIRE)) == "undefined"
        assert urls_of(ad) == []
        changed = {name for name in ad if new[node].get(name) != ad.get(name)}
        assert changed <= {"ServerTime"}
    (run,) = archive.directory.glob("workflow-run-*")
    assert "urls-renewed" not in (run / "log.jsonl").read_text()


def test_a_job_that_began_keeps_the_urls_that_it_began_with(archive: Archive):
    upload(archive, a=1)
    first = f"while [ ! -e {archive.directory}/go ]; do sleep 0.2; done"
    archive.launch_to_poll_by_hand(*PRESIGNED, *with_node(archive, first))
    ad = await_jobs(archive, RUNNING, 1)["row1"]
    # As if it had begun in the middle of being renewed.
    job = queue.WaitingJob(f"{ad['ClusterId']}.0", "row1", "nothing", "a.tif=nowhere")
    assert queue.renew(job, 1)
    (archive.directory / "go").touch()
    processed, failed = archive.outcome("batch-")
    assert (processed, failed) == ([["a.tif", "1"]], [])


def test_a_job_that_left_the_queue_is_no_failure(archive: Archive):
    upload(archive, a=1)
    archive.launch_to_poll_by_hand(*PRESIGNED, *SHORT_LIVED, *WAITING)
    await_jobs(archive, HELD, 1)
    (run,) = archive.directory.glob("workflow-run-*")
    (job,) = queue.waiting_jobs(str(run), time.time() + SHORT)
    assert job.node == "row1"
    assert queue.waiting_jobs(str(run), time.time() - SHORT) == []
    queue.remove(int(job.id.partition(".")[0]), "a test")
    wait_for(lambda: not jobs(archive, HELD))
    assert not queue.renew(job, 1)


def test_what_a_job_says_of_urls_is_not_signed(archive: Archive):
    """Its rows alone decide what is signed; its ad only where that goes."""
    bucket = archive.cogs
    ours = bucket.url_to_write("a.tif", 60)
    text = f"a.tif={ours};b.tif={ours.replace('a.tif', 'b.tif')};result.json=results/a"
    fresh = bucket.url_to_write("a.tif", 61)
    renewed = signing.renewed(text, [fresh])
    assert renewed == text.replace(f"a.tif={ours}", f"a.tif={fresh}")
    part = bucket.url_to_write_part("a.tif", "an-id", 1, 60)
    assert signing.renewed(part, [fresh]) == part


def test_polls_that_have_nothing_to_renew_read_no_rows(archive: Archive):
    upload(archive, a=1)
    archive.launch_to_poll_by_hand(*PRESIGNED, *WAITING)
    await_jobs(archive, HELD, 1)
    launch = load_launch(archive.launch_file())
    (run,), _ = all_runs(launch)
    run.rows_file.unlink()
    submission.renew_urls(run, launch, Journal(print))


def test_a_launch_says_who_can_read_presigned_urls(archive: Archive):
    said = archive.launch(*PRESIGNED, "--url-hours", "3")
    (words,) = [line for line in said.splitlines() if "presigned URLs" in line]
    for part in ("can read job ads", "overwrite", "3 hours", "--url-hours"):
        assert part in words


def test_a_launch_whose_transfers_the_shadow_signs_says_nothing_of_it(
    archive: Archive,
):
    assert "presigned URLs" not in archive.launch("--signing", "shadow")


def test_urls_that_no_poll_renews_in_time_are_refused(archive: Archive):
    refused = invoke(*BUCKETS, "--every", "720", "--url-hours", "23")
    assert_wrong(refused, "Use --url-hours 24 or more")
    archive.launch("--every", "1440", *PRESIGNED)
    assert load_launch(archive.launch_file()).url_seconds == 48 * 3600


def test_a_launch_from_before_there_was_such_an_option_is_read(archive: Archive):
    archive.launch()
    file = archive.launch_file()
    saved = json.loads(file.read_text())
    del saved["url_seconds"]
    file.write_text(json.dumps(saved))
    assert load_launch(file).url_seconds == 24 * 3600
