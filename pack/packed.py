"""Make the packed node: the node and everything it needs in one file.

See docs/execution-points.md.
"""

import hashlib
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from pack.errors import PackError
from pack.gather import gather, packages
from state import cache
from state.project import PROJECT

Say = Callable[[str], None]


def find_or_make(say: Say) -> Path:
    """Return the packed node of this Python and this clone; make it if necessary.

    It is kept in the user's cache. Its file name ends in the type of processor that
    it runs on. The name of its folder has a digest of its content.

    Raises:
        PackError: something that packing needs is missing, or other users can change
            the file in the cache.
    """
    # This comes first, since its error says most precisely what is not installed.
    digest = _digest()
    _check_cache()
    folder = cache.cache_directory() / f"packed-{digest}"
    packed = folder / f"node-packed.{platform.machine()}"
    if not packed.exists():
        say("packing the node environment, half a minute at most (kept in the cache)")
        _make(packed)
    _check_cache(folder, packed)
    return packed


def _check_cache(*entries: Path) -> None:
    if fault := cache.why_not(*entries):
        raise PackError(fault)


def _make(packed: Path) -> None:
    # This import must not come before _digest(): it fails without zstandard, and
    # _digest() says more precisely what is not installed.
    from pack import archive

    folder = packed.parent
    # The folder is made beside its place and then renamed, so that an interrupted
    # launch leaves nothing that looks complete.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="pack-") as scratch:
        new, files, trial = (Path(scratch, name) for name in ("new", "files", "trial"))
        for subfolder in (new, files, trial):
            subfolder.mkdir(mode=0o700)
        archive.write(new / packed.name, gather(files), Path(scratch))
        _try_out(new / packed.name, trial)
        try:
            new.rename(folder)
        except OSError:
            # Another launch made the same one meanwhile: use that one.
            if not packed.exists():
                raise


def _digest() -> str:
    """Return a digest that is the same for packed nodes with the same content."""
    digest = hashlib.sha256()
    versions = [packages(), sys.version, platform.libc_ver(), platform.machine()]
    digest.update(json.dumps(versions, sort_keys=True).encode())
    for source in sorted([*PROJECT.glob("node/*.py"), *PROJECT.glob("pack/*.*")]):
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def _try_out(packed: Path, directory: Path) -> None:
    """Convert a small image with an empty environment, as on a machine without Python.

    Raises:
        PackError: there is no JPEG afterwards.
    """
    from PIL import Image

    Image.new("RGB", (64, 64)).save(directory / "image.tif")
    result = subprocess.run(
        [packed, "image.tif", "3", "--allow-no-crs"],
        cwd=directory,
        env={"TMPDIR": str(directory)},
        capture_output=True,
        text=True,
    )
    if result.returncode != 0 or not (directory / "image.jpg").exists():
        raise PackError(
            "the packed node does not work even on this machine "
            f"(status {result.returncode}: {result.stderr.strip()[-500:]})"
        )


def keep(packed: Path, home: Path) -> Path:
    """Copy a packed node into the launch's folder, and return the copy.

    The runs of the launch use the copy, so that they do not depend on the cache.
    """
    copy = home / packed.parent.name / packed.name
    if copy.exists():
        return copy
    copy.parent.mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        new = Path(scratch, packed.name)
        # A copy and no hard link: execution points may be able to write to this
        # folder, and must not change the file in the cache.
        shutil.copyfile(packed, new)
        new.chmod(0o755)
        new.replace(copy)
    return copy
