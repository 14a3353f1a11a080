"""Whoever looks at the same moment: one alone takes a manifest, and none twice."""

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

CLAIMANTS = 6


@pytest.fixture(params=["rclone", "seaweedfs"])
def maps(
    request: pytest.FixtureRequest, store: S3Endpoint, tmp_path: Path
) -> Iterator[Bucket]:
    """A bucket of a server that ignores conditions, and of one that knows them."""
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


def claimants(maps: Bucket, store: S3Endpoint, key: str, places: Path) -> list[Run]:
    """Runs of several access points that found the same manifest."""
    (manifest,) = [found for found in maps.list(key) if found.key == key]
    made = []
    for number in range(CLAIMANTS):
        place = places / f"{key}-{number}"
        place.mkdir(parents=True)
        launch = Launch(place, store, maps.name, "cogs")
        downloaded = place / "manifest.download"
        downloaded.write_bytes(b"a.tif,1\n")
        made.append(create_run(launch, manifest, downloaded, frozenset()))
    return made


def launch_of(run: Run, maps: Bucket, store: S3Endpoint) -> Launch:
    return Launch(run.directory.parent, store, maps.name, "cogs")


def take(run: Run, maps: Bucket, store: S3Endpoint) -> bool:
    return claim.claim(run, launch_of(run, maps, store), maps)


def write_claim(run: Run, maps: Bucket, store: S3Endpoint) -> None:
    """Claim a manifest, and be killed then."""
    made = claim._claim_of(run, launch_of(run, maps, store))
    maps.write(f"{run.manifest_key}.claim", json.dumps(asdict(made)).encode())


def test_of_many_claimants_one_succeeds(
    maps: Bucket, store: S3Endpoint, tmp_path: Path
):
    keys = [f"{number}-raw.csv" for number in range(5)]
    for key in keys:
        maps.write(key, b"a.tif,1\n")
    everyone = {key: claimants(maps, store, key, tmp_path) for key in keys}
    barrier = threading.Barrier(len(keys) * CLAIMANTS)

    def try_to_claim(run: Run) -> bool:
        barrier.wait()
        while True:
            try:
                return take(run, maps, store)
            except claim.ClaimUncertain:
                # As on a busy machine: the next poll tries again.
                time.sleep(1)

    with ThreadPoolExecutor(len(keys) * CLAIMANTS) as threads:
        tries = {
            key: [threads.submit(try_to_claim, run) for run in who]
            for key, who in everyone.items()
        }
    for key in keys:
        assert sum(attempt.result() for attempt in tries[key]) == 1
    left = what_is_there(maps)
    assert len(left) == len(keys)
    assert all("-processing-" in key for key in left), left


def what_is_there(maps: Bucket) -> list[str]:
    # rclone's server may list for minutes what was written and removed at one moment;
    # asked for it, it knows.
    return [found.key for found in maps.list() if maps.exists(found.key)]


def test_a_claim_that_is_held_is_respected(
    maps: Bucket, store: S3Endpoint, tmp_path: Path
):
    maps.write("a-raw.csv", b"a.tif,1\n")
    first, second, *_ = claimants(maps, store, "a-raw.csv", tmp_path)
    write_claim(first, maps, store)

    assert not take(second, maps, store)
    (manifest,) = [found for found in maps.list("a-") if found.key == "a-raw.csv"]
    holder = claim.claim_holder(maps, launch_of(second, maps, store), manifest)
    assert first.directory.name in holder
    assert maps.exists("a-raw.csv"), "the loser touches nothing"
    assert take(first, maps, store), "its holder goes on, as after a crash"
    assert not maps.exists("a-raw.csv.claim")


def test_a_claim_is_carried_on_by_another_user(
    maps: Bucket, store: S3Endpoint, tmp_path: Path
):
    maps.write("a-raw.csv", b"a.tif,1\n")
    run = claimants(maps, store, "a-raw.csv", tmp_path)[0]
    held = {"user": "another", "host": "elsewhere", "run": run.directory.name}
    maps.write("a-raw.csv.claim", json.dumps(held | {"token": run.token}).encode())
    assert take(run, maps, store)
    assert {found.key for found in maps.list("a-")} == {run.processing_key}


