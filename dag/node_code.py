"""Keep the node's code as jobs get it: two files in the launch's directory.

HTCondor lets an execution point read the folders that input files come from, and add
files to them (see ``LimitDirectoryAccess`` in ``templates/convert.dag``). So jobs do
not get their files from the clone, which the access point itself runs, nor do they get
a folder, to which somebody could add a file. A run also keeps its code when the clone
is updated.
"""

import hashlib
import io
import marshal
from functools import cache
from importlib.util import MAGIC_NUMBER, source_hash
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from state.files import write_bytes_atomically
from state.launch import Launch
from state.project import PROJECT

SCRIPT = "generate_cogs.sh"
# Python imports modules from it. bin/generate_cogs.sh has its name, too.
MODULES = "node.zip"


def keep(launch: Launch) -> Path:
    """Return a folder with the clone's ``generate_cogs.sh`` and ``node.zip``.

    Its name follows from its content. Files that differ are written again. Can be
    repeated after a crash at any step, and by several processes at once.
    """
    contents = _contents()
    digest = hashlib.sha256(b"".join(contents.values())).hexdigest()[:16]
    folder = launch.home / f"node-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, content in contents.items():
        file = folder / name
        if not file.is_file() or file.read_bytes() != content:
            # Only the script is run.
            mode = 0o700 if name == SCRIPT else 0o600
            write_bytes_atomically(file, content, mode)
    return folder


@cache
def _contents() -> dict[str, bytes]:
    """Return the content of each file; to compile the modules takes a while."""
    return {
        SCRIPT: (PROJECT / "bin" / SCRIPT).read_bytes(),
        MODULES: _archive(sorted(PROJECT.glob("node/*.py"))),
    }


def _archive(modules: list[Path]) -> bytes:
    """Return an archive of modules: the same bytes for the same modules.

    It also has the modules as bytecode, which a Python of the same version uses. To
    compile them takes a tenth of the CPU time of the conversion of a small image.
    """
    content = io.BytesIO()
    with ZipFile(content, "w") as archive:
        for module in modules:
            name, source = f"node/{module.name}", module.read_bytes()
            files = {name: source, f"{name}c": _bytecode(name, source)}
            for file, file_content in files.items():
                if file_content is not None:
                    # ZipInfo has a constant date, in 1980.
                    archive.writestr(ZipInfo(file), file_content, ZIP_DEFLATED)
    return content.getvalue()


def _bytecode(name: str, source: bytes) -> bytes | None:
    """Return what a .pyc file holds (PEP 552), None if it cannot be the same each time.

    Later versions of marshal write an object that is referred to more than once in
    another way, which depends on what else is in memory.
    """
    code = compile(source, name, "exec", dont_inherit=True)
    try:
        dumped = marshal.dumps(code, 2)
    except ValueError:
        # Python 3.14 has slices as constants, which that version does not know.
        return None
    # "Unchecked": the source beside it is the one that it was made of.
    flags = (1).to_bytes(4, "little")
    return MAGIC_NUMBER + flags + source_hash(source) + dumped
