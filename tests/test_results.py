"""The results of nodes are checked and gathered while the run is in progress."""

import base64
import dataclasses
import io
import json
import os
import re
import subprocess
import tracemalloc
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy
import orjson
import pytest
from hypothesis import given, strategies
from PIL import Image

import bucket as buckets
from bucket import Bucket, S3Endpoint
from catalog.record import from_line, to_line
from node import result as node_result
from node.result import MAX_BANDS, MAX_VERTICES, Result
from state import results
from state.project import PROJECT
from state.results import NodeResult
from state.run import Run
from tests.support import seaweedfs
from tests.support.catalog import record

OK = {
    "ok": True,
    "cog": {"bytes": 7, "md5": "c0" * 16},
    "jpeg": {"bytes": 5, "md5": "1e" * 16},
    "attempt": 2,
}
FAILED = {"ok": False, "code": "bad", "reason": "it is bad"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    fields = dict.fromkeys(Run.__dataclass_fields__, "")
    run = Run(**fields | {"directory": tmp_path})
    run.results_directory.mkdir()
    run.logs_directory.mkdir()
    return run


def write_result(run: Run, row: int, result: object) -> None:
    (run.results_directory / f"row{row}.json").write_text(json.dumps(result))
    (run.logs_directory / f"row{row}.log").write_text("log")


def files(directory: Path) -> set[str]:
    return {file.name for file in directory.iterdir()}


def test_the_files_of_a_successful_row_are_removed(run: Run):
    write_result(run, 1, OK)
    write_result(run, 20, FAILED)
    results.gather(run)
    assert files(run.results_directory) == set()
    assert files(run.logs_directory) == {"row20.log"}
    assert results.load(run) == {
        1: NodeResult(1, True, attempt=2, cog=(7, "c0" * 16), jpeg=(5, "1e" * 16)),
        20: NodeResult(20, False, "bad", "it is bad"),
    }


def test_the_last_result_of_a_row_counts(run: Run):
    write_result(run, 1, FAILED)
    results.gather(run)
    write_result(run, 1, OK)
    results.gather(run)
    assert results.load(run)[1].ok
    assert len(run.results_file.read_text().splitlines()) == 2


def test_a_half_written_result_is_gathered_when_it_is_complete(run: Run):
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


def test_a_result_written_while_an_earlier_one_is_gathered_is_kept(
    run: Run, monkeypatch: pytest.MonkeyPatch
):
    write_result(run, 1, FAILED)
    sync = os.fsync
    # fsync runs between the reading of a result and the removal of its file.
    monkeypatch.setattr(
        os, "fsync", lambda file: (sync(file), write_result(run, 1, OK))
    )
    results.gather(run)
    monkeypatch.undo()
    assert not results.load(run)[1].ok
    results.gather(run)
    assert results.load(run)[1].ok


def test_a_line_that_a_crash_cut_off_is_written_again(run: Run):
    run.results_file.write_text('{"row": 1, "ok": tr')
    write_result(run, 1, OK)
    results.gather(run)
    assert results.load(run)[1].ok


OPEN_RING = [[[0, 0], [1, 0], [1, 1], [0, 1]]]


def square(west: float) -> dict:
    ring = [[west, 0], [west + 1, 0], [west + 1, 1], [west, 1], [west, 0]]
    return {"type": "Polygon", "coordinates": [ring]}


def make_thumbnail(
    side: int,
    kind: str = "WEBP",
    noise: bool = False,
    trailing: bytes = b"",
    **options: object,
) -> dict:
    """Return a thumbnail in the form in which a node writes it."""
    pixels = numpy.zeros((side, side, 3), "u1")
    if noise:
        pixels = numpy.random.default_rng(1).integers(0, 256, pixels.shape, "u1")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    content = file.getvalue() + trailing
    webp = base64.b64encode(content).decode()
    return {"width": side, "height": side, "bytes": len(content), "webp": webp}


def nested(levels: int) -> dict:
    return {"id": nested(levels - 1)} if levels else {}


NOT_A_RESULT = {
    "a list": "[]",
    "a string": '"ok"',
    "null": "null",
    "an empty file": "",
    "an empty object": "{}",
    "no files": '{"ok": true}',
    "a file that is a number": json.dumps(OK | {"cog": 3}),
    "a file without its size": json.dumps(OK | {"cog": {}}),
    "a negative size": json.dumps(OK | {"cog": {"bytes": -1, "md5": "c0" * 16}}),
    "a Boolean as size": json.dumps(OK | {"cog": {"bytes": True, "md5": "c0" * 16}}),
    "an invalid MD5": json.dumps(OK | {"cog": {"bytes": 7, "md5": "../../x"}}),
    "infinity": json.dumps(OK | {"seconds": float("inf")}),
    "too large a number": '{"ok": false, "code": "a", "reason": "", "seconds": 1e999}',
    "too many digits": '{"ok": false, "code": "a", "reason": "", "width": %s}'
    % ("9" * 5000),
    "a string as a number": json.dumps(OK | {"attempt": "2"}),
    "a code of a megabyte": json.dumps(FAILED | {"code": "x" * 2**20}),
    "deep nesting": "[" * 200_000,
    "deep nesting in a field": '{"ok": true, "cog": ' + "[" * 200_000,
    "invalid UTF-8": b"\xff\xfe{",
    "a number as footprint": json.dumps(OK | {"footprint": 5}),
    "a footprint that is a line": json.dumps(
        OK | {"footprint": {"type": "LineString", "coordinates": [[0, 0], [1, 1]]}}
    ),
    "a footprint outside the valid longitudes": json.dumps(
        OK | {"footprint": square(190)}
    ),
    "a footprint of NaN": json.dumps(OK | {"footprint": square(float("nan"))}),
    "a footprint that is not closed": json.dumps(
        OK | {"footprint": {"type": "Polygon", "coordinates": OPEN_RING}}
    ),
    "a footprint of too many vertices": json.dumps(
        OK | {"footprint": {"type": "Polygon", "coordinates": [[[0, 0]] * 51]}}
    ),
    "a footprint of too many small rings": json.dumps(
        OK | {"footprint": {"type": "Polygon", "coordinates": [[[0, 0]] * 4] * 13}}
    ),
    "a bounding box outside the valid latitudes": json.dumps(
        OK | {"bbox": [0, 0, 10, 91]}
    ),
    "a bounding box upside down": json.dumps(OK | {"bbox": [0, 10, 10, 0]}),
    "too many bands": json.dumps(OK | {"bands_info": [{}] * (MAX_BANDS + 1)}),
    "a mean of infinity": json.dumps(OK | {"bands_info": [{"mean": "inf"}]}),
    "more than 100 percent of valid pixels": json.dumps(
        OK | {"bands_info": [{"valid_percent": 101}]}
    ),
    "a large PROJJSON": json.dumps(OK | {"projjson": {"a": "x" * 10_000}}),
    "a PROJJSON with infinity": json.dumps(OK | {"projjson": {"a": 1e300}}).replace(
        "1e+300", "1e999"
    ),
    "a PROJJSON of 51 levels": json.dumps(OK | {"projjson": nested(50)}),
    "a PROJJSON with half of a surrogate pair": json.dumps(
        OK | {"projjson": {"\ud800": 1}}
    ),
    "a PROJJSON with an integer of 65 bits": json.dumps(
        OK | {"projjson": {"a": [2**64]}}
    ),
    "an invalid SHA-256": json.dumps(OK | {"cog": OK["cog"] | {"sha256": "x"}}),
    "a thumbnail that is a PNG": json.dumps(
        OK | {"thumbnails": [make_thumbnail(8, "PNG")]}
    ),
    "a lossless thumbnail": json.dumps(
        OK | {"thumbnails": [make_thumbnail(8, "WEBP", lossless=True)]}
    ),
    "a thumbnail too wide": json.dumps(OK | {"thumbnails": [make_thumbnail(300)]}),
    "a thumbnail too large": json.dumps(
        OK | {"thumbnails": [make_thumbnail(250, noise=True, quality=100)]}
    ),
    "a second thumbnail too wide": json.dumps(
        OK | {"thumbnails": [make_thumbnail(100), make_thumbnail(100)]}
    ),
    "three thumbnails": json.dumps(OK | {"thumbnails": [make_thumbnail(8)] * 3}),
    "a thumbnail with trailing bytes": json.dumps(
        OK | {"thumbnails": [make_thumbnail(8, trailing=b"<script>")]}
    ),
    "a thumbnail of another size than stated": json.dumps(
        OK | {"thumbnails": [make_thumbnail(8) | {"width": 9}]}
    ),
    "a thumbnail that is not Base64": json.dumps(
        OK | {"thumbnails": [make_thumbnail(8) | {"webp": "%%%"}]}
    ),
    "200 MB": b"{" + b" " * 200_000_000 + b"}",
}


@pytest.mark.parametrize("content", NOT_A_RESULT.values(), ids=NOT_A_RESULT)
def test_an_invalid_result_fails_only_its_row(run: Run, content: str | bytes):
    content = content if isinstance(content, bytes) else content.encode()
    (run.results_directory / "row1.json").write_bytes(content)
    write_result(run, 2, OK)
    tracemalloc.start()
    results.gather(run)
    results.gather(run, settled=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * 2**20
    loaded = results.load(run)
    assert loaded[2].ok
    assert loaded[1].code == results.BAD_RESULT
    assert loaded[1].reason.startswith("the result that its node sent cannot be used")
    assert loaded[1].reason.isprintable()
    assert files(run.results_directory) == set()


def test_the_largest_valid_results_take_little_memory(run: Run):
    part = {"bytes": 1, "md5": "c0" * 16}
    result = OK | {"cog": part | {"parts": [part] * 4000}}
    for row in range(1, 31):
        write_result(run, row, result)
    tracemalloc.start()
    results.gather(run, settled=True)
    loaded = results.load(run)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 2**20
    # No multipart upload was started for any of them, so the parts are dropped.
    assert {(result.ok, result.parts) for result in loaded.values()} == {(True, ())}


def test_a_reason_is_cut_to_the_length_that_is_shown(run: Run):
    write_result(run, 1, FAILED | {"reason": "\N{PILE OF POO}" * 2000})
    results.gather(run)
    assert len(results.load(run)[1].reason) <= 500


def _a_folder(place: Path, secret: Path) -> None:
    (place / "row3.json").mkdir(parents=True)


def _deep_folders(place: Path, secret: Path) -> None:
    # The nesting is deeper than Python can remove recursively.
    place.mkdir()
    here = os.open(place, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def _a_link(place: Path, secret: Path) -> None:
    place.symlink_to(secret)


def _a_link_to_nothing(place: Path, secret: Path) -> None:
    place.symlink_to("nothing")


def _a_pipe(place: Path, secret: Path) -> None:
    os.mkfifo(place)


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize(
    "make", [_a_folder, _deep_folders, _a_link, _a_link_to_nothing, _a_pipe]
)
def test_a_result_that_is_not_a_file_fails_only_its_row(
    run: Run,
    tmp_path: Path,
    make: Callable[[Path, Path], None],
    settled: bool,
):
    secret = tmp_path / "secret"
    secret.write_text(json.dumps(OK))
    make(run.results_directory / "row1.json", secret)
    make(run.logs_directory / "row2.log", secret)
    (run.results_directory / "row2.json").write_text(json.dumps(OK))
    results.gather(run, settled=settled)
    loaded = results.load(run)
    assert loaded[1].code == results.BAD_RESULT
    assert loaded[2].ok
    assert secret.read_text() == json.dumps(OK)
    assert files(run.results_directory) | files(run.logs_directory) == set()
    # The result of a later attempt still counts.
    write_result(run, 1, OK)
    results.gather(run, settled=settled)
    assert results.load(run)[1].ok
    # pytest cannot remove these folders, because it does so in Python.
    subprocess.run(["rm", "-rf", run.sandbox_directory], check=True)


def test_a_folder_left_by_a_crash_does_not_block_later_results(run: Run):
    (run.results_directory / "row1.taken").mkdir()
    write_result(run, 1, OK)
    results.gather(run)
    assert results.load(run)[1].ok


def test_the_name_of_a_file_decides_to_which_row_its_result_belongs(run: Run):
    write_result(run, 1, FAILED | {"row": 2, "run": "another"})
    write_result(run, 2, OK)
    results.gather(run)
    loaded = results.load(run)
    assert not loaded[1].ok
    assert loaded[2].ok
    lines = [json.loads(line) for line in run.results_file.open()]
    assert {line["run"] for line in lines} == {run.directory.name}


@pytest.mark.parametrize(
    "name", ["rowx.json", "row01.json", "row٣.json", "row1.json.json", "row-1.json"]
)
def test_a_file_with_another_name_is_not_a_result(run: Run, name: str):
    (run.results_directory / name).write_text(json.dumps(OK))
    results.gather(run, settled=True)
    assert results.load(run) == {}


def test_unknown_fields_are_dropped(run: Run):
    write_result(
        run, 1, OK | {"planted": "x" * 1000, "cog": OK["cog"] | {"planted": 1}}
    )
    results.gather(run)
    assert "planted" not in run.results_file.read_text()
    assert results.load(run)[1].ok


def test_thumbnails_are_gathered_beside_the_results(run: Run):
    for row in (1, 2):
        large = make_thumbnail(200 + row, noise=True, quality=0) | {"position": 7}
        # A position that a node sets itself is ignored.
        planted = {"width": 9, "height": 9, "bytes": 9, "position": 0}
        thumbnails = [large, make_thumbnail(90)] if row == 1 else [large, planted]
        write_result(run, row, OK | {"thumbnails": thumbnails})
        results.gather(run)
    # A crash may leave bytes to which no line points.
    with run.thumbnails_file.open("ab") as file:
        file.write(b"cut o")
    write_result(run, 3, OK | {"thumbnails": [make_thumbnail(30)]})
    results.gather(run)
    records = dict(results.records(run))
    sizes = {
        row: [
            Image.open(io.BytesIO(results.read_thumbnail(run, thumbnail))).size
            for thumbnail in record.thumbnails
        ]
        for row, record in records.items()
    }
    assert sizes == {1: [(201, 201), (90, 90)], 2: [(202, 202)], 3: [(30, 30)]}
    assert "webp" not in run.results_file.read_text()


def test_a_result_survives_the_conversion_to_json_and_back():
    whole = Result(
        ok=True,
        crs="EPSG:32616",
        bounds=(0.0, 1.0, float("inf"), 3.0),
        transform=(1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
        footprint=square(10),
        bbox=(10.0, 0.0, 11.0, 1.0),
        bands_info=(node_result.Band(data_type="int16", nodata=-1.0, mean=3.5),),
        warnings=("it is old",),
        cog=node_result.Cog(
            bytes=7,
            md5="c0" * 16,
            sha256="c0" * 32,
            parts=(node_result.Part(bytes=7, md5="c0" * 16),),
        ),
        jpeg=node_result.Jpeg(bytes=5, md5="1e" * 16, width=3, height=4, quality=80),
        thumbnails=(node_result.Thumbnail(**make_thumbnail(8)),),
    )
    for compact in (False, True):
        text = json.dumps(whole.to_json(compact=compact), allow_nan=False)
        assert node_result.read(text.encode()) == whole


def test_results_of_the_format_without_a_version_are_read(run: Run):
    # Read it both as the node of version 0.1 wrote it and as a gathered line.
    former = json.loads(FORMER)
    record = Result.from_json(former)
    assert (record.version, record.ok, record.bands) == (1, True, 4)
    assert record.jpeg.quality == 80
    assert record.nodata != record.nodata
    assert record.footprint is None
    run.results_file.write_text(json.dumps({"run": "x", "row": 3} | former) + "\n")
    assert results.load(run)[3].cog == (7, "c0" * 16)
    assert [line for line, _ in results.records(run)] == [3]


FORMER = """{"ok": true, "width": 20, "height": 10, "bands": 4, "data_type": "float32",
"crs": null, "bounds": [0.0, 10.0, 20.0, 0.0], "transform": [1, 0, 0, 0, 1, 0],
"nodata": "nan", "profile": "zstd", "jpeg": {"width": 20, "height": 10, "quality": 80,
"bytes": 5, "md5": "1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e"}, "compression": "ZSTD",
"overviews": 0, "check_cpu_seconds": 0.1, "warnings": [], "cog": {"bytes": 7,
"md5": "c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0"}, "image": "a.tif", "seconds": 2.2,
"cpu_seconds": 2.3, "attempt": 1}"""


def test_a_result_of_a_later_format_is_read_without_its_unknown_fields():
    later = OK | {"version": 99, "moons": 2, "cog": OK["cog"] | {"blake3": "x"}}
    record = Result.from_json(later)
    assert record.version == 99
    assert record.cog.bytes == 7


def test_the_largest_result_of_a_node_is_within_the_limit():
    part = node_result.Part(bytes=2**33, md5="c0" * 16)
    wide = "\N{PILE OF POO}" * 80
    ring = [[-123.1234567, 45.1234567]] * MAX_VERTICES
    band = node_result.Band(
        data_type="complex_int32",
        nodata=-1.7976931348623157e308,
        color_interpretation="x" * 20,
        description=wide,
        unit="metres",
        **dict.fromkeys(
            ("scale", "offset", "minimum", "maximum", "mean", "stddev"), 0.1 + 0.2
        ),
        valid_percent=99.9999,
    )
    record = Result(
        ok=True,
        crs="x" * 5000,
        projjson={"a": "x" * 8000},
        footprint={"type": "Polygon", "coordinates": [ring]},
        bands_info=(band,) * MAX_BANDS,
        warnings=("x" * 300,) * 25,
        cog=node_result.Cog(bytes=1, md5="c0" * 16, parts=(part,) * 1000),
        jpeg=node_result.Jpeg(bytes=1, md5="c0" * 16),
    )
    size = len(json.dumps(record.to_json()))
    thumbnails = sum(4 * size // 3 for _, size in node_result.THUMBNAIL_LIMITS)
    assert node_result.MAX_BYTES / 2 < size + thumbnails < node_result.MAX_BYTES


def test_lines_gathered_by_an_earlier_version_are_checked_too(run: Run):
    lines = [
        '{"row": 1, "ok": true, "cog": {"bytes": Infinity, "md5": ""}}',
        '{"row": 1e999, "ok": false, "code": "a", "reason": ""}',
        '{"row": 1, "x": ' + "[" * 100_000,
        json.dumps({"row": 2} | OK),
    ]
    run.results_file.write_text("\n".join(lines) + "\n")
    assert set(results.load(run)) == {2}


FIELDS = {field.name for field in dataclasses.fields(Result)}

any_character = strategies.characters(exclude_categories=())
json_values = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers()
    | strategies.floats()
    | strategies.text(any_character),
    lambda inner: (
        strategies.lists(inner, max_size=4)
        | strategies.dictionaries(
            strategies.sampled_from([*OK, "code", "reason", "x"]), inner
        )
    ),
    max_leaves=12,
)


@given(
    strategies.one_of(
        strategies.binary(max_size=60),
        json_values.map(lambda value: json.dumps(value).encode()),
        strategies.fixed_dictionaries(
            {"ok": strategies.booleans()},
            optional=dict.fromkeys(FIELDS - {"ok"}, json_values),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_any_bytes_give_a_result_or_a_named_error(content: bytes):
    try:
        saved = node_result.read(content).to_json()
    except ValueError as error:
        assert str(error)
        return
    # A second conversion keeps the same fields, and the result is valid JSON.
    again = node_result.read(json.dumps(saved, allow_nan=False).encode())
    assert again.to_json() == saved
    # So it is for the catalog, which writes it with orjson.
    assert orjson.loads(orjson.dumps(saved)) == saved


ODD_VALUES = {
    "half of a surrogate pair": {
        "warnings": ["\ud800"],
        "bands_info": [{"description": "a\udfff"}],
    },
    "integers of more than 64 bits": {
        "nodata": 10**30,
        "transform": [-(10**30)] * 6,
        "bounds": [2**64] * 4,
        "bands_info": [{"nodata": 10**30, "scale": 10**30, "mean": -(2**63) - 1}],
    },
    "the largest integers of 64 bits": {
        "nodata": 2**64 - 1,
        "transform": [-(2**63)] * 6,
    },
    "a PROJJSON of 50 levels": {"projjson": nested(49)},
}


@pytest.mark.parametrize("values", ODD_VALUES.values(), ids=ODD_VALUES)
def test_the_catalog_writes_and_reads_each_result(values: dict):
    result = node_result.read(json.dumps(OK | values).encode())
    written = dataclasses.replace(record(), result=result)
    assert from_line(to_line(written)) == written


def test_a_result_keeps_what_the_catalog_can_take():
    values = OK | {"reason": "a\ud800b", "nodata": 2**64 - 1, "projjson": nested(49)}
    result = node_result.read(json.dumps(values).encode())
    assert result.reason == "a\N{REPLACEMENT CHARACTER}b"
    assert result.nodata == 2**64 - 1
    assert result.projjson == nested(49)


@pytest.mark.parametrize(("gsd", "kept"), [(0, 0), (1e-320, 0), (1e-8, 1e-8)])
def test_a_distance_by_which_nothing_can_be_divided_is_zero(gsd: float, kept: float):
    values = OK | {"gsd": gsd}
    assert node_result.read(json.dumps(values).encode()).gsd == kept


@pytest.fixture(scope="module")
def large_bucket(store: S3Endpoint, tmp_path_factory: pytest.TempPathFactory):
    """Yield a bucket on a server that lists 1,000 objects a page, as S3 does."""
    with seaweedfs.running(tmp_path_factory.mktemp("seaweed"), store) as server:
        bucket = Bucket(server, f"crowded-{uuid.uuid4().hex[:8]}")
        bucket.create()
        for number in range(1010):
            bucket.write(f"maps/{number:04}.tif", b"")
        yield bucket


def test_a_few_images_among_many_are_requested_one_by_one(
    large_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
):
    requested = []
    stat = large_bucket.stat
    monkeypatch.setattr(
        large_bucket, "stat", lambda key: (requested.append(key), stat(key))[1]
    )
    monkeypatch.setattr(buckets, "_PAGE_SIZE", 500)
    two = ("maps/1009.tif", "maps/0003.tif")
    keys = [
        found.key for found in large_bucket.find_objects(two, lambda key: (key + "x",))
    ]
    # Two pages would list 1,000 objects; the bucket has more.
    assert set(two) <= set(keys)
    assert requested == [two[0], two[0] + "x", two[1], two[1] + "x"]


def test_many_images_are_listed(large_bucket: Bucket, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(large_bucket, "stat", None)
    three = {"maps/1009.tif", "maps/0003.tif", "maps/missing.tif"}
    found = {found.key for found in large_bucket.find_objects(three, lambda key: ())}
    assert three - found == {"maps/missing.tif"}


def test_the_tables_of_a_result_have_its_fields():
    page = (PROJECT / "docs" / "reference.md").read_text()
    section = page.split("## The result of a node\n")[1].split("\n## ")[0]
    tables: dict[str, set[str]] = {}
    for line in section.splitlines():
        first = line.split("|")[1].strip() if line.startswith("|") else ""
        if first.startswith("field"):
            names = tables[first] = set()
        names_in_line = re.findall(r"`(\w+)`", first)
        if names_in_line:
            names |= set(names_in_line)

    def fields(*classes: type) -> set[str]:
        return {field.name for cls in classes for field in dataclasses.fields(cls)}

    assert tables == {
        "field": fields(Result),
        "field of a band": fields(node_result.Band),
        "field of a file": fields(node_result.Cog, node_result.Jpeg),
        "field of a thumbnail": fields(node_result.Thumbnail),
    }


def test_the_docstrings_of_a_result_have_its_fields():
    for cls in (Result, node_result.Band, node_result.Jpeg, node_result.Thumbnail):
        described = set(re.findall(r"^        ?([\w, ]+): ", cls.__doc__, re.MULTILINE))
        names = {name for line in described for name in line.strip().split(", ")}
        own = set(cls.__annotations__)
        assert own <= names, cls
