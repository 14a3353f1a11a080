"""The node's code as it is sent to execution points: two files in the launch's home.

HTCondor lets an execution point reach the folders that files are sent from (see
``LimitDirectoryAccess`` in ``templates/convert.dag``), and add files to them. So jobs
are not sent from the clone, which the access point itself runs, nor are they sent a
folder, to which a file could be added. A run also keeps its code when the clone is
updated under it.
"""

import hashlib
import io
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from state.files import write_bytes_atomically
from state.launch import Launch
from state.project import PROJECT

SCRIPT = "generate_cogs.sh"
# Python imports from it; bin/generate_cogs.sh knows its name.
MODULES = "node.zip"


def keep(launch: Launch) -> Path:
    """Return a folder with the clone's ``generate_cogs.sh`` and ``node.zip``.

    It is named after its content, and is made anew where that is not what it was. Can
    be repeated after a crash at any step, and by several processes at once.
    """
    content = {
        SCRIPT: (PROJECT / "bin" / SCRIPT).read_bytes(),
        MODULES: _archive(sorted(PROJECT.glob("node/*.py"))),
    }
    digest = hashlib.sha256(b"".join(content.values())).hexdigest()[:16]
    kept = launch.home / f"node-{digest}"
    kept.mkdir(mode=0o700, exist_ok=True)
    for name, bytes_of_it in content.items():
        file = kept / name
        if not file.is_file() or file.read_bytes() != bytes_of_it:
            # The script is run.
            mode = 0o700 if name == SCRIPT else 0o600
            write_bytes_atomically(file, bytes_of_it, mode)
    return kept


def _archive(modules: list[Path]) -> bytes:
    """Return an archive of modules, the same bytes for the same modules."""
    written = io.BytesIO()
    with ZipFile(written, "w", ZIP_DEFLATED) as archive:
        for module in modules:
            # With the date that ZipInfo has by itself, in 1980.
            archive.writestr(ZipInfo(f"node/{module.name}"), module.read_bytes())
    return written.getvalue()
