"""Images that refer to other files, and images that are bombs, fail with a reason."""

import ctypes
import json
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import rasterio
from rasterio.transform import Affine, from_origin

from tests.support import rasters
from tests.support.node import files, run_node

Make = Callable[[Path, str], object]
WARPED = ("--reproject", "EPSG:3857")
# With this option, GDAL reads the overviews of an image.
RESAMPLED = (*WARPED, "--op", "overview_resampling=cubic")
_IN_OPEN, _NONBLOCKING = 0x20, os.O_NONBLOCK


def vrt(source: str) -> str:
    return (
        '<VRTDataset rasterXSize="700" rasterYSize="600"><Metadata>'
        '<MDI key="INTERNAL_MASK_FLAGS_1">2</MDI></Metadata>'
        '<VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{escaped(source)}</SourceFilename>"
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def beside(suffix: str, content: Callable[[str], str]) -> Make:
    def make(image: Path, target: str) -> None:
        rasters.write(image, 1)
        image.with_name(image.name + suffix).write_text(content(target))

    return make


def metadata(domain: str, **items: str) -> Callable[[str], str]:
    def content(target: str) -> str:
        elements = "".join(
            f'<MDI key="{name}">{escaped(value or target)}</MDI>'
            for name, value in items.items()
        )
        inner = f'<Metadata domain="{domain}">{elements}</Metadata>'
        return f"<PAMDataset>{inner}</PAMDataset>"

    return content


def overviews_named_within(image: Path, target: str) -> None:
    rasters.write(image, 1)
    with rasterio.open(image, "r+") as raster:
        raster.update_tags(ns="Overviews", Overview_File=target)


def overviews_named_by_the_mask(image: Path, target: str) -> None:
    rasters.write(image, 1)
    overviews_named_within(image.with_name(f"{image.name}.msk"), target)


def geolocation(image: Path, target: str) -> None:
    rasters.write(image, 1, crs="EPSG:4326", transform=Affine.identity())
    with rasterio.open(image, "r+") as raster:
        axes = {f"{axis}_DATASET": target for axis in "XY"}
        steps = {f"{axis}_BAND": "1" for axis in "XY"}
        steps |= {f"{axis}_OFFSET": "0" for axis in ("PIXEL", "LINE")}
        steps |= {f"{axis}_STEP": "1" for axis in ("PIXEL", "LINE")}
        raster.update_tags(ns="GEOLOCATION", **axes, **steps)


def grids(srs: str) -> Make:
    def make(image: Path, target: str) -> None:
        degrees = Affine(0.001, 0, 10, 0, -0.001, 50)
        rasters.write(image, 1, crs=None, transform=degrees)
        escaped_srs = escaped(srs.replace("TARGET", target))
        xml = f"<PAMDataset><SRS>{escaped_srs}</SRS></PAMDataset>"
        image.with_name(f"{image.name}.aux.xml").write_text(xml)

    return make


GEOGRAPHIC = (
    'GEOGCS["x",DATUM["x",SPHEROID["x",6378137,298.25]],PRIMEM["Greenwich",0],'
    'UNIT["degree",0.0174532925199433]'
)
BOUND = rasterio.CRS.from_string(
    "+proj=longlat +ellps=GRS80 +nadgrids=TARGET +type=crs"
).to_wkt(version="WKT2_2019")
REFERENCES: dict[str, tuple[Make, tuple[str, ...]]] = {
    "a mask that is a VRT": (beside(".msk", vrt), ()),
    "a mask that is a dataset description": (beside(".msk", str), ()),
    "overviews that are a VRT": (beside(".ovr", vrt), RESAMPLED),
    "overviews that are a dataset description": (beside(".ovr", str), RESAMPLED),
    "overviews named beside the image": (
        beside(".aux.xml", metadata("OVERVIEWS", OVERVIEW_FILE="")),
        RESAMPLED,
    ),
    "overviews named in the image": (overviews_named_within, RESAMPLED),
    "overviews named in the mask": (overviews_named_by_the_mask, RESAMPLED),
    "geolocation arrays": (geolocation, WARPED),
    "grids of a PROJ string": (
        grids(
            f'{GEOGRAPHIC},EXTENSION["PROJ4","+proj=longlat +ellps=GRS80 '
            '+nadgrids=TARGET +no_defs"]]'
        ),
        WARPED,
    ),
    "grids of a bound CRS": (grids(BOUND), WARPED),
}


class Watch:
    """Watch whether a file is opened and whether an address is called."""

    def __init__(self, folder: Path) -> None:
        self.file = rasters.write(folder / "secret.tif", 1)
        libc = ctypes.CDLL(None, use_errno=True)
        self._events = libc.inotify_init1(_NONBLOCKING)
        assert self._events >= 0
        path = os.fsencode(self.file)
        assert libc.inotify_add_watch(self._events, path, _IN_OPEN) >= 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.setblocking(False)
        self.address = f"http://127.0.0.1:{self._server.getsockname()[1]}/secret.tif"

    def accesses(self) -> list[str]:
        """Return which of the two were accessed since the last call."""
        accesses = []
        for target, check in (
            (str(self.file), lambda: os.read(self._events, 4096)),
            (self.address, self._server.accept),
        ):
            try:
                check()
            except BlockingIOError:
                continue
            accesses.append(target)
        return accesses

    def close(self) -> None:
        os.close(self._events)
        self._server.close()


@pytest.fixture
def watch(tmp_path: Path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    watch = Watch(folder)
    yield watch
    watch.close()


def targets(watch: Watch) -> dict[str, str]:
    tiles = (
        '<GDAL_WMS><Service name="TMS"><ServerUrl>' + watch.address + "</ServerUrl>"
        "</Service><DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>1</UpperLeftY>"
        "<LowerRightX>1</LowerRightX><LowerRightY>0</LowerRightY><SizeX>350</SizeX>"
        "<SizeY>300</SizeY></DataWindow><BandsCount>1</BandsCount></GDAL_WMS>"
    )
    return {
        "file": str(watch.file),
        "address": watch.address,
        "curl": f"/vsicurl/{watch.address}",
        "tiles": tiles,
    }


def test_the_watch_notices_each_access(watch: Watch):
    assert watch.accesses() == []
    watch.file.read_bytes()
    with socket.create_connection(watch._server.getsockname()):
        assert watch.accesses() == [str(watch.file), watch.address]


@pytest.mark.parametrize("target", ["file", "address", "curl", "tiles"])
@pytest.mark.parametrize("reference", REFERENCES)
def test_no_image_makes_gdal_look_elsewhere(
    reference: str, target: str, tmp_path: Path, watch: Watch
):
    make, options = REFERENCES[reference]
    sandbox = tmp_path / "sandbox"
    sandbox.mkdir()
    # GDAL also accepts a dataset description in place of a file name.
    make(sandbox / "image.tif", targets(watch)[target])
    before = files(sandbox)
    watch.accesses()

    # No server answers, so a call that is made nevertheless must not wait forever.
    done = run_node(sandbox, "image.tif", "1", *options, GDAL_HTTP_TIMEOUT="2")

    assert watch.accesses() == []
    result = json.loads((sandbox / "result.json").read_text())
    if result["ok"]:
        # The reference was not followed, and the COG does not contain it.
        cog = (sandbox / "image.tif").read_bytes()
        assert watch.address.encode() not in cog
        assert os.fsencode(watch.file) not in cog
    else:
        assert done.returncode == 65, result
        assert result["code"] in ("unsupported-raster", "not-a-raster", "no-crs")
        assert files(sandbox) == before | {"result.json"}


def test_a_file_that_is_a_geotiff_only_by_name_is_not_opened(
    tmp_path: Path, watch: Watch
):
    for content in (vrt(str(watch.file)), targets(watch)["tiles"]):
        (tmp_path / "image.tif").write_text(content)
        run_node(tmp_path, "image.tif", "1")
        assert watch.accesses() == []
        assert "not-a-raster" in (tmp_path / "result.json").read_text()


def test_geolocation_is_left_out_of_the_cog(tmp_path: Path):
    geolocation(tmp_path / "image.tif", "/elsewhere/secret.tif")
    assert run_node(tmp_path, "image.tif", "1").returncode == 0
    assert b"elsewhere" not in (tmp_path / "image.tif").read_bytes()


def sparse(width: int, height: int, **options) -> Callable[[Path], object]:
    """Return a maker of an image whose file contains no tiles."""

    def make(path: Path) -> None:
        shape = {"width": width, "height": height, "crs": "EPSG:32616"}
        storage = {"count": 1, "dtype": "uint8", "SPARSE_OK": True, "BIGTIFF": "YES"}
        storage |= {"transform": rasters.TRANSFORM}
        with rasterio.open(path, "w", driver="GTiff", **shape | storage | options):
            pass

    return make


def directory(*entries: tuple[int, int, int, int], behind: int = 0):
    """Return a maker of a file with one TIFF directory.

    Args:
        entries: tag, type, count and value of each entry.
        behind: the number of zero bytes after the directory.
    """
    always = [(258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    packed = [struct.pack("<HHII", *entry) for entry in sorted([*always, *entries])]
    head = struct.pack("<2sHIH", b"II", 42, 8, len(packed))
    content = head + b"".join(packed) + bytes(4 + behind)
    return lambda path: path.write_bytes(content)


def strips(width: int, height: int, *more: tuple[int, int, int, int], behind: int = 0):
    one_strip = [(273, 4, 1, 8), (278, 4, 1, height), (279, 4, 1, 100)]
    sides = [(256, 4, 1, width), (257, 4, 1, height)]
    return directory(*sides, *one_strip, *more, behind=behind)


def pixels_of(width: float, height: float) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        degrees = from_origin(10, 50, width, height)
        rasters.write(path, 1, 10, 10, crs="EPSG:4326", transform=degrees)

    return make


def tags_beside(content: str) -> Callable[[Path], object]:
    """Return a maker of an image with a small .aux.xml that keeps GDAL busy."""

    def make(path: Path) -> None:
        rasters.write(path, 1)
        path.with_name(f"{path.name}.aux.xml").write_text(
            f"<PAMDataset>{content}</PAMDataset>"
        )

    return make


def tags_within(number: int, directories: int = 1) -> Callable[[Path], object]:
    """Return a maker of an image with overviews, each with many tags in GDAL's XML.

    Args:
        number: of tags in each directory.
        directories: number of directories, which are the image and its overviews.
    """
    items = "".join(f'<Item name="a{n}">b</Item>' for n in range(number))
    xml = f"<GDALMetadata>{items}</GDALMetadata>".encode() + b"\0"
    pixels = 8 * 8

    def make(path: Path) -> None:
        content = bytearray(struct.pack("<2sHI", b"II", 42, 8 + pixels) + bytes(pixels))
        for kind in range(directories):
            entries = [
                *((254, 4, 1, int(kind > 0)), (256, 4, 1, 8), (257, 4, 1, 8)),
                *((258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)),
                *((277, 3, 1, 1), (278, 4, 1, 8), (279, 4, 1, pixels)),
            ]
            text = len(content) + 2 + 12 * (len(entries) + 1) + 4
            entries.append((42112, 2, len(xml), text))
            following = 0 if kind == directories - 1 else text + len(xml)
            content += struct.pack("<H", len(entries))
            content += b"".join(struct.pack("<HHII", *entry) for entry in entries)
            content += struct.pack("<I", following) + xml
        path.write_bytes(content)

    return make


def many(element: Callable[[int], str], number: int = 100_000) -> str:
    return "".join(map(element, range(number)))


SIDE = 2**31 - 1
TILED = {"tiled": True, "compress": "ZSTD"}
LARGE = TILED | {"blockxsize": 8192, "blockysize": 8192}
BOMBS: dict[str, tuple[Callable[[Path], object], int, tuple[str, ...]]] = {
    "2^31 x 2^31": (strips(SIDE, SIDE), 1, ()),
    "2^32 x 2^32": (strips(2**32 - 1, 2**32 - 1), 1, ()),
    "no pixels": (strips(0, 0), 1, ()),
    "a column of 2^31": (sparse(1, SIDE, blockysize=10**6), 1, ()),
    "a row of 2^31": (sparse(SIDE, 1), 1, ()),
    "tiles of one pixel": (
        directory(
            *((256, 4, 1, 2**32 - 1), (257, 4, 1, 2**32 - 1), (322, 4, 1, 1)),
            *((323, 4, 1, 1), (324, 4, 1, 8), (325, 4, 1, 100)),
        ),
        1,
        (),
    ),
    "terabytes without data": (sparse(1_400_000, 1_400_000, **LARGE), 1, ()),
    "37 GiB without data": (sparse(200_000, 200_000, **LARGE), 1, ()),
    "a tile of gigabytes": (
        sparse(50_000, 50_000, **TILED, blockxsize=49_152, blockysize=49_152),
        1,
        (),
    ),
    "65,535 bands": (sparse(1, 1, count=65_535), 65_535, ()),
    "values that share their bytes": (
        strips(
            *(8, 8),
            *((40_000 + n, 1, 4_000_000, 8) for n in range(2000)),
            behind=4_000_000,
        ),
        1,
        (),
    ),
    "100,000 tags": (tags_within(100_000), 1, ()),
    "10,000 tags in each of 50 overviews": (tags_within(10_000, 51), 1, ()),
    "100,000 tags beside": (
        tags_beside(
            "<Metadata>" + many(lambda n: f'<MDI key="a{n}">b</MDI>') + "</Metadata>"
        ),
        1,
        (),
    ),
    "100,000 tags beside, in unusual spelling": (
        tags_beside(
            "<Metadata>" + many(lambda n: f'< mDI key="a{n}">b</mdi>') + "</Metadata>"
        ),
        1,
        (),
    ),
    "100,000 namespaces beside": (
        tags_beside(
            many(lambda n: f'<Metadata domain="a{n}"><MDI key="a">b</MDI></Metadata>')
        ),
        1,
        (),
    ),
    "60 MB beside": (tags_beside("<a/>" * 15_000_000), 1, ()),
    "20,000 images": (tags_within(1, 20_000), 1, ()),
    "pixels of size zero, warped": (pixels_of(1e-300, 1e-300), 1, WARPED),
    "pixels of size zero, in web tiles": (
        pixels_of(1e-300, 1e-300),
        1,
        ("--profile", "web"),
    ),
    "a transform of infinity and NaN": (
        lambda path: rasters.write(
            path, 1, transform=Affine(float("inf"), 0, float("nan"), 0, 1, 1)
        ),
        1,
        (),
    ),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_ends_with_a_reason(kind: str, tmp_path: Path):
    make, bands, options = BOMBS[kind]
    make(tmp_path / "image.tif")

    # The limit is the memory of a job plus address space that Python and GDAL only
    # reserve.
    done = run_node(
        tmp_path, "image.tif", str(bands), "--allow-no-crs", *options, memory=6 * 2**30
    )

    result = json.loads((tmp_path / "result.json").read_text())
    assert done.returncode == 65, result
    assert result["code"] in ("unsupported-raster", "not-a-raster", "damaged-image")
    assert result["seconds"] < 20
    beside = {"image.tif.aux.xml"} if "beside" in kind else set()
    assert files(tmp_path) == {"image.tif", "result.json"} | beside


def test_tags_beside_overviews_are_counted_too(tmp_path: Path):
    rasters.write(tmp_path / "image.tif", 1)
    tags_within(30_000)(tmp_path / "image.tif.ovr")
    done = run_node(tmp_path, "image.tif", "1")
    assert done.returncode == 65
    assert "more than 20000 tags" in (tmp_path / "result.json").read_text()


def test_a_world_file_of_megabytes_is_refused(tmp_path: Path):
    rasters.write(tmp_path / "image.tif", 1)
    (tmp_path / "image.tfw").write_text("10\n" * 10**6)
    done = run_node(tmp_path, "image.tif", "1")
    assert done.returncode == 65
    assert "image.tfw beside it" in (tmp_path / "result.json").read_text()


def test_the_sidecar_of_a_real_image_is_accepted(tmp_path: Path):
    """Convert an image with a 16-bit raster attribute table and 4,000 tags."""
    rasters.write(tmp_path / "image.tif", 1, dtype="uint16")
    titles = ("Value", "Count", "Class_Name", "Red", "Green", "Blue")
    fields = "".join(
        f'<FieldDefn index="{n}"><Name>{title}</Name><Type>0</Type><Usage>0</Usage>'
        "</FieldDefn>"
        for n, title in enumerate(titles)
    )
    values = "".join(f"\n        <F>{value}</F>" for value in (1, 991, "a class", 9, 9))
    rows = many(
        lambda n: (
            f'\n      <Row index="{n}">\n        <F>{n}</F>{values}\n      </Row>'
        ),
        65_536,
    )
    tags = many(lambda n: f'<MDI key="STATISTICS_{n}">1.5</MDI>', 4000)
    (tmp_path / "image.tif.aux.xml").write_text(
        f'<PAMDataset><Metadata>{tags}</Metadata><PAMRasterBand band="1">'
        f"<GDALRasterAttributeTable>{fields}{rows}</GDALRasterAttributeTable>"
        "</PAMRasterBand></PAMDataset>"
    )
    done = run_node(tmp_path, "image.tif", "1", memory=6 * 2**30)
    assert done.returncode == 0, done.stderr


def test_a_mask_that_is_a_bomb_ends_with_a_reason(tmp_path: Path):
    rasters.write(tmp_path / "image.tif", 1)
    BOMBS["values that share their bytes"][0](tmp_path / "image.tif.msk")
    done = run_node(tmp_path, "image.tif", "1", memory=6 * 2**30)
    result = json.loads((tmp_path / "result.json").read_text())
    assert (done.returncode, result["code"]) == (65, "unsupported-raster"), result
    assert "its tags claim" in result["reason"]


def test_geolocation_arrays_are_refused_when_warped(tmp_path: Path):
    geolocation(tmp_path / "image.tif", "/elsewhere/secret.tif")
    done = run_node(tmp_path, "image.tif", "1", *WARPED)
    result = json.loads((tmp_path / "result.json").read_text())
    assert done.returncode == 65, result
    assert "needs another file" in result["reason"]
