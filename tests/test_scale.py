"""The programs of make scale measure correctly."""

import csv
import hashlib
import math
import re
import subprocess
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import pytest

from bucket import Bucket
from lab.scale import generate, idle, page, run
from lab.scale.fill import fill, server_beside_pool
from lab.scale.generate import Fate, Frame
from lab.scale.growth import fit
from lab.scale.measure import CommandFailed, cost, requests
from lab.scale.quantities import checks, idle_checks
from lab.support import markdown
from node.result import Result
from pool.personal import PersonalPool
from state.project import PROJECT
from tests.support.archive import ALL
from tests.support.seaweedfs import SeaweedFS

ROWS = (1_000, 10_000, 100_000, 1_000_000)


@pytest.fixture(scope="module")
def server(pool: PersonalPool, tmp_path_factory: pytest.TempPathFactory):
    with server_beside_pool(pool, tmp_path_factory.mktemp("scale")) as running:
        yield running


@pytest.fixture
def bucket(server: SeaweedFS, request: pytest.FixtureRequest) -> Bucket:
    digest = hashlib.sha256(request.node.name.encode()).hexdigest()[:8]
    new_bucket = Bucket(server.store, f"scale-{digest}")
    new_bucket.create()
    return new_bucket


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_fit_finds_the_exponent_of_the_growth(exponent: float):
    growth = fit({rows: 3 + 0.01 * rows**exponent for rows in ROWS})

    assert growth.exponent == pytest.approx(exponent, abs=0.02) or exponent == 0
    assert not growth.is_too_fast


@pytest.mark.parametrize("noise", [0.9, 1.0, 1.1])
def test_rows_times_log_rows_is_not_too_fast(noise: float):
    values = {rows: 0.5 + 1e-5 * rows * math.log(rows) for rows in ROWS}

    growth = fit(values | {10_000: values[10_000] * noise})

    assert not growth.is_too_fast


@pytest.mark.parametrize("rows", [ROWS[:3], ROWS])
@pytest.mark.parametrize("exponent", [1.5, 2])
def test_faster_growth_is_too_fast(exponent: float, rows: tuple[int, ...]):
    growth = fit({count: 0.5 + 1e-5 * count**exponent for count in rows})

    assert growth.exponent == pytest.approx(exponent, abs=0.02)
    assert growth.is_too_fast


def test_two_measurements_show_no_growth():
    assert fit({1_000: 1.0, 10_000: 20.0}) is None


def test_the_generated_archive_is_reproducible(tmp_path: Path):
    for name in ("one", "another"):
        generate.write_manifest(tmp_path / name, "maps", 2_500)

    manifest = (tmp_path / "one").read_text()
    assert manifest == (tmp_path / "another").read_text()
    assert list(generate.inputs(2_500)) == list(generate.inputs(2_500))
    rows = list(csv.reader(manifest.splitlines()))
    assert rows[0] == ["maps/state/county-0000/frame-0000001.tif", "4"]
    assert len({key for key, _ in rows}) == 2_500


def test_each_row_has_the_expected_fate():
    for rows in (1, 7, 999, 1_000, 2_300):
        fates = [frame.fate for frame in generate.frames(rows)]
        for fate, count in generate.expected_fates(rows).items():
            assert fates.count(fate) == count
    assert all(generate.expected_fates(1_000).values())


def test_a_manifest_and_its_objects_agree():
    uploaded = {entry.key for entry in generate.inputs(1_000)}
    outputs = {entry.key: entry for entry in generate.outputs(1_000)}
    for frame in generate.frames(1_000):
        assert (frame.key in uploaded) == (frame.fate is not Fate.NOT_UPLOADED)
        is_whole = outputs.get(frame.cog.key) == frame.cog and frame.jpeg.key in outputs
        assert is_whole == (frame.fate is Fate.PROCESSED)
        result = Result.from_json(generate.node_result(frame))
        assert result.ok == (frame.fate is not Fate.UNREADABLE)


def test_s3_lists_all_objects_of_a_filled_bucket(server: SeaweedFS, bucket: Bucket):
    entries = {entry.key: entry for entry in generate.inputs(2_500)}
    now = datetime.now(UTC)

    assert fill(server, bucket.name, entries.values()) == len(entries)

    objects = list(bucket.list())
    assert [stored.key for stored in objects] == sorted(entries)
    for stored in (*objects, bucket.stat(Frame(1).key)):
        entry = entries[stored.key]
        assert (stored.size, stored.etag) == (entry.size, entry.md5.hex())
        assert abs(stored.modified - now) < timedelta(minutes=2)


