"""A hostile manifest yields its own rows and nothing else, whatever they contain."""

import csv
import io
import re
import subprocess
import sys
import tempfile
import tracemalloc
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain, groupby
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as some

from bucket import Bucket, S3Endpoint, StoredObject
from dag import manifest as manifests, render, signing
from dag.batches import batch_rows
from dag.fields import is_comment, is_header
from dag.images import candidate_keys
from dag.manifest import parse, read
from node import options
from node.multipart import UploadLimits
from post import csvs
from state.errors import NotAManifest
from state.keys import jpeg_key, sandbox_name
from state.launch import Launch
from state.project import PROJECT
from state.rows import (
    Manifest,
    Row,
    dag_node_of,
    load_manifest,
    save_rows,
)
from state.run import Run
from state.text import csv_safe, one_line, redact_signatures
from tests.support.archive import ALL, Archive
from tests.support.runs import resolve

# Text with a special meaning in one of the languages that contain a key.
HOSTILE = [
    *("../", "/../", "./", "//", "~", "\\", "\\\\", "\\n", "\n", "\r", "\r\n", "\t"),
    *('"', "'", '""', '\\"', "`id`", "$(id)", "$$(id)", "$(image)", "$ENV(HOME)"),
    *(",", ";", "|", "&", "&&", "=", "#", "?", "%00", "%2e%2e%2f", "%", "*", "[1]"),
    *("\nJOB evil convert\n", '" evil="', "\nSCRIPT POST row1 /bin/sh", "\nqueue 5"),
    *("{{ project }}", "{% raw %}", "@=end", "<b>", "=cmd|' /C calc'!A0", "@SUM(1)"),
    *("\x01", "\x07", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u202e", "\u200f"),
    *("\ufeff", "\u200d", "\U0001f5fa", "e\u0301", "ü" * 90, "x" * 250, "f/" * 500),
]
words = some.one_of(
    some.sampled_from(HOSTILE),
    some.text(some.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
    some.sampled_from(["a", "scene", "maps/", " ", ".tif"]),
)
texts = some.lists(words, max_size=5).map("".join)
keys = some.tuples(texts, some.sampled_from([".tif", ".TIFF", ".tif", ""])).map("".join)
bands = some.one_of(some.sampled_from(["1", "3", " 4 ", "1.0", "0", "", "x"]), texts)
rows = some.tuples(keys, bands, some.lists(texts, max_size=2)).map(
    lambda row: (row[0], row[1], *row[2])
)


@pytest.fixture(scope="module")
def bucket(store: S3Endpoint) -> Bucket:
    bucket = Bucket(store, f"hostile-{uuid.uuid4().hex[:8]}")
    bucket.create()
    return bucket


def csv_of(rows: list[tuple[str, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    return text.getvalue().encode()


def images_of_half(manifest: Manifest, bucket: str) -> list[StoredObject]:
    """Return objects with all keys that every second row can mean."""
    half = manifest.convertible[::2]
    keys = {key for row in half for key in candidate_keys(row, bucket)}
    return [StoredObject(key, 7, "", datetime.now(UTC)) for key in keys]


def vars_of(line: str) -> dict[str, str]:
    """Parse a VARS line as DAGMan does: a backslash escapes a quote or a backslash."""
    _, _, rest = line.split(" ", 2)
    pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"(?: |$)', rest)
    assert " ".join(f'{name}="{value}"' for name, value in pairs) == rest
    return {name: re.sub(r"\\(.)", r"\1", value) for name, value in pairs}


@given(
    written_rows=some.lists(rows, min_size=1, max_size=6),
    shadow_signs=some.booleans(),
    rows_per_job=some.integers(1, 4),
)
@example(
    written_rows=[(f"a{text}.tif", "1") for text in HOSTILE],
    shadow_signs=False,
    rows_per_job=1,
)
@example(
    written_rows=[(f"a{text}.tif", "1") for text in HOSTILE],
    shadow_signs=True,
    rows_per_job=3,
)
@example(
    written_rows=[(f"{text}/a.tif", "1") for text in HOSTILE],
    shadow_signs=True,
    rows_per_job=1,
)
@example(written_rows=[("$(image)", "1")], shadow_signs=False, rows_per_job=1)
@example(written_rows=[("~", "N")], shadow_signs=False, rows_per_job=1)
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_every_row_fails_with_a_reason_or_is_rendered_unchanged(
    written_rows: list[tuple[str, ...]],
    shadow_signs: bool,
    rows_per_job: int,
    bucket: Bucket,
    store: S3Endpoint,
):
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        launch = Launch(
            directory,
            store,
            bucket.name,
            bucket.name,
            "cogs/",
            rows_per_job=rows_per_job,
        )
        try:
            parsed = parse(csv_of(written_rows))
        except NotAManifest:
            assert all(
                is_comment(row) or is_header(row) or not "".join(row).strip()
                for row in written_rows
            )
            return
        resolved = resolve(parsed, bucket.name, images_of_half(parsed, bucket.name))
        manifest = replace(resolved, rows=tuple(batch_rows(resolved.rows, launch, 1)))
        run = _run(directory)
        save_rows(run, manifest)
        assert load_manifest(run) == manifest

        _assert_nothing_is_lost(written_rows, manifest)

        def conversion(row: Row) -> render.RowTransfer:
            urls = _urls(launch, bucket, row, shadow_signs)
            return render.RowTransfer(row, urls, UploadLimits(2**32), {})

        nodes = [
            render.node(name, map(conversion, node_rows), {})
            for name, node_rows in groupby(manifest.convertible, dag_node_of)
        ]
        _assert_each_row_has_its_node(manifest, nodes, rows_per_job)
        render.write_dag(run, launch, nodes, (23, 9, 6), directory)
        _assert_the_dag_has_only_these_nodes(run.dag_file.read_text(), nodes)


def _run(directory: Path) -> Run:
    (directory / "results").mkdir()
    empty = dict.fromkeys(Run.__dataclass_fields__, "")
    return Run(**empty | {"directory": directory, "manifest_key": "x-raw.csv"})


def _urls(
    launch: Launch, bucket: Bucket, row, shadow_signs: bool
) -> signing.TransferUrls:
    if shadow_signs and signing.shadow_can_sign(launch, row):
        store = f"s3://{launch.store.endpoint}"
        signer = signing.Signer(
            f"{store}/{launch.input_bucket}",
            f"{store}/{launch.output_bucket}",
            "us-east-1",
        )
        return signing.shadow_urls(signer, launch, row)
    return signing.presigned_urls(bucket, bucket, launch, row)


def _assert_nothing_is_lost(
    written_rows: list[tuple[str, ...]], manifest: Manifest
) -> None:
    lines = [row for row in written_rows if any(field.strip() for field in row)]
    expected = [row for row in lines if not is_comment(row)]
    header = [manifest.header] if manifest.header else []
    assert [*header, *(row.fields for row in manifest.rows)] == expected
    failed = [row for row in manifest.rows if row.reason is not None]
    for row in failed:
        assert row.reason.isprintable(), row
        assert row.reason[0] not in "=+-@", row
        assert len(row.reason) <= 500
    for some_rows in (failed, manifest.convertible):
        if some_rows:
            _assert_read_back(manifest, some_rows)


def _assert_read_back(manifest: Manifest, some_rows: list) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.csv")
        with_reasons = some_rows[0].reason is not None
        with csvs.writing_rows(file, manifest.header, with_reasons=with_reasons) as add:
            for row in some_rows:
                add(row)
        with file.open(newline="") as text:
            lines = [row for row in csv.reader(text) if row]
    if manifest.header:
        del lines[0]
    for row, line in zip(some_rows, lines, strict=True):
        fields = list(row.fields)
        if row.reason is not None:
            assert line[2] == row.reason
            fields += [""] * (2 - len(fields))
            had_reason = manifest.header and manifest.header[2:3] == ("reason",)
            fields[2 : 3 if had_reason else 2] = [row.reason]
        assert line == fields


def _assert_the_dag_has_only_these_nodes(text: str, nodes: list[render.Node]) -> None:
    template = (PROJECT / "templates" / "convert.dag").read_text()
    start = text.index("JOB ") if nodes else text.index("FINAL ")
    # The nodes have only commands of the template.
    body = text[start : text.index("\n# A FINAL node")] if nodes else ""
    commands = [re.escape(word) for word in re.findall(r"^[A-Z]+", body, re.M)]
    assert set(commands) <= set(re.findall(r"^[A-Z]+", template, re.M))
    assert all(
        re.match(r"(JOB|VARS|RETRY|PRIORITY|CATEGORY) rows?\d+ |#|$", line)
        for line in body.split("\n")
    )
    assert re.findall(r"^JOB (\w+) ", text, re.M) == [node.name for node in nodes]
    vars_by_node: dict[str, dict[str, str]] = {}
    for line in body.split("\n"):
        if line.startswith("VARS "):
            vars_by_node.setdefault(line.split()[1], {}).update(vars_of(line))
    for node in nodes:
        values = vars_by_node[node.name]
        assert values["node_arguments"] == node.arguments
        assert values["input_urls"] == node.input_urls
        assert values["remaps"] == node.remaps
        for value in values.values():
            assert value.isprintable()
            assert "$(" not in value.replace("$(RETRY)", "")
        for image, _, _ in options.parse(node.arguments.split()):
            assert len(image.parts) == 1
            assert str(image) not in (".", "..")


def _assert_each_row_has_its_node(
    manifest: Manifest, nodes: list[render.Node], rows_per_job: int
) -> None:
    images = [options.parse(node.arguments.split()) for node in nodes]
    assert all(1 <= len(of_node) <= rows_per_job for of_node in images)
    assert [(str(image), bands) for image, bands, _ in chain(*images)] == [
        (sandbox_name(row.key), row.bands) for row in manifest.convertible
    ]
    for node in nodes:
        files = [remap.partition("=")[0] for remap in node.remaps.split(";")]
        files = [file for file in files if file != "result.json"]
        assert len(set(files)) == len(files)


@given(some.one_of(texts, some.text(), some.sampled_from(HOSTILE)))
@example("https://h/k?X-Amz-Credential=AKIA&X-Amz-Signature=abc said 403")
@example("\ud83d")
def test_untrusted_text_is_shown_as_one_harmless_line(text: str):
    for shown in (one_line(text), csv_safe(text)):
        assert shown.isprintable()
        assert "X-Amz" not in shown
        shown.encode()
    assert not csv_safe(text).startswith(("=", "+", "-", "@"))


SIGNATURE = "5ec7e75ec7e75ec7e75ec7e7"
VERSION_4 = f"X-Amz-Credential=us&X-Amz-Signature={SIGNATURE}"
VERSION_2 = f"Signature={SIGNATURE}&AWSAccessKeyId=us&Expires=1"
SIGNED = [VERSION_4, VERSION_4.lower(), VERSION_2, VERSION_2.upper()]


@given(
    query=some.sampled_from(SIGNED),
    before=some.integers(0, 30_000),
    filling=some.sampled_from(["a ", " ", "?", "?a ", "'", "x"]),
)
@example(query=VERSION_2, before=9_900, filling=" ")
@example(query=VERSION_4, before=9_920, filling=" ")
def test_no_part_of_a_signature_is_shown_wherever_the_text_is_cut(
    query: str, before: int, filling: str
):
    url = f"https://h/k?list-type=2&{query}"
    text = (filling * before)[:before] + f" {url} said 403, and {query}"
    for shown in (one_line(text), csv_safe(text), redact_signatures(text, 10_000)):
        assert SIGNATURE[:6] not in shown.lower()


def test_a_query_without_a_signature_is_not_redacted():
    text = "is it https://h/k?list-type=2&prefix=a or 'b?' ?"
    assert one_line(text) == text


MEGABYTE = 2**20


def test_a_line_of_a_megabyte_fails_only_its_row():
    manifest = parse(
        b"a.tif,1\n" + b"x" * MEGABYTE + b".tif,1\nb.tif," + b"9" * MEGABYTE + b"\n"
        b'"open' + b"y" * MEGABYTE + b"\nc.tif,1," + b"z" * MEGABYTE + b"\n"
    )
    assert [bool(row.reason) for row in manifest.rows] == [0, 1, 1, 1, 0]
    assert "too long" in manifest.rows[1].reason
    assert "invalid number" in manifest.rows[2].reason
    assert manifest.rows[4].fields[2] == "z" * MEGABYTE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no rows"),
        (b"\xef\xbb\xbf", "no rows"),
        (b"\xff\xfe", "no rows"),
        (b"\0", "binary"),
        (b"a.tif,1\n\0\n", "binary"),
        (b"\0" * 4096, "binary"),
        (bytes(range(256)), "UTF-8"),
        ("a.tif,1\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        ("a.tif,1\n".encode("utf-16-be"), "UTF-16 without a byte order mark"),
        ("a.tif,1\n".encode("utf-32"), "binary"),
        (b"\xff\xfea\0.\0t", "UTF-8"),
        (b"\xff\xfe\x3d\xd8,\0", "UTF-8"),
        (b"\xed\xa0\xbd.tif,1\n", "UTF-8"),
    ],
)
def test_content_that_is_not_text_is_refused(content: bytes, message: str):
    with pytest.raises(NotAManifest, match=message):
        parse(content)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_decides_the_encoding(encoding: str):
    (row,) = parse("地図.tif,1\n".encode(encoding)).rows
    assert (row.key, row.bands, row.reason) == ("地図.tif", 1, None)


def test_a_manifest_above_the_size_limits_is_not_read(tmp_path: Path):
    file = tmp_path / "manifest.csv"
    with file.open("wb") as sparse:
        sparse.truncate(manifests.MAX_SIZE + 1)
    with pytest.raises(NotAManifest, match="128 is the maximum"):
        read(file)
    for line in (b",", b"\n", b"\r"):
        file.write_bytes(line * (manifests.MAX_FIELDS + 1))
        with pytest.raises(NotAManifest, match="fields: split it"):
            read(file)


def test_a_manifest_above_the_row_limit_is_not_read(monkeypatch: pytest.MonkeyPatch):
    assert manifests.MAX_ROWS >= 10**6
    monkeypatch.setattr(manifests, "MAX_ROWS", 1000)
    assert len(parse(b"x\n\n" * 1000).rows) == 1000
    for line in (b"x\n", b'"x\n'):
        with pytest.raises(NotAManifest, match="more than 1000 rows: split it"):
            parse(line * 1001)


def test_one_wide_character_does_not_multiply_the_memory_of_a_manifest():
    content = "\U0001f5fa.tif,1\n".encode() + (b" " * 60 + b"\n") * 100_000
    tracemalloc.start()
    try:
        assert len(parse(content).rows) == 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # One str for the content would have four bytes a character, and exist twice.
    assert peak < 2 * len(content)


@pytest.mark.parametrize("field", ["lzw " * 300, "?" * 200_000])
def test_options_that_are_too_long_for_a_command_line_are_refused(field: str):
    (row,) = parse(f"image,bands,profile\na.tif,1,{field}\n".encode()).rows
    assert "more than 1000 characters" in row.reason


def test_a_reason_does_not_repeat_a_long_option():
    field = "?" * 900
    (row,) = parse(f"image,bands,profile\na.tif,1,{field}\n".encode()).rows
    assert "there is no profile '???" in row.reason
    assert "zstd" in row.reason, "the long value hides the names of the profiles"


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("a.tif.aux.xml", 16 * MEGABYTE, None),
        ("a.tif.aux.xml", 16 * MEGABYTE + 1, "a.tif.aux.xml beside it has 16,777,217"),
        ("a.tfw", 2**16, None),
        ("a.TFW", 2**16 + 1, "a.TFW beside it has 65,537"),
        ("a.tif.ovr", 2**30, None),
    ],
)
def test_a_sidecar_above_its_size_limit_fails_the_row(
    name: str, size: int, message: str | None
):
    now = datetime.now(UTC)
    stored = [
        StoredObject("x/a.tif", 7, "", now),
        StoredObject(f"x/{name}", size, "", now),
    ]
    (row,) = resolve(parse(b"x/a.tif,1\n"), "maps", stored).rows
    if message is None:
        assert row.reason is None
        assert row.sidecars == (f"x/{name}",)
    else:
        assert message in row.reason


def test_a_row_cannot_exceed_the_maximum_time_limit(archive: Archive):
    for name in ("image", "other"):
        archive.upload_raster(f"{name}.tif", 1)
    rows = [["image.tif", "1", "100 101"], ["other.tif", "1", "999999999"]]
    text = "image,bands,time_limit\n" + "".join(f"{','.join(row)}\n" for row in rows)
    archive.maps.write("batch-raw.csv", text.encode())
    archive.launch("--max-time-limit", "100", "--every", "1440")
    processed, failed = archive.outcome("batch-")
    assert processed == []
    for row, limit in zip(failed[-2:], ("101", "999999999"), strict=True):
        assert f"its time_limit of {limit} s is above the maximum of 100 s" in row[2]
        assert "--max-time-limit" in row[2]


MEASURE = """
import resource, subprocess, sys
subprocess.run([sys.executable, sys.argv[1], "poll", sys.argv[2]], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


def test_a_manifest_that_is_too_large_takes_no_memory(archive: Archive):
    large = archive.directory / "large"
    with large.open("wb") as sparse:
        sparse.truncate(manifests.MAX_SIZE + 1)
    # The period is so long that the crondor job does not poll before this test.
    archive.launch("-p", "*other.csv", "--every", "1440")
    (home,) = archive.directory.glob("launch-*")
    file = home / "launch.json"
    archive.maps.upload("batch-other.csv", large)
    # A child starts with the memory of its parent, so its parent is a small process.
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, str(PROJECT / "cog_pipeline.py"), str(file)],
        capture_output=True,
        text=True,
    )
    assert measured.returncode == 0, measured.stdout + measured.stderr
    assert "no row can be converted" in measured.stdout
    assert int(measured.stdout.split()[-1]) < manifests.MAX_SIZE

    keys = [item.key for item in archive.maps.list("batch-")]
    assert len(keys) == 3
    assert keys[0].startswith("batch-other-failed-")
    assert b"128 is the maximum" in archive.maps.read(keys[0], ALL)
    assert keys[1].startswith("batch-other-processed-")
    assert keys[2].startswith("batch-other-unreadable-")
    assert not list(archive.directory.glob("workflow-run-*/manifest.csv"))
    assert not (home / "manifest.download").exists()


def test_a_manifest_of_a_million_rows_is_read(tmp_path: Path):
    file = tmp_path / "manifest.csv"
    file.write_bytes(b"".join(b"scenes/%d.tif,3\n" % n for n in range(10**6)))
    manifest = read(file)
    assert len(manifest.rows) == 10**6
    assert not any(row.reason for row in manifest.rows)


def test_the_jpeg_of_a_hostile_key_is_beside_it():
    for text in HOSTILE:
        assert jpeg_key(f"{text}/a.tif") == f"{text}/a.jpg"
