"""What Python runs first in a packed node: unpack the rest, then be the node.

    start.py FILE-DESCRIPTOR IMAGE BANDS [OPTION…]

Of Python there is as yet what it cannot start without, and zstandard's extension
module. Nothing else can be imported before it is unpacked.
"""

import errno
import marshal
import os
import sys

# What importlib.machinery has, without what that package imports.
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import ExtensionFileLoader

_CHUNK = 2**20
_UNFIT, _DISK_FULL = 69, 74
_FULL = (errno.ENOSPC, errno.EDQUOT)


def _zstandard():
    name = "zstandard.backend_c"
    folder = os.path.join(_HOME, "packages", "zstandard")
    (file,) = (each for each in os.listdir(folder) if each.startswith("backend_c."))
    path = f"{folder}/{file}"
    loader = ExtensionFileLoader(name, path)
    module = loader.create_module(ModuleSpec(name, loader, origin=path))
    loader.exec_module(module)
    # The package takes it from here, and does not load it twice.
    sys.modules[name] = module
    return module


def _unpack(packed):
    """Write the files of the compressed part, as pack/archive.py puts them."""

    def read(size):
        parts = []
        while size:
            part = packed.read(min(size, _CHUNK))
            if not part:
                raise EOFError("the packed node is not whole")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    made = set()
    for name, size in marshal.loads(read(int.from_bytes(read(8), "little"))):
        path = f"{_HOME}/{name}"
        folder = path.rpartition("/")[0]
        if folder not in made:
            os.makedirs(folder, exist_ok=True)
            made.add(folder)
        with open(path, "wb") as file:
            while size:
                part = read(min(size, _CHUNK))
                file.write(part)
                size -= len(part)
    # Only at its end is the checksum looked at.
    if packed.read(1):
        raise EOFError("the packed node is longer than it should be")


_HOME = sys.argv[0].rpartition("/")[0]
zstandard = _zstandard()
try:
    with open(int(sys.argv.pop(1)), "rb") as itself:
        _unpack(zstandard.ZstdDecompressor().stream_reader(itself))
except (OSError, EOFError, zstandard.ZstdError) as error:
    print(f"the packed node cannot be unpacked: {error}", file=sys.stderr)
    full = isinstance(error, OSError) and error.errno in _FULL
    sys.exit(_DISK_FULL if full else _UNFIT)

sys.path += [f"{_HOME}/packages", f"{_HOME}/code"]
sys.path_importer_cache.clear()

from node.__main__ import run  # noqa: E402 it was not there before

run()
