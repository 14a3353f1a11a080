"""Run bin/generate_cogs.sh in a directory of its own, as HTCondor does."""

import os
import resource
import subprocess
import sys
from pathlib import Path

from state.project import PROJECT
from tests.support import rasters

SCRIPT = PROJECT / "bin" / "generate_cogs.sh"


def run_node(
    directory: Path, *arguments: str, memory: int | None = None, **environment: str
):
    """Run a node as HTCondor does.

    Args:
        memory: limit of its address space in bytes.
    """

    def limit() -> None:
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    return subprocess.run(
        [str(SCRIPT), *arguments],
        cwd=directory,
        env=os.environ | {"PYTHON": sys.executable} | environment,
        capture_output=True,
        text=True,
        preexec_fn=limit,
    )


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def python_with(directory: Path, module: str, content: str) -> str:
    """Return a Python with all packages, but with another version of one module."""
    shadow = directory / "shadow"
    shadow.mkdir()
    (shadow / f"{module}.py").write_text(content)
    python = directory / "python3"
    python.write_text(
        f'#!/bin/sh\nPYTHONPATH="{shadow}:$PYTHONPATH" exec "{sys.executable}" "$@"\n'
    )
    python.chmod(0o755)
    return str(python)


def work_directory(directory: Path) -> Path:
    work = directory / "work"
    work.mkdir()
    rasters.write(work / "image.tif", 1)
    return work
