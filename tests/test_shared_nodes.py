"""A job may convert several images, with a result for each."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio
from hypothesis import given, strategies as some

from bucket import S3Endpoint
from condor import queue
from dag.batches import batch_rows
from ops.cost import cost
from pool.personal import PersonalPool
from state.launch import Launch, load_launch
from state.rows import Row, dag_node_of
from state.run import load_run
from tests.support import rasters
from tests.support.archive import Archive, wait_for
from tests.support.command_line import assert_wrong, invoke
from tests.support.node import SCRIPT, files, python_with, run_node
from tests.support.processes import descendants


def row(number: int, key: str, **more) -> Row:
    return Row(number, (key, "1"), key, 1, **more)


def nodes(
    rows: list[Row], rows_per_job: int | None, slots: int = 1, **settings: int
) -> list[tuple[str, list[int]]]:
    """Return the nodes' names and the lines of their rows."""
    store = S3Endpoint("s3.example.org", Path("a"), Path("s"))
    launch = Launch(
        Path(), store, "maps", "cogs", rows_per_job=rows_per_job, **settings
    )
    batched = list(batch_rows(rows, launch, slots))
    usable = [row for row in batched if row.reason is None]
    assert [row.line for row in batched] == [row.line for row in rows]
    return [
        (name, [row.line for row in group])
        for name, group in itertools.groupby(usable, dag_node_of)
    ]


def test_consecutive_rows_share_a_node():
    rows = [row(n, f"{n}.tif") for n in range(1, 8)]
    assert nodes(rows, 3) == [
        ("rows1", [1, 2, 3]),
        ("rows4", [4, 5, 6]),
        ("row7", [7]),
    ]
    assert nodes(rows, 1) == [(f"row{n}", [n]) for n in range(1, 8)]
    assert nodes(rows, 10) == [("rows1", [1, 2, 3, 4, 5, 6, 7])]


def rows_of_jobs(sizes: list[float], slots: int, **settings: int) -> list[int]:
    """Return how many rows each job has, for images of so many MiB."""
    rows = [
        row(number, f"{number}.tif", size=int(mebibytes * 2**20))
        for number, mebibytes in enumerate(sizes, 1)
    ]
    return [len(lines) for _, lines in nodes(rows, None, slots, **settings)]


def test_all_slots_are_busy_before_rows_share_a_job():
    assert rows_of_jobs([1] * 10, slots=10) == [1] * 10
    assert rows_of_jobs([1] * 3, slots=10) == [1] * 3
    assert rows_of_jobs([1] * 10, slots=2) == [5, 5]
    # The number of slots is not known.
    assert rows_of_jobs([1] * 10, slots=0) == [1] * 10
    # No more jobs wait in the queue than the launch allows.
    assert rows_of_jobs([1] * 10, slots=1000, max_idle=5) == [2] * 5
    assert rows_of_jobs([1] * 10, slots=1000, max_jobs=2) == [5, 5]


@given(
    some.lists(some.integers(0, 2000), min_size=1, max_size=50), some.integers(1, 60)
)
def test_there_are_as_many_jobs_as_slots_or_images(sizes: list[int], slots: int):
    jobs = rows_of_jobs(sizes, slots)
    assert len(jobs) >= min(slots, len(sizes))
    assert sum(jobs) == len(sizes)


def test_the_jobs_have_about_the_same_work():
    # Eight jobs of twelve images would leave four for a ninth.
    assert sorted(set(rows_of_jobs([1] * 100, slots=8))) == [12, 13]
    assert len(rows_of_jobs([1] * 100, slots=8)) == 8
    assert sorted(rows_of_jobs([1] * 11, slots=10)) == [1] * 9 + [2]


def test_a_job_has_about_twenty_seconds_of_work():
    # 280 s of work are 140 s for each slot, which are seven jobs of 20 s.
    jobs = rows_of_jobs([1] * 1000, slots=2)
    assert len(jobs) == 14
    assert set(jobs) == {71, 72}
    assert rows_of_jobs([600] * 6, slots=2) == [1] * 6


def test_large_images_do_not_keep_small_ones_from_sharing_the_other_slots():
    assert rows_of_jobs([2000, *[1] * 8], slots=3) == [1, 4, 4]
    assert rows_of_jobs([*[1] * 4, 2000, *[1] * 4], slots=3) == [4, 1, 4]


def test_a_job_has_no_more_images_than_its_disk_should_hold():
    jobs = rows_of_jobs([12] * 1000, slots=2)
    assert max(jobs) * 12 <= 250


