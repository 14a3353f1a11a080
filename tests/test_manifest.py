"""Manifests are read in all the forms in which people write them."""

import csv
import io
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, strategies

from bucket import StoredObject
from dag.manifest import parse
from node import options
from state.errors import NotAManifest
from state.keys import jpeg_key, sandbox_name
from state.project import PROJECT
from state.rows import (
    Manifest,
    Refusal,
    Row,
    load_rows,
    save_rows,
)
from tests.support.runs import a_run, resolve


def keys_and_bands(content: bytes) -> list[tuple[str, int]]:
    return [(row.key, row.bands) for row in parse(content).rows if not row.reason]


@pytest.mark.parametrize(
    "content",
    [
        b"maps/a.tif,3\nmaps/b.tif,1\n",
        b"maps/a.tif,3\r\nmaps/b.tif,1",
        b"maps/a.tif,3\rmaps/b.tif,1\r",
        b"\xef\xbb\xbfmaps/a.tif,3\nmaps/b.tif,1\n",
        "maps/a.tif,3\nmaps/b.tif,1\n".encode("utf-16"),
        b"image,bands\nmaps/a.tif,3\nmaps/b.tif,1\n",
        b"# image,bands\nmaps/a.tif,3\nmaps/b.tif,1\n",
        b"\n\n  maps/a.tif ,\t3 \n\n , \nmaps/b.tif,1,a note,\n\n",
        b'"maps/a.tif","3"\n"maps/b.tif",1.0\n',
        b'"maps/a.tif", "3"\n"maps/b.tif" ,1\n',
        b"S3 key,Bands\nmaps/a.tif,3\nmaps/b.tif,1\n",
        b"image.path,no. of bands\nmaps/a.tif,3\nmaps/b.tif,1\n",
    ],
)
def test_the_forms_in_which_people_write_manifests(content: bytes):
    assert keys_and_bands(content) == [("maps/a.tif", 3), ("maps/b.tif", 1)]


def test_a_line_with_an_open_quote_fails_only_its_row():
    rows = parse(b'a.tif,1\n"b.tif,1\nc.tif,1\n').rows
    assert [row.key for row in rows if not row.reason] == ["a.tif", "c.tif"]
    assert [row.line for row in rows if row.reason] == [2]


@pytest.mark.parametrize("first", ["photo.png,three", "alps,x", "alps", "<html>"])
def test_an_invalid_first_row_is_not_a_header(first: str):
    manifest = parse(f"{first}\na.tif,1\n".encode())
    assert manifest.header is None
    assert [bool(row.reason) for row in manifest.rows] == [True, False]


def test_rows_keep_the_number_of_their_line():
    rows = parse(b'image,bands\n\n"a\nb.tif",1\nc.tif,1\n').rows
    assert [(row.key, row.line) for row in rows] == [("a\nb.tif", 3), ("c.tif", 5)]


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("maps/x/a.tif", "x/a.tif"),
        ("x/a.tif", "x/a.tif"),
        ("maps/own.tif", "maps/own.tif"),
    ],
)
def test_a_key_may_begin_with_the_name_of_the_bucket(written: str, key: str):
    stored = [
        StoredObject(stored_key, 7, "", datetime.now(UTC))
        for stored_key in ("x/a.tif", "maps/own.tif")
    ]
    manifest = parse(f"{written},1\n".encode())
    (row,) = resolve(manifest, "maps", stored).rows
    assert (row.key, row.size, row.reason) == (key, 7, None)


@given(strategies.binary(max_size=300))
def test_any_bytes_are_rows_or_no_manifest(content: bytes):
    try:
        rows = parse(content).rows
    except NotAManifest as error:
        assert str(error)
    else:
        assert all(row.reason or (row.key and row.bands) for row in rows)


@given(
    strategies.lists(
        strategies.text(strategies.characters(exclude_characters="\0", codec="utf-8")),
        min_size=1,
        max_size=8,
    )
)
def test_no_row_is_lost(names: list[str]):
    text = io.StringIO()
    writer = csv.writer(text)
    for name in names:
        writer.writerow([name + ".tif", "3"])
    rows = parse(text.getvalue().encode()).rows
    assert [row.fields[0] for row in rows] == [name + ".tif" for name in names]


@given(strategies.text(min_size=1, max_size=40))
def test_a_sandbox_name_is_harmless_in_any_language(name: str):
    harmless = sandbox_name(f"folder/{name.encode(errors='replace').decode()}.tif")
    assert harmless.replace("%", "").replace(".", "").replace("-", "").isascii()
    assert not set(harmless) & set("/\\ ,;=\"'$(){}\n\r\t")


def test_the_key_of_a_jpeg_is_next_to_the_image():
    assert jpeg_key("a.b/c.d.TIFF") == "a.b/c.d.jpg"