NO_CLAIMS = {
    "half of one": b'{"user": "ano',
    "nothing": b"",
    "nested deeply": b"[" * 4000,
    "large": b"[" * 10_000_000,
    "numbers": b'{"user": 1, "host": 2, "run": 3, "token": 4}',
    "one without a proof": b'{"user": "a", "host": "b", "run": "c", "token": "d"}',
    "no text": b"\xff\xfe\x00",
    "half a character": b'{"user": "a", "host": "b", "run": "c", "token": "\\ud800", '
    b'"proof": "\\ud800"}',
}


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if claims that nobody proves had been there for as long as they stand."""
    monkeypatch.setattr(claim, "_VALID_UNPROVEN_FOR", timedelta(0))


@pytest.mark.parametrize("content", NO_CLAIMS.values(), ids=NO_CLAIMS)
def test_a_claim_that_who_uploads_wrote_keeps_nobody_waiting_for_long(
    maps: Bucket, store: S3Endpoint, tmp_path: Path, content: bytes, request
):
    maps.write("a-raw.csv", b"a.tif,1\n")
    run = claimants(maps, store, "a-raw.csv", tmp_path)[0]
    maps.write("a-raw.csv.claim", content)
    assert not take(run, maps, store), "it may be of an access point with other keys"
    request.getfixturevalue("at_once")
    assert take(run, maps, store)
    assert {found.key for found in maps.list("a-")} == {run.processing_key}


# Also halves of characters, which JSON can have.
words = some.text(some.characters(exclude_categories=[]), max_size=20)
HALF = json.dumps(dict.fromkeys(claim.Claim.__annotations__, "\ud800")).encode()
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
@example(HALF)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_in_its_place_are_a_claim_without_a_proof(
    store: S3Endpoint, tmp_path: Path, content: bytes
):
    launch = Launch(tmp_path, store, "maps", "cogs")
    upload = ("etag", "2026-01-01T00:00:00+00:00")
    now = datetime.now(UTC)
    stored = claim._StoredClaim(claim._read(content), now)
    assert claim._is_valid(stored, launch, "a-raw.csv", upload)
    before = replace(stored, since=now - timedelta(minutes=1))
    assert not claim._is_valid(before, launch, "a-raw.csv", upload)


def test_a_claim_of_a_later_version_is_read():
    held = claim.Claim("user", "host", "run", "token", "proof")
    later = asdict(held) | {"version": 2, "new": [1]}
    assert claim._read(json.dumps(later).encode()) == held


def test_the_proof_of_a_claim_holds_for_one_upload_alone(
    maps: Bucket, store: S3Endpoint, tmp_path: Path, at_once: None
):
    maps.write("a-raw.csv", b"a.tif,1\n")
    first, *_ = claimants(maps, store, "a-raw.csv", tmp_path / "first")
    write_claim(first, maps, store)
    proven = maps.read("a-raw.csv.claim", ALL)
    maps.remove("a-raw.csv.claim")
    maps.write("a-raw.csv", b"b.tif,1\n")
    second, *_ = claimants(maps, store, "a-raw.csv", tmp_path / "second")
    maps.write("a-raw.csv.claim", proven)
    assert take(second, maps, store)


def test_an_access_point_that_was_away_for_a_day_finds_its_claim_taken_over(
    maps: Bucket, store: S3Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    maps.write("a-raw.csv", b"a.tif,1\n")
    first, second, third, *_ = claimants(maps, store, "a-raw.csv", tmp_path)
    write_claim(first, maps, store)
    # It was killed right before it would have renamed the manifest.
    first.claimed_file.write_text("{}")
    assert not take(second, maps, store)
    monkeypatch.setattr(claim, "_VALID_FOR", timedelta(0))
    write_claim(second, maps, store)
    monkeypatch.undo()
    assert not take(first, maps, store)
    assert not take(third, maps, store)
    assert take(second, maps, store)
    assert {found.key for found in maps.list("a-")} == {second.processing_key}


def test_a_manifest_that_was_replaced_is_left_alone(
    maps: Bucket, store: S3Endpoint, tmp_path: Path
):
    maps.write("a-raw.csv", b"a.tif,1\n")
    run, *_ = claimants(maps, store, "a-raw.csv", tmp_path)
    maps.write("a-raw.csv", b"a.tif,1\nb.tif,1\n")

    assert not take(run, maps, store)
    assert [found.key for found in maps.list()] == ["a-raw.csv"]
    assert maps.read("a-raw.csv", ALL) == b"a.tif,1\nb.tif,1\n"


def test_an_upload_after_the_claim_stays(
    maps: Bucket, store: S3Endpoint, tmp_path: Path
):
    maps.write("a-raw.csv", b"a.tif,1\n")
    run, *_ = claimants(maps, store, "a-raw.csv", tmp_path)
    assert take(run, maps, store)
    # Some servers tell the date of an object in whole seconds.
    time.sleep(1.1)
    maps.write("a-raw.csv", b"a.tif,1\n")

    assert take(run, maps, store), "as the next poll does, with HTCondor away"
    assert maps.exists("a-raw.csv")


def test_a_claim_that_is_listed_and_gone_keeps_nobody_waiting(
    faulty_archive: Archive, faulty_s3_server: FaultyS3
):
    faulty_archive.launch_to_poll_by_hand()
    faulty_archive.upload_raster("image.tif", 1)
    faulty_archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    faulty_archive.maps.write("batch-raw.csv.claim", b"{}")
    # It is listed, and when asked for, before and at claiming, there is none.
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
    """How many jobs of nodes were ever submitted, the FINAL nodes' not counted."""
    logs = [
        log.read_text()
        for archive in archives
        for log in archive.directory.glob("workflow-run-*/convert.dag.nodes.log")
    ]
    return sum(len(re.findall(r"DAG(?: Node: |NodeName = \")row", log)) for log in logs)


