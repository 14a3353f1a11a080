"""Presigned URLs are valid for hours; jobs that wait for longer get new ones."""

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
from tests.support.archive import A_JOB_A_ROW, Archive, wait_for
from tests.support.command_line import BUCKETS, assert_wrong, invoke
from tests.support.compare import assert_same_image

# A job may start if its URLs are valid for at least half of this.
SHORT = 30  # seconds
SHORT_LIVED = ("--url-seconds", str(SHORT))
PRESIGNED = ("--signing", "presigned")
# Jobs are held until the test releases them.
ON_HOLD = ("--submit-option", "hold = true")
# The COG of a raster of 700 x 600 pixels and 3 bands has about 700 kB.
LOW_LIMIT = ("--max-put", "400000")
SMALL = {"width": 90, "height": 90}
# Replaces bin/generate_cogs.sh, and continues with it.
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
    """Upload a raster for each name, small if it has one band, and a manifest."""
    sources = {}
    for name, count in bands.items():
        size = SMALL if count == 1 else {}
        sources[f"{name}.tif"] = archive.upload_raster(f"{name}.tif", count, **size)
    rows = [(f"{name}.tif", count) for name, count in bands.items()]
    archive.upload_manifest("batch-raw.csv", rows)
    return sources


def jobs(archive: Archive, status: int) -> dict[str, queue.classad2.ClassAd]:
    """Return the archive's jobs with this status, by the names of their nodes."""
    (run,) = archive.directory.glob("workflow-run-*")
    constraint = f'{queue.NODE_ATTRIBUTE} =?= "{run}" && JobStatus == {status}'
    return {ad["DAGNodeName"]: ad for ad in queue.htcondor2.Schedd().query(constraint)}


def await_jobs(archive: Archive, status: int, count: int) -> dict:
    wait_for(lambda: len(jobs(archive, status)) == count)
    return jobs(archive, status)


def release(archive: Archive) -> None:
    (run,) = archive.directory.glob("workflow-run-*")
    constraint = f'{queue.NODE_ATTRIBUTE} =?= "{run}"'
    command = ["condor_release", "-constraint", constraint]
    subprocess.run(command, check=True, capture_output=True)


def await_refusal(archive: Archive, count: int) -> None:
    """Wait until ``count`` jobs found no machine, and assert that none starts later."""

    def refused() -> bool:
        idle = jobs(archive, IDLE).values()
        return sum("LastRejMatchTime" in ad for ad in idle) == count

    wait_for(refused)
    before = {ad["LastRejMatchTime"] for ad in jobs(archive, IDLE).values()}
    # Wait for later negotiation cycles than those before their release.
    wait_for(
        lambda: (
            min(ad["LastRejMatchTime"] for ad in jobs(archive, IDLE).values())
            > max(before)
        )
    )
    assert len(jobs(archive, IDLE)) == count
    assert not jobs(archive, RUNNING)


def urls_of(ad: queue.classad2.ClassAd) -> list[str]:
    remaps = [
        remap.partition("=")[2] for remap in ad["TransferOutputRemaps"].split(";")
    ]
    entries = [*ad["TransferInput"].split(","), *remaps]
    return [entry for entry in entries if "X-Amz-Signature" in entry]


def transfers_without_signatures(ad: queue.classad2.ClassAd) -> list[str]:
    """Return all files and URLs that a job transfers, URLs without their queries."""
    entries = [*ad["TransferInput"].split(","), *ad["TransferOutputRemaps"].split(";")]
    return [entry.partition("?")[0] for entry in entries]


def can_be_read(url: str, archive: Archive) -> bool:
    http = urllib3.PoolManager(ca_certs=str(archive.store.ca_certs))
    status = http.request("GET", url).status
    assert status in (200, 400, 403)
    return status == 200


