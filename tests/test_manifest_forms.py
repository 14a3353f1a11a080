"""A manifest is read in the forms in which people and programs save it."""

import csv
import re
from pathlib import Path

import pytest

from dag.fields import separator_fault
from dag.manifest import parse
from post import csvs
from state.errors import NotAManifest

TWO = [("maps/a.tif", 3), ("maps/b.tif", 1)]


def images(content: bytes) -> list[tuple[str, int]]:
    rows = parse(content).rows
    assert all(row.reason is None for row in rows), [row.reason for row in rows]
    return [(row.key, row.bands) for row in rows]


def in_utf_16(text: str) -> bytes:
    return b"\xff\xfe" + text.encode("utf-16-le")


@pytest.mark.parametrize(
    "content",
    [
        b"maps/a.tif;3\nmaps/b.tif;1\n",
        b"maps/a.tif;3\r\nmaps/b.tif;1\r\n",
        b"\xef\xbb\xbfmaps/a.tif;3\r\nmaps/b.tif;1\r\n",
        b"image;bands\nmaps/a.tif;3\nmaps/b.tif;1\n",
        b"maps/a.tif;3,0\nmaps/b.tif;1,00\n",
        b"maps/a.tif\t3\nmaps/b.tif\t1\n",
        b"maps/a.tif|3\nmaps/b.tif|1\n",
        in_utf_16("maps/a.tif\t3\r\nmaps/b.tif\t1\r\n"),
        in_utf_16("image\tbands\r\nmaps/a.tif\t3\r\nmaps/b.tif\t1\r\n"),
        b"\xfe\xff" + "maps/a.tif;3\nmaps/b.tif;1\n".encode("utf-16-be"),
        in_utf_16("sep=;\r\nmaps/a.tif;3\r\nmaps/b.tif;1\r\n"),
        b"sep=;\nmaps/a.tif;3\nmaps/b.tif;1\n",
        b"\xef\xbb\xbfsep=,\r\nimage,bands\r\nmaps/a.tif,3\r\nmaps/b.tif,1\r\n",
        b'"sep=;"\nmaps/a.tif;3\nmaps/b.tif;1\n',
        b"SEP=\t\nmaps/a.tif\t3\nmaps/b.tif\t1\n",
        b"\n# made by hand\nsep=;\nimage;bands\nmaps/a.tif;3\nmaps/b.tif;1\n",
        b'"maps/a.tif,3"\n"maps/b.tif,1"\n',
        b'"maps/a.tif;3"\n"maps/b.tif;1"\n',
        b'"image,bands"\r\n"maps/a.tif,3"\r\n"maps/b.tif,1"\r\n',
        b'"maps/a.tif,3";;\n"maps/b.tif,1";;\n',
        b"maps/a.tif,3;;\nmaps/b.tif,1;;\n",
        b'"""maps/a.tif"",""3"""\nmaps/b.tif,1\n',
        b"maps/a.tif,3\nmaps/b.tif;1\n",
        b"'maps/a.tif','3'\n'maps/b.tif','1'\n",
        b"maps/a.tif,3\n\xef\xbb\xbfmaps/b.tif,1\n",
        b'"maps/a.tif";"3"\n"maps/b.tif" ;"1"\n',
    ],
)
def test_separators_and_quotes_of_other_countries_are_read(content: bytes):
    assert images(content) == TWO


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("maps/a;b.tif,3", "maps/a;b.tif"),
        ('"maps/a;3,4.tif";3', "maps/a;3,4.tif"),
        ("maps/a.tif;b.tif,3", "maps/a.tif;b.tif"),
        ("maps/a|b\tc.tif,3", "maps/a|b\tc.tif"),
        ("maps/a, b.tif;3", "maps/a, b.tif"),
        ("maps/a,1.tif\t3", "maps/a,1.tif"),
        ('"maps/a, b.tif",3', "maps/a, b.tif"),
        ('"maps/a;1.tif";3', "maps/a;1.tif"),
    ],
)
def test_a_separator_in_a_name_is_part_of_the_name(line: str, key: str):
    assert images(f"{line}\n".encode()) == [(key, 3)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("b.tif 3", "a space separates image and bands: write a comma"),
        ("b.tif 3 elevation", "a space separates image and bands: write a comma"),
        ("b.tif\uff0c3", "'\uff0c' separates image and bands: write a comma"),
        ("b.tif:3", "':' separates image and bands: write a comma"),
        ("b.tif  =  3", "'=' separates image and bands: write a comma"),
        ("b.png;three", "the line has one field: write image,bands"),
    ],
)
def test_a_reason_names_a_separator_that_is_not_read(line: str, reason: str):
    good, bad = parse(f"a.tif,1\n{line}\n".encode()).rows
    assert (good.reason, bad.reason, bad.code) == (None, reason, "not-csv")


def test_an_unusual_separator_of_a_whole_manifest_is_named():
    with pytest.raises(NotAManifest, match="':' separates the fields"):
        parse(b"sep=:\na.tif:1\n")


def test_a_long_line_without_a_separator_takes_linear_time():
    for text in ("a.tif" + " " * 2**22 + "x" + "1" * 2**22, ".tif " * 2**20 + "x"):
        assert separator_fault(text) is None