def test_two_access_points_on_one_bucket_share_the_work(archive: Archive):
    archives = []
    # Patterns that differ, or the queue that they share here would refuse them.
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
    assert not [key for key in what_is_there(archive.maps) if key.endswith("claim")]


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

    said = archive.poll().stdout
    assert submissions([archive]) <= 2
    assert "y-raw.csv has images that are being converted: it waits for x-" in said
    assert archive.outcome("x-")[1] == []
    done = archive.poll()
    assert done.returncode == 0, done.stderr
    processed, failed = archive.outcome("y-")
    assert failed == []
    assert len(processed) == 2


def test_a_manifest_that_is_uploaded_again_is_another(archive: Archive):
    rows = [("image.tif", 1)]
    archive.upload_raster("image.tif", 1)
    archive.launch_to_poll_by_hand()
    archive.upload_manifest("batch-raw.csv", rows)
    archive.poll()
    # While the first is being processed, and, when that is over, once more.
    archive.upload_manifest("batch-raw.csv", rows)
    for _ in range(2):
        while _at_work(archive):
            archive.poll()
        archive.upload_manifest("batch-raw.csv", rows)
        archive.poll()
    while _at_work(archive):
        archive.poll()

    processed = list(archive.maps.list("batch-processed-"))
    assert len(processed) == 4
    assert [each.size for each in archive.maps.list("batch-failed-")] == [0] * 4
    assert submissions([archive]) == 4


def _at_work(archive: Archive) -> bool:
    keys = [found.key for found in archive.maps.list("batch-")]
    return any("raw" in key or "processing" in key for key in keys)


@pytest.mark.parametrize("where", ["in one directory", "in two directories"])
def test_of_two_launches_at_the_same_moment_one_succeeds(archive: Archive, where: str):
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
    said = [process.communicate()[1] for process in launches]
    codes = sorted(process.returncode for process in launches)

    assert codes[0] == 0, said
    assert codes[1] != 0, said
    assert "already running" in "".join(said)
    jobs = subprocess.run(
        ["condor_q", "-constraint", "JobStatus != 3", "-af", "CogPipeline"],
        capture_output=True,
        text=True,
    ).stdout
    assert len(re.findall(archive.maps.name, jobs)) == 1


@pytest.mark.parametrize("places", [("one", "one"), ("one", "two")])
def test_of_launches_that_both_saw_none_one_succeeds(
    archive: Archive, places: tuple[str, str], monkeypatch: pytest.MonkeyPatch
):
    both, check, submit = threading.Barrier(2), launching.check, queue.submit
    # The real ones, at moments that meet in practice once in a thousand launches.
    monkeypatch.setattr(launching, "check", lambda p: (check(p), both.wait(60)))
    # Long enough for the other to look as well, and to see nothing.
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
        said = list(threads.map(launch, places))
    assert sorted(isinstance(each, int) for each in said) == [False, True], said