def test_the_slots_of_the_pool_are_counted(pool: PersonalPool):
    listed = subprocess.run(
        ["condor_status", "-af", "PartitionableSlot", "TotalSlotCpus"],
        capture_output=True,
        text=True,
        check=True,
    )
    count = sum(
        int(cpus) if partitionable == "true" else 1
        for partitionable, cpus in map(str.split, listed.stdout.splitlines())
    )
    assert queue.slots() == count > 0


def test_rows_that_cannot_be_converted_are_skipped():
    rows = [row(1, "a.tif"), row(2, "", reason="no image"), row(3, "b.tif")]
    assert nodes(rows, 2) == [("rows1", [1, 3])]


@pytest.mark.parametrize(
    "second",
    [
        row(2, "there/a.tif"),
        # GDAL would use the world file of one image for the other.
        row(2, "there/A.tif", sidecars=("there/A.tfw",)),
        # Both rows would write a.jpg.
        row(2, "a.tiff"),
        row(2, "there/b.tif", sidecars=("there/b.tif.ovr", "there/a.tif")),
    ],
)
def test_rows_do_not_share_a_node_whose_files_have_the_same_name(second: Row):
    assert nodes([row(1, "here/a.tif"), second], 5) == [("row1", [1]), ("row2", [2])]


def test_an_image_with_a_multipart_upload_does_not_share_its_node():
    large = row(2, "b.tif", size=2**32)
    rows = [row(1, "a.tif"), large, row(3, "c.tif"), row(4, "d.tif")]
    assert nodes(rows, 5) == [("row1", [1]), ("row2", [2]), ("rows3", [3, 4])]


def arguments(*names: str, limit: int = 60) -> list[str]:
    """Return the arguments of a node for these images."""
    words = []
    for number, name in enumerate(names, start=1):
        row_words = [f"{name}.tif", "1", "--time-limit", str(limit)]
        words += ["--next", *row_words, "--result", f"row{number}.json"]
    return words[1:]


def results(directory: Path) -> dict[str, dict]:
    contents = (json.loads(file.read_text()) for file in directory.glob("row*.json"))
    return {result["image"].partition(".")[0]: result for result in contents}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    directory = tmp_path / "work"
    directory.mkdir()
    for name in ("first", "last"):
        rasters.write(directory / f"{name}.tif", 1, width=64, height=64)
    return directory


def test_a_failed_row_does_not_fail_other_rows_of_its_job(work: Path):
    (work / "bad.tif").write_bytes(b"no raster")
    done = run_node(work, *arguments("first", "bad", "missing", "last"))
    # The images are the reason, so another attempt would be useless.
    assert done.returncode == 65
    result_of = results(work)
    assert {name: result["ok"] for name, result in result_of.items()} == {
        **{"first": True, "bad": False},
        **{"missing": False, "last": True},
    }
    assert result_of["bad"]["code"] == "not-a-raster"
    assert result_of["missing"]["code"] == "image-missing"
    assert (work / "first.jpg").exists()
    assert (work / "last.jpg").exists()


def write_empty(path: Path, side: int) -> None:
    """Write an image of many pixels as a small sparse file."""
    layout = {"driver": "GTiff", "dtype": "uint8", "tiled": True, "sparse_ok": "TRUE"}
    sides = {"width": side, "height": side, "transform": rasters.TRANSFORM}
    with rasterio.open(path, "w", count=1, crs="EPSG:32616", **layout, **sides):
        pass


def write_endless(path: Path) -> None:
    """Write an image whose conversion takes longer than a test."""
    write_empty(path, 60_000)