@pytest.mark.parametrize(("options", "hours"), [((), 24), (("--url-hours", "2"), 2)])
def test_presigned_urls_expire_after_the_chosen_time(
    archive: Archive, options: tuple[str, ...], hours: int
):
    upload(archive, small=1, large=3)
    settings = (*PRESIGNED, *ON_HOLD, *LOW_LIMIT, *A_JOB_A_ROW)
    archive.launch_to_poll_by_hand(*settings, *options)
    for ad in await_jobs(archive, HELD, 2).values():
        expiry_times = []
        for url in urls_of(ad):
            query = parse_qs(urlsplit(url).query)
            assert query["X-Amz-Expires"] == [str(hours * 3600)]
            signed = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ")
            expiry_times.append(signed.replace(tzinfo=UTC).timestamp() + hours * 3600)
        assert len(expiry_times) >= 3
        # The time in the job ad is that of the first URL, or up to 5 seconds earlier.
        assert -5 <= ad[queue.URLS_EXPIRE] - min(expiry_times) <= 0


def test_jobs_whose_urls_are_too_old_wait_for_new_ones(archive: Archive):
    sources = upload(archive, a=1, b=1, single=1, large=3)
    archive.launch_to_poll_by_hand(
        *PRESIGNED, *SHORT_LIVED, *ON_HOLD, *LOW_LIMIT, *("--rows-per-job", "2")
    )
    old = await_jobs(archive, HELD, 3)
    assert set(old) == {"rows1", "row3", "row4"}
    (input_url,) = [
        url for url in old["row3"]["TransferInput"].split(",") if "X-Amz" in url
    ]
    assert can_be_read(input_url, archive)
    wait_for(lambda: not can_be_read(input_url, archive))
    release(archive)
    await_refusal(archive, 3)

    results = poll_until_all_are_processed(archive, sources)
    assert [result["attempt"] for result in results] == [1] * 4
    in_parts = [r["image"] for r in results if "parts" in r.get("cog", {})]
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
    """Return the results of the nodes."""
    assert archive.poll().returncode == 0
    processed, failed = archive.outcome("batch-")
    assert [row[0] for row in processed] == list(sources)
    assert failed == []
    (run,) = archive.directory.glob("workflow-run-*")
    return [json.loads(line) for line in (run / "results.jsonl").open()]


def test_only_the_signatures_of_a_renewed_job_differ(archive: Archive):
    upload(archive, a=1, b=1, single=1, large=3)
    archive.launch_to_poll_by_hand(
        *PRESIGNED, *SHORT_LIVED, *ON_HOLD, *LOW_LIMIT, *("--rows-per-job", "2")
    )
    old = await_jobs(archive, HELD, 3)
    # Signatures contain the time in whole seconds.
    time.sleep(1.1)
    assert archive.poll().returncode == 0
    new = await_jobs(archive, HELD, 3)
    for node, ad in old.items():
        assert transfers_without_signatures(new[node]) == transfers_without_signatures(
            ad
        )
        before, after = urls_of(ad), urls_of(new[node])
        assert len(before) == len(after)
        assert not set(before) & set(after)
        without = [signing._unsigned(url) for url in before]
        assert [signing._unsigned(url) for url in after] == without
        assert new[node][queue.URLS_EXPIRE] > ad[queue.URLS_EXPIRE]
        changed = {name for name in ad if new[node].get(name) != ad[name]}
        assert changed - {"ServerTime", "LastHoldReason"} <= set(URLS)
    # The first file is still the node's code.
    first, *_ = new["row3"]["TransferInput"].split(",")
    assert Path(first).name == "node.zip"


def test_a_job_that_is_submitted_late_waits_for_new_urls(archive: Archive):
    """DAGMan submits a retry with the URLs of the DAG file, which are too old."""
    sources = upload(archive, a=1, b=1)
    first = f'[ "$COG_PIPELINE_RETRY" = 0 ] && sleep {SHORT} && exit 1'
    archive.launch_to_poll_by_hand(
        *(*PRESIGNED, *SHORT_LIVED, *with_node(archive, first)),
        *("--rows-per-job", "2"),
    )
    await_jobs(archive, RUNNING, 1)
    await_refusal(archive, 1)
    assert "rows1" in jobs(archive, IDLE)

    results = poll_until_all_are_processed(archive, sources)
    assert [result["attempt"] for result in results] == [2, 2]


