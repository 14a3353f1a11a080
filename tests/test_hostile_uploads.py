"""Uploaders choose content, names and number of objects; no run suffers from that."""

import gzip
import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from minio import Minio

from bucket import Bucket, S3Endpoint, StoredObject
from dag import claim, intake, overlap, processing
from dag.manifest import MAX_SIZE, parse
from state.launch import Launch
from state.run import Run, create_run
from state.waiting import MAX_WAIT
from tests.support.archive import ALL, Archive, wait_for
from tests.support.faulty_s3 import FaultyS3

BY_HAND = "x-processing-20200101T000000Z.csv"


def test_a_processing_csv_that_was_uploaded_by_hand_delays_no_run(
    archive: Archive,
):
    archive.upload_raster("image.tif", 1)
    archive.launch_to_poll_by_hand()
    archive.maps.write(BY_HAND, b"image.tif,1\n")
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    done = archive.poll()
    assert done.returncode == 0, done.stderr
    assert "waits for" not in done.stdout
    assert archive.outcome("batch-") == ([["image.tif", "1"]], [])
    assert archive.maps.exists(BY_HAND), "it belongs to no run and stays"


@pytest.fixture
def maps(store: S3Endpoint) -> Bucket:
    bucket = Bucket(store, f"uploads-{uuid.uuid4().hex[:8]}")
    bucket.create()
    return bucket


def claimed_run(
    maps: Bucket, store: S3Endpoint, place: Path, key: str, content: bytes
) -> tuple[Run, Launch]:
    """Upload and claim a manifest, and return its run and launch."""
    place.mkdir(exist_ok=True)
    launch = Launch(place, store, maps.name, "cogs")
    maps.write(key, content)
    (manifest,) = [item for item in maps.list(key) if item.key == key]
    downloaded = place / "manifest.download"
    downloaded.write_bytes(content)
    run = create_run(launch, manifest, downloaded, frozenset())
    assert claim.claim(run, launch, maps)
    return run, launch


def waits_for(run: Run, launch: Launch, maps: Bucket) -> str | None:
    """Return the processing CSV of the run for which a run waits, or None."""
    manifest = parse(run.manifest_file.read_bytes())
    listed = processing.listed(maps, launch)
    other = overlap.run_to_wait_for(run, manifest, listed, [], launch, maps)
    return other and other.key


def test_a_run_waits_for_an_overlapping_run_of_another_access_point(
    maps: Bucket, store: S3Endpoint, tmp_path: Path
):
    first, _ = claimed_run(maps, store, tmp_path / "one", "a-raw.csv", b"a.tif,1\n")
    second, launch = claimed_run(
        maps, store, tmp_path / "two", "b-raw.csv", b"a.tif,1\n"
    )
    assert waits_for(second, launch, maps) == first.processing_key


@pytest.mark.parametrize("forgery", ["content", "key", "access key"])
def test_the_proof_of_a_processing_csv_is_valid_for_no_other(
    maps: Bucket, store: S3Endpoint, tmp_path: Path, forgery: str
):
    first, _ = claimed_run(maps, store, tmp_path / "one", "a-raw.csv", b"a.tif,1\n")
    metadata = maps.metadata(first.processing_key)
    maps.remove(first.processing_key)
    forged, content, key = tmp_path / "forged.csv", b"b.tif,1\n", first.processing_key
    if forgery == "key":
        content, key = b"a.tif,1\n", BY_HAND
    elif forgery == "access key":
        other_key = tmp_path / "other.key"
        other_key.write_text("another-key")
        other = Launch(
            tmp_path,
            S3Endpoint(store.endpoint, store.access_key, other_key),
            maps.name,
            "cogs",
        )
        forged.write_bytes(content)
        metadata = processing._metadata(other, key, processing.sha256(forged))
    forged.write_bytes(content)
    maps.upload(key, forged, "text/csv", metadata)
    second, launch = claimed_run(
        maps, store, tmp_path / "two", "b-raw.csv", b"a.tif,1\nb.tif,1\n"
    )
    assert waits_for(second, launch, maps) is None


