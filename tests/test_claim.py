"""Exactly one of several access points claims a manifest, and claims it once."""

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as some

from bucket import Bucket, S3Endpoint
from condor import queue
from dag import claim, launch as launching
from dag.launch import AlreadyRunning
from state.launch import Launch
from state.project import PROJECT
from state.run import Run, create_run
from tests.support import seaweedfs
from tests.support.archive import ALL, Archive
from tests.support.faulty_s3 import Fault, FaultyS3

COMPETITORS = 6


@pytest.fixture(params=["rclone", "seaweedfs"])
def maps(
    request: pytest.FixtureRequest, store: S3Endpoint, tmp_path: Path
) -> Iterator[Bucket]:
    """Yield a bucket; one server ignores conditional writes, the other honours them."""
    name = f"maps-{tmp_path.name[-20:].strip('-_').lower().replace('_', '-')}"
    if request.param == "rclone":
        bucket = Bucket(store, name)
        bucket.create()
        yield bucket
        return
    directory = tmp_path / "weed"
    directory.mkdir()
    with seaweedfs.running(directory, store) as conditional:
        bucket = Bucket(conditional, name)
        bucket.create()
        yield bucket


def competing_runs(
    maps: Bucket, store: S3Endpoint, key: str, places: Path
) -> list[Run]:
    """Return runs of several access points that found the same manifest."""
    (manifest,) = [item for item in maps.list(key) if item.key == key]
    runs = []
    for number in range(COMPETITORS):
        place = places / f"{key}-{number}"
        place.mkdir(parents=True)
        launch = Launch(place, store, maps.name, "cogs")
        downloaded = place / "manifest.download"
        downloaded.write_bytes(b"a.tif,1\n")
        runs.append(create_run(launch, manifest, downloaded, frozenset()))
    return runs


def launch_of(run: Run, maps: Bucket, store: S3Endpoint) -> Launch:
    return Launch(run.directory.parent, store, maps.name, "cogs")


def take(run: Run, maps: Bucket, store: S3Endpoint) -> bool:
    return claim.claim(run, launch_of(run, maps, store), maps)


def write_claim(run: Run, maps: Bucket, store: S3Endpoint) -> None:
    """Write the claim of a run that is killed right after."""
    content = claim._claim_of(run, launch_of(run, maps, store))
    maps.write(f"{run.manifest_key}.claim", json.dumps(asdict(content)).encode())


def test_exactly_one_of_many_competing_runs_claims_the_manifest(
    maps: Bucket, store: S3Endpoint, tmp_path: Path
):
    keys = [f"{number}-raw.csv" for number in range(5)]
    for key in keys:
        maps.write(key, b"a.tif,1\n")
    runs = {key: competing_runs(maps, store, key, tmp_path) for key in keys}
    barrier = threading.Barrier(len(keys) * COMPETITORS)

    def try_to_claim(run: Run) -> bool:
        barrier.wait()
        while True:
            try:
                return take(run, maps, store)
            except claim.ClaimUncertain:
                # This happens on a busy machine; the next poll tries again.
                time.sleep(1)

    with ThreadPoolExecutor(len(keys) * COMPETITORS) as threads:
        tries = {
            key: [threads.submit(try_to_claim, run) for run in competitors]
            for key, competitors in runs.items()
        }
    for key in keys:
        assert sum(attempt.result() for attempt in tries[key]) == 1
    left = existing_keys(maps)
    assert len(left) == len(keys)
    assert all("-processing-" in key for key in left), left


def existing_keys(maps: Bucket) -> list[str]:
    # If an object is removed right after it was written, rclone's server may still list
    # it for minutes, but a HEAD request says that it is gone.
    return [item.key for item in maps.list() if maps.exists(item.key)]


def test_a_manifest_that_another_run_claimed_is_left_to_it(
    maps: Bucket, store: S3Endpoint, tmp_path: Path
):
    maps.write("a-raw.csv", b"a.tif,1\n")
    first, second, *_ = competing_runs(maps, store, "a-raw.csv", tmp_path)
    write_claim(first, maps, store)

    assert not take(second, maps, store)
    (manifest,) = [item for item in maps.list("a-") if item.key == "a-raw.csv"]
    holder = claim.claim_holder(maps, launch_of(second, maps, store), manifest)
    assert first.directory.name in holder
    assert maps.exists("a-raw.csv"), "the run without the claim changed the bucket"
    assert take(first, maps, store), "the holder did not continue after a crash"
    assert not maps.exists("a-raw.csv.claim")


