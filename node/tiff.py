"""Read the directories of TIFF files, and write files with the layout of a COG.

The formats are TIFF 6.0 (Adobe, 1992) and BigTIFF. The layout is that of GDAL's COG
driver (https://gdal.org/drivers/raster/cog.html, "Header ghost area"): all directories
come first, then the tiles of the smallest overview, …, then those of the image. Each
tile has its size before it and a copy of its last four bytes after it.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

import numpy

from node.spool import TileSpool

SUBFILE_TYPE = 254
IMAGE_WIDTH, IMAGE_LENGTH = 256, 257
BITS_PER_SAMPLE, COMPRESSION, _PHOTOMETRIC = 258, 259, 262
_SAMPLES_PER_PIXEL, _PLANAR_CONFIGURATION = 277, 284
TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_BYTE_COUNTS = 322, 323, 324, 325
EXTRA_SAMPLES, ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA = 338, 1, 2
_STRIP_OFFSETS, _ROWS_PER_STRIP, _STRIP_BYTE_COUNTS = 273, 278, 279
REDUCED, MASK = 1, 4
_PALETTE = 3

# Tags of the image that an overview's directory has too: how pixels are stored (bits,
# compression, photometric, samples, planes, predictor, colour table, tile size, extra
# samples, sample format, JPEG tables, YCbCr, black and white), nodata and LERC's
# parameters. The other tags describe the whole file.
_KEPT_BY_OVERVIEWS = {
    *(258, 259, 262, 277, 284, 317, 320, 322, 323, 338, 339, 347),
    *(529, 530, 531, 532, 42113, 50674),
}
_UINT32, _UINT16, _UINT64 = 4, 3, 16
_SIZES = {
    **{1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4},
    **{10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8},
}
_UNSIGNED = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
# Real files stay far below these limits; a hostile file would never end. libtiff opens
# no directory with more entries.
_MAX_DIRECTORIES = 10_000
_MAX_ENTRIES = 4096
_MAX_TOTAL_ENTRIES = 200_000
# The offsets of a classic TIFF have 32 bits.
_CLASSIC_END = 2**32 - 1

_GHOST = (
    b"LAYOUT=IFDS_BEFORE_DATA\n"
    b"BLOCK_ORDER=ROW_MAJOR\n"
    b"BLOCK_LEADER=SIZE_AS_UINT4\n"
    b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED\n"
    b"KNOWN_INCOMPATIBLE_EDITION=NO\n "
)
_GHOST_MASK = b"MASK_INTERLEAVED_WITH_IMAGERY=YES\n"


class NotATiff(ValueError):
    """The bytes are not a TIFF, or an incomplete one."""


class TooMany(NotATiff):
    """The file has more directories, or entries in them, than this module reads."""


class TooLarge(ValueError):
    """Offsets of 32 bits cannot reach the end of the file."""


@dataclass(frozen=True)
class Field:
    """A directory's value for one tag, in the byte order of its file."""

    type: int
    count: int
    value: bytes


Directory = dict[int, Field]


@dataclass(frozen=True)
class Structure:
    """The directories of a file.

    Attributes:
        order: byte order, "<" or ">".
        directories: the directories, in their order in the file.
        positions: positions of the directories, in bytes from the file's beginning.
    """

    order: Literal["<", ">"]
    directories: tuple[Directory, ...]
    positions: tuple[int, ...]

    def numbers(self, directory: int, tag: int) -> numpy.ndarray:
        """Return a field's unsigned integers; none if there is no such field."""
        field = self.directories[directory].get(tag)
        if field is None or field.type not in _UNSIGNED:
            return numpy.empty(0, "u8")
        kind = numpy.dtype(_UNSIGNED[field.type]).newbyteorder(self.order)
        return numpy.frombuffer(field.value, kind)

    def number(self, directory: int, tag: int, default: int = 0) -> int:
        """Return a field's first unsigned integer, or a default."""
        numbers = self.numbers(directory, tag)
        return int(numbers[0]) if numbers.size else default


