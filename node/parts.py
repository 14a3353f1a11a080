"""A COG that is too large for one upload, cut into parts.

S3 takes 5 GiB at once at most. What is larger leaves the node as files that are
uploaded each by itself and joined in the bucket, on the access point's word.
"""

import hashlib
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.errors import OutputTooLarge

_BLOCK = 2**20


@dataclass(frozen=True)
class Limits:
    """What a node may send back; all sizes are in bytes.

    Attributes:
        largest: of a file that is sent whole.
        most_parts: how many parts a COG may be cut into, none if 0.
        part: the size of each of them but the last, which may be smaller.
    """

    largest: int
    most_parts: int = 0
    part: int = 0

    def __str__(self) -> str:
        return f"{self.largest}:{self.most_parts}:{self.part}"


def read_limits(text: str) -> Limits:
    """The reverse of ``str``; raises ValueError."""
    if not re.fullmatch(r"\d{1,18}:\d{1,4}:\d{1,18}", text, re.ASCII):
        raise ValueError(f"{text!r}: write LARGEST:MOST_PARTS:PART, sizes in bytes")
    return Limits(*map(int, text.split(":")))


def part_name(number: int) -> str:
    """The file of a part, counted from 1; their names sort in the parts' order."""
    return f"cog.part{number:04}"


def check(cog: Path, jpeg: Path, limits: Limits) -> None:
    """Raise OutputTooLarge unless both files can be uploaded, whole or in parts."""
    size = cog.stat().st_size
    most = max(limits.largest, limits.most_parts * limits.part)
    if size > most:
        raise OutputTooLarge(
            f"its COG has {size:,} bytes; of an image of this size {most:,} at most "
            "are expected: choose a --profile that compresses more, or upload the "
            "image less compressed"
        )
    size = jpeg.stat().st_size
    if size > limits.largest:
        raise OutputTooLarge(
            f"its JPEG has {size:,} bytes, and {limits.largest:,} at most can be "
            "uploaded at once: scale it down with --jpeg-max-size"
        )


def describe(path: Path, part: int) -> dict[str, Any]:
    """Size in bytes and MD5 of a file and of each of the parts it is cut into."""
    size = path.stat().st_size
    whole, parts = _md5(), []
    with path.open("rb") as file:
        for begin in range(0, size, part):
            end = min(begin + part, size)
            md5 = _md5()
            while block := file.read(min(_BLOCK, end - file.tell())):
                whole.update(block)
                md5.update(block)
            parts.append({"bytes": end - begin, "md5": md5.hexdigest()})
    return {"bytes": size, "md5": whole.hexdigest(), "parts": parts}


def put_in_place_of(image: Path, cog: Path, part: int) -> None:
    """Leave the parts of a COG beside where the image was; both are used up.

    They are taken off the COG's end one after the other, so that there need not be
    room for more than one of them.

    Raises:
        OSError: the disk is full, or fails; no part is left then.
    """
    # Before all else: an image that is a COG already may be the same file, and
    # what is left of it must not be taken for the COG.
    image.unlink()
    with tempfile.TemporaryDirectory(dir=cog.parent) as made:
        with cog.open("rb+") as file:
            for begin in reversed(range(part, cog.stat().st_size, part)):
                file.seek(begin)
                with Path(made, part_name(begin // part + 1)).open("wb") as end:
                    shutil.copyfileobj(file, end, _BLOCK)
                file.truncate(begin)
        cog.replace(Path(made, part_name(1)))
        for done in sorted(Path(made).iterdir()):
            done.replace(image.parent / done.name)


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)
