"""The multipart upload of a COG that is too large for one upload.

S3 takes at most 5 GiB at once. A larger COG leaves the node as files that are uploaded
one by one. The access point completes the upload, which joins them in the bucket.
"""

import hashlib
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from node.errors import OutputTooLarge
from node.result import Cog, Part

# Small enough to stay in a processor's cache for the next hash.
_BLOCK = 2**18


@dataclass(frozen=True)
class UploadLimits:
    """Limits of what a node may send back.

    Attributes:
        max_size: size of a file that is sent whole, in bytes.
        max_parts: number of parts of a COG; 0 if it must be sent whole.
        part_size: size of each part in bytes; the last one may be smaller.
    """

    max_size: int
    max_parts: int = 0
    part_size: int = 0

    def __str__(self) -> str:
        return f"{self.max_size}:{self.max_parts}:{self.part_size}"


def read_limits(text: str) -> UploadLimits:
    """Return the limits that ``str`` wrote; raises ValueError."""
    if not re.fullmatch(r"\d{1,18}:\d{1,4}:\d{1,18}", text, re.ASCII):
        raise ValueError(f"{text!r}: write MAX_SIZE:MAX_PARTS:PART_SIZE in bytes")
    return UploadLimits(*map(int, text.split(":")))


def part_name(number: int) -> str:
    """Return the file name of a part, counted from 1; names sort as the parts do."""
    return f"cog.part{number:04}"


def check(cog: Path, jpeg: Path, limits: UploadLimits) -> None:
    """Raise OutputTooLarge unless both files can be uploaded, whole or in parts."""
    size = cog.stat().st_size
    max_size = max(limits.max_size, limits.max_parts * limits.part_size)
    if size > max_size:
        raise OutputTooLarge(
            f"its COG has {size:,} bytes; an image of this size may have at most "
            f"{max_size:,}: choose a --profile that compresses more, or upload the "
            "image less compressed"
        )
    size = jpeg.stat().st_size
    if size > limits.max_size:
        raise OutputTooLarge(
            f"its JPEG has {size:,} bytes, and {limits.max_size:,} at most can be "
            "uploaded at once: scale it down with --jpeg-max-size"
        )


def describe(path: Path, part_size: int = 0) -> Cog:
    """Return the size and the checksums of a file, and those of its parts.

    Args:
        part_size: in bytes; 0 if the file is not split.
    """
    size = path.stat().st_size
    md5, sha256, parts = _md5(), hashlib.sha256(), []
    with path.open("rb") as file:
        for begin in range(0, size, part_size or size or 1):
            end = min(begin + part_size, size) if part_size else size
            part_md5 = _md5()
            while block := file.read(min(_BLOCK, end - file.tell())):
                md5.update(block)
                sha256.update(block)
                if part_size:
                    part_md5.update(block)
            if part_size:
                parts.append(Part(bytes=end - begin, md5=part_md5.hexdigest()))
    return Cog(
        bytes=size,
        md5=md5.hexdigest(),
        sha256=sha256.hexdigest(),
        parts=tuple(parts),
    )


def replace_by_parts(image: Path, cog: Path, part_size: int) -> None:
    """Replace an image by the parts of its COG, which is split.

    The parts are cut off the end of the COG one by one, so that the disk needs room
    for only one of them.

    Raises:
        OSError: the disk is full or fails; no part is left then.
    """
    # First: an image that is a COG already may be the same file, and the rest of it
    # must not be taken for the COG.
    image.unlink()
    with tempfile.TemporaryDirectory(dir=cog.parent) as folder:
        with cog.open("rb+") as file:
            for begin in reversed(range(part_size, cog.stat().st_size, part_size)):
                file.seek(begin)
                name = part_name(begin // part_size + 1)
                with Path(folder, name).open("wb") as part:
                    shutil.copyfileobj(file, part, _BLOCK)
                file.truncate(begin)
        cog.replace(Path(folder, part_name(1)))
        for part_path in sorted(Path(folder).iterdir()):
            part_path.replace(image.parent / part_path.name)


def _md5() -> "hashlib._Hash":
    return hashlib.md5(usedforsecurity=False)