@dataclass(frozen=True)
class Level:
    """An image, or an overview of it, to write with its mask.

    Attributes:
        width: width in pixels.
        height: height in pixels.
        directory: directory, without the size and the tiles.
        mask: directory of the mask; None if there is none.
        tile_width: width of a tile, in pixels.
        tiles: tiles row by row; if there is a mask, each tile is followed by the
            mask's.
    """

    width: int
    height: int
    directory: Directory
    mask: Directory | None
    tile_width: int
    tiles: TileSpool


def read(file: BinaryIO) -> Structure:
    """Read all directories of a TIFF or BigTIFF.

    Raises:
        NotATiff: the file is not a TIFF.
    """
    directories, positions = [], []
    for position, entries in _directories_in(file):
        directory = {}
        for entry in entries:
            value = entry.value
            if entry.where:
                value = _exactly(file, entry.where, entry.size)
            directory[entry.tag] = Field(entry.type, entry.count, value)
        directories.append(directory)
        positions.append(position)
    return Structure(_header(file)[0], tuple(directories), tuple(positions))


def bytes_of_values(file: BinaryIO) -> int:
    """Return how many bytes the values of a file's directories would take.

    Values that do not end within the file are not counted: nothing reads them.

    Raises:
        NotATiff: the file is not a TIFF.
        TooMany: the file has more directories than this module reads.
    """
    length, total = file.seek(0, 2), 0
    try:
        for _, entries in _directories_in(file):
            total += sum(
                entry.size
                for entry in entries
                if entry.where and entry.where + entry.size <= length
            )
    except TooMany:
        raise
    except NotATiff:
        if not total:
            raise
    return total


def beginnings(file: BinaryIO, tag: int, max_bytes: int) -> Iterator[bytes]:
    """Yield the first bytes of the value that each directory has for a tag.

    Values that do not end within the file are left out: nothing reads them.

    Args:
        max_bytes: number of bytes of a value to yield at most.

    Raises:
        NotATiff: the file is not a TIFF, or ends early.
    """
    length = file.seek(0, 2)
    for _, entries in _directories_in(file):
        for entry in entries:
            if entry.tag == tag and entry.where + entry.size <= length:
                read = min(entry.size, max_bytes)
                yield _exactly(file, entry.where, read) if entry.where else entry.value


def has_palette(file: BinaryIO) -> bool:
    """Return whether the first image says that its values are palette indices.

    Raises:
        NotATiff: the file is not a TIFF, or ends early.
    """
    photometric = next(beginnings(file, _PHOTOMETRIC, 2), b"")
    return photometric == struct.pack(_header(file)[0] + "H", _PALETTE)


@dataclass(frozen=True)
class _Entry:
    """An entry of a directory.

    Attributes:
        size: size of the value, in bytes.
        value: the value, if it is in the entry itself.
        where: position of the value in the file, in bytes; 0 if it is in the entry.
    """

    tag: int
    type: int
    count: int
    size: int
    value: bytes = b""
    where: int = 0


def _header(file: BinaryIO) -> tuple[Literal["<", ">"], int]:
    """Return the byte order, and the version: 42 or, for a BigTIFF, 43."""
    head = _exactly(file, 0, 8)
    orders: dict[bytes, Literal["<", ">"]] = {b"II": "<", b"MM": ">"}
    order = orders.get(head[:2])
    if order is None:
        raise NotATiff("no TIFF header")
    (version,) = struct.unpack(order + "H", head[2:4])
    if version not in (42, 43):
        raise NotATiff(f"version {version} of TIFF is not known")
    return order, version


