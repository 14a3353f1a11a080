"""Take pictures of QGIS, which shows the catalog's files as layers."""

import os
from collections.abc import Iterable
from pathlib import Path

from lab.pictures.archive import Archive
from lab.pictures.programs import run

_SCRIPT = Path(__file__).with_name("in_qgis.py")
# A screen that nobody sees. Without one, QGIS does not start.
_SCREEN = ("xvfb-run", "--auto-servernum", "--server-args=-screen 0 1280x1024x24")


def vrt(archive: Archive, target: Path) -> Iterable[Path]:
    """Take a picture of the VRTs of two collections."""
    yield _picture(archive, target / "vrt.png")


def tileindex(archive: Archive, target: Path) -> Iterable[Path]:
    """Take a picture of a tile index above the images, and of its table."""
    yield _picture(archive, target / "tileindex.png")


def _picture(archive: Archive, picture: Path) -> Path:
    profile = archive.folder / "qgis"
    environment = archive.environment | {
        "PICTURE": str(picture),
        # QGIS takes the first Python of the path, which must be the one of Debian.
        "PATH": os.defpath,
    }
    options = ("--nologo", "--noversioncheck", "--noplugins")
    run(
        [
            *(*_SCREEN, "qgis", *options),
            *("--profiles-path", str(profile), "--code", str(_SCRIPT)),
        ],
        archive.folder,
        environment,
        seconds=300,
    )
    return picture
