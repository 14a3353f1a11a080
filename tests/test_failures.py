"""The commands failures and retry: see why rows failed, and try them again."""

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from ops.failures import failures, groups
from post import csvs
from state.project import PROJECT
from state.records import as_json
from state.rows import Manifest, Row, save_rows
from state.run import load_run
from tests.support.archive import ALL, Archive, wait_for
from tests.support.command_line import invoke
from tests.support.runs import a_run

# Until the file "go" is there, the nodes of some images leave no result.
NODE = """\
#!/bin/sh
case $1 in
later*) [ -e "{directory}/go" ] || exit 1 ;;
esac
exec {script} "$@"
"""


def ended_run(archive: Archive) -> Path:
    """Return the directory of a run: a row was processed, and four failed."""
    node = archive.directory / "node.sh"
    script = PROJECT / "bin" / "generate_cogs.sh"
    node.write_text(NODE.format(directory=archive.directory, script=script))
    for name in ("good", "later, 1", "later, 2"):
        archive.upload_raster(f"{name}.tif", 1)
    archive.maps.write("letter.tif", b"no raster")
    names = ("good", "later, 1", "letter", "missing", "later, 2")
    rows = [("image", "bands", "profile")]
    rows += [(f"{name}.tif", "1", "deflate") for name in names]
    archive.launch_to_poll_by_hand(
        *("--submit-option", f"executable = {node}", "--retry-seconds", "1"),
        *("--rows-per-job", "1"),
    )
    archive.upload_manifest("batch-raw.csv", rows)
    assert archive.poll().returncode == 0
    (directory,) = archive.directory.glob("workflow-run-*")
    wait_for(lambda: load_run(directory).done, 280)
    return directory


def test_failed_rows_are_grouped_and_tried_again(archive: Archive):
    directory = ended_run(archive)
    run = load_run(directory)

    found = {group.code: group for group in groups([run])}
    assert {code: group.rows for code, group in found.items()} == {
        "exited": 2,
        "not-a-raster": 1,
        "not-found": 1,
    }
    assert [group.worth_another_try for group in found.values()].count(True) == 1
    assert found["exited"].worth_another_try
    assert found["exited"].example.image == "later, 1.tif"
    assert [failure.line for failure in failures(run)] == [3, 4, 5, 6]

    shown = archive.call("failures")
    assert shown.returncode == 0, shown.stderr
    assert "2 rows, exited: 'retry' tries them again" in shown.stdout
    assert "1 row, not-a-raster\n" in shown.stdout
    assert "letter.tif (workflow-run-" in shown.stdout
    assert shown.stdout.endswith("4 rows failed, in 1 run that ended.\n")
    as_json = json.loads(archive.call("failures", directory.name, "--json").stdout)
    assert as_json[0]["code"] == "exited"
    assert as_json[0]["rows"] == 2
    assert as_json[0]["example"]["run"] == directory.name
    rows = list(csv.reader(io.StringIO(archive.call("failures", "--csv").stdout)))
    assert rows[0] == ["run", "line", "code", "image", "reason"]
    assert [row[2] for row in rows[1:]] == [
        "exited",
        "not-a-raster",
        "not-found",
        "exited",
    ]

    (archive.directory / "go").touch()
    retried = archive.call("retry", directory.name)
    assert retried.returncode == 0, retried.stderr
    assert "with 2 rows; the next poll takes it" in retried.stdout
    (manifest,) = archive.maps.list("batch-retry-")
    text = archive.maps.read(manifest.key, ALL).decode()
    assert list(csv.reader(io.StringIO(text))) == [
        ["image", "bands", "profile"],
        ["later, 1.tif", "1", "deflate"],
        ["later, 2.tif", "1", "deflate"],
    ]
    assert archive.poll().returncode == 0
    processed, failed = archive.outcome(manifest.key.removesuffix("raw.csv"))
    assert failed == []
    assert [row[0] for row in processed[1:]] == ["later, 1.tif", "later, 2.tif"]

    # The operator has corrected a row, and names it by its code.
    archive.upload_raster("missing.tif", 1)
    code = ("--code", "not-found", "--json")
    chosen = json.loads(archive.call("retry", directory.name, *code).stdout)
    assert chosen["rows"] == 1
    assert archive.maps.exists(chosen["manifest"])
    wrong = archive.call("retry", directory.name, "--code", "held")
    assert wrong.returncode == 1
    assert "no row of" in wrong.stderr
    assert "not-a-raster, not-found" in wrong.stderr


def failed_run(directory: Path, *fields: str) -> Path:
    """Return the directory of a run that has ended, of one row, which failed."""
    run = replace(a_run(), directory=directory)
    row = Row(1, fields)
    with csvs.writing_rows(run.failed_file, None, with_reasons=True) as add:
        add(row.failed("exited", "its job left no result"))
    save_rows(run, Manifest((row,)))
    outcome = {"processed": 0, "failed_rows": [1], "codes": ["exited"]}
    run.outcome_file.write_text(json.dumps(outcome))
    run.done_file.write_text(json.dumps({"processed": 0, "failed": 1}))
    (directory / "run.json").write_text(as_json(run))
    return directory


def test_a_row_with_a_large_field_is_shown(tmp_path: Path):
    outline = "POLYGON((" + "1.123456 2.123456," * 9000 + "))"
    directory = failed_run(tmp_path, "scan.tif", "1", outline)
    # Other tests of this process may have changed the limit of the csv module.
    command = (sys.executable, str(PROJECT / "cog_pipeline.py"), "failures")
    done = subprocess.run([*command, directory], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert f"scan.tif ({directory.name}, line 1):" in done.stdout


def test_a_row_is_no_formula_and_no_terminal_sequence_in_the_csv(tmp_path: Path):
    image = '=HYPERLINK("https://example.org";"a")\r\x1b[2J.tif'
    directory = failed_run(tmp_path, image, "1")
    done = invoke("failures", str(directory), "--csv")
    assert done.exit_code == 0, done.output
    _, row = csv.reader(io.StringIO(done.stdout))
    shown = image.replace("\r\x1b", " \N{REPLACEMENT CHARACTER}")
    assert row[1:] == [
        *("1", "exited", f"the text was: {shown}", "its job left no result")
    ]


def test_a_run_that_has_not_ended_is_not_tried_again(archive: Archive):
    archive.upload_raster("image.tif", 1)
    archive.launch_to_poll_by_hand("--node-submit-option", "hold = true")
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    assert archive.poll().returncode == 0
    (directory,) = archive.directory.glob("workflow-run-*")

    early = archive.call("retry", directory.name)
    assert early.returncode == 1
    assert "has not ended yet" in early.stderr
    shown = archive.call("failures")
    assert shown.stdout == "0 rows failed, in 0 runs that ended.\n"
    assert archive.call("retry", "..").returncode == 1
    both = archive.call("retry", directory.name, "--all", "--code", "held")
    assert both.returncode == 2
