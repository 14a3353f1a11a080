"""Make the pictures of the catalog's pages.

    python -m lab.pictures [NAME]...

A collection of invented maps and photographs is converted and cataloged by the
pipeline, in a pool of its own. Then the programs for which the products are made show
them.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from PIL import Image

from lab.pictures import desktop, shell, web
from lab.pictures.archive import Archive, running_archive
from lab.pictures.programs import PictureError, check_installed
from pool.errors import PoolError
from state.project import PROJECT

_TARGET = PROJECT / "docs" / "catalog"
_MAX_BYTES = 120_000
_PICTURES: Mapping[str, Callable[[Archive, Path], Iterable[Path]]] = {
    "vrt": desktop.vrt,
    "tileindex": desktop.tileindex,
    "geoparquet": shell.geoparquet,
    "postgis": shell.postgis,
    "checksums": shell.checksums,
    "mosaicjson": web.mosaicjson,
    "stac": web.stac,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make pictures", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(_PICTURES))
    names = parser.parse_args().names or [*_PICTURES]
    if unknown := sorted({*names} - {*_PICTURES}):
        parser.error(f"there is no picture {', '.join(unknown)}")
    try:
        check_installed()
        with (
            tempfile.TemporaryDirectory(prefix="pictures-") as folder,
            running_archive(Path(folder)) as archive,
        ):
            for name in names:
                for picture in _PICTURES[name](archive, _TARGET):
                    _compress(picture)
                    print(f"{picture.name}: {picture.stat().st_size / 1000:.0f} kB")
    except (PictureError, PoolError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _compress(picture: Path) -> None:
    """Give a PNG as many colours as a page can load in a moment."""
    if picture.suffix != ".png":
        return
    with Image.open(picture) as image:
        pixels = image.convert("RGB")
    for colours in (256, 128, 64, 32):
        palette = pixels.quantize(colours, dither=Image.Dither.NONE, kmeans=1)
        palette.save(picture, optimize=True)
        if picture.stat().st_size <= _MAX_BYTES:
            break


if __name__ == "__main__":
    sys.exit(main())
