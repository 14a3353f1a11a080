"""The node with all that it needs, in one file: see docs/execution-points.md."""

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
    """The packed node of this Python and this clone, from the user's cache or new.

    Its file name ends in the kind of processor that it runs on; the name of its
    folder differs whenever something of its content does.

    Raises:
        PackError: something that it takes is missing, or other users can change the
            one in the cache.
    """
    # First of all, since it says best what is not installed.
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
    # Not before _digest(), which says best what is not installed.
    from pack import archive

    folder = packed.parent
    # Made beside its place and renamed, so that none is there half.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="pack-") as made:
        new = Path(made, "new")
        for each in (new, Path(made, "files"), Path(made, "trial")):
            each.mkdir(mode=0o700)
        archive.write(new / packed.name, gather(Path(made, "files")), Path(made))
        _try_out(new / packed.name, Path(made, "trial"))
        try:
            new.rename(folder)
        except OSError:
            # Another launch made the same one meanwhile.
            if not packed.exists():
                raise


def _digest() -> str:
    """What two packed nodes with the same content share."""
    digest = hashlib.sha256()
    about = [packages(), sys.version, platform.libc_ver(), platform.machine()]
    digest.update(json.dumps(about, sort_keys=True).encode())
    for source in sorted([*PROJECT.glob("node/*.py"), *PROJECT.glob("pack/*.*")]):
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def _try_out(packed: Path, directory: Path) -> None:
    """Convert a small image, as on a machine that has nothing."""
    from PIL import Image

    Image.new("RGB", (64, 64)).save(directory / "image.tif")
    done = subprocess.run(
        [packed, "image.tif", "3", "--allow-no-crs"],
        cwd=directory,
        env={"TMPDIR": str(directory)},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0 or not (directory / "image.jpg").exists():
        raise PackError(
            "the packed node does not work on this machine itself "
            f"(status {done.returncode}: {done.stderr.strip()[-500:]})"
        )


def keep(packed: Path, home: Path) -> Path:
    """A packed node, where the runs of a launch find it when the cache is gone."""
    kept = home / packed.parent.name / packed.name
    if kept.exists():
        return kept
    kept.parent.mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        new = Path(scratch, packed.name)
        # No second name of the same file: an execution point may reach this folder.
        shutil.copyfile(packed, new)
        new.chmod(0o755)
        new.replace(kept)
    return kept