def _directories_in(file: BinaryIO) -> Iterator[tuple[int, list[_Entry]]]:
    """Yield each directory's position and its entries."""
    order, version = _header(file)
    entry, counts, offsets, at = (
        (12, "H", "I", 4) if version == 42 else (20, "Q", "Q", 8)
    )
    inline = struct.calcsize(offsets)
    (position,) = struct.unpack(order + offsets, _exactly(file, at, inline))
    seen: set[int] = set()
    total_entries = 0
    while position:
        if position in seen:
            raise NotATiff("its directories form a circle")
        if len(seen) == _MAX_DIRECTORIES or total_entries > _MAX_TOTAL_ENTRIES:
            raise TooMany(f"it has more than {len(seen)} directories")
        seen.add(position)
        length = struct.calcsize("=" + counts)
        (count,) = struct.unpack(order + counts, _exactly(file, position, length))
        if count > _MAX_ENTRIES:
            raise NotATiff(f"one of its directories has {count} entries")
        total_entries += count
        body = _exactly(file, position + length, count * entry + inline)
        entries = []
        for start in range(0, count * entry, entry):
            tag, kind, number = struct.unpack_from(order + "HH" + offsets, body, start)
            size = _SIZES.get(kind, 0) * number
            value = body[start + entry - inline : start + entry]
            if size > inline:
                (where,) = struct.unpack(order + offsets, value)
                entries.append(_Entry(tag, kind, number, size, where=where))
            else:
                entries.append(_Entry(tag, kind, number, size, value[:size]))
        yield position, entries
        (position,) = struct.unpack(order + offsets, body[-inline:])


def overview_directory(directory: Directory) -> Directory:
    """Return the directory of an overview, made from that of its image."""
    kept = {tag: field for tag, field in directory.items() if tag in _KEPT_BY_OVERVIEWS}
    return kept | {SUBFILE_TYPE: _uint32(REDUCED)}


def with_premultiplied_alpha(directory: Directory) -> Directory:
    """Return a directory whose alpha is associated: colours are multiplied by it."""
    field = directory[EXTRA_SAMPLES]
    kinds = numpy.frombuffer(field.value, "<u2").copy()
    kinds[kinds == _UNASSOCIATED_ALPHA] = ASSOCIATED_ALPHA
    return directory | {EXTRA_SAMPLES: replace(field, value=kinds.tobytes())}


def write(path: Path, levels: Sequence[Level], big: bool | None = None) -> None:
    """Write a COG.

    Args:
        levels: the image, then its overviews, the smallest last. This function sets
            the sizes and the tiles in their directories, and removes the tiles from
            the spools.
        big: whether to write a BigTIFF; None to do so only if it is necessary.

    Raises:
        TooLarge: a BigTIFF is necessary, and ``big`` forbids it.
    """
    if big is None:
        big = _starts(levels, big=False)[-1] > _CLASSIC_END
    *starts, end = _starts(levels, big)
    if end > _CLASSIC_END and not big:
        raise TooLarge(f"it would have {end} bytes, more than a classic TIFF can have")
    with path.open("wb") as file:
        file.write(_head(levels, big, starts))
        for level in reversed(levels):
            level.tiles.pour_into(file)
        if file.tell() != end:
            raise AssertionError(f"{file.tell()} bytes were written, not {end}")


def _starts(levels: Sequence[Level], big: bool) -> list[int]:
    """Return the positions of each level's tiles and of the end of the file."""
    # The length of the head does not depend on the positions of the tiles.
    position = len(_head(levels, big, [0] * len(levels)))
    starts: list[int] = []
    for level in reversed(levels):
        starts.insert(0, position)
        position += level.tiles.length
    return [*starts, position]


def _head(levels: Sequence[Level], big: bool, starts: Sequence[int]) -> bytes:
    """Return everything that comes before the tiles."""
    ghost = _GHOST + (_GHOST_MASK if levels[0].mask else b"")
    ghost = b"GDAL_STRUCTURAL_METADATA_SIZE=%06d bytes\n" % len(ghost) + ghost
    first = 16 if big else 8
    # GDAL expects the first directory right behind, at an even position.
    ghost += b"\0" * (-(first + len(ghost)) % 2)
    position = first + len(ghost)
    if big:
        header = struct.pack("<2sHHHQ", b"II", 43, 8, 0, position)
    else:
        header = struct.pack("<2sHI", b"II", 42, position)
    packed = [header, ghost]
    directories = _directories(levels, starts)
    for number, directory in enumerate(directories, start=1):
        last = number == len(directories)
        packed.append(_packed(directory, position, big, last))
        position += len(packed[-1])
    return b"".join(packed)


