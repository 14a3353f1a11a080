"""The commands failures and retry: see why rows failed, and try them again."""

import csv
import io
import json
from pathlib import Path

from ops.failures import failures, groups
from state.project import PROJECT
from state.run import load_run
from tests.support.archive import ALL, Archive, wait_for

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
