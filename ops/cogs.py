"""Check by ranges whether an object of a bucket is a valid COG."""

import os
import re
from functools import lru_cache
from itertools import count
from typing import Any

import rasterio
from rasterio.errors import RasterioError
from rio_cogeo.cogeo import cog_validate

from bucket import Bucket, BucketError

# The header of most COGs is in one block.
_BLOCK = 16384  # bytes
_BLOCKS_IN_MEMORY = 64
# The directories of a COG of 10 TB take less.
_MAX_READ = 64 * 2**20  # bytes
# A COG of 10 TB has fewer. rio-cogeo visits all tiles that are empty.
_MAX_TILES = 10**7
# The exceptions of rasterio and rio-cogeo for damaged files.
_UNREADABLE = (RasterioError, ValueError, ArithmeticError, LookupError, TypeError)
# How they name our file.
_PLACE = re.compile(r"'?(/vsiriopener_\w+/)?\d+\.tif'?:? ?", re.ASCII)
_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# GDAL looks for no files beside the object.
_GDAL = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}
_numbers = count()


def cog_fault(bucket: Bucket, key: str, size: int) -> str | None:
    """Return why an object is not a valid COG; None if it is one.

    Most COGs take one request of 16 kB. Pixels are not read.

    Args:
        size: size of the object, in bytes.

    Raises:
        ObjectMissing, ObjectUnreadable: it cannot be read.
        BucketError: the server does not answer.
    """
    remote = _Remote(bucket, key, size)
    # No other driver may open it: many follow what a file refers to.
    if not remote.content(0, 4).startswith(_SIGNATURES):
        return "it is not a TIFF"
    # rasterio takes an object with a path and a file system, as fsspec has it. So the
    # keys, the certificates and the proxy are those of all other requests.
    source: Any = remote
    try:
        with rasterio.Env(**_GDAL), rasterio.open(source) as raster:
            fault = _tiles_fault(raster, size)
        if fault is None:
            _, faults, _ = cog_validate(source, config=_GDAL, quiet=True)
            fault = "; ".join(faults) or None
    except _UNREADABLE as error:
        fault = f"its header cannot be read: {_PLACE.sub('', str(error))}"
    if remote.error:
        raise remote.error
    if remote.left <= 0:
        return "its directories are too long: is it damaged?"
    return fault


def _tiles_fault(raster: Any, size: int) -> str | None:
    """Return what is wrong with the tiles of a raster in a file of a size in bytes."""
    height, width = raster.block_shapes[0]
    columns, rows = -(-raster.width // width), -(-raster.height // height)
    if columns * rows > _MAX_TILES:
        return f"it claims {columns * rows} tiles: is it damaged?"
    offset, length = (
        int(
            raster.get_tag_item(f"BLOCK_{name}_{columns - 1}_{rows - 1}", "TIFF", 1)
            or 0
        )
        for name in ("OFFSET", "SIZE")
    )
    if offset + length <= size:
        return None
    return f"its last tile ends at byte {offset + length}, but it has {size} bytes"


class _Remote:
    """An object of a bucket as the only file of a file system."""

    def __init__(self, bucket: Bucket, key: str, size: int) -> None:
        # rasterio knows open files by their paths.
        self.path = f"{next(_numbers)}.tif"
        self.fs = self
        self.size = size
        # How many bytes may still be read, and why a read failed.
        self.left = _MAX_READ
        self.error: BucketError | None = None
        self._bucket = bucket
        self._key = key
        self._block = lru_cache(_BLOCKS_IN_MEMORY)(self._read_block)

    def open(self, path: str, mode: str = "rb") -> "_File":
        if path != self.path:
            raise FileNotFoundError(path)
        return _File(self)

    def content(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes, fewer at the end of the object."""
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        first, last = offset // _BLOCK, (end - 1) // _BLOCK
        blocks = b"".join(map(self._block, range(first, last + 1)))
        return blocks[offset - first * _BLOCK : end - first * _BLOCK]

    def _read_block(self, number: int) -> bytes:
        self.left -= _BLOCK
        return self._bucket.read_range(self._key, number * _BLOCK, _BLOCK)


class _File:
    """An open file of GDAL, which takes no exceptions."""

    def __init__(self, remote: _Remote) -> None:
        self._remote = remote
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        remote = self._remote
        if remote.error or remote.left <= 0:
            return b""
        try:
            content = remote.content(self._position, min(max(size, 0), _MAX_READ))
        except BucketError as error:
            remote.error = error
            return b""
        self._position += len(content)
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        starts = {os.SEEK_CUR: self._position, os.SEEK_END: self._remote.size}
        self._position = starts.get(whence, 0) + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        pass

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