def _directories(levels: Sequence[Level], starts: Sequence[int]) -> list[Directory]:
    directories = []
    for number, (level, start) in enumerate(zip(levels, starts, strict=True)):
        parts = [level.directory, *([level.mask] if level.mask else [])]
        step = len(parts)
        offsets = level.tiles.offsets + start
        sizes = level.tiles.sizes
        for part, directory in enumerate(parts):
            kind = (REDUCED if number else 0) + (MASK if part else 0)
            directories.append(
                {
                    tag: field
                    for tag, field in directory.items()
                    if tag not in (_STRIP_OFFSETS, _ROWS_PER_STRIP, _STRIP_BYTE_COUNTS)
                }
                | {
                    SUBFILE_TYPE: _uint32(kind),
                    IMAGE_WIDTH: _uint32(level.width),
                    IMAGE_LENGTH: _uint32(level.height),
                    TILE_WIDTH: _uint16(level.tile_width),
                    TILE_OFFSETS: _offsets(offsets[part::step]),
                    TILE_BYTE_COUNTS: _uint32(*sizes[part::step]),
                }
            )
    return directories


def _packed(directory: Directory, position: int, big: bool, last: bool) -> bytes:
    """Return a directory, followed by the values that do not fit into its entries."""
    counts, offsets, inline = ("Q", "Q", 8) if big else ("H", "I", 4)
    entry = struct.calcsize("<HH") + 2 * inline
    room = struct.calcsize("<" + counts) + len(directory) * entry + inline
    entries = [struct.pack("<" + counts, len(directory))]
    behind = b""
    for tag, field in sorted(directory.items()):
        kind, value = field.type, field.value
        if kind == _UINT64 and not big:
            kind = _UINT32
            value = numpy.frombuffer(value, "<u8").astype("<u4").tobytes()
        if len(value) > inline:
            behind += b"\0" * (-(position + room + len(behind)) % 8)
            where = position + room + len(behind)
            behind += value
            value = struct.pack("<" + offsets, where)
        entries.append(struct.pack("<HH" + offsets, tag, kind, field.count))
        entries.append(value.ljust(inline, b"\0"))
    behind += b"\0" * (-(position + room + len(behind)) % 8)
    following = 0 if last else position + room + len(behind)
    return b"".join((*entries, struct.pack("<" + offsets, following), behind))


def _uint16(number: int) -> Field:
    return Field(_UINT16, 1, struct.pack("<H", number))


def _uint32(*numbers: int) -> Field:
    return Field(_UINT32, len(numbers), numpy.array(numbers, "<u4").tobytes())


def _offsets(numbers: numpy.ndarray) -> Field:
    return Field(_UINT64, len(numbers), numbers.astype("<u8").tobytes())


def _exactly(file: BinaryIO, position: int, size: int) -> bytes:
    # No value can be larger than the file, whatever its size claims.
    file.seek(0, 2)
    if size > file.tell() - position:
        raise NotATiff("it ends within a directory")
    file.seek(position)
    return file.read(size)


def tiles(structure: Structure, file: BinaryIO) -> Iterator[bytes]:
    """Yield the first image's tiles as they are stored, row by row."""
    offsets = structure.numbers(0, TILE_OFFSETS)
    sizes = structure.numbers(0, TILE_BYTE_COUNTS)
    for offset, size in zip(offsets.tolist(), sizes.tolist(), strict=True):
        yield _exactly(file, offset, size)


