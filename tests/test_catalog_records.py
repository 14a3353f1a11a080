"""The records of a collection: which of several counts, and what has changed."""

import re
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import pytest

from catalog.dates import of_key, of_text
from catalog.record import Dates, Record, from_line, gone_line, safe_name, to_line
from catalog.records import Records, collect
from node.result import Band
from tests.support.catalog import polygon, record


def collected(
    tmp_path: Path, old: Iterable[bytes], new: Iterable[bytes] = (), **how: bool
) -> Records:
    lines = [*((line, True) for line in old), *((line, False) for line in new)]
    return collect(lines, tmp_path / "records.jsonl", **how)


def runs_of(records: Iterable[Record]) -> list[tuple[str, str]]:
    return sorted((each.key, each.run) for each in records)


def test_a_record_is_read_as_it_was_written():
    odd = record(
        'a/ü "<x>".tif',
        dates=None,
        nodata=float("-inf"),
        bands_info=(Band(data_type="float32", nodata=float("inf"), scale=2.0),),
        bounds=(0.0, float("-inf"), 1.0, float("inf")),
        warnings=("it is dark",),
    )
    for each in (record(), odd):
        assert from_line(to_line(each)) == each


def test_the_record_of_the_last_run_counts(tmp_path: Path):
    first = [to_line(record(key, run="1")) for key in ("a.tif", "b.tif")]
    second = to_line(record("a.tif", run="2"))

    records = collected(tmp_path, [*first, second])

    assert runs_of(records) == [("a.tif", "2"), ("b.tif", "1")]
    assert len(records) == 2
    assert records.changed is None


def test_changes_are_those_since_the_product_was_made(tmp_path: Path):
    old = [to_line(record(key, run="1")) for key in ("a.tif", "b.tif", "c.tif")]
    new = [
        to_line(record("a.tif", run="2")),
        to_line(record("d.tif", run="2")),
        gone_line(record("b.tif", run="1")),
    ]

    records = collected(tmp_path, old, new, from_nothing=False)

    now = [("a.tif", "2"), ("c.tif", "1"), ("d.tif", "2")]
    assert runs_of(records) == now
    assert records.changed == {"a.tif", "d.tif"}
    assert runs_of(records.removed) == [("a.tif", "1"), ("b.tif", "1")]


def test_a_record_that_came_and_went_may_have_been_added_by_somebody_else(
    tmp_path: Path,
):
    old = [to_line(record("a.tif", run="1"))]
    new = [
        to_line(record("b.tif", run="2")),
        gone_line(record("b.tif", run="2")),
        to_line(record("c.tif", run="2")),
        to_line(record("c.tif", run="3")),
    ]

    records = collected(tmp_path, old, new, from_nothing=False)

    assert records.changed == {"c.tif"}
    assert runs_of(records.removed) == [("b.tif", "2"), ("c.tif", "2")]


def test_a_new_record_of_an_earlier_run_replaces_nothing(tmp_path: Path):
    later = to_line(record("a.tif", run="3"))
    earlier = to_line(record("a.tif", run="2"))

    records = collect(
        [(earlier, False), (later, True)], tmp_path / "r", from_nothing=False
    )

    assert runs_of(records) == [("a.tif", "3")]
    assert records.changed == frozenset()
    assert runs_of(records.removed) == []


def test_a_cog_that_was_gone_is_there_again_if_another_run_makes_it(tmp_path: Path):
    gone = gone_line(record("a.tif", run="1"))
    # The name of the object in which it stands says nothing about the order.
    lines = [to_line(record("a.tif", run="1")), to_line(record("a.tif", run="2")), gone]

    assert runs_of(collected(tmp_path, lines)) == [("a.tif", "2")]
    assert runs_of(collected(tmp_path, [lines[0], gone])) == []


