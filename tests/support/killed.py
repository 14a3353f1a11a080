"""Run a command of cog_pipeline and kill it (SIGKILL) right after a step.

    python -m tests.support.killed STEP COMMAND…

STEP is a regular expression of what the command does to the world: ``mkdir NAME``,
``file NAME`` (a file has appeared whole), ``rename NAME`` (of the old name),
``put KEY``, ``delete KEY``, ``submit``; of a multipart upload ``start KEY``,
``complete KEY``, ``abort KEY``.
Each of them is noted in the file that KILLED_NOTES names.
"""

import os
import re
import signal
import sys
from functools import wraps
from pathlib import Path

import cog_pipeline
from bucket import Bucket
from condor import queue

_step = re.compile(sys.argv[1])
_notes = Path(os.environ["KILLED_NOTES"])


def _did(what: str) -> None:
    with _notes.open("a") as notes:
        notes.write(what + "\n")
    if _step.search(what):
        os.kill(os.getpid(), signal.SIGKILL)


def _followed(owner: type, method: str, name_of) -> None:
    """Note each call of a method after its work, and kill the process at the step."""
    original = getattr(owner, method)

    @wraps(original)
    def wrapper(self, *arguments, **named):
        result = original(self, *arguments, **named)
        _did(name_of(self, *arguments))
        return result

    setattr(owner, method, wrapper)


_followed(Path, "mkdir", lambda path, *_: f"mkdir {path.name}")
_followed(Path, "replace", lambda _, target: f"file {Path(target).name}")
_followed(Path, "rename", lambda path, *_: f"rename {path.name}")
_followed(Path, "unlink", lambda path, *_: f"unlink {path.name}")
for method in ("write", "write_if_absent", "write_if_unchanged", "upload"):
    _followed(Bucket, method, lambda _, key, *__: f"put {key}")
_followed(Bucket, "remove", lambda _, key: f"delete {key}")
for verb in ("start", "complete", "abort"):
    _followed(
        Bucket,
        f"{verb}_multipart_upload",
        lambda _, key, *__, verb=verb: f"{verb} {key}",
    )

_submit_dag = queue.submit_dag


def _submit(*arguments, **named) -> int:
    cluster = _submit_dag(*arguments, **named)
    _did("submit")
    return cluster


queue.submit_dag = _submit

if __name__ == "__main__":
    cog_pipeline.cli(sys.argv[2:], prog_name="cog_pipeline.py")
