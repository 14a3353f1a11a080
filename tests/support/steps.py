"""The steps of a poll and of a reconcile, and a command that is killed after one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from state.project import PROJECT
from tests.support.archive import Archive

# In their order; see tests/support/killed.py.
STEPS_OF_POLL = [
    "mkdir workflow-run-",
    "file manifest.csv",
    "file launch.json",
    "mkdir sandbox",
    "mkdir results",
    "mkdir logs",
    "file run.json",
    r"put batch-raw.csv.claim",
    "file claimed.json",
    "put batch-processing-",
    "delete batch-raw.csv$",
    r"delete batch-raw.csv.claim",
    "file rows.jsonl",
    "mkdir node-",
    "file tried.json",
    "file reconcile.sh",
    "file convert.dag",
    "submit",
    "file submitted.json",
]
STEPS_OF_RECONCILE = [
    "file attempts",
    "unlink row1.json",
    "unlink row1.log",
    "unlink row2.json",
    "file processed.csv",
    "file failed.csv",
    "file outcome.json",
    "put batch-processed-",
    "put batch-failed-",
    "delete batch-processing-",
    "file done.json",
]


def killed_after(
    step: str, archive: Archive, *command: str, cwd: Path = PROJECT
) -> None:
    """Run a command, and assert that it was killed right after a step."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.killed", step, *command],
        cwd=cwd,
        env=os.environ
        | {
            "KILLED_NOTES": str(archive.directory / "notes"),
            "PYTHONPATH": str(PROJECT),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, f"{step}: {done.stdout}{done.stderr}"