def test_a_run_that_waits_reads_a_processing_csv_once(
    maps: Bucket, store: S3Endpoint, tmp_path: Path, faulty_s3_server: FaultyS3
):
    first, _ = claimed_run(maps, store, tmp_path / "one", "a-raw.csv", b"a.tif,1\n")
    second, launch = claimed_run(
        maps, store, tmp_path / "two", "b-raw.csv", b"a.tif,1\n"
    )
    via_proxy = Bucket(
        S3Endpoint(
            faulty_s3_server.endpoint,
            store.access_key,
            store.secret_key,
            ca_certs=store.ca_certs,
        ),
        maps.name,
    )
    assert waits_for(second, launch, via_proxy) == first.processing_key
    reads = ("GET", r"processing-[^/]*\.csv")
    assert faulty_s3_server.count(*reads) == 1
    for _ in range(3):
        assert waits_for(second, launch, via_proxy) == first.processing_key
    assert faulty_s3_server.count(*reads) == 1
    maps.remove(first.processing_key)
    assert waits_for(second, launch, via_proxy) is None


def test_a_run_does_not_wait_forever(maps: Bucket, store: S3Endpoint, tmp_path: Path):
    first, _ = claimed_run(maps, store, tmp_path / "one", "a-raw.csv", b"a.tif,1\n")
    second, launch = claimed_run(
        maps, store, tmp_path / "two", "b-raw.csv", b"a.tif,1\n"
    )
    assert waits_for(second, launch, maps) == first.processing_key
    long_ago = datetime.now(UTC) - MAX_WAIT - timedelta(minutes=1)
    waiting = json.loads(second.waiting_file.read_text())
    second.waiting_file.write_text(
        json.dumps(waiting | {"since": long_ago.isoformat()})
    )
    assert waits_for(second, launch, maps) is None


def test_health_reports_a_run_that_waits_for_days(archive: Archive):
    archive.upload_raster("image.tif", 1)
    archive.launch("--every", "1440", "--submit-option", "hold = true")
    archive.upload_manifest("a-raw.csv", [("image.tif", 1)])
    assert archive.poll().returncode == 0
    archive.upload_manifest("b-raw.csv", [("image.tif", 1)])
    assert "waits for a-processing" in archive.poll().stdout
    assert "has waited" not in archive.health().stdout
    (file,) = archive.directory.glob("workflow-run-*/waiting.json")
    since = datetime.now(UTC) - timedelta(days=2, hours=1)
    waiting = json.loads(file.read_text())
    file.write_text(json.dumps(waiting | {"since": since.isoformat()}))
    health = archive.health()
    assert health.returncode == 1
    assert "has waited for 2 days for a-processing-" in health.stdout


@pytest.fixture
def too_large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    with path.open("wb") as sparse:
        sparse.truncate(MAX_SIZE + 1)
    return path


def test_a_manifest_that_is_too_large_is_kept_and_not_downloaded(
    faulty_archive: Archive, faulty_s3_server: FaultyS3, too_large: Path
):
    faulty_archive.launch_to_poll_by_hand()
    faulty_archive.maps.upload("batch-raw.csv", too_large)
    faulty_s3_server.requests.clear()
    done = faulty_archive.poll()
    assert done.returncode == 0, done.stdout + done.stderr
    assert not faulty_s3_server.count("GET", r"/batch-raw\.csv(\?|$)")
    processed, failed = faulty_archive.outcome("batch-")
    assert not processed
    ((key, _, reason),) = failed
    assert key == "batch-raw.csv"
    assert "128 is the maximum" in reason
    (kept,) = faulty_archive.maps.list("batch-unreadable-")
    assert kept.key in reason
    assert kept.size == MAX_SIZE + 1
    left = {item.key for item in faulty_archive.maps.list("batch-")}
    assert len(left) == 3


def test_a_manifest_that_is_too_large_when_decompressed_is_not_read(archive: Archive):
    archive.launch_to_poll_by_hand()
    bomb = gzip.compress(b"a" * (MAX_SIZE + 1), 9)
    store = archive.store
    client = Minio(
        store.endpoint,
        store.access_key.read_text().strip(),
        store.secret_key.read_text().strip(),
        http_client=archive.maps._http,
    )
    path = archive.directory / "bomb"
    path.write_bytes(bomb)
    client.fput_object(
        archive.maps.name,
        "batch-raw.csv",
        str(path),
        metadata={"Content-Encoding": "gzip"},
    )
    done = archive.poll()
    assert done.returncode == 0, done.stdout + done.stderr
    _, failed = archive.outcome("batch-")
    assert len(failed) == 1
    assert list(archive.maps.list("batch-unreadable-"))
    for file in archive.directory.rglob("*"):
        assert file.lstat().st_size < 10**6, file


