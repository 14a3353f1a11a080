"""Execution points that attack their access point.

A *hostile job* is under the control of an image that has taken over one of GDAL's
decoders. It can leave any file in its sandbox. A *hostile starter* is under the control
of the owner of a machine. It also acts as HTCondor there, so it can send files under
other names.
"""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pool.ordinary_user import command_prefix, give
from pool.personal import PersonalPool
from state.project import PROJECT

# The content of all planted files, and of no others.
MARK = "planted by a hostile node"
# The names of files that the access point reads or runs, DAGMan's own included.
NAMES = (
    *("reconcile.sh", "run.json", "claimed.json", "manifest.csv", "launch.json"),
    *("rows.jsonl", "uploads.jsonl", "solo.json", "submitted.json", "attempts"),
    *(
        "results.jsonl",
        "thumbnails.bin",
        "log.jsonl",
        "reconcile.log",
        "lock",
        "outcome.json",
    ),
    *("processed.csv", "failed.csv", "done.json", "convert.dag", "retry-solo.dag"),
    *("convert.dag.nodes.log", "convert.dag.lock.file", "convert.dag.rescue001"),
    *("convert.dag.halt", "convert.dag.condor.sub", "convert.dag.dagman.out"),
    *("row1.json", "row2.json", "row2.0.json", "row2.0.taken", "row2.log"),
    *("generate_cogs.sh", ".hidden", "usercustomize.py", "-rf"),
    # HTCondor 25.14.1 holds a job for a backslash, and never ends one for a line end.
    *("\x1b]0;title\x07", "a\tb", 'a"b', "ü", "x" * 255),
)
# Runs in place of the nodes' python3, and continues with the real one.
_PYTHON = """\
#!/bin/sh
{python} -SE {planter} "$@" || exit
exec {python} "$@"
"""
_PLANTER = """\
import os, sys
from pathlib import Path

content = {content!r}

def leave(name, more=""):
    Path(name).write_text(content + more)
    Path(name).chmod(0o755)

for name in {names!r}:
    leave(name)
leave("large", "." * 5_000_000)
# HTCondor sends the target of a link under the name of the link.
Path("failed.csv").unlink()
Path("failed.csv").symlink_to(Path("run.json").absolute())
for folder in ("results", "logs", "sandbox"):
    Path(folder).mkdir(exist_ok=True)
    leave(folder + "/row2.json")
for word in sys.argv:
    # For PLANTED-a.tif: files PLANTED-a.0 to PLANTED-a.9 for its starter.
    if word.startswith("PLANTED-"):
        for number in range(10):
            leave(Path(word).with_suffix("." + str(number)))
    if word.startswith("PLANTED-large"):
        leave("larger", "." * 20_000_000)
    if word.startswith("PLANTED-unreadable"):
        # The log gets the reason why it is not sent, with its name, which is no text.
        os.close(os.open(b"\\xff", os.O_CREAT | os.O_WRONLY, 0))
Path({count!r}, str(os.getpid())).touch()
"""


class HostileJobs:
    """Files of hostile jobs, and how a test notices them.

    Attributes:
        folder: folder with their programs, on the execution point.
        proof: file that exists if a planted file was run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.proof = folder / "proof"
        self._count = folder / "count"

    @property
    def count(self) -> int:
        """Return how often such a job has left its files."""
        return len(list(self._count.iterdir()))

    def prepare(self) -> None:
        self._count.mkdir(parents=True, exist_ok=True)
        proof = shlex.quote(str(self.proof))
        content = f"#!/bin/sh\n# {MARK}\ntouch {proof}\n"
        planter = self.folder / "planter"
        planter.write_text(
            _PLANTER.format(content=content, names=NAMES, count=str(self._count))
        )
        python = self.folder / "python3"
        quoted = {"python": sys.executable, "planter": str(planter)}
        python.write_text(
            _PYTHON.format(**{name: shlex.quote(it) for name, it in quoted.items()})
        )
        python.chmod(0o755)
        give(self.folder)


@contextmanager
def hostile_jobs(pool: PersonalPool, folder: Path) -> Iterator[HostileJobs]:
    """Make the jobs of a pool leave hostile files during a ``with`` block.

    They convert their images nevertheless.
    """
    hostile = HostileJobs(folder)
    hostile.prepare()
    path = f"{folder}:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    # Each starter reads the configuration when it starts.
    with _configured(pool, f"STARTER_JOB_ENVIRONMENT = \"PATH='{path}'\""):
        yield hostile


@contextmanager
def hostile_starter(pool: PersonalPool, folder: Path) -> Iterator[Path]:
    """Make a pool's starters follow the orders in a file, and yield its path.

    ``tests/support/hostile_starter.c`` lists the orders.
    """
    folder.mkdir()
    library, orders = _compiled(folder), folder / "orders"
    orders.touch()
    starter = folder / "condor_starter"
    environment = {"HOSTILE_ORDERS": orders, "LD_PRELOAD": library}
    words = [f"{name}={value}" for name, value in environment.items()]
    real = str(pool.condor.distribution.sbin / "condor_starter")
    starter.write_text(f'#!/bin/sh\nexec env {shlex.join([*words, real])} "$@"\n')
    starter.chmod(0o755)
    give(folder)
    with _configured(pool, f"STARTER = {starter}"):
        yield orders


def _compiled(folder: Path) -> Path:
    library = folder / "hostile_starter.so"
    source = PROJECT / "tests" / "support" / "hostile_starter.c"
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("there is no C compiler to make a hostile starter with")
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source)]
    subprocess.run([*command, "-ldl"], check=True)
    return library


@contextmanager
def _configured(pool: PersonalPool, line: str) -> Iterator[None]:
    config = pool.condor.config
    before = config.read_text()
    _write(config, f"{before}\n{line}\n")
    _reconfigure(pool)
    try:
        yield
    finally:
        _write(config, before)
        _reconfigure(pool)


def _write(config: Path, text: str) -> None:
    # Atomically, since starters read it at any time.
    new = config.with_name(f"{config.name}.new")
    new.write_text(text)
    new.replace(config)


def _reconfigure(pool: PersonalPool) -> None:
    subprocess.run(
        [*command_prefix(), str(pool.condor.distribution.sbin / "condor_reconfig")],
        env=os.environ | pool.condor.environment,
        capture_output=True,
    )


def planted_in(directory: Path) -> list[Path]:
    """Return the files below a directory that have planted content, by path."""
    found = []
    for folder, _, names in os.walk(directory):
        for path in (Path(folder, name) for name in names):
            # Another process may gather or remove it meanwhile.
            with contextlib.suppress(FileNotFoundError):
                if path.is_symlink() or not path.is_file():
                    continue
                with path.open("rb") as content:
                    if MARK.encode() in content.read(4096):
                        found.append(path.relative_to(directory))
    return found