def test_columns_named_like_options_set_the_options():
    manifest = parse(
        b"image,bands,--Profile,jpeg_max_size,co,op,allow-no-crs,note\n"
        b"a.tif,1,elevation,2000,ZSTD_LEVEL=3 BIGTIFF=YES,overview_level=2,yes,$(id)\n"
        b"b.tif,1,,,,,no,\n"
        b"c.tif,1,elevation,,,,perhaps,\n"
    )
    first, second, third = manifest.rows
    assert first.options == {
        "profile": ("elevation",),
        "jpeg_max_size": ("2000",),
        "co": ("ZSTD_LEVEL=3", "BIGTIFF=YES"),
        "op": ("overview_level=2",),
        "allow_no_crs": ("yes",),
    }
    assert options.arguments(first.options) == [
        *("--profile", "elevation", "--jpeg-max-size", "2000"),
        *("--co", "ZSTD_LEVEL=3", "--co", "BIGTIFF=YES"),
        *("--op", "overview_level=2", "--allow-no-crs"),
    ]
    assert second.options == {}
    assert (
        third.reason == "the option --allow-no-crs: 'perhaps' is neither yes nor no: "
        "correct the column"
    )


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("a,b.tif,1,2", "not-a-tiff"),
        (",1", "no-image-named"),
        ("/a.tif,1", "bad-path"),
        ("a/../b.tif,1", "bad-path"),
        ("a/.tif,1", "bad-path"),
        ("d/" * 101 + "a.tif,1", "bad-path"),
        ("a.png,1", "not-a-tiff"),
        ("a" * 300 + ".tif,1", "name-too-long"),
        (("d" * 90 + "/") * 12 + "a.tif,1", "name-too-long"),
        ("a.tif,", "bad-bands"),
        ("a.tif,0", "bad-bands"),
        ("a.tif,1,none", "bad-option"),
        ("a.tif,1," + "z" * 1001, "bad-option"),
        ('"a.tif,1', "not-csv"),
    ],
)
def test_each_refused_row_has_a_code(line: str, code: str):
    (row,) = parse(f"image,bands,profile\n{line}\n".encode()).rows
    assert (row.code, bool(row.reason)) == (code, True)


def test_the_codes_of_refused_rows_are_those_of_the_reference():
    reference = (PROJECT / "docs/reference.md").read_text()
    section = reference.partition("\n## Codes of refused rows\n")[2]
    table = section.partition("\n## ")[0]
    documented = re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)
    assert documented == list(Refusal)


def test_saved_rows_can_be_loaded(tmp_path: Path):
    run = replace(a_run(), directory=tmp_path)
    refused = Row(3, ("b.png", "1"), "b.png").failed(Refusal.NOT_A_TIFF, "not a TIFF")
    rows = (Row(2, ("a.tif", "1"), "a.tif", 1, options={"reproject": ("EPSG:3857",)}),)
    save_rows(run, Manifest((*rows, refused), ("image", "bands")))
    assert tuple(load_rows(run)) == (*rows, refused)


def test_rows_of_earlier_and_later_versions_are_read(tmp_path: Path):
    run = replace(a_run(), directory=tmp_path)
    run.rows_file.write_text(
        'null\n{"number": 1, "fields": ["a.png"], "reason": "not a TIFF"}\n'
        '{"line": 2, "fields": ["b.tif", "1"], "key": "b.tif", "bands": 1, "new": 1, '
        '"options": ["--co", "LEVEL=3", "--co", "BIGTIFF=YES", "--allow-no-crs"]}\n'
    )
    first, second = load_rows(run)
    assert (first.line, first.code, first.reason) == (1, "unusable", "not a TIFF")
    former = {"co": ("LEVEL=3", "BIGTIFF=YES"), "allow_no_crs": ("yes",)}
    assert second == Row(2, ("b.tif", "1"), "b.tif", 1, options=former)


def test_overview_options_have_columns_of_their_own():
    manifest = parse(
        b"image,bands,overview-level,overview_resampling\n"
        b"a.tif,1,2,cubic\n"
        b"b.tif,1,many,\n"
    )
    first, second = manifest.rows
    assert first.options == {
        "overview_level": ("2",),
        "overview_resampling": ("cubic",),
    }
    assert "--overview-level: 'many' is not a number from 0 to 99" in second.reason


def test_without_a_header_columns_set_no_options():
    (row,) = parse(b"a.tif,1,elevation\n").rows
    assert row.options == {}


@given(strategies.lists(strategies.text(max_size=30), min_size=1, max_size=4))
def test_no_column_gives_an_argument_that_needs_quotes(fields: list[str]):
    text = io.StringIO()
    titles = ("image", "bands", "profile", "co", "op", "reproject")
    csv.writer(text).writerow(titles)
    csv.writer(text).writerow(("a.tif", "1", *fields))
    for row in parse(text.getvalue().replace("\0", "").encode(errors="replace")).rows:
        for word in options.arguments(row.options):
            assert re.fullmatch(r"[A-Za-z0-9_.:=-]+", word)