def test_a_manifest_that_cannot_be_read_stays_in_the_bucket(archive: Archive):
    archive.launch_to_poll_by_hand()
    archive.maps.write("batch-raw.csv", b"\0binary")
    assert archive.poll().returncode == 0
    _, ((_, _, reason),) = archive.outcome("batch-")
    (kept,) = archive.maps.list("batch-unreadable-")
    assert kept.key in reason
    assert archive.maps.read(kept.key, ALL) == b"\0binary"


def stored(key: str, minute: int) -> StoredObject:
    return StoredObject(key, 7, "", datetime(2026, 1, 1, 0, minute, tzinfo=UTC))


def test_folders_take_turns():
    many = [stored(f"greedy/{n}-raw.csv", n) for n in range(10)]
    others = [stored("b/x-raw.csv", 50), stored("c/x-raw.csv", 40)]
    keys = [item.key for item in intake.in_turn([*many, *others], [])]
    assert keys[:4] == [
        *("greedy/0-raw.csv", "c/x-raw.csv", "b/x-raw.csv", "greedy/1-raw.csv")
    ]
    assert len(keys) == 12


def test_a_folder_with_live_runs_comes_after_one_without(tmp_path: Path):
    empty = dict.fromkeys(Run.__dataclass_fields__, "")
    live = Run(**empty | {"manifest_key": "a/before-raw.csv"})
    manifests = [stored("a/x-raw.csv", 1), stored("b/x-raw.csv", 2)]
    assert [item.key for item in intake.in_turn(manifests, [live])] == [
        *("b/x-raw.csv", "a/x-raw.csv")
    ]


def test_no_more_runs_start_than_max_runs(archive: Archive):
    archive.upload_raster("image.tif", 1)
    archive.launch_to_poll_by_hand(
        *("--max-runs", "2", "--submit-option", "hold = true")
    )
    for name in ("a", "b", "c", "d"):
        archive.upload_manifest(f"greedy/{name}-raw.csv", [(f"{name}.tif", 1)] * 2)
    archive.upload_manifest("other/x-raw.csv", [("image.tif", 1)])
    done = archive.poll()
    assert done.returncode == 0, done.stderr
    assert "--max-runs allows no more at once" in done.stdout
    assert len(list(archive.directory.glob("workflow-run-*"))) == 2
    assert list(archive.maps.list("other/x-processing-"))
    # The run without convertible rows ended at once, so that one more may start.
    assert archive.poll().returncode == 0
    assert len(list(archive.directory.glob("workflow-run-*"))) == 3


TOO_LONG_KEYS = {
    "with the suffix of a claim": "x" * 248 + "raw.csv",
    "with the name of a state": "x" * 230 + "raw.csv",
    "as a whole": "/".join(["d" * 200] * 5) + "/xraw.csv",
}


@pytest.mark.parametrize("key", TOO_LONG_KEYS.values(), ids=TOO_LONG_KEYS)
def test_a_manifest_whose_name_is_too_long_delays_no_run(archive: Archive, key: str):
    archive.launch_to_poll_by_hand("--max-runs", "1")
    archive.maps.write(key, b"missing.tif,1\n")
    archive.upload_manifest("zraw.csv", [("missing.tif", 1)])
    done = archive.poll()
    assert done.returncode == 0, done.stderr
    assert "is not processed, because its name is too long" in done.stdout
    assert archive.maps.exists(key)
    # It has no run: such a run would never end.
    assert len(list(archive.directory.glob("workflow-run-*"))) == 1
    assert archive.outcome("z")[1]


@pytest.mark.parametrize("key", ["a/../raw.csv", "./raw.csv", "../raw.csv"])
def test_a_manifest_whose_key_no_url_can_have_is_refused(key: str):
    listed = [stored(key, 0), stored("a/raw.csv", 1)]
    listing = intake.sift(listed, Launch(Path(), None, "maps", "cogs"))
    assert [item.key for item in listing.manifests] == ["a/raw.csv"]
    assert [refused for refused, _ in listing.refused] == [key]


