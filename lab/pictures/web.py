"""Take pictures of pages in Chromium: STAC Browser, and TiTiler's map."""

import hashlib
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lab.pictures import sheets
from lab.pictures.archive import COGS, Archive
from lab.pictures.programs import run, running, served_over_http
from pool.s3 import free_port

_BROWSE = Path(__file__).with_name("browse.mjs")
_STAC_BROWSER = "@radiantearth/stac-browser@4.0.1"
# Later ones need another OpenLayers than that of STAC Browser.
_OL_STAC = "ol-stac@1.1.0"
# STAC Browser would ask a server on the web what this CRS is.
_CRS = {sheets.CRS: "+proj=utm +zone=16 +datum=WGS84 +units=m +no_defs"}
# TiTiler's map loads these from the web.
_MAP_PACKAGES = ("leaflet@1.9.3", "proj4@2.3.14", "proj4leaflet@1.0.2")
_TITILER = ("titiler.application>=2.4,<3", "uvicorn")


@dataclass(frozen=True)
class Page:
    """A page to take a picture of.

    Attributes:
        seconds: time that it needs until all of its images are there.
        packages: folders from which its scripts come in place of the web.
    """

    url: str
    seconds: int
    height: int = 800
    packages: dict[str, str] = field(default_factory=dict)


def stac(archive: Archive, target: Path) -> Iterable[Path]:
    """Take pictures of a list of items, and of one item, in STAC Browser."""
    source = f"pool:{COGS}/catalog/maps--1954"
    listing = ("rclone", "lsf", "-R", "--files-only", source)
    (page,) = (
        file
        for file in run([*listing], archive.folder, archive.environment).splitlines()
        if file.startswith("pages/")
    )
    dist = _build_stac_browser(archive.folder)
    with (
        served_over_http(str(dist), free_port(), archive.environment) as browser,
        served_over_http(f"pool:{COGS}", free_port(), archive.environment) as store,
    ):
        catalog = store.replace("//", "/") + "/catalog/maps--1954"
        for name, document in (
            ("stac", page),
            ("stac-item", "items/maps--1954--three-rivers.json"),
        ):
            url = f"{browser}/index.html#/external/{catalog}/{document}"
            yield _picture(
                archive.folder, Page(url, seconds=25), target / f"{name}.png"
            )


def mosaicjson(archive: Archive, target: Path) -> Iterable[Path]:
    """Take a picture of the map that TiTiler makes of a mosaic."""
    environment = archive.folder / "titiler"
    run(
        [sys.executable, "-m", "venv", "--without-pip", str(environment)],
        archive.folder,
    )
    pip = (sys.executable, "-m", "pip", "--quiet", "--python", str(environment))
    run([*pip, "install", *_TITILER], archive.folder)
    port = free_port()
    uvicorn = (str(environment / "bin" / "python"), "-m", "uvicorn")
    application = ("titiler.application.main:app", "--port", str(port))
    with (
        served_over_http(f"pool:{COGS}", free_port(), archive.environment) as store,
        running([*uvicorn, *application], port, archive.environment),
    ):
        name = hashlib.sha224(b"maps--1954").hexdigest()
        url = (
            f"http://127.0.0.1:{port}/mosaicjson/WebMercatorQuad/map.html"
            f"?url={store}/mosaics/{name}.json.gz"
        )
        modules = _node(archive.folder) / "node_modules"
        packages = {
            f"https://unpkg.com/{package}/": str(modules / package.partition("@")[0])
            for package in _MAP_PACKAGES
        }
        page = Page(url, seconds=25, packages=packages)
        yield _picture(archive.folder, page, target / "mosaicjson.png")


def _picture(folder: Path, page: Page, picture: Path) -> Path:
    job = {
        "url": page.url,
        "picture": str(picture),
        "width": 1150,
        "height": page.height,
        "milliseconds": page.seconds * 1000,
        "packages": page.packages,
    }
    messages = run(["node", str(_BROWSE), json.dumps(job)], _node(folder))
    # Base maps come from the web, which is not asked.
    print(*(m for m in messages.splitlines() if "net::ERR_FAILED" not in m), sep="\n")
    return picture


def _node(folder: Path) -> Path:
    """Return a folder with the packages of npm; install them the first time."""
    node = folder / "node"
    if not node.exists():
        node.mkdir()
        packages = ("playwright-core@1", *_MAP_PACKAGES)
        run(["npm", "install", "--ignore-scripts", "--no-audit", *packages], node)
    return node


def _build_stac_browser(folder: Path) -> Path:
    """Return the folder of a STAC Browser that any web server can serve."""
    print("building STAC Browser, which takes some minutes")
    archive = run(["npm", "pack", "--silent", _STAC_BROWSER], folder).split()[-1]
    run(["tar", "-xzf", archive], folder)
    source = folder / "package"
    install = ("npm", "install", "--ignore-scripts", "--no-audit", "--save-exact")
    run([*install, _OL_STAC], source)
    options = ("--noSourceMaps", "--historyMode=hash", f"--crs={json.dumps(_CRS)}")
    command = ["npx", "vue-cli-service", "build", *options]
    run(command, source, os.environ | {"NODE_ENV": "production"})
    return source / "dist"
