"""Write the file of a packed node.

The file has three parts: the launcher; the files that Python cannot start without,
not compressed; and all other files, compressed. launcher.c reads the entries and the
footer, start.py reads the compressed part.
"""

import importlib.util
import marshal
import platform
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard

from pack.errors import PackError
from pack.gather import Member

_LAUNCHER = Path(__file__).with_name("launcher.c")
_MAGIC = b"COGNODE1"
_SKIPPABLE_FRAME = 0x184D2A50
_ENTRY = struct.Struct("=QQ240s")
# Level 19 makes the file 10 % smaller, but takes 90 s of CPU time instead of 3 s.
# Unpacking takes the same time with both.
_LEVEL = 9


def write(target: Path, members: Iterable[Member], scratch: Path) -> None:
    """Write the packed node to ``target``.

    Raises:
        PackError: there is no compiler for the launcher, or a name is too long.
    """
    members = list(members)
    shutil.copyfile(_build_launcher(scratch), target)
    with target.open("ab") as file:
        first_entry = file.tell()
        for member in members:
            if member.first:
                _write_entry(file, member)
        file.write(_ENTRY.pack(0, 0, b""))
        _write_rest(file, [m for m in members if not m.first])
        # zstandard skips such a frame, so that it can read to the end of the file.
        file.write(struct.pack("<II", _SKIPPABLE_FRAME, 8 + len(_MAGIC)))
        file.write(struct.pack("=Q", first_entry) + _MAGIC)
    target.chmod(0o755)


def _write_entry(file: BinaryIO, member: Member) -> None:
    content = member.file.read_bytes()
    mode = 0o700 if member.executable else 0o600
    name = member.name.encode()
    if len(name) >= 240:
        raise PackError(f"the name {member.name!r} is too long to be packed")
    file.write(_ENTRY.pack(len(content), mode, name) + content)


def _write_rest(file: BinaryIO, members: list[Member]) -> None:
    # Similar files beside each other compress better.
    members.sort(key=lambda member: (Path(member.name).suffix, member.name))
    index = marshal.dumps([(m.name, m.file.stat().st_size) for m in members])
    # With the checksum, a file that was damaged on its way is not run.
    compressor = zstandard.ZstdCompressor(level=_LEVEL, threads=-1, write_checksum=True)
    with compressor.stream_writer(file, closefd=False) as stream:
        stream.write(len(index).to_bytes(8, "little") + index)
        for member in members:
            with member.file.open("rb") as content:
                shutil.copyfileobj(content, stream, 2**20)


def _build_launcher(scratch: Path) -> Path:
    """Compile launcher.c with the first compiler that can link it statically."""
    launcher = scratch / "launcher"
    messages = []
    for compiler in _compilers():
        result = subprocess.run(
            [*compiler, "-static", "-Os", "-s", "-o", launcher, _LAUNCHER],
            capture_output=True,
            text=True,
        )
        if result.returncode == 0:
            return launcher
        last_line = (result.stderr.splitlines() or ["?"])[-1]
        messages.append(f" ({compiler[0]}: {last_line})")
    raise PackError(
        "packing the node needs a C compiler that can link statically: 'pip install "
        "ziglang' installs one; or install gcc and a static libc (on Debian libc6-dev, "
        f"on Fedora and its relatives glibc-static){''.join(messages)}"
    )


def _compilers() -> Iterator[list[str]]:
    """Yield the command of each C compiler of this machine."""
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            yield [path]
    if importlib.util.find_spec("ziglang"):
        target = f"{platform.machine()}-linux-musl"
        yield [sys.executable, "-m", "ziglang", "cc", "-target", target]
