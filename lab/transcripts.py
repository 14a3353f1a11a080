"""Write docs/transcripts.md, a session with each command: ``make transcripts``.

A shell types the commands on this machine, with a personal pool. Their output goes into
the page as it is.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from demo import scenes
from state.cache import cache_directory
from state.project import PROJECT

PAGE = PROJECT / "docs" / "transcripts.md"
_COMMAND = "python3 cog_pipeline.py"
_END = "-- end of the output --"
_PATIENCE = 300  # seconds
_SCENES = 3
_Value = TypeVar("_Value")
_INTRODUCTION = """\
# Transcripts

This is one session with all commands, from an empty folder to the end. `make
transcripts` types the commands into a shell and writes this page with their output. The
images are scenes of NASA's Blue Marble and of a shaded relief. The pool is a personal
one. On an access point, leave out the steps with `pool`.
"""


@dataclass
class _Shell:
    """A shell, and the page of what was typed into it.

    Attributes:
        keyboard, screen: its input and its output.
        page: lines of the page so far.
    """

    keyboard: IO[str]
    screen: IO[str]
    page: list[str] = field(default_factory=lambda: [_INTRODUCTION])

    def say(self, text: str) -> None:
        """Add a paragraph or a heading to the page."""
        self.page.append(f"{text}\n")

    def type(self, *commands: str) -> None:
        """Run commands, and add them and their output to the page.

        Raises:
            RuntimeError: the shell has ended.
        """
        lines = []
        for command in commands:
            lines += [f"$ {command}", *self.output(command).splitlines()]
        self._show(lines)

    def type_until(self, command: str, is_it: Callable[[str], bool]) -> None:
        """Run a command until its output is as wanted; add that one to the page.

        Raises:
            RuntimeError: the shell has ended.
            TimeoutError: it does not become so.
        """
        output = _until(partial(self.output, command), is_it)
        self._show([f"$ {command}", *output.splitlines()])

    def _show(self, lines: Iterable[str]) -> None:
        text = "\n".join(line.rstrip() for line in lines)
        self.page.append(f"```text\n{text}\n```\n")

    def output(self, command: str) -> str:
        """Run a command, and return its output.

        Raises:
            RuntimeError: the shell has ended.
        """
        print(f"$ {command}", file=sys.stderr)
        # A command must not read what is typed after it.
        self.keyboard.write(f"{{ {command}\n}} < /dev/null\n")
        self.keyboard.write(f"echo; echo {shlex.quote(_END)}\n")
        self.keyboard.flush()
        lines: list[str] = []
        for line in self.screen:
            if line.rstrip() == _END:
                return "".join(lines).removesuffix("\n")
            lines.append(line)
        raise RuntimeError(f"the shell has ended at {command!r}")

    def runs(self) -> list[dict[str, Any]]:
        """Return the runs that ``status`` shows."""
        found: list[dict[str, Any]] = json.loads(
            self.output(f"{_COMMAND} status --json")
        )
        return found

    def wait(self, is_so: Callable[[list[dict[str, Any]]], bool]) -> None:
        """Wait until something is true of the runs.

        Raises:
            TimeoutError: it does not become true.
        """
        _until(self.runs, is_so)


def _until(get: Callable[[], _Value], is_so: Callable[[_Value], bool]) -> _Value:
    """Get a value again and again, and return the first one of which something is true.

    Raises:
        TimeoutError: there is none.
    """
    end = time.monotonic() + _PATIENCE
    while not is_so(value := get()):
        if time.monotonic() > end:
            raise TimeoutError(f"after {_PATIENCE} s: {value}")
        time.sleep(0.2)
    return value


@contextmanager
def _shell() -> Iterator[_Shell]:
    """Yield a shell in an empty home that has only the program and some images."""
    home = Path(tempfile.gettempdir()) / "archive"
    # Its name is on the page.
    home.mkdir()
    try:
        (home / "cog_pipeline.py").symlink_to(PROJECT / "cog_pipeline.py")
        (home / "scenes").mkdir()
        for scene in scenes.SCENES[:_SCENES]:
            scenes.write(scene, home / "scenes" / f"{scene.name}.tif")
        # Without this file, rclone remarks each time that it is not there.
        (home / "rclone.conf").touch()
        environment = {
            "HOME": str(home),
            "PATH": f"{PROJECT / '.venv' / 'bin'}:{os.environ['PATH']}",
            "COLUMNS": "100",
            "RCLONE_CONFIG": str(home / "rclone.conf"),
            "XDG_CACHE_HOME": str(cache_directory().parent),
            "XDG_STATE_HOME": str(home),
        }
        with subprocess.Popen(
            ["bash", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=home,
            env=environment,
        ) as process:
            if not process.stdin or not process.stdout:
                raise RuntimeError("the shell has no input or no output")
            shell = _Shell(process.stdin, process.stdout)
            try:
                yield shell
            finally:
                shell.output(f"{_COMMAND} pool stop")
    finally:
        shutil.rmtree(home)


def main() -> None:
    with _shell() as shell:
        _prepare(shell)
        _convert(shell)
        _watch(shell)
        _publish(shell)
        _repair(shell)
        _tidy(shell)
    PAGE.write_text("\n".join(shell.page))


def _prepare(shell: _Shell) -> None:
    shell.say("## A pool and two buckets")
    shell.type(f"{_COMMAND} pool start")
    shell.type(
        f'eval "$({_COMMAND} pool env)"',
        f"{_COMMAND} pool status",
        "rclone mkdir pool:maps",
        "rclone mkdir pool:cogs",
        "rclone copy scenes pool:maps/scenes",
        "echo 'no raster' | rclone rcat pool:maps/scenes/postcard.tif",
    )
    shell.say(
        "`pool start` has printed the options of the store. Without a terminal, `init` "
        "takes\nthe rest from options, too:"
    )
    lines = shell.output(f"{_COMMAND} pool status").splitlines()
    store = " ".join(line.strip() for line in lines if line.startswith("  -"))
    shell.type(
        f"{_COMMAND} init {store} --input-bucket maps --output-bucket cogs "
        "--input-prefix scenes/ --output-prefix ''"
    )
    shell.type(f"{_COMMAND} config")


def _convert(shell: _Shell) -> None:
    shell.say("## From a bucket to COGs")
    shell.type(f"{_COMMAND} list scenes/")
    shell.say("The postcard is no raster, so it gets no row. It is added by hand:")
    shell.type(
        f"{_COMMAND} manifest scenes/ -o scenes.csv",
        "echo maps/scenes/postcard.tif,3 >> scenes.csv",
        f"{_COMMAND} launch --every 1 --catalog stac,geoparquet",
        "rclone copyto scenes.csv pool:maps/scenes-raw.csv",
    )
    shell.wait(bool)
    shell.type(f"{_COMMAND} status --watch")
    shell.type("rclone lsf -R pool:cogs")


def _watch(shell: _Shell) -> None:
    (run,) = (each["run"] for each in shell.runs())
    shell.say("## The outcome of the run")
    shell.type(f"{_COMMAND} failures")
    shell.type_until(f"{_COMMAND} logs {run}", lambda output: "catalog" in output)
    shell.type(f"{_COMMAND} validate")
    shell.type(f"{_COMMAND} cost {run}")
    shell.type(f"{_COMMAND} health")


def _publish(shell: _Shell) -> None:
    shell.say("## A catalog")
    shell.say("The poll after the run has made STAC and GeoParquet. Two more products:")
    shell.type(f"{_COMMAND} catalog --products mosaicjson,checksums")
    shell.type("rclone lsf -R --files-only pool:cogs --exclude '*.{tif,jpg}'")


def _repair(shell: _Shell) -> None:
    (run,) = (each["run"] for each in shell.runs())
    shell.say("## Another try, which is held and stopped")
    shell.type("rclone copyto scenes/" + _first() + " pool:maps/scenes/postcard.tif")
    shell.type(f"{_COMMAND} retry --all {run}")
    shell.wait(lambda runs: len(runs) > 1)
    (again,) = (each["run"] for each in shell.runs() if each["run"] != run)
    shell.type_until(f"{_COMMAND} jobs", lambda output: "0 jobs of" not in output)
    shell.type(f"{_COMMAND} hold {again}", f"{_COMMAND} jobs")
    shell.type(f"{_COMMAND} release {again}", f"{_COMMAND} stop {again}")
    shell.wait(lambda runs: all(each["state"] == "done" for each in runs))
    shell.type(f"{_COMMAND} status")
    shell.say("Stop the polls, and convert what has no COG yet in one go:")
    shell.type(f"{_COMMAND} stop --launch")
    shell.type(f"{_COMMAND} convert scenes/ --dry-run")
    shell.type(f"{_COMMAND} convert scenes/ --wait")


def _first() -> str:
    return f"{scenes.SCENES[0].name}.tif"


def _tidy(shell: _Shell) -> None:
    shell.say("## The end")
    shell.type(f"{_COMMAND} clean --older-than 0h")
    shell.type(f"{_COMMAND} clean --older-than 0h --delete")
    shell.type(f"{_COMMAND} pool stop")


if __name__ == "__main__":
    main()