def test_a_manifest_that_a_store_would_copy_for_hours_is_refused():
    large = StoredObject("a-raw.csv", 5 * 2**40, "etag", datetime.now(UTC))
    listing = intake.sift([large], Launch(Path(), None, "maps", "cogs"))
    assert not listing.manifests
    assert listing.refused == [("a-raw.csv", "it is larger than 1 GiB: remove it")]


def test_rows_whose_keys_are_too_long_for_a_store_fail(archive: Archive):
    archive.launch_to_poll_by_hand("--output-prefix", "p" * 20)
    folders = "/".join(["d" * 250] * 90)
    input_only = "/".join(["d" * 200] * 5) + "/x.tif"
    archive.maps.write(input_only, b"no image")
    rows = [(f"{folders}/x.tif", 1), (input_only, 1)]
    archive.upload_manifest("batch-raw.csv", rows)
    done = archive.poll()
    assert done.returncode == 0, done.stderr
    _, failed = archive.outcome("batch-")
    reasons = [row[2] for row in failed]
    assert reasons[0].startswith("its key has 22595 bytes, and 1016 is the maximum")
    assert "the key of its COG has 1030 bytes" in reasons[1]


def test_no_run_starts_below_the_disk_floor(archive: Archive):
    archive.launch_to_poll_by_hand("--disk-floor", "1000000000")
    archive.upload_manifest("batch-raw.csv", [("missing.tif", 1)])
    done = archive.poll()
    assert done.returncode == 0, done.stderr
    assert "launch with another --disk-floor" in done.stdout
    assert archive.maps.exists("batch-raw.csv")
    assert not list(archive.directory.glob("workflow-run-*"))


def test_outputs_that_no_node_of_the_run_wrote_are_recorded(archive: Archive):
    archive.upload_raster("a.tif", 1)
    archive.cogs.write("a.tif.old", b"there before")
    time.sleep(1.1)  # The time in a run's name is in whole seconds.
    archive.launch_to_poll_by_hand("--submit-option", "hold = true")
    archive.upload_manifest("batch-raw.csv", [("a.tif", 1)])
    assert archive.poll().returncode == 0
    (run,) = archive.directory.glob("workflow-run-*")
    for key in ("a.tif", "a.tiff", "a.jpg/x", "b.tif"):
        archive.cogs.write(key, b"planted")
    cluster = json.loads((run / "submitted.json").read_text())["cluster"]
    subprocess.run(["condor_rm", str(cluster)], check=True, capture_output=True)
    wait_for(lambda: archive.poll().returncode == 0 and (run / "done.json").exists())
    events = [json.loads(line) for line in (run / "log.jsonl").open()]
    keys = [event["key"] for event in events if event["event"] == "strange-output"]
    assert sorted(keys) == ["a.jpg/x", "a.tif", "a.tiff"]


def large_listing() -> Iterator[StoredObject]:
    for number in range(50_000):
        yield stored(f"a/{number:06}-raw.csv", number % 60)
    for number in range(50_000):
        yield stored(f"b/{number:06}/x-raw.csv", 1)
        yield stored(f"b/{number:06}/x-raw.csv.claim", 1)
        yield stored(f"b/{number:06}/x-failed-20200101T000000Z.csv", 1)
        yield stored(f"b/{number:06}/x-failed-29990101T000000Z.csv", 1)


def test_a_poll_keeps_only_the_manifests_whose_turn_may_come(
    store: S3Endpoint, tmp_path: Path
):
    launch = Launch(tmp_path, store, "maps", "cogs", max_runs=10)
    listing = intake.sift(large_listing(), launch)
    assert len(listing.manifests) <= 1000 + 20
    assert len(listing.taken) == 50_000
    greedy = [item for item in listing.manifests if item.key.startswith("a/")]
    assert all(item.modified.minute == 0 for item in greedy[:10])
    again = intake.sift(large_listing(), launch)
    # The next poll keeps others, so that an uploader can leave none out for ever.
    assert {item.key for item in listing.manifests} != {
        item.key for item in again.manifests
    }
