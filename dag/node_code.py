"""Keep the node's code as jobs get it: two files in the launch's directory.

HTCondor lets an execution point read the folders that input files come from, and add
files to them (see ``LimitDirectoryAccess`` in ``templates/convert.dag``). So jobs do
not get their files from the clone, which the access point itself runs, nor do they get
a folder, to which somebody could add a file. A run also keeps its code when the clone
is updated.
"""

import hashlib
import io
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

    Its name follows from its content. Files that differ are written anew. Can be
    repeated after a crash at any step, and by several processes at once.
    """
    contents = {
        SCRIPT: (PROJECT / "bin" / SCRIPT).read_bytes(),
        MODULES: _archive(sorted(PROJECT.glob("node/*.py"))),
    }
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


def _archive(modules: list[Path]) -> bytes:
    """Return an archive of modules: the same bytes for the same modules."""
    content = io.BytesIO()
    with ZipFile(content, "w", ZIP_DEFLATED) as archive:
        for module in modules:
            # ZipInfo has a constant date, in 1980.
            archive.writestr(ZipInfo(f"node/{module.name}"), module.read_bytes())
    return content.getvalue()
