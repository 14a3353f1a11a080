"""Rows whose images look the same are found, and named in the log of the run."""

import json
import tracemalloc

from post.same_pictures import same_pictures
from state.results import NodeResult
from tests.support.archive import Archive


def result(line: int, picture: int, ok: bool = True) -> NodeResult:
    return NodeResult(line, ok, jpeg=(5, f"{picture:016x}" * 2) if ok else (0, ""))


def test_each_later_row_is_named_with_the_first_one():
    pictures = {2: 7, 3: 8, 4: 7, 5: 9, 6: 7, 7: 9}
    results = {line: result(line, picture) for line, picture in pictures.items()}
    assert list(same_pictures(results)) == [(2, 4), (2, 6), (5, 7)]


def test_a_row_that_failed_has_no_picture():
    assert list(same_pictures({2: result(2, 7, ok=False), 3: result(3, 0)})) == []
    before = NodeResult(4, False, before=result(4, 7))
    assert list(same_pictures({2: result(2, 7), 4: before})) == [(2, 4)]


def test_a_hundred_thousand_pictures_take_little_memory():
    results = {line: result(line, line) for line in range(100_000)}
    tracemalloc.start()
    try:
        assert not any(same_pictures(results))
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()


def test_the_log_of_a_run_names_images_that_look_the_same(archive: Archive):
    for name in ("a.tif", "b.tif"):
        archive.upload_raster(name, 1)
    archive.upload_manifest("batch-raw.csv", [("a.tif", 1), ("b.tif", 1)])
    archive.launch()
    assert archive.outcome("batch-")[1] == []

    (run,) = archive.directory.glob("workflow-run-*")
    records = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    (record,) = [each for each in records if each["event"] == "same-picture"]
    assert record["level"] == "warning"
    assert record["lines"] == [1, 2]
