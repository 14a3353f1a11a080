"""Whatever others write, ten times as much of it takes about ten times as long.

An expression that looks at text again from each of its characters takes a hundred
times as long, and days for a megabyte. Each function that reads text of others is tried
with what such expressions stumble over.
"""

import contextlib
import io
import logging
import struct
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as some

from bucket import S3Endpoint, StoredObject
from condor import eventlog, queue
from condor.eventlog import NodeEnd
from dag import images, render, signing
from dag.batches import batch_rows
from dag.manifest import parse
from node import cog, exhaustion, gdal, options, safety, tiff
from node.errors import UnsupportedRaster, in_short
from post import csvs, reasons
from state import text as state_text
from state.errors import NotAManifest, PipelineError
from state.journal import Journal
from state.keys import jpeg_key, sandbox_name
from state.launch import Launch
from state.results import NodeResult
from state.rows import Manifest, Row
from state.run import is_processing, timestamp_of
from tests.support.runs import resolve

# Below it, seconds are noise; the next sizes are tried.
_MEASURABLE = 0.02
_LARGEST = 2**19  # characters, and ten times as many
_MOST_TIMES = 15

FRAGMENTS = [
    *("?", "a", " ", '"', "'", ",", "\n", "\r", "=", "0", "1", "<", "/", "\\", "$("),
    *("?X-Amz", "?Signature", "?signatur", "Signature ", "x-amz-", "?a ", "? ", "%3d"),
    *('"a', '""', '","', '"\n', '\n"', ',"a\n', "'\"", '\\"', "a,1\n", "a.tif,1\n"),
    *("image,", "# ", "NAME=", "a=b ", "--co ", "EPSG:", "overview_level=", "1."),
    *("grids=", 'grids="', 'PROJ4_GRIDS"', 'PROJ4_GRIDS" ', 'PARAMETERFILE["'),
    *('PARAMETERFILE["a" ', 'PARAMETERFILE["a",', "DAG Node: ", 'DAGNodeName = "'),
    *("<mdi", "< ", "<Item>", "< mdi", "<metadata ", "<a>", "&lt;", "CPLE_a", ".tif"),
    *("processing-", "raw", "memory ", "cannot ", "not enough", "\u2028", "\x1b", "ü"),
]
Read = Callable[[str], object]


def launch() -> Launch:
    key = Path("/nowhere/key")
    store = S3Endpoint("127.0.0.1:9443", key, key)
    return Launch(Path("/nowhere"), store, "maps", "cogs", rows_per_job=10)


def manifest(text: str) -> Manifest | None:
    with contextlib.suppress(NotAManifest):
        return parse(text.replace("\0", "").encode())
    return None


def options_column(text: str) -> None:
    quoted = text.replace('"', '""')
    for name in sorted(options.OPTION_NAMES):
        manifest(f'image,bands,{name}\na.tif,1,"{quoted}"\n')


def arguments(text: str) -> None:
    for name in sorted(options.OPTION_NAMES):
        with contextlib.suppress(options.UsageError):
            options.checked({name: [text]})


def command_line(text: str) -> None:
    for words in ([text], ["a.tif", text], ["a.tif", "1", "--co", text]):
        with contextlib.suppress(options.UsageError, SystemExit):
            options.parse(words)