def start_node(work: Path, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [str(SCRIPT), *words],
        cwd=work,
        env=os.environ | {"PYTHON": sys.executable},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_row_does_not_fail_other_rows_of_its_job(work: Path):
    write_endless(work / "killed.tif")
    before = files(work)
    node = start_node(work, *arguments("first", "killed", "last"))
    wait_for(lambda: bool(list(work.glob(".cog-*-1.*"))))
    # The descendants are the shell, its Python, and the process that converts.
    (*_, child) = descendants(node.pid)
    os.kill(child, signal.SIGKILL)
    _, log = node.communicate(timeout=60)

    # The reason may be a lack of memory, so the node is tried again.
    assert node.returncode == 137, log
    result_of = results(work)
    assert {name for name, result in result_of.items() if result["ok"]} == {
        "first",
        "last",
    }
    assert result_of["killed"]["code"] == "killed"
    assert "memory" in result_of["killed"]["reason"]
    expected = {"first.jpg", "last.jpg", "row1.json", "row2.json", "row3.json"}
    assert files(work) == before | expected, "a temporary file is left"


def test_a_node_that_is_killed_itself_leaves_a_reason_and_no_process(work: Path):
    """Kill the process that reports how each conversion ended, not a conversion."""
    write_endless(work / "endless.tif")
    before = files(work)
    node = start_node(work, "endless.tif", "1", "--time-limit", "600")
    wait_for(lambda: bool(list(work.glob(".cog-*-0.*"))))
    parent, child = descendants(node.pid)
    os.kill(parent, signal.SIGKILL)
    _, log = node.communicate(timeout=60)

    assert node.returncode == 137, log
    result = json.loads((work / "result.json").read_text())
    assert result["code"] == "killed"
    assert "signal 9" in result["reason"]
    wait_for(lambda: not Path(f"/proc/{child}").exists())
    assert files(work) == before | {"result.json"}, "a temporary file is left"


def test_a_row_over_its_time_limit_does_not_fail_other_rows_of_its_job(work: Path):
    write_endless(work / "endless.tif")
    done = run_node(work, *arguments("first", "endless", "last", limit=3))

    assert done.returncode == 75
    result_of = results(work)
    assert {name for name, result in result_of.items() if result["ok"]} == {
        "first",
        "last",
    }
    assert result_of["endless"]["code"] == "time-limit"
    assert not list(work.glob(".cog-*"))


def test_unfinished_rows_of_a_killed_job_report_it(work: Path):
    write_endless(work / "endless.tif")
    node = start_node(work, *arguments("first", "endless", "last"))
    wait_for(lambda: bool(list(work.glob(".cog-*-1.*"))))
    for process in descendants(node.pid):
        os.kill(process, signal.SIGKILL)
    node.communicate(timeout=60)

    assert node.returncode == 137
    result_of = {
        file.name: json.loads(file.read_text()) for file in work.glob("row*.json")
    }
    assert [result_of[f"row{n}.json"]["ok"] for n in (1, 2, 3)] == [True, False, False]
    assert {result_of[f"row{n}.json"]["code"] for n in (2, 3)} == {"killed"}
    assert not list(work.glob(".cog-*"))


@pytest.mark.parametrize("limit", [3, 60])
def test_an_unfit_machine_is_reported_for_each_row(
    work: Path, tmp_path: Path, limit: int
):
    faults = {3: "import time; time.sleep(600)", 60: "raise ImportError('none')"}
    python = python_with(tmp_path, "zstandard", faults[limit])
    done = run_node(work, *arguments("first", "last", limit=limit), PYTHON=python)
    assert done.returncode == {3: 75, 60: 69}[limit]
    rows = [json.loads(file.read_text()) for file in work.glob("row*.json")]
    code = {3: "time-limit", 60: "unfit-machine"}[limit]
    assert [row["code"] for row in rows] == [code, code]


def test_the_rows_of_a_run_share_jobs(archive: Archive):
    archive.launch("--rows-per-job", "3", "--jpeg-quality", "70")
    good = [f"{folder}{n}.tif" for folder in ("", "x/") for n in range(4)]
    for key in good:
        archive.upload_raster(key, 1, width=64, height=64)
    archive.maps.write("bad.tif", b"no raster")
    rows = [*good[:2], "bad.tif", "gone.tif", *good[2:]]
    archive.upload_manifest("batch-raw.csv", [(key, 1) for key in rows])
    archive.poll()

    processed, failed = archive.outcome("batch-")
    assert [row[0] for row in processed] == good
    assert [row[0] for row in failed] == ["bad.tif", "gone.tif"]
    assert "cannot read it as a GeoTIFF" in failed[0][2]
    (run,) = archive.directory.glob("workflow-run-*")
    # The jobs: 0 1 bad; 2 3 x/0; x/1 x/2 x/3; and the FINAL node.
    log = (run / "convert.dag.nodes.log").read_text()
    assert len(re.findall("Job submitted from host", log)) == 4
    wait_for(lambda: (run / "done.json").exists())
    # Only the log of the failed node is kept.
    assert files(run / "logs") == {"rows1.log"}
    assert not (run / "results").exists()
    report = cost(load_run(run))
    assert (report.jobs, report.retries, report.rows_begun) == (3, 0, 9)


def test_a_node_of_several_rows_is_tried_again(archive: Archive):
    node = archive.directory / "node.sh"
    node.write_text(
        "#!/bin/sh\n"
        # In the first attempt, the time limit is too short for the second row.
        '[ "$COG_PIPELINE_RETRY" != 0 ] || set -- "$@" --time-limit 1\n'
        f'exec {SCRIPT} "$@"\n'
    )
    archive.upload_raster("small.tif", 1)
    write_empty(archive.directory / "large.tif", 40_000)
    archive.maps.upload("large.tif", archive.directory / "large.tif")
    archive.upload_manifest("batch-raw.csv", [("small.tif", 1), ("large.tif", 1)])
    archive.launch("--rows-per-job", "2", "--submit-option", f"executable = {node}")

    processed, failed = archive.outcome("batch-")
    assert (len(processed), failed) == (2, [])
    (run,) = archive.directory.glob("workflow-run-*")
    lines = [json.loads(line) for line in (run / "results.jsonl").open()]
    attempts = {line["image"]: line["attempt"] for line in lines}
    assert attempts == {"small.tif": 2, "large.tif": 2}


def test_a_row_that_succeeded_in_one_attempt_stays_processed(archive: Archive):
    node = archive.directory / "node.sh"
    dies = archive.directory / "dies"
    dies.write_text("#!/bin/sh\nkill -9 $$\n")
    dies.chmod(0o755)
    # The first attempt has time for one row. All later attempts are killed completely.
    node.write_text(
        "#!/bin/sh\n"
        f'[ "$COG_PIPELINE_RETRY" = 0 ] || export PYTHON="{dies}"\n'
        f'exec {SCRIPT} "$@" --time-limit 1\n'
    )
    archive.upload_raster("small.tif", 1)
    write_endless(archive.directory / "large.tif")
    archive.maps.upload("large.tif", archive.directory / "large.tif")
    archive.upload_manifest("batch-raw.csv", [("small.tif", 1), ("large.tif", 1)])
    archive.launch("--rows-per-job", "2", "--submit-option", f"executable = {node}")

    processed, failed = archive.outcome("batch-")
    assert processed == [["small.tif", "1"]]
    ((key, _, reason),) = failed
    assert key == "large.tif"
    assert "was killed" in reason


def test_small_images_share_jobs_by_default(archive: Archive):
    keys = [f"{number}.tif" for number in range(5)]
    for key in keys:
        archive.upload_raster(key, 1, width=64, height=64)
    archive.upload_manifest("batch-raw.csv", [(key, 1) for key in keys])
    # Even if the pool has more slots than there are images.
    archive.launch("--max-idle", "2")

    processed, failed = archive.outcome("batch-")
    assert (processed, failed) == ([[key, "1"] for key in keys], [])
    (run,) = archive.directory.glob("workflow-run-*")
    # The two jobs, and the FINAL node.
    log = (run / "convert.dag.nodes.log").read_text()
    assert len(re.findall("Job submitted from host", log)) == 2 + 1


def test_a_poll_needs_no_collector_to_count_slots(archive: Archive):
    archive.launch_to_poll_by_hand()
    archive.upload_raster("image.tif", 1, width=64, height=64)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    polled = archive.poll(_CONDOR_COLLECTOR_HOST="127.0.0.1:1")
    assert polled.returncode == 0, polled.stderr
    assert archive.outcome("batch-")[1] == []


def test_a_launch_from_before_the_option_keeps_a_job_for_each_row(archive: Archive):
    archive.launch()
    file = archive.launch_file()
    saved = json.loads(file.read_text())
    assert saved.pop("rows_per_job") is None
    file.write_text(json.dumps(saved))
    assert load_launch(file).rows_per_job == 1
    file.write_text(json.dumps(saved | {"rows_per_job": 3}))
    assert load_launch(file).rows_per_job == 3


@pytest.mark.parametrize("text", ["0", "1001", "many"])
def test_a_number_of_rows_that_no_job_can_have_is_refused(text: str):
    buckets = ("--input-bucket", "maps", "--output-bucket", "cogs")
    assert_wrong(invoke(*buckets, "--rows-per-job", text), "Or give 'auto'")


def test_originals_that_are_replaced_do_not_share_jobs(archive: Archive):
    done = archive.run("--in-place", "--output-bucket", archive.maps.name)
    assert done.returncode == 0, done.stderr
    one = ("--input-bucket", "maps", "--output-bucket", "maps", "--in-place")
    assert_wrong(invoke(*one, "--rows-per-job", "2"), "do not go together")
