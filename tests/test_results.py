"""What nodes tell is gathered while the run lasts."""

import json
import os
import uuid
from pathlib import Path

import pytest

import bucket as buckets
from bucket import Bucket, Store
from dag import results, run as runs
from dag.results import NodeResult
from tests import seaweedfs

OK = {
    "ok": True,
    "cog": {"bytes": 7, "md5": "c0"},
    "jpeg": {"bytes": 5, "md5": "1e"},
    "attempt": 2,
}
FAILED = {"ok": False, "code": "bad", "reason": "it is bad"}


@pytest.fixture
def run(tmp_path: Path) -> runs.Run:
    named = dict.fromkeys(runs.Run.__dataclass_fields__, "")
    made = runs.Run(**named | {"directory": tmp_path})
    made.results_directory.mkdir()
    made.logs_directory.mkdir()
    return made


def tell(run: runs.Run, row: int, told: object) -> None:
    (run.results_directory / f"row{row}.json").write_text(json.dumps(told))
    (run.logs_directory / f"row{row}.log").write_text("said")


def files(directory: Path) -> set[str]:
    return {file.name for file in directory.iterdir()}


def test_a_success_leaves_no_file_of_its_own(run: runs.Run):
    tell(run, 1, OK)
    tell(run, 20, FAILED)
    results.gather(run)
    assert files(run.results_directory) == set()
    assert files(run.logs_directory) == {"row20.log"}
    assert results.load(run) == {
        1: NodeResult(1, True, attempt=2, cog=(7, "c0"), jpeg=(5, "1e")),
        20: NodeResult(20, False, "bad", "it is bad"),
    }


def test_the_last_word_of_a_row_counts(run: runs.Run):
    tell(run, 1, FAILED)
    results.gather(run)
    tell(run, 1, OK)
    results.gather(run)
    assert results.load(run)[1].ok
    assert len(run.results_file.read_text().splitlines()) == 2


def test_what_is_half_written_is_gathered_when_it_is_whole(run: runs.Run):
    whole = json.dumps(OK)
    file = run.results_directory / "row1.json"
    with file.open("w") as writing:
        writing.write(whole[:20])
        writing.flush()
        results.gather(run)
        assert results.load(run) == {}
        writing.write(whole[20:])
    results.gather(run, settled=True)
    assert results.load(run)[1].ok
    assert files(run.results_directory) == set()


def test_what_a_node_writes_while_its_earlier_result_is_gathered_is_kept(
    run: runs.Run, monkeypatch: pytest.MonkeyPatch
):
    tell(run, 1, FAILED)
    sync = os.fsync
    # The moment between reading what is there and removing it.
    monkeypatch.setattr(os, "fsync", lambda file: (sync(file), tell(run, 1, OK)))
    results.gather(run)
    monkeypatch.undo()
    assert not results.load(run)[1].ok
    results.gather(run)
    assert results.load(run)[1].ok


def test_a_line_that_a_crash_cut_off_is_written_again(run: runs.Run):
    run.results_file.write_text('{"row": 1, "ok": tr')
    tell(run, 1, OK)
    results.gather(run)
    assert results.load(run)[1].ok


@pytest.mark.parametrize(
    "told", [[], "ok", None, {}, {"ok": True}, OK | {"cog": 3}, {"ok": True, "cog": {}}]
)
def test_what_no_node_says_is_as_good_as_nothing(run: runs.Run, told: object):
    tell(run, 1, told)
    tell(run, 2, OK)
    (run.results_directory / "rowx.json").write_text("{}")
    results.gather(run, settled=True)
    assert set(results.load(run)) == {2}


@pytest.fixture(scope="module")
def crowded(store: Store, tmp_path_factory: pytest.TempPathFactory):
    """A bucket on a server that counts a thousand objects a listing as S3 does."""
    with seaweedfs.running(tmp_path_factory.mktemp("seaweed"), store) as server:
        bucket = Bucket(server, f"crowded-{uuid.uuid4().hex[:8]}")
        bucket.create()
        for number in range(1010):
            bucket.write(f"maps/{number:04}.tif", b"")
        yield bucket


def test_a_few_images_among_many_are_asked_for(
    crowded: Bucket, monkeypatch: pytest.MonkeyPatch
):
    asked = []
    stat = crowded.stat
    monkeypatch.setattr(crowded, "stat", lambda key: (asked.append(key), stat(key))[1])
    monkeypatch.setattr(buckets, "_LISTED_AT_ONCE", 500)
    two = ("maps/1009.tif", "maps/0003.tif")
    keys = [found.key for found in crowded.look_for(two, lambda key: (key + "x",))]
    # Two answers would tell of a thousand; there are more.
    assert set(two) <= set(keys)
    assert asked == [two[0], two[0] + "x", two[1], two[1] + "x"]


def test_many_images_are_listed(crowded: Bucket, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(crowded, "stat", None)
    three = {"maps/1009.tif", "maps/0003.tif", "maps/missing.tif"}
    found = {found.key for found in crowded.look_for(three, lambda key: ())}
    assert three - found == {"maps/missing.tif"}