def test_another_user_can_continue_a_claim(
    maps: Bucket, store: S3Endpoint, tmp_path: Path
):
    maps.write("a-raw.csv", b"a.tif,1\n")
    run = competing_runs(maps, store, "a-raw.csv", tmp_path)[0]
    holder = {"user": "another", "host": "elsewhere", "run": run.directory.name}
    maps.write("a-raw.csv.claim", json.dumps(holder | {"token": run.token}).encode())
    assert take(run, maps, store)
    assert {item.key for item in maps.list("a-")} == {run.processing_key}


INVALID_CLAIMS = {
    "incomplete JSON": b'{"user": "ano',
    "empty": b"",
    "deep nesting": b"[" * 4000,
    "large": b"[" * 10_000_000,
    "numbers": b'{"user": 1, "host": 2, "run": 3, "token": 4}',
    "a wrong proof": b'{"user": "a", "host": "b", "run": "c", "token": "d"}',
    "not text": b"\xff\xfe\x00",
    "a lone surrogate": b'{"user": "a", "host": "b", "run": "c", "token": "\\ud800", '
    b'"proof": "\\ud800"}',
}


@pytest.fixture
def unproven_claims_expire_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let claims without a valid proof expire at once."""
    monkeypatch.setattr(claim, "_VALID_UNPROVEN_FOR", timedelta(0))


@pytest.mark.parametrize("content", INVALID_CLAIMS.values(), ids=INVALID_CLAIMS)
def test_a_claim_that_an_uploader_wrote_delays_a_manifest_only_briefly(
    maps: Bucket, store: S3Endpoint, tmp_path: Path, content: bytes, request
):
    maps.write("a-raw.csv", b"a.tif,1\n")
    run = competing_runs(maps, store, "a-raw.csv", tmp_path)[0]
    maps.write("a-raw.csv.claim", content)
    assert not take(run, maps, store), (
        "it may belong to an access point with other keys"
    )
    request.getfixturevalue("unproven_claims_expire_at_once")
    assert take(run, maps, store)
    assert {item.key for item in maps.list("a-")} == {run.processing_key}


# JSON text may contain lone surrogates.
words = some.text(some.characters(exclude_categories=[]), max_size=20)
SURROGATES = json.dumps(dict.fromkeys(claim.Claim.__annotations__, "\ud800")).encode()
fields = some.dictionaries(
    some.sampled_from(["user", "host", "run", "token", "proof", "x"]),
    some.one_of(words, some.integers(), some.none(), some.lists(words, max_size=2)),
)


@given(
    some.one_of(
        some.binary(max_size=40),
        fields.map(json.dumps).map(str.encode),
        some.fixed_dictionaries(dict.fromkeys(claim.Claim.__annotations__, words))
        .map(json.dumps)
        .map(str.encode),
    )
)
@example(SURROGATES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_read_as_a_claim_without_a_valid_proof(
    store: S3Endpoint, tmp_path: Path, content: bytes
):
    launch = Launch(tmp_path, store, "maps", "cogs")
    upload = ("etag", "2026-01-01T00:00:00+00:00")
    now = datetime.now(UTC)
    stored = claim._StoredClaim(claim._read(content), now)
    assert claim._is_valid(stored, launch, "a-raw.csv", upload)
    older = replace(stored, since=now - timedelta(minutes=1))
    assert not claim._is_valid(older, launch, "a-raw.csv", upload)


def test_a_claim_of_a_later_version_is_read():
    current = claim.Claim("user", "host", "run", "token", "proof")
    later = asdict(current) | {"version": 2, "new": [1]}
    assert claim._read(json.dumps(later).encode()) == current


def test_the_proof_of_a_claim_is_valid_for_one_upload_only(
    maps: Bucket,
    store: S3Endpoint,
    tmp_path: Path,
    unproven_claims_expire_at_once: None,
):
    maps.write("a-raw.csv", b"a.tif,1\n")
    first, *_ = competing_runs(maps, store, "a-raw.csv", tmp_path / "first")
    write_claim(first, maps, store)
    proven = maps.read("a-raw.csv.claim", ALL)
    maps.remove("a-raw.csv.claim")
    maps.write("a-raw.csv", b"b.tif,1\n")
    second, *_ = competing_runs(maps, store, "a-raw.csv", tmp_path / "second")
    maps.write("a-raw.csv.claim", proven)
    assert take(second, maps, store)


def test_a_claim_that_is_a_day_old_is_taken_over(
    maps: Bucket, store: S3Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    maps.write("a-raw.csv", b"a.tif,1\n")
    first, second, third, *_ = competing_runs(maps, store, "a-raw.csv", tmp_path)
    write_claim(first, maps, store)
    # The first run was killed right before it renamed the manifest.
    first.claimed_file.write_text("{}")
    assert not take(second, maps, store)
    monkeypatch.setattr(claim, "_VALID_FOR", timedelta(0))
    write_claim(second, maps, store)
    monkeypatch.undo()
    assert not take(first, maps, store)
    assert not take(third, maps, store)
    assert take(second, maps, store)
    assert {item.key for item in maps.list("a-")} == {second.processing_key}


def test_a_manifest_that_was_replaced_is_not_claimed(
    maps: Bucket, store: S3Endpoint, tmp_path: Path
):
    maps.write("a-raw.csv", b"a.tif,1\n")
    run, *_ = competing_runs(maps, store, "a-raw.csv", tmp_path)
    maps.write("a-raw.csv", b"a.tif,1\nb.tif,1\n")

    assert not take(run, maps, store)
    assert [item.key for item in maps.list()] == ["a-raw.csv"]
    assert maps.read("a-raw.csv", ALL) == b"a.tif,1\nb.tif,1\n"


def test_an_upload_after_the_claim_stays(
    maps: Bucket, store: S3Endpoint, tmp_path: Path
):
    maps.write("a-raw.csv", b"a.tif,1\n")
    run, *_ = competing_runs(maps, store, "a-raw.csv", tmp_path)
    assert take(run, maps, store)
    # Some servers return the date of an object in whole seconds.
    time.sleep(1.1)
    maps.write("a-raw.csv", b"a.tif,1\n")

    assert take(run, maps, store), (
        "the next poll claims again if HTCondor was not available"
    )
    assert maps.exists("a-raw.csv")


def test_a_claim_that_is_listed_but_gone_delays_no_run(
    faulty_archive: Archive, faulty_s3_server: FaultyS3
):
    faulty_archive.launch_to_poll_by_hand()
    faulty_archive.upload_raster("image.tif", 1)
    faulty_archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    faulty_archive.maps.write("batch-raw.csv.claim", b"{}")
    # The listing has the claim, but the two requests for it find none.
    with faulty_s3_server.suffering(Fault("GET", r"\.claim$", status=404, times=2)):
        polled = faulty_archive.poll()
    assert polled.returncode == 0, polled.stderr
    assert faulty_archive.outcome("batch-") == ([["image.tif", "1"]], [])


def poll_together(archives: list[Archive]) -> None:
    polls = [
        subprocess.Popen(
            [
                *(sys.executable, str(PROJECT / "cog_pipeline.py"), "poll"),
                str(archive.launch_file()),
            ],
            cwd=archive.directory,
        )
        for archive in archives
    ]
    assert [process.wait() for process in polls] == [0] * len(polls)


def submissions(archives: list[Archive]) -> int:
    """Return how many jobs were submitted for nodes, without those of FINAL nodes."""
    logs = [
        log.read_text()
        for archive in archives
        for log in archive.directory.glob("workflow-run-*/convert.dag.nodes.log")
    ]
    return sum(len(re.findall(r"DAG(?: Node: |NodeName = \")row", log)) for log in logs)


def test_two_access_points_on_one_bucket_share_the_work(archive: Archive):
    archives = []
    # They share one queue here, and a second launch with the same pattern is refused.
    for pattern in ("*raw.csv", "b*raw.csv", "*-raw.csv"):
        place = archive.directory / str(len(archives))
        place.mkdir()
        archives.append(replace(archive, directory=place))
        archives[-1].launch_to_poll_by_hand("-p", pattern)
    stems = [f"b{number}-" for number in range(3)]
    for stem in stems:
        archive.upload_raster(f"{stem}image.tif", 1)
        archive.upload_manifest(f"{stem}raw.csv", [(f"{stem}image.tif", 1)])

    poll_together(archives)

    for stem in stems:
        assert archive.outcome(stem) == ([[f"{stem}image.tif", "1"]], [])
    assert submissions(archives) == len(stems)
    assert not [key for key in existing_keys(archive.maps) if key.endswith("claim")]


def test_an_image_of_two_manifests_is_converted_by_one_node_at_a_time(
    archive: Archive,
):
    for key in "abc":
        archive.upload_raster(f"{key}.tif", 1)
    archive.launch_to_poll_by_hand()
    archive.upload_manifest("x-raw.csv", [("a.tif", 1), ("b.tif", 1)])
    archive.upload_manifest(
        "y-raw.csv", [(f"{archive.maps.name}/b.tif", 1), ("c.tif", 1)]
    )

    output = archive.poll().stdout
    assert submissions([archive]) <= 2
    assert "y-raw.csv has images that are being converted: it waits for x-" in output
    assert archive.outcome("x-")[1] == []
    done = archive.poll()
    assert done.returncode == 0, done.stderr
    processed, failed = archive.outcome("y-")
    assert failed == []
    assert len(processed) == 2


def test_a_manifest_that_is_uploaded_again_is_a_new_manifest(archive: Archive):
    rows = [("image.tif", 1)]
    archive.upload_raster("image.tif", 1)
    archive.launch_to_poll_by_hand()
    archive.upload_manifest("batch-raw.csv", rows)
    archive.poll()
    # Upload again while the first run is in progress, and again after each run.
    archive.upload_manifest("batch-raw.csv", rows)
    for _ in range(2):
        while _has_runs(archive):
            archive.poll()
        archive.upload_manifest("batch-raw.csv", rows)
        archive.poll()
    while _has_runs(archive):
        archive.poll()

    processed = list(archive.maps.list("batch-processed-"))
    assert len(processed) == 4
    assert [item.size for item in archive.maps.list("batch-failed-")] == [0] * 4
    assert submissions([archive]) == 4


def _has_runs(archive: Archive) -> bool:
    keys = [item.key for item in archive.maps.list("batch-")]
    return any("raw" in key or "processing" in key for key in keys)


@pytest.mark.parametrize("where", ["in one directory", "in two directories"])
def test_exactly_one_of_two_simultaneous_launches_succeeds(
    archive: Archive, where: str
):
    places = [archive.directory, archive.directory]
    if where == "in two directories":
        places = [archive.directory / "one", archive.directory / "two"]
        for place in places:
            place.mkdir()
    launches = [
        subprocess.Popen(
            archive.command("--every", "60"),
            cwd=place,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for place in places
    ]
    errors = [process.communicate()[1] for process in launches]
    codes = sorted(process.returncode for process in launches)

    assert codes[0] == 0, errors
    assert codes[1] != 0, errors
    assert "already running" in "".join(errors)
    jobs = subprocess.run(
        ["condor_q", "-constraint", "JobStatus != 3", "-af", "CogPipeline"],
        capture_output=True,
        text=True,
    ).stdout
    assert len(re.findall(archive.maps.name, jobs)) == 1


@pytest.mark.parametrize("places", [("one", "one"), ("one", "two")])
def test_exactly_one_of_two_launches_that_both_passed_the_check_succeeds(
    archive: Archive, places: tuple[str, str], monkeypatch: pytest.MonkeyPatch
):
    barrier, check, submit = threading.Barrier(2), launching.check, queue.submit
    # Force a moment that occurs about once in a thousand launches.
    monkeypatch.setattr(launching, "check", lambda p: (check(p), barrier.wait(60)))
    # Wait for long enough that the other launch queries the queue too, and sees none.
    monkeypatch.setattr(queue, "submit", lambda d: (time.sleep(1), submit(d))[1])

    def launch(place: str) -> int | str:
        directory = archive.directory / place
        directory.mkdir(exist_ok=True)
        names = (archive.maps.name, archive.cogs.name)
        try:
            return launching.launch(Launch(directory, archive.store, *names))
        except AlreadyRunning as error:
            return str(error)

    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(launch, places))
    kinds = sorted(isinstance(result, int) for result in results)
    assert kinds == [False, True], results