def rows_and_their_files(text: str) -> None:
    """Read many rows, find what the bucket has of them, and let them share nodes."""
    # As many rows as the text has words, each of another name.
    names = [f"{number}.tif" for number in range(len(text) // 100)]
    listed = [
        StoredObject(name + suffix, 7, "", datetime.now(UTC))
        for name in names
        for suffix in ("", ".aux.xml", ".msk")
    ]
    read = manifest("".join(f"{name},1\n" for name in names))
    if read:
        found = resolve(read, "maps", listed)
        list(batch_rows(found.rows, launch()))


def rendered(text: str) -> None:
    filters = render._environment.filters
    for name in ("vars", "classad", "comment"):
        with contextlib.suppress(PipelineError):
            filters[name](text)
    for name in ("condor_arguments", "shell"):
        filters[name]([text])
    filters["condor_environment"]({"NAME": text})


def written_as_csv(text: str) -> None:
    row = Row(1, (text, text)).failed("x", text)
    with tempfile.TemporaryDirectory() as folder:
        file, header = Path(folder, "failed.csv"), ("image", "bands")
        with csvs.writing_rows(file, header, with_reasons=True) as add:
            add(row)


def reason(text: str) -> None:
    told = NodeResult(1, ok=False, code="x", reason=text)
    for event in ("held", "removed", "given up", "killed"):
        before = "idle" if event == "given up" else ""
        last = NodeEnd(event, text, before)
        _, why = reasons.failure_reason(told, last, text, text)
        Row(1, (text,)).failed("x", why)


def notes_of_a_job(text: str) -> None:
    submitted = queue.htcondor2.JobEventType.SUBMIT
    eventlog._submitted_node(eventlog._Event(submitted, 1, 0, {"LogNotes": text}))


def warning_of_gdal(text: str) -> None:
    with gdal.warning_log():
        logging.getLogger("rasterio").warning("CPLE_%s", text)
        logging.getLogger("rasterio").warning("%s", text)


def error_of_gdal(text: str) -> None:
    error = ValueError(text)
    in_short(error)
    exhaustion.exhaustion(error, Path())


def metadata_in_xml(text: str) -> None:
    safety._count_items(text.encode("utf-8", "replace"))


class Unwarped:
    warped = min_is_white = False
    crs = None


def description_of_gdal(text: str) -> None:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    xml = f'<VRTDataset><Metadata><MDI key="a">{escaped}</MDI></Metadata></VRTDataset>'
    with contextlib.suppress(UnsupportedRaster):
        cog._of_one_pixel(xml.encode("utf-8", "replace"), Unwarped())


def internal_error(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            raise ValueError(text) from KeyError(text)
        except ValueError as error:
            Journal(len, (Path(folder, "log.jsonl"),)).internal_error(error)


def directories(text: str) -> None:
    """Read a TIFF of as many directories as the text has hundreds of characters."""
    content = struct.pack("<2sHI", b"II", 42, 8)
    pieces, at = [content], len(content)
    entries = struct.pack("<HHII", 256, 4, 1, 1) * 5
    for _ in range(len(text) // 100):
        at += 2 + len(entries) + 4
        pieces.append(struct.pack("<H", 5) + entries + struct.pack("<I", at))
    file = io.BytesIO(b"".join(pieces))
    with contextlib.suppress(tiff.NotATiff):
        tiff.bytes_of_values(file)
    with contextlib.suppress(tiff.NotATiff):
        list(tiff.beginnings(file, 256, 10))


def names(text: str) -> None:
    key = f"{text}.tif"
    sandbox_name(key)
    jpeg_key(key)
    timestamp_of(text)
    is_processing(text)
    images.candidate_keys(Row(1, (), key=key), "maps")
    list(images._images_of_sidecar(f"{text}.tfw"))
    signing.shadow_can_sign(launch(), Row(1, (), key=key, sidecars=(text,)))


READS: dict[str, Read] = {
    "without_signatures": state_text.redact_signatures,
    "printable": state_text.one_line,
    "presentable": state_text.csv_safe,
    "a manifest": manifest,
    "an image's name": lambda text: manifest(f"{text}.tif,1\n"),
    "a number of bands": lambda text: manifest(f"a.tif,{text}\n"),
    "a line of one field": lambda text: manifest(f"{text}\n"),
    "a quoted line": lambda text: manifest(f'"a.tif,{text}"\n'),
    "a header": lambda text: manifest(f"{text},bands\na.tif,1\n"),
    "a line sep=": lambda text: manifest(f"sep={text}\na.tif,1\n"),
    "an open quote": lambda text: manifest(f'a.tif,1\n"{text}'),
    "an options column": options_column,
    "rows and their files": rows_and_their_files,
    "arguments": arguments,
    "a command line": command_line,
    "names": names,
    "rendered": rendered,
    "written as CSV": written_as_csv,
    "a reason": reason,
    "notes of a job": notes_of_a_job,
    "an error that was not foreseen": internal_error,
    "a warning of GDAL": warning_of_gdal,
    "an error of GDAL": error_of_gdal,
    "grids in WKT": safety._GRIDS.findall,
    "metadata in XML": metadata_in_xml,
    "a description of GDAL": description_of_gdal,
    "directories of a TIFF": directories,
}


def best(read: Read, text: str, times: int = 3) -> float:
    """Return the fewest seconds of CPU time that reading a text took."""
    took = []
    for _ in range(times):
        state_text._csv_safe.cache_clear()
        began = time.process_time()
        read(text)
        took.append(time.process_time() - began)
        if took[-1] > 50 * _MEASURABLE:
            break
    return min(took)


def assert_linear(read: Read, fragment: str, smallest: int = 2**9) -> None:
    size, few = smallest, 0.0
    while True:
        few = best(read, repeated(fragment, size))
        if few >= _MEASURABLE or size >= _LARGEST:
            break
        size *= 4
    few = max(few, _MEASURABLE)
    # A machine that does other things meanwhile may slow it down once, not always.
    ratios = []
    for _ in range(3):
        ratios.append(best(read, repeated(fragment, 10 * size)) / few)
        if ratios[-1] <= _MOST_TIMES:
            return
        few = max(few, best(read, repeated(fragment, size)))
    pytest.fail(f"{fragment!r}, {size} characters: ten times as many take {ratios}")


def repeated(fragment: str, size: int) -> str:
    return (fragment * (size // len(fragment) + 1))[:size]


@pytest.mark.parametrize("what", READS)
def test_what_takes_long_for_little_takes_no_longer_for_much(what: str):
    """Look at all fragments in small first: only what is slow there is of interest."""
    read = READS[what]
    size = 2**13
    took = {each: best(read, repeated(each, size), 1) for each in FRAGMENTS}
    slowest = sorted(FRAGMENTS, key=took.__getitem__)[-3:]
    for fragment in slowest:
        assert_linear(read, fragment)


@pytest.mark.parametrize("what", READS)
@given(fragment=some.lists(some.sampled_from(FRAGMENTS), min_size=1, max_size=4))
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_no_mixture_takes_long(what: str, fragment: list[str]):
    # A quadratic one would take seconds: 20,000 times as long as a character does.
    took = best(READS[what], repeated("".join(fragment), 2**15), 1)
    if took > 10 * _MEASURABLE:
        assert_linear(READS[what], "".join(fragment))
