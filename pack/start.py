"""Unpack the compressed part of a packed node, then run the node.

    start.py FILE-DESCRIPTOR IMAGE BANDS [OPTION…]

The launcher has unpacked only the files that Python cannot start without, and
zstandard's extension module. Nothing else can be imported yet.
"""

import errno
import marshal
import os
import sys

# importlib.machinery has the same classes, but imports more.
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import ExtensionFileLoader

TYPE_CHECKING = False  # typing, which has it, cannot be imported yet
if TYPE_CHECKING:
    from types import ModuleType
    from typing import BinaryIO

_CHUNK = 2**20
_UNFIT, _DISK_FULL = 69, 74
_FULL = (errno.ENOSPC, errno.EDQUOT)


def _zstandard() -> "ModuleType":
    """Return zstandard's extension module, loaded from its file."""
    name = "zstandard.backend_c"
    folder = os.path.join(_HOME, "packages", "zstandard")
    (file,) = (each for each in os.listdir(folder) if each.startswith("backend_c."))
    path = f"{folder}/{file}"
    loader = ExtensionFileLoader(name, path)
    module = loader.create_module(ModuleSpec(name, loader, origin=path))
    loader.exec_module(module)
    # The package finds the module here, and does not load it again.
    sys.modules[name] = module
    return module


def _unpack(packed: "BinaryIO") -> None:
    """Write the files of the compressed part, whose format is in pack/archive.py."""

    def read(size: int) -> bytes:
        parts = []
        while size:
            part = packed.read(min(size, _CHUNK))
            if not part:
                raise EOFError("the packed node is incomplete")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    folders = set()
    for name, size in marshal.loads(read(int.from_bytes(read(8), "little"))):
        path = f"{_HOME}/{name}"
        folder = path.rpartition("/")[0]
        if folder not in folders:
            os.makedirs(folder, exist_ok=True)
            folders.add(folder)
        with open(path, "wb") as file:
            while size:
                part = read(min(size, _CHUNK))
                file.write(part)
                size -= len(part)
    # zstandard checks the checksum when it has read to the end.
    if packed.read(1):
        raise EOFError("the packed node is longer than it should be")


_HOME = sys.argv[0].rpartition("/")[0]
zstandard = _zstandard()
try:
    with open(int(sys.argv.pop(1)), "rb") as packed_node:
        _unpack(zstandard.ZstdDecompressor().stream_reader(packed_node))
except (OSError, EOFError, zstandard.ZstdError) as error:
    print(f"the packed node cannot be unpacked: {error}", file=sys.stderr)
    is_full = isinstance(error, OSError) and error.errno in _FULL
    sys.exit(_DISK_FULL if is_full else _UNFIT)

sys.path += [f"{_HOME}/packages", f"{_HOME}/code"]
sys.path_importer_cache.clear()

from node.__main__ import run  # noqa: E402 only now it can be imported

run()
