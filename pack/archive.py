"""Write the one file: the launcher, what Python starts from, the rest compressed.

Its layout is known to launcher.c (entries, footer) and to start.py (the rest).
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
# Level 19 makes it a tenth smaller and takes a minute and a half of CPU, not three
# seconds; unpacking takes the same.
_LEVEL = 9


def write(target: Path, members: Iterable[Member], scratch: Path) -> None:
    """Write the packed node to ``target``.

    Raises:
        PackError: there is no compiler for the launcher.
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
        # Within what zstandard passes over, so that it reads to the end of the file.
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
    # Alike files beside each other compress better.
    members.sort(key=lambda member: (Path(member.name).suffix, member.name))
    listed = [(member.name, member.file.stat().st_size) for member in members]
    index = marshal.dumps(listed)
    # With a checksum, so that one that was damaged on its way is not run.
    compressor = zstandard.ZstdCompressor(level=_LEVEL, threads=-1, write_checksum=True)
    with compressor.stream_writer(file, closefd=False) as stream:
        stream.write(len(index).to_bytes(8, "little") + index)
        for member in members:
            with member.file.open("rb") as content:
                shutil.copyfileobj(content, stream, 2**20)


def _build_launcher(scratch: Path) -> Path:
    built = scratch / "launcher"
    said = []
    for compiler in _compilers():
        done = subprocess.run(
            [*compiler, "-static", "-Os", "-s", "-o", built, _LAUNCHER],
            capture_output=True,
            text=True,
        )
        if done.returncode == 0:
            return built
        said.append(f" ({compiler[0]}: {(done.stderr.splitlines() or ['?'])[-1]})")
    raise PackError(
        "packing the node takes a C compiler that can link statically: 'pip install "
        "ziglang' brings one; or install gcc and a static libc (on Debian libc6-dev, "
        f"on Fedora and its relatives glibc-static){''.join(said)}"
    )


def _compilers() -> Iterator[list[str]]:
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            yield [found]
    if importlib.util.find_spec("ziglang"):
        target = f"{platform.machine()}-linux-musl"
        yield [sys.executable, "-m", "ziglang", "cc", "-target", target]
