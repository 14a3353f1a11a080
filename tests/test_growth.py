"""Functions that read untrusted text take time in proportion to its length.

A regular expression that restarts at each character takes a hundred times as long for
ten times the text, and days for a megabyte. Each function that reads untrusted text is
tried with fragments on which such expressions are slow.
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
from condor import dagman, eventlog, queue
from condor.eventlog import NodeEnd
from condor.holds import explain
from dag import images, names, render, signing
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

# Shorter times are noise; then a larger size is tried.
_MEASURABLE = 0.02  # seconds
_MAX_SIZE = 2**19  # characters; the comparison has ten times as many
_MAX_RATIO = 15

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


def rows_and_sidecars(text: str) -> None:
    """Read many rows, find their images and sidecars, and batch them into jobs."""
    # One row for each hundred characters of the text, each with its own name.
    keys = [f"{number}.tif" for number in range(len(text) // 100)]
    listed = [
        StoredObject(key + suffix, 7, "", datetime.now(UTC))
        for key in keys
        for suffix in ("", ".aux.xml", ".msk")
    ]
    parsed = manifest("".join(f"{key},1\n" for key in keys))
    if parsed:
        resolved = resolve(parsed, "maps", listed)
        list(batch_rows(resolved.rows, launch(), 1))


def template_filters(text: str) -> None:
    filters = render._environment.filters
    for name in ("vars", "classad", "comment"):
        with contextlib.suppress(PipelineError):
            filters[name](text)
    for name in ("condor_arguments", "shell"):
        filters[name]([text])
    filters["condor_environment"]({"NAME": text})


def csv_file(text: str) -> None:
    row = Row(1, (text, text)).failed("x", text)
    with tempfile.TemporaryDirectory() as folder:
        file, header = Path(folder, "failed.csv"), ("image", "bands")
        with csvs.writing_rows(file, header, with_reasons=True) as add:
            add(row)


def reason(text: str) -> None:
    result = NodeResult(1, ok=False, code="x", reason=text)
    for event in ("held", "removed", "given up", "killed"):
        before = "idle" if event == "given up" else ""
        end = NodeEnd(event, text, before)
        _, sentence = reasons.failure_reason(result, end, text, text)
        Row(1, (text,)).failed("x", sentence)


def job_notes(text: str) -> None:
    submitted = queue.htcondor2.JobEventType.SUBMIT
    eventlog._submitted_node(eventlog._Event(submitted, 1, 0, {"LogNotes": text}))


def dagman_messages(text: str) -> None:
    for prefix in (
        "Failed to submit job row1: ",
        "submit error: ",
        "Shortcutting node ",
    ):
        with tempfile.NamedTemporaryFile("w") as log:
            log.write(f"11/26/26 02:41:48 {prefix}{text}\n")
            log.flush()
            dagman.refusals(Path(log.name))


def gdal_warning(text: str) -> None:
    with gdal.warning_log():
        logging.getLogger("rasterio").warning("CPLE_%s", text)
        logging.getLogger("rasterio").warning("%s", text)


def gdal_error(text: str) -> None:
    error = ValueError(text)
    in_short(error)
    exhaustion.exhaustion(error, Path())


def xml_metadata(text: str) -> None:
    safety._count_items(text.encode("utf-8", "replace"))


class Unwarped:
    warped = min_is_white = placed_by_points = has_spare_points = False
    crs = colour_profile = None
    bands, nodata, keeps_pixels = 0, (), True

    class dataset:  # noqa: N801, an attribute of a source
        @staticmethod
        def tags(ns: str) -> dict[str, str]:
            return {}


def gdal_description(text: str) -> None:
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
    """Read a TIFF with one directory for each hundred characters of the text."""
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


def keys(text: str) -> None:
    key = f"{text}.tif"
    sandbox_name(key)
    jpeg_key(key)
    timestamp_of(text)
    is_processing(text)
    images.candidate_keys(Row(1, (), key=key), "maps")
    for written in (f"https://{key}", f"https://maps/{key}", f"s3://{key}", f"%{key}"):
        names.refusal(written)
        names.candidate_keys(written, "maps", "maps")
        names.elsewhere(written, "maps", "maps")
    list(names.other_forms([key]))
    list(images._images_of_sidecar(f"{text}.tfw"))
    signing.shadow_can_sign(launch(), Row(1, (), key=key, sidecars=(text,)))


READS: dict[str, Read] = {
    "redact_signatures": state_text.redact_signatures,
    "one_line": state_text.one_line,
    "csv_safe": state_text.csv_safe,
    "a manifest": manifest,
    "an image's name": lambda text: manifest(f"{text}.tif,1\n"),
    "a number of bands": lambda text: manifest(f"a.tif,{text}\n"),
    "a line of one field": lambda text: manifest(f"{text}\n"),
    "a quoted line": lambda text: manifest(f'"a.tif,{text}"\n'),
    "a header": lambda text: manifest(f"{text},bands\na.tif,1\n"),
    "a line sep=": lambda text: manifest(f"sep={text}\na.tif,1\n"),
    "an open quote": lambda text: manifest(f'a.tif,1\n"{text}'),
    "an options column": options_column,
    "rows and their sidecars": rows_and_sidecars,
    "arguments": arguments,
    "a command line": command_line,
    "names": keys,
    "the filters of templates": template_filters,
    "a CSV that is written": csv_file,
    "a reason": reason,
    "the notes of a job": job_notes,
    "a reason of a hold": lambda text: explain(13, text),
    "an internal error": internal_error,
    "messages of DAGMan": dagman_messages,
    "a warning of GDAL": gdal_warning,
    "an error of GDAL": gdal_error,
    "grids in WKT": safety._GRIDS.findall,
    "metadata in XML": xml_metadata,
    "a description by GDAL": gdal_description,
    "directories of a TIFF": directories,
}


def min_seconds(read: Read, text: str, times: int = 3) -> float:
    """Return the fewest seconds of CPU time that reading a text took."""
    seconds = []
    for _ in range(times):
        state_text._csv_safe.cache_clear()
        start = time.process_time()
        read(text)
        seconds.append(time.process_time() - start)
        if seconds[-1] > 50 * _MEASURABLE:
            break
    return min(seconds)


def assert_linear(read: Read, fragment: str, min_size: int = 2**9) -> None:
    size, baseline = min_size, 0.0
    while True:
        baseline = min_seconds(read, repeated(fragment, size))
        if baseline >= _MEASURABLE or size >= _MAX_SIZE:
            break
        size *= 4
    baseline = max(baseline, _MEASURABLE)
    # Other work on the machine may slow one measurement down, but not all of them.
    ratios = []
    for _ in range(3):
        ratios.append(min_seconds(read, repeated(fragment, 10 * size)) / baseline)
        if ratios[-1] <= _MAX_RATIO:
            return
        baseline = max(baseline, min_seconds(read, repeated(fragment, size)))
    pytest.fail(
        f"{fragment!r}: ten times {size} characters take {ratios} times as long"
    )


def repeated(fragment: str, size: int) -> str:
    return (fragment * (size // len(fragment) + 1))[:size]


@pytest.mark.parametrize("name", READS)
def test_the_slowest_fragments_take_linear_time(name: str):
    """Try all fragments in a short text, and only the slowest of them in long ones."""
    read = READS[name]
    size = 2**13
    seconds = {
        fragment: min_seconds(read, repeated(fragment, size), 1)
        for fragment in FRAGMENTS
    }
    slowest = sorted(FRAGMENTS, key=seconds.__getitem__)[-3:]
    for fragment in slowest:
        assert_linear(read, fragment)


@pytest.mark.parametrize("name", READS)
@given(fragments=some.lists(some.sampled_from(FRAGMENTS), min_size=1, max_size=4))
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_mixed_fragments_take_linear_time(name: str, fragments: list[str]):
    # Quadratic time would be seconds: 20,000 times as long as one character takes.
    text = "".join(fragments)
    if min_seconds(READS[name], repeated(text, 2**15), 1) > 10 * _MEASURABLE:
        assert_linear(READS[name], text)
