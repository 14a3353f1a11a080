"""The node's code as it is sent to execution points: two files in the launch's home.

HTCondor lets an execution point reach the folders that files are sent from (see
``LimitDirectoryAccess`` in ``templates/convert.dag``), and add files to them. So jobs
are not sent from the clone, which the access point itself runs, nor are they sent a
folder, to which a file could be added. A run also keeps its code when the clone is
updated under it.
"""

import hashlib
import shutil
import tempfile
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from dag.pipeline import Pipeline

PROJECT = Path(__file__).resolve().parent.parent
SCRIPT = "generate_cogs.sh"
# Python imports from it; bin/generate_cogs.sh knows its name.
MODULES = "node.zip"


def keep(pipeline: Pipeline) -> Path:
    """Return a folder with the clone's ``generate_cogs.sh`` and ``node.zip``.

    Its name differs whenever their content does. Can be repeated after a crash at any
    step, and by several processes at once.
    """
    script, modules = PROJECT / "bin" / SCRIPT, sorted(PROJECT.glob("node/*.py"))
    digest = hashlib.sha256()
    for source in (script, *modules):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    kept = pipeline.home / f"node-{digest.hexdigest()[:16]}"
    if kept.exists():
        return kept
    with tempfile.TemporaryDirectory(dir=pipeline.home, prefix="node-new-") as scratch:
        new = Path(scratch, "new")
        new.mkdir(mode=0o700)
        (new / SCRIPT).touch(mode=0o700)
        shutil.copyfile(script, new / SCRIPT)
        with ZipFile(new / MODULES, "w", ZIP_DEFLATED) as archive:
            for module in modules:
                archive.write(module, f"node/{module.name}")
        try:
            new.rename(kept)
        except OSError:
            # Another process made the same one meanwhile.
            if not kept.exists():
                raise
    return kept