def ends_of_blocks(file: BinaryIO, max_bytes: int) -> Iterator[bytes]:
    """Yield the last bytes of each tile or strip of the first image.

    Args:
        max_bytes: number of bytes of a block to yield at most.

    Raises:
        NotATiff: the file is not a TIFF, or ends early.
    """
    structure = read(file)
    tiled = TILE_OFFSETS in structure.directories[0]
    tags = (
        (TILE_OFFSETS, TILE_BYTE_COUNTS)
        if tiled
        else (_STRIP_OFFSETS, _STRIP_BYTE_COUNTS)
    )
    offsets, sizes = (structure.numbers(0, tag).tolist() for tag in tags)
    for offset, size in zip(offsets, sizes, strict=False):
        length = min(size, max_bytes)
        yield _exactly(file, offset + size - length, length)


@dataclass(frozen=True)
class _Blocks:
    """How an image is divided into tiles or strips.

    Attributes:
        tags: tags of the blocks' offsets and of their sizes in bytes.
        width: width of a block, in pixels.
        height: height of a block, in pixels.
        last_height: height of the blocks in the last row, in pixels.
    """

    tags: tuple[int, int]
    width: int
    height: int
    last_height: int


def is_plain_and_whole(path: Path) -> bool:
    """Return whether an image is uncompressed and the file has every pixel of it.

    An uncompressed mask may lack pixels, so no image that has one counts.
    """
    try:
        with path.open("rb") as file:
            structure = read(file)
            length = file.seek(0, 2)
    except (NotATiff, OSError):
        return False
    if not structure.directories or structure.number(0, COMPRESSION, 1) != 1:
        return False
    if any(
        structure.number(index, SUBFILE_TYPE) & MASK
        and structure.number(index, COMPRESSION, 1) == 1
        for index in range(1, len(structure.directories))
    ):
        return False
    width, height = (structure.number(0, tag) for tag in (IMAGE_WIDTH, IMAGE_LENGTH))
    if not width or not height:
        return False
    blocks = _blocks(structure, width, height)
    if not blocks.width or not blocks.height:
        return False
    offsets, counts = (structure.numbers(0, tag).astype("f8") for tag in blocks.tags)
    planes, row_bytes = _planes_and_row_bytes(structure, blocks.width)
    in_plane = -(-width // blocks.width) * -(-height // blocks.height)
    # Check the numbers before memory is allocated for them: they may be anything.
    if not len(offsets) == len(counts) == in_plane * planes > 0:
        return False
    rows = numpy.full(in_plane, blocks.height)
    rows[-1] = blocks.last_height
    sizes = numpy.tile(rows, planes) * float(row_bytes)
    stored = (counts >= sizes) & (offsets > 0) & (offsets + sizes <= length)
    return bool(stored.all())


def _blocks(structure: Structure, width: int, height: int) -> _Blocks:
    """Return how the first image, of this size in pixels, is divided."""
    if TILE_OFFSETS in structure.directories[0]:
        across, down = (structure.number(0, tag) for tag in (TILE_WIDTH, TILE_LENGTH))
        return _Blocks((TILE_OFFSETS, TILE_BYTE_COUNTS), across, down, down)
    rows = min(max(structure.number(0, _ROWS_PER_STRIP, height), 1), height)
    last = height - (height - 1) // rows * rows
    return _Blocks((_STRIP_OFFSETS, _STRIP_BYTE_COUNTS), width, rows, last)


def _planes_and_row_bytes(structure: Structure, width: int) -> tuple[int, int]:
    """Return the number of planes, and the size of a row of a block in one of them."""
    bits, samples, planes = (
        structure.number(0, tag, 1)
        for tag in (BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL, _PLANAR_CONFIGURATION)
    )
    if planes == 2:
        planes, samples = samples, 1
    return planes, -(-width * samples * bits // 8)


def mask_directory(tile_height: int) -> Directory:
    """Return the directory of a mask: one bit a pixel, deflated, in tiles."""
    ones = {tag: _uint16(1) for tag in (258, 277, 284, 339)}
    return ones | {
        COMPRESSION: _uint16(8),
        _PHOTOMETRIC: _uint16(4),
        TILE_LENGTH: _uint16(tile_height),
    }