def test_neighbours_are_close_together_and_images_without_a_place_are_last(
    tmp_path: Path,
):
    corners = {"sw": (-120, -40), "nw": (-120, 40), "ne": (120, 40), "se": (120, -40)}
    lines = [to_line(record("lost.tif", footprint=None, bbox=None))]
    for step in range(10):
        for name, (west, south) in corners.items():
            box = (west + step, south, west + step + 1, south + 1)
            key = f"{name}-{step}.tif"
            lines.append(to_line(record(key, bbox=box, footprint=polygon(*box))))

    keys = [each.key for each in collected(tmp_path, lines)]

    corner_of = [key.partition("-")[0] for key in keys[:-1]]
    assert [corner for corner, _ in groupby(corner_of)] == [*corners]
    assert keys[-1] == "lost.tif"


def test_records_come_in_the_order_of_their_keys_too(tmp_path: Path):
    keys = [f"sheet-{number:02}.tif" for number in range(20)]
    records = collected(tmp_path, [to_line(record(key)) for key in keys])

    assert [each.key for each in records] != keys
    assert [each.key for each in records.by_key] == keys
    assert [*collected(tmp_path, []).by_key] == []


def test_an_image_across_the_antimeridian_is_beside_its_neighbours(tmp_path: Path):
    boxes = {"across": (179.5, -17, -179.5, -16), "beside": (-179.4, -17, -179, -16)}
    boxes["elsewhere"] = (0, -17, 1, -16)
    lines = [to_line(record(f"{name}.tif", bbox=box)) for name, box in boxes.items()]

    keys = [each.key for each in collected(tmp_path, lines)]

    assert abs(keys.index("across.tif") - keys.index("beside.tif")) == 1


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("1937", "1937-01-01T00:00:00Z", "1937-12-31T23:59:59Z"),
        ("1936-02", "1936-02-01T00:00:00Z", "1936-02-29T23:59:59Z"),
        ("1937-07-01", "1937-07-01T00:00:00Z", "1937-07-01T23:59:59Z"),
        ("2020-07-01T12:30:05", "2020-07-01T12:30:05Z", "2020-07-01T12:30:05Z"),
        ("2020-07-01 12:30+02:00", "2020-07-01T10:30:00Z", "2020-07-01T10:30:59Z"),
        ("1937/1941-06", "1937-01-01T00:00:00Z", "1941-06-30T23:59:59Z"),
        ("0800", "0800-01-01T00:00:00Z", "0800-12-31T23:59:59Z"),
    ],
)
def test_dates_are_read_as_people_write_them(text: str, start: str, end: str):
    assert of_text(text) == Dates(start, end)


@pytest.mark.parametrize(
    "text", ["", "soon", "1937-13", "1937-02-30", "37", "1941/1937", "0000", "1937-7-1"]
)
def test_what_is_no_date_is_none(text: str):
    assert of_text(text) is None


@pytest.mark.parametrize(
    ("key", "pattern", "start"),
    [
        ("dane/1937/a.tif", r"/(?P<year>\d{4})/", "1937-01-01T00:00:00Z"),
        ("x_19370704.tif", r"_(?P<date>\d{8})\.", "1937-07-04T00:00:00Z"),
        ("x_193707.tif", r"_(?P<date>\d{6})\.", "1937-07-01T00:00:00Z"),
        (
            "0407-1937.tif",
            r"(?P<day>..)(?P<month>..)-(?P<year>\d+)",
            "1937-07-04T00:00:00Z",
        ),
    ],
)
def test_dates_are_taken_from_keys(key: str, pattern: str, start: str):
    found = of_key(key, re.compile(pattern))
    assert found and found.start == start


def test_names_that_differ_stay_different():
    texts = [
        "a/b",
        "a--b",
        "a-/b",
        "a/-b",
        "a b",
        "a-b",
        "ä",
        "-",
        ".a",
        "a",
        "A",
        "x" * 200,
        "x" * 201,
    ]
    names = [safe_name(text) for text in texts]
    assert len({*names}) == len(texts)
    assert all(
        re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,119}", name) for name in names
    )


def test_images_with_other_names_have_other_ids():
    keys = ("x.tif", "x.tiff", "x.tiff.tif", "x.TIF", "x.TIF.tif", "x.tif.tif")
    assert len({record(key).id for key in keys}) == len(keys)
    assert record("1937/dane/7.tif").id == "1937--dane--7"
