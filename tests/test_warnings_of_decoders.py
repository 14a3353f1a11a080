"""A decoder's warning refuses an image only if pixels may be lost."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import rasterio
from PIL import Image

from tests.support import raw_tiff
from tests.support.kinds import BITS, convert, filled
from tests.support.raw_tiff import SHORT

WIDTH, HEIGHT, ROWS = 640, 480, 30
Y, X = numpy.mgrid[0:HEIGHT, 0:WIDTH]
CHECKERS = ((X // 8 + Y // 8) % 16 * 16).astype("u1")
COLOURS = numpy.stack([X // 3, Y // 2, (X + Y) // 5], 2).astype("u1")


def old_lzw(data: bytes) -> bytes:
    """Compress as before TIFF 6.0: low bits first, and longer codes one code later."""
    bits, length, packed = 0, 0, bytearray()

    def put(code: int, width: int) -> None:
        nonlocal bits, length
        bits |= code << length
        length += width
        while length >= 8:
            packed.append(bits & 255)
            bits >>= 8
            length -= 8

    single = {bytes([byte]): byte for byte in range(256)}
    table, width, word = dict(single), 9, b""
    put(256, width)
    for byte in data:
        longer = word + bytes([byte])
        if longer in table:
            word = longer
            continue
        put(table[word], width)
        table[longer] = len(table) + 2
        if len(table) + 2 == 4094:
            put(256, width)
            table, width = dict(single), 9
        elif len(table) + 2 > 1 << width:
            width += 1
        word = longer[-1:]
    put(table[word], width)
    put(257, width)
    put(0, 7)
    return bytes(packed)


def of_old_lzw(path: Path) -> None:
    strips = [old_lzw(CHECKERS[y : y + ROWS].tobytes()) for y in range(0, HEIGHT, ROWS)]
    raw_tiff.write(path, WIDTH, HEIGHT, ROWS, strips, {259: (SHORT, (5,))})


def strips_of(compression: str, directory: Path) -> list[bytes]:
    """Return strips that GDAL compressed."""
    file = directory / "plain.tif"
    with rasterio.open(
        file, "w", driver="GTiff", width=WIDTH, height=HEIGHT, count=1, dtype="uint8",
        compress=compression, blockysize=ROWS,
    ) as raster:  # fmt: skip
        raster.write(CHECKERS, 1)
    content = file.read_bytes()
    with rasterio.open(file) as raster:
        strips = []
        for n in range(HEIGHT // ROWS):
            offset, size = (
                int(raster.get_tag_item(f"BLOCK_{what}_0_{n}", "TIFF", bidx=1))
                for what in ("OFFSET", "SIZE")
            )
            strips.append(content[offset : offset + size])
    file.unlink()
    return strips


def of_packbits_with_more(path: Path) -> None:
    strips = [
        _with_longer_last_run(strip) for strip in strips_of("PACKBITS", path.parent)
    ]
    raw_tiff.write(path, WIDTH, HEIGHT, ROWS, strips, {259: (SHORT, (32773,))})


def _with_longer_last_run(strip: bytes) -> bytes:
    position, last = 0, 0
    while position < len(strip):
        last = position
        count = struct.unpack_from("b", strip, position)[0]
        position += count + 2 if count >= 0 else 2
    return strip[:last] + struct.pack("b", -127) + strip[last + 1 : last + 2]


def jpeg(pixels: numpy.ndarray, **options: bool) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90, subsampling=0, **options)
    return file.getvalue()


def of_jpegs(change: Callable[[bytes], bytes], **options: bool):
    def make(path: Path) -> None:
        strips = [
            change(jpeg(COLOURS[y : y + 48], **options)) for y in range(0, HEIGHT, 48)
        ]
        tags = {
            258: (SHORT, (8, 8, 8)),
            259: (SHORT, (7,)),
            262: (SHORT, (6,)),
            277: (SHORT, (3,)),
            530: (SHORT, (1, 1)),
        }
        raw_tiff.write(path, WIDTH, HEIGHT, 48, strips, tags)

    return make


def with_bytes_before_end(more: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:-2] + more + data[-2:]


def with_another_revision(data: bytes) -> bytes:
    assert data[6:13] == b"JFIF\0\1\1"
    return data[:11] + b"\7" + data[12:]


INTACT = {
    "old LZW": (of_old_lzw, 1, "Old-style LZW"),
    "PackBits with more than a strip": (of_packbits_with_more, 1, "Discarding"),
    "a byte before the end of a JPEG": (
        of_jpegs(with_bytes_before_end(b"\x12")),
        3,
        "1 extraneous bytes",
    ),
    "padding before the end of a JPEG": (
        of_jpegs(with_bytes_before_end(bytes(37))),
        3,
        "37 extraneous bytes",
    ),
    "a progressive JPEG": (of_jpegs(bytes, progressive=True), 3, "progressive"),
    "a JPEG of the future": (of_jpegs(with_another_revision), 3, "JFIF revision"),
}


@pytest.mark.parametrize("kind", INTACT)
def test_an_intact_image_is_converted_with_a_warning(kind: str, tmp_path: Path):
    make, bands, warning = INTACT[kind]

    status, result, image = convert(tmp_path, make, bands)

    assert status == 0, result["reason"]
    assert any(warning in each for each in result["warnings"]), result["warnings"]
    with rasterio.open(tmp_path / "image.tif") as cog, rasterio.open(image) as source:
        made = cog.read()
        numpy.testing.assert_array_equal(made, source.read())
    original = CHECKERS[None] if bands == 1 else COLOURS.transpose(2, 0, 1)
    limit = 0 if bands == 1 else 8
    assert numpy.abs(made.astype(int) - original).max() <= limit


@pytest.mark.parametrize(
    "change",
    [
        with_bytes_before_end(b"\x12\x34\x56\x78"),  # These may be pixels.
        lambda data: data[: len(data) // 2] + data[-2:],
    ],
)
def test_a_jpeg_that_may_have_lost_pixels_is_damaged(change, tmp_path: Path):
    status, result, _ = convert(tmp_path, of_jpegs(change), 3)
    assert (status, result["code"]) == (65, "damaged-image")
    assert "upload it again" in result["reason"]


def filled_fax(path: Path) -> Path:
    filled(BITS, nbits=1, compress="CCITTFAX4")(path)
    return path


def test_a_fax_that_has_lost_pixels_is_damaged(tmp_path: Path):
    def make(path: Path) -> None:
        content = bytearray(filled_fax(path).read_bytes())
        with rasterio.open(path) as raster:
            offset = int(raster.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
        content[offset + 400 : offset + 440] = bytes(40)
        path.write_bytes(content)

    status, result, _ = convert(tmp_path, make, 1)
    assert (status, result["code"]) == (65, "damaged-image")


@pytest.mark.parametrize("code, name", [(50002, "JXL"), (34712, "JP2000")])
def test_a_compression_that_gdal_lacks_is_named_with_a_remedy(
    code: int, name: str, tmp_path: Path
):
    def make(path: Path) -> None:
        tags = {259: (SHORT, (code,))}
        raw_tiff.write(path, WIDTH, HEIGHT, HEIGHT, [bytes(100)], tags)

    status, result, _ = convert(tmp_path, make, 1)

    assert (status, result["code"]) == (65, "unsupported-raster")
    assert f"compressed as {name}" in result["reason"]
    assert "gdal_translate" in result["reason"]
    assert "upload it again" not in result["reason"]
