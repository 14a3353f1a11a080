"""Only what is a manifest is renamed, and what cannot be read stays in the bucket."""

import gzip
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bucket import StoredObject
from dag import intake
from state.launch import Launch
from tests.support.archive import ALL, Archive
from tests.support.steps import killed_after

GOOD_PATTERNS = [
    *("*raw.csv", "*.csv", "maps/*.CSV", "x?.csv", "batch-raw.csv", "[ab]*.csv"),
    *("*raw.[cC][sS][vV]", "*[.]csv", "[x*.csv", "*[!x].csv"),
]
BAD_PATTERNS = [
    *("*", "scenes/*", "*raw*", "*raw.tif", "*.csv*", "*raw.cs?", "*raw.???", "*csv"),
    *("*.[ct][si][vf]", "*.[!x][s][v]", "*.cs[a-z]", "*raw.txt", "", "*.[csv]"),
    *("*x.[c[s][v]", "*raw", "*.csv.gz", "*.csv/", "*.csv\n"),
]


@pytest.mark.parametrize("pattern", GOOD_PATTERNS)
def test_a_pattern_that_ends_in_csv_is_good(pattern: str):
    assert intake.pattern_fault(pattern) is None


@pytest.mark.parametrize("pattern", BAD_PATTERNS)
def test_a_pattern_that_can_match_an_image_is_refused(pattern: str):
    assert intake.pattern_fault(pattern).endswith("end it in .csv")


def test_a_launch_refuses_a_pattern_that_can_match_images(archive: Archive):
    for pattern in ("*raw*", "scenes/*", "*"):
        done = archive.run("-p", pattern)
        assert done.returncode == 1
        assert f"the pattern '{pattern}' can match images" in done.stderr
        assert "end it in .csv" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("pattern", ["*", "*raw*", "raw/*", "*.*"])
def test_no_image_is_a_manifest_whatever_the_pattern_of_a_launch(pattern: str):
    now = datetime.now(UTC)
    keys = [
        *("raw/a.tif", "raw/b.TIFF", "raw/c.jpg", "raw/d.csv.tif", "raw/e.csv/f.tif"),
        *("raw/x-raw.csv", "raw/Y-RAW.CSV", "raw/raw.csv.claim", "raw/csv", "raw/"),
    ]
    stored = [StoredObject(key, 7, "", now) for key in keys]
    found = intake.sift(stored, Launch(Path(), None, "maps", "cogs", pattern=pattern))
    assert [each.key for each in found.manifests] == ["raw/x-raw.csv", "raw/Y-RAW.CSV"]
    assert found.refused == []


def test_files_of_macos_are_skipped_with_one_event(archive: Archive):
    archive.launch_to_poll_by_hand()
    content = b"\0\x05\x16\x07\0\x02\0\0Mac OS X        "
    names = ["._x-raw.csv", "folder/._y-raw.csv", "__MACOSX/._z-raw.csv"]
    for name in names:
        archive.maps.write(name, content)
    done = archive.poll()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("not taken for manifests") == 1
    assert "3 files of macOS" in done.stdout
    assert sorted(found.key for found in archive.maps.list()) == sorted(names)
    assert not list(archive.directory.glob("workflow-run-*"))


UNREADABLE = {
    "Latin-1": ("a.tif,1\nKärnten.tif,1\n".encode("latin-1"), "Latin-1 (line 2)"),
    "an image": (b"II*\0\x08\0\0\0\xff\xfe", "binary data"),
    "gzip": (gzip.compress(b"a.tif,1\n"), "binary data"),
    "UTF-16 without a mark": ("a.tif,1\n".encode("utf-16-le"), "byte order mark"),
    "a comment": (b"# nothing yet\n", "no rows"),
    "an empty object": (b"", "no rows"),
    "an unusual separator": (b"sep=:\na.tif:1\n", "':' separates"),
}


def test_what_cannot_be_read_is_kept_unchanged_with_a_reason(archive: Archive):
    archive.launch_to_poll_by_hand()
    stems = {name: f"m{number}-" for number, name in enumerate(UNREADABLE)}
    for name, (content, _) in UNREADABLE.items():
        archive.maps.write(f"{stems[name]}raw.csv", content)
    done = archive.poll()
    assert done.returncode == 0, done.stdout + done.stderr
    for name, (content, said) in UNREADABLE.items():
        stem = stems[name]
        processed, ((key, _, reason),) = archive.outcome(stem)
        (kept,) = archive.maps.list(f"{stem}unreadable-")
        assert (processed, key) == ([], f"{stem}raw.csv")
        assert said in reason, name
        assert kept.key in reason
        assert archive.maps.read(kept.key, ALL) == content, name
        assert len(list(archive.maps.list(stem))) == 3


STEPS = [
    *("file manifest.csv", "file claimed.json", "put batch-processing-"),
    *("delete batch-raw.csv$", "put batch-unreadable-", "file rows.jsonl"),
    *("file outcome.json", "put batch-failed-", "delete batch-processing-"),
]


@pytest.mark.parametrize("step", STEPS)
def test_an_unreadable_manifest_is_kept_whenever_the_poll_is_killed(
    archive: Archive, step: str
):
    archive.launch_to_poll_by_hand()
    content = "Kärnten.tif,1\n".encode("latin-1")
    archive.maps.write("batch-raw.csv", content)
    killed_after(step, archive, "poll", str(archive.launch_file()))
    stages = ("raw", "processing", "unreadable")
    kept = [
        found.key
        for found in archive.maps.list("batch-")
        if any(stage in found.key for stage in stages) and "claim" not in found.key
    ]
    assert any(archive.maps.read(key, ALL) == content for key in kept)

    assert archive.poll().returncode == 0
    archive.outcome("batch-")
    ends = {found.key.split("-")[1]: found for found in archive.maps.list("batch-")}
    assert sorted(ends) == ["failed", "processed", "unreadable"]
    assert archive.maps.read(ends["unreadable"].key, ALL) == content