def test_a_filled_bucket_keeps_the_objects_that_s3_wrote(
    server: SeaweedFS, bucket: Bucket
):
    bucket.write("state/manifest-raw.csv", b"frame.tif,4\n")
    fill(server, bucket.name, islice(generate.inputs(10), 10))

    assert len(list(bucket.list("state/"))) == 11
    assert bucket.read("state/manifest-raw.csv", ALL) == b"frame.tif,4\n"


def test_requests_are_counted_exactly(server: SeaweedFS, bucket: Bucket):
    fill(server, bucket.name, generate.inputs(2_100))
    bucket.check()
    before = requests(server)

    for number in range(7):
        bucket.write(f"small/{number}", b"7")
    for number in range(5):
        bucket.stat(f"small/{number}")
    assert not bucket.exists("none")
    bucket.read("small/1", ALL)
    for number in range(3):
        bucket.remove(f"small/{number}")
    # There are the images, their world files, and four small objects.
    objects = len(list(bucket.list()))

    assert objects == 2_100 - 3 + 210 + 4
    counts = requests(server) - before
    assert counts == {"PUT": 7, "GET": 7, "DELETE": 3, "LIST": 3}


def test_the_memory_and_time_of_a_command_are_measured(
    server: SeaweedFS, tmp_path: Path
):
    allocate = "block = bytearray(200 << 20); import time; time.sleep(3)"
    memory_of_this_process = bytearray(400 << 20)

    usage = cost(["/usr/bin/env", "python3", "-c", allocate], tmp_path, server)

    assert len(memory_of_this_process) >> 20 > usage.memory > 200
    assert usage.seconds > 3 > usage.cpu > 0
    assert usage.requests.total() == 0


def test_a_process_that_a_command_leaves_behind_is_measured_too(
    server: SeaweedFS, tmp_path: Path
):
    usage = cost(
        ["/bin/sh", "-c", "python3 -c 'block = bytearray(200 << 20)' & exit 0"],
        tmp_path,
        server,
    )

    assert usage.memory > 200


def test_a_command_that_fails_is_not_measured(server: SeaweedFS, tmp_path: Path):
    with pytest.raises(CommandFailed, match="it failed"):
        cost(["/bin/sh", "-c", "echo it failed; exit 3"], tmp_path, server)


def test_a_thousand_rows_are_measured(server: SeaweedFS, tmp_path: Path):
    run_cost = run.measure(server, tmp_path / "run", 1_000)
    idle_costs = idle.measure(server, tmp_path / "idle", 5_000)

    assert run_cost.objects == len([*generate.inputs(1_000), *generate.outputs(1_000)])
    assert run_cost.poll.requests["PUT"] == 3
    assert run_cost.status.requests.total() <= 1
    assert run_cost.validate.requests["LIST"] >= 2
    assert run_cost.dagman > 1
    assert idle_costs.with_prefix.requests["LIST"] < 5
    assert idle_costs.without_prefix.requests["LIST"] >= 5
    for check in (*checks(run_cost), *idle_checks(idle_costs)):
        # How long it takes depends on what else this machine does.
        assert check.met or check.name.endswith(": seconds"), check
    text = page.text([run_cost], idle_costs, "scale.svg")
    assert "| poll: seconds |" in text
    assert not _jobs_left()


def test_what_is_nothing_does_not_grow():
    assert fit({1_000: 0, 10_000: 0, 100_000: 0}) is None


def test_measurements_replace_their_section_of_the_page():
    before = (PROJECT / "docs" / "scale.md").read_text()
    marks = re.findall(r"<!-- (.+) writes from here -->", before)
    assert {"SIGNING=auto", "SIGNING=presigned", "catalogs", "overhead"} <= {*marks}
    for mark in marks:
        after = markdown.insert(before, mark, f"new {mark}\n")
        assert f"new {mark}" in after
        for edge in ("writes from here -->", "to here -->"):
            assert after.count(edge) == len(marks)
        assert markdown.insert(after, mark, "") != after
    with pytest.raises(ValueError, match="lacks a line"):
        markdown.insert("an empty page", "overhead", "new")


def _jobs_left() -> str:
    everything = ["condor_q", "-allusers", "-af", "CogPipelineRun"]
    queue = subprocess.run(everything, check=True, capture_output=True, text=True)
    return "".join(line for line in queue.stdout.splitlines() if "/run/" in line)