@pytest.mark.parametrize(
    "first",
    [
        "image-archive/scan 1.img,3",
        "raster/2019/tile1.jp2,3",
        "image,3",
        "path,3.0",
        'file," 4 "',
        "object.png,12",
        "image-archive/scan 1.img,three",
        "image.img,three",
        "images/2019,bands",
        "image 1.img,3 bands",
        "image 1,3 bands",
        "file.name.png,bands",
        "name,",
        "image",
    ],
)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_data_row_is_not_a_header(first: str, separator: str):
    lines = (first, "a.tif,1")
    content = "\n".join(line.replace(",", separator) for line in lines).encode()
    manifest = parse(content)
    assert manifest.header is None
    assert [row.key for row in manifest.convertible] == ["a.tif"]
    assert [row.line for row in manifest.rows if row.reason] == [1]


@pytest.mark.parametrize(
    "before",
    [
        "sep=,\n",
        "# exported by hand\n",
        "# one\n#two, three\n\n# image list; 12 sheets\n",
        "\ufeffsep=,\r\n\r\n",
        '"# with ""quotes"", and commas"\n',
        "# old.tif,3\n",
        "Images of 2019\n",
        "Images of 2019,,\n,,\n",
        "# image list, number of bands\n",
    ],
)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_header_is_found_until_the_first_row(before: str, separator: str):
    text = before + "image,bands,profile\na.tif,1,elevation\n"
    manifest = parse(text.replace(",", separator).encode())
    assert manifest.header == ("image", "bands", "profile")
    row = manifest.rows[-1]
    assert (row.key, row.options) == ("a.tif", {"profile": ("elevation",)})


@pytest.mark.parametrize("titles", ["Bild;Bänder", "fichier;nombre de bandes", "x;y"])
def test_a_title_of_an_option_makes_a_header(titles: str):
    manifest = parse(f"{titles};profile\na.tif;1;elevation\n".encode())
    assert manifest.header == (*titles.split(";"), "profile")
    assert [row.options for row in manifest.rows] == [{"profile": ("elevation",)}]


@pytest.mark.parametrize(
    "header",
    [
        *("bucket/key,bands,profile", "Image path / URL,bands,profile"),
        *("image,bands,Profile:", "image,bands, PROFILE "),
    ],
)
def test_titles_may_be_written_as_in_a_spreadsheet(header: str):
    manifest = parse(f"{header}\nmaps/a.tif,1,elevation\n".encode())
    (row,) = manifest.rows
    assert (row.key, row.options) == ("maps/a.tif", {"profile": ("elevation",)})


def test_a_title_of_an_option_may_have_spaces():
    manifest = parse(b"image,bands,assign crs,time limit\na.tif,1,EPSG:2056,600\n")
    (row,) = manifest.rows
    assert row.options == {"assign_crs": ("EPSG:2056",), "time_limit": ("600",)}


def test_options_are_read_from_lines_that_are_quoted_as_a_whole():
    manifest = parse(b'"image,bands,profile"\n"a.tif,1,elevation"\n')
    assert [row.options for row in manifest.rows] == [{"profile": ("elevation",)}]


def test_a_header_after_the_first_row_says_that_it_is_not_used():
    rows = parse(b"a.tif,1\nimage,bands,profile\nb.tif,1,elevation\n").rows
    assert [row.code for row in rows] == [None, "late-header", None]
    assert "after the first row is not used" in rows[1].reason


def test_comments_are_no_rows_but_images_that_begin_so_are():
    rows = parse(b"# one\na.tif,1\n# two, three\n#1.tif,1\n").rows
    assert [row.key for row in rows] == ["a.tif", "#1.tif"]


def test_the_line_numbers_are_those_of_the_file():
    rows = parse(b"sep=;\n# made by hand\nimage;bands\n\na.tif;1\nb.png;1\n").rows
    assert [row.line for row in rows] == [5, 6]


def test_more_fields_than_memory_is_for_are_not_read_with_any_separator(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("dag.manifest.MAX_FIELDS", 1000)
    for separator in (",", ";", "\t", "|"):
        with pytest.raises(NotAManifest, match="more than 1000 fields"):
            parse(b"a.tif" + separator.encode() * 1001)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_another_encoding_is_named_with_its_line_and_the_remedy(encoding: str):
    content = "a.tif,1\nKärnten.tif,3\n".encode(encoding)
    message = (
        "perhaps in Windows-1252 or Latin-1 (line 2): save it again as 'CSV UTF-8'"
    )
    with pytest.raises(NotAManifest, match=re.escape(message)):
        parse(content)


@pytest.mark.parametrize("head", [b"PK\x03\x04", b"\x1f\x8b\x08", b"\x89PNG", b"II*"])
def test_binary_data_is_named(head: bytes):
    with pytest.raises(NotAManifest, match="binary data, not a CSV file"):
        parse(head + b"\0\0\xff\xfe")


def test_the_csvs_have_commas_and_utf_8_whatever_the_manifest_has(tmp_path: Path):
    content = in_utf_16("sep=;\r\nimage;bands;note\r\nü,1.tif;3;a;b\r\nx.tif;1;c\r\n")
    manifest = parse(content)
    file = tmp_path / "rows.csv"
    with csvs.writing_rows(file, manifest.header, with_reasons=False) as add:
        for row in manifest.convertible:
            add(row)
    with file.open(newline="", encoding="utf-8") as text:
        assert list(csv.reader(text)) == [
            ["image", "bands", "note"],
            ["ü,1.tif", "3", "a", "b"],
            ["x.tif", "1", "c"],
        ]
    assert [row.fields for row in parse(file.read_bytes()).rows] == [
        row.fields for row in manifest.rows
    ]
