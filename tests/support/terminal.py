"""Run a command in a terminal, and answer its questions."""

import os
import pty
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from state.project import PROJECT

_PATIENCE = 60  # seconds


@dataclass
class Terminal:
    """A terminal in which a command runs.

    Attributes:
        shown: what the command and the echo of the terminal have printed.
    """

    process: int
    descriptor: int
    shown: str = ""
    _read: int = 0

    def wait_for(self, words: str) -> str:
        """Wait until the command prints words; return what it printed up to them."""
        deadline = time.monotonic() + _PATIENCE
        while words not in self.shown[self._read :]:
            assert time.monotonic() < deadline, self.shown
            assert self._more() or words in self.shown[self._read :], self.shown
        begin = self._read
        self._read = self.shown.index(words, begin) + len(words)
        return self.shown[begin : self._read]

    def answer(self, question: str, text: str) -> None:
        """Wait for a question, and type a line."""
        self.wait_for(question)
        self.wait_for(": ")
        os.write(self.descriptor, f"{text}\n".encode())

    def interrupt(self) -> int:
        """Press Ctrl-C until the command ends, and return its exit code.

        Python can miss it at the moment in which it begins to read a line.
        """
        os.write(self.descriptor, b"\x03")
        while self._more():
            if not select.select([self.descriptor], [], [], 1)[0]:
                os.write(self.descriptor, b"\x03")
        return self.end()

    def end(self) -> int:
        """Wait for the end of the command, and return its exit code."""
        while self._more():
            pass
        _, status = os.waitpid(self.process, 0)
        return os.waitstatus_to_exitcode(status)

    def _more(self) -> bool:
        ready, _, _ = select.select([self.descriptor], [], [], _PATIENCE)
        assert ready, self.shown
        try:
            text = os.read(self.descriptor, 4096).decode(errors="replace")
        except OSError:
            # Linux reports the end of a terminal as an error.
            return False
        self.shown += text.replace("\r\n", "\n")
        return bool(text)


@contextmanager
def terminal(folder: Path, *words: str, **environment: str) -> Iterator[Terminal]:
    """Give a terminal of 80 columns in which a command runs in a folder."""
    process, descriptor = pty.fork()
    if process == 0:
        os.chdir(folder)
        program = [sys.executable, str(PROJECT / "cog_pipeline.py"), *words]
        os.execve(sys.executable, program, os.environ | environment)  # noqa: S606
    try:
        yield Terminal(process, descriptor)
    finally:
        # A command that still runs gets SIGHUP.
        os.close(descriptor)
