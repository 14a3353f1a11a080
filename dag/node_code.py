"""The node's code as it is sent to execution points: a copy in the launch's home.

HTCondor lets an execution point reach the folders that files are sent from (see
``LimitDirectoryAccess`` in ``templates/convert.dag``). So jobs are not sent the clone,
which the access point itself runs, but a copy of what a node needs. A run also keeps
its code when the clone is updated under it.
"""

import hashlib
import shutil
import tempfile
from pathlib import Path

from dag.pipeline import Pipeline

PROJECT = Path(__file__).resolve().parent.parent
SCRIPT = "generate_cogs.sh"


def keep(pipeline: Pipeline) -> Path:
    """Return a folder with ``generate_cogs.sh`` and ``node/`` as the clone has them.

    Its name differs whenever their content does. Can be repeated after a crash at any
    step, and by several processes at once.
    """
    sources = [PROJECT / "bin" / SCRIPT, *sorted(PROJECT.glob("node/*.py"))]
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    kept = pipeline.home / f"node-{digest.hexdigest()[:16]}"
    if kept.exists():
        return kept
    with tempfile.TemporaryDirectory(dir=pipeline.home, prefix="node-new-") as scratch:
        new = Path(scratch, "new")
        (new / "node").mkdir(parents=True, mode=0o700)
        for source in sources:
            folder = new / "node" if source.suffix == ".py" else new
            shutil.copy(source, folder)
        try:
            new.rename(kept)
        except OSError:
            # Another process made the same one meanwhile.
            if not kept.exists():
                raise
    return kept
