"""The command logs puts what was said of a run in order of time."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from ops.logs import RunLog, Selection, selection
from state.project import PROJECT
from state.run import load_run
from tests.support.archive import Archive
from tests.support.runs import a_run

# The first try of an image prints something and fails. The second one waits for "go".
NODE = """\
#!/bin/sh
case $1:$COG_PIPELINE_RETRY in
twice*:0) : >result.json; printf 'no luck \\033[31m\\n'; exit 1 ;;
twice*) while ! [ -e "{directory}/go" ]; do sleep 0.2; done ;;
esac
exec {script} "$@"
"""


def logs(archive: Archive, *words: str) -> list[dict]:
    done = archive.call("logs", *words, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def begun_run(archive: Archive) -> Path:
    node = archive.directory / "node.sh"
    script = PROJECT / "bin" / "generate_cogs.sh"
    node.write_text(NODE.format(directory=archive.directory, script=script))
    archive.upload_raster("twice.tif", 1)
    archive.maps.write("letter.tif", b"no raster")
    archive.launch_to_poll_by_hand(
        *("--submit-option", f"executable = {node}", "--retry-seconds", "1"),
        *("--rows-per-job", "1"),
    )
    names = ("twice", "letter", "missing")
    archive.upload_manifest("batch-raw.csv", [(f"{name}.tif", 1) for name in names])
    assert archive.poll().returncode == 0
    (directory,) = archive.directory.glob("workflow-run-*")
    return directory


def test_what_was_said_of_a_run_is_shown_until_it_ends(archive: Archive):
    directory = begun_run(archive)
    run = load_run(directory)
    log = RunLog(run)
    early = list(log.new())
    follow = subprocess.Popen(
        [sys.executable, PROJECT / "cog_pipeline.py", "logs", directory, "--follow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: list[str] = []
    for line in follow.stdout:
        lines.append(line)
        if "no luck" in line:
            break
    (archive.directory / "go").touch()
    followed = "".join([*lines, *follow.stdout])
    assert follow.wait() == 0, follow.stderr.read()
    assert run.done
    assert "1 row processed, 2 failed" in followed
    assert "output  row1: no luck \N{REPLACEMENT CHARACTER}[31m\n" in followed
    assert "\x1b" not in followed

    everything = logs(archive, directory.name)
    times = [entry["time"] for entry in everything]
    assert times == sorted(times)
    sources = {entry["source"] for entry in everything}
    assert sources == {"run", "job", "result", "output"}
    # Later entries are new, and nothing is shown twice.
    assert len(early) + len(list(log.new())) >= len(everything)
    assert list(log.new()) == []

    (result,) = [entry for entry in everything if entry["source"] == "result"]
    assert result["message"].startswith("line 2: not-a-raster: ")
    assert (result["node"], result["attempt"]) == ("row2", 1)

    twice = logs(archive, directory.name, "twice.tif")
    assert {entry["node"] for entry in twice} == {"", "row1"}
    events = [(e["attempt"], e["event"]) for e in twice if e["node"] == "row1"]
    assert events == [
        (1, "SUBMIT"),
        (1, "EXECUTE"),
        (1, "JOB_TERMINATED"),
        (2, "SUBMIT"),
        (2, "EXECUTE"),
        (2, "JOB_TERMINATED"),
        (2, ""),
    ]
    assert "ended" in [entry["event"] for entry in twice]
    wrong = archive.call("logs", directory.name, "other.tif")
    assert wrong.returncode == 1
    assert "no row of" in wrong.stderr
    assert selection(run, "missing.tif").nodes == set()
    refused = logs(archive, directory.name, "missing.tif")
    assert [e["message"][:8] for e in refused if e["event"] == "row-failed"] == [
        "line 3: "
    ]


def test_the_output_of_a_node_may_be_removed_while_it_is_listed(tmp_path: Path):
    run = replace(a_run(), directory=tmp_path)
    run.logs_directory.mkdir()
    for node in ("row1", "row2"):
        (run.logs_directory / f"{node}.log").write_text(f"said by {node}\n")

    class Nodes(frozenset):
        """All nodes; the log of the first is removed when somebody asks for it."""

        def __contains__(self, node: object) -> bool:
            if node == "row1":
                (run.logs_directory / "row1.log").unlink()
            return True

    log = RunLog(run, Selection(frozenset(), Nodes()))
    assert [entry.message for entry in log.new()] == ["said by row2"]