def test_urls_of_parts_are_renewed_where_the_shadow_signs_the_others(archive: Archive):
    source = upload(archive, large=3)["large.tif"]
    archive.launch_to_poll_by_hand(*SHORT_LIVED, *ON_HOLD, *LOW_LIMIT)
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
    # The jobs are held, so that HTCondor need not sign anything.
    settings = ("--signing", "shadow", *SHORT_LIVED, *ON_HOLD, *A_JOB_A_ROW)
    archive.launch_to_poll_by_hand(*settings)
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


def test_a_running_job_keeps_the_urls_with_which_it_started(archive: Archive):
    upload(archive, a=1)
    first = f"while [ ! -e {archive.directory}/go ]; do sleep 0.2; done"
    archive.launch_to_poll_by_hand(*PRESIGNED, *with_node(archive, first))
    ad = await_jobs(archive, RUNNING, 1)["row1"]
    # The state if the job started while its URLs were being renewed.
    job = queue.WaitingJob(f"{ad['ClusterId']}.0", "row1", "nothing", "a.tif=nowhere")
    assert queue.renew(job, 1)
    (archive.directory / "go").touch()
    processed, failed = archive.outcome("batch-")
    assert (processed, failed) == ([["a.tif", "1"]], [])


def test_renewing_a_job_that_left_the_queue_does_not_fail(archive: Archive):
    upload(archive, a=1)
    archive.launch_to_poll_by_hand(*PRESIGNED, *SHORT_LIVED, *ON_HOLD)
    await_jobs(archive, HELD, 1)
    (run,) = archive.directory.glob("workflow-run-*")
    (job,) = queue.waiting_jobs(str(run), time.time() + SHORT)
    assert job.node == "row1"
    assert queue.waiting_jobs(str(run), time.time() - SHORT) == []
    queue.remove(int(job.id.partition(".")[0]), "a test")
    wait_for(lambda: not jobs(archive, HELD))
    assert not queue.renew(job, 1)


def test_urls_in_a_job_ad_are_not_signed(archive: Archive):
    """The rows decide which URLs are signed; the job ad only says where they go."""
    bucket = archive.cogs
    url = bucket.url_to_write("a.tif", 60)
    text = f"a.tif={url};b.tif={url.replace('a.tif', 'b.tif')};result.json=results/a"
    fresh = bucket.url_to_write("a.tif", 61)
    renewed = signing.renewed(text, [fresh])
    assert renewed == text.replace(f"a.tif={url}", f"a.tif={fresh}")
    part = bucket.url_to_write_part("a.tif", "an-id", 1, 60)
    assert signing.renewed(part, [fresh]) == part


def test_a_poll_with_nothing_to_renew_does_not_read_the_rows(archive: Archive):
    upload(archive, a=1)
    archive.launch_to_poll_by_hand(*PRESIGNED, *ON_HOLD)
    await_jobs(archive, HELD, 1)
    launch = load_launch(archive.launch_file())
    (run,), _ = all_runs(launch)
    run.rows_file.unlink()
    submission.renew_urls(run, launch, Journal(print))


def test_a_launch_says_who_can_read_presigned_urls(archive: Archive):
    output = archive.launch(*PRESIGNED, "--url-hours", "3")
    (warning,) = [line for line in output.splitlines() if "presigned URLs" in line]
    for words in ("can read job ads", "overwrite", "3 hours", "--url-hours"):
        assert words in warning


def test_a_launch_whose_urls_the_shadow_signs_does_not_warn(
    archive: Archive,
):
    assert "presigned URLs" not in archive.launch("--signing", "shadow")


def test_urls_that_no_poll_renews_in_time_are_refused(archive: Archive):
    refused = invoke(*BUCKETS, "--every", "720", "--url-hours", "23")
    assert_wrong(refused, "Use --url-hours 24 or more")
    archive.launch("--every", "1440", *PRESIGNED)
    assert load_launch(archive.launch_file()).url_seconds == 48 * 3600


def test_a_launch_that_was_saved_before_the_option_existed_is_read(archive: Archive):
    archive.launch()
    file = archive.launch_file()
    saved = json.loads(file.read_text())
    del saved["url_seconds"]
    file.write_text(json.dumps(saved))
    assert load_launch(file).url_seconds == 24 * 3600
