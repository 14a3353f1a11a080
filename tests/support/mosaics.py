"""COGs in a bucket, and programs that read what the catalog says of them."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy
import pytest
import rasterio

from bucket import Bucket, S3Endpoint
from catalog.collections import Collection
from catalog.record import Dates, Record, to_line
from catalog.records import Records, collect
from catalog.target import Target
from node import result
from tests.support import catalog, rasters, rclone
from tests.support.node import run_node

# An image of ten metres in Wisconsin.
record_of = partial(
    catalog.record,
    width=700,
    height=600,
    bounds=(300000.0, 4794000.0, 307000.0, 4800000.0),
    transform=(10.0, 0.0, 300000.0, 0.0, -10.0, 4800000.0),
    gsd=10.0,
    bbox=(-89.5, 43.3, -89.4, 43.35),
    bands_info=tuple(
        result.Band(data_type="uint8", color_interpretation=color, valid_percent=100.0)
        for color in ("red", "green", "blue")
    ),
    overviews=1,
    cog=result.Cog(bytes=1000, md5="0" * 32, sha256="0" * 64),
    jpeg=result.Jpeg(bytes=100, md5="0" * 32, sha256="1" * 64),
    collection="1937",
    manifest="batch-raw.csv",
    run="run-1",
    dates=Dates("1937-01-01T00:00:00Z", "1937-12-31T23:59:59Z"),
)


@dataclass(frozen=True)
class Served:
    """A bucket that GDAL reads.

    Attributes:
        environment: the variables by which GDAL reaches it.
        directory: for local files.
    """

    bucket: Bucket
    environment: dict[str, str]
    directory: Path

    def path(self, key: str) -> str:
        return f"/vsis3/{self.bucket.name}/{key}"

    def target(self, scratch: Path, public_url: str = "") -> Target:
        collection = Collection("1937", "1937", "Maps of 1937")
        scratch.mkdir(exist_ok=True)
        return Target(self.bucket, "catalog/", collection, scratch, public_url)

    def convert(self, key: str, bands: int = 3, *options: str, **raster) -> Record:
        """Convert a new raster as a node does, and upload its COG and JPEG.

        Args:
            options: options of the node.
            raster: how to write the raster, or the file itself as ``file``.
        """
        folder = self.directory / key.replace("/", "-")
        folder.mkdir()
        image = folder / "image.tif"
        if file := raster.pop("file", None):
            file.rename(image)
        else:
            rasters.write(image, bands, **raster)
        done = run_node(folder, "image.tif", str(bands), *options)
        assert done.returncode == 0, done.stderr
        written = result.read((folder / "result.json").read_bytes())
        record = replace(record_of(key), result=written)
        self.bucket.upload(key, image)
        self.bucket.upload(record.jpeg_key, folder / "image.jpg")
        return record

    def pixels(self, record: Record) -> numpy.ndarray:
        """Return the pixels of a COG, of shape (bands, rows, columns)."""
        with rasterio.open(self.path(record.key)) as cog:
            return cog.read()

    def run(self, *command: str, **environment: str) -> str:
        """Run one of GDAL's programs, and return what it prints."""
        if not shutil.which(command[0]):
            pytest.skip(f"no {command[0]} is installed: it is in Debian's gdal-bin")
        done = subprocess.run(
            command,
            # No other variable, since some of them change which authorities it trusts.
            env={"PATH": os.environ["PATH"]} | self.environment | environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr


@contextmanager
def served(
    directory: Path, store: S3Endpoint, *, by: str = "SeaweedFS"
) -> Iterator[Served]:
    """Let the GDAL of this process reach a new bucket during a ``with`` block.

    Args:
        directory: for local files.
        store: a running SeaweedFS.
        by: ``SeaweedFS``, or ``rclone`` for a server of that with the same keys.
    """
    with ExitStack() as stack:
        if by == "rclone":
            data = directory / "server"
            data.mkdir()
            store = stack.enter_context(rclone.running(data, store))
        bucket = Bucket(store, f"cogs-{secrets.token_hex(4)}")
        bucket.create()
        environment = {
            "AWS_S3_ENDPOINT": store.endpoint,
            "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
            "AWS_ACCESS_KEY_ID": store.access_key.read_text().strip(),
            "AWS_SECRET_ACCESS_KEY": store.secret_key.read_text().strip(),
        }
        if by == "SeaweedFS":
            # Tests replace objects, and GDAL remembers those that it has read. It needs
            # its memory to read a GeoPackage from rclone, which answers ranges oddly.
            environment["CPL_VSIL_CURL_NON_CACHED"] = "/vsis3/"
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        try:
            yield Served(bucket, environment, directory)
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


def records_of(records: Iterable[Record], directory: Path) -> Records:
    """Return records as a product gets them."""
    lines = ((to_line(record), False) for record in records)
    return collect(lines, directory / "records.jsonl")


def masked_pair(s3: Served, directory: Path) -> tuple[Record, Record]:
    """Convert two images of one place; the later one has a mask over its left half.

    Returns:
        The later one, and the one that shows where it is masked.
    """
    file = rasters.write(directory / "above.tif", 3, nodata=0)
    with rasterio.open(file, "r+") as raster:
        pixels = 255 - raster.read()
        pixels[:, :, :350] = 0
        raster.write(pixels)
    # JPEG has a mask in place of a value for no data.
    jpeg = ("--profile", "jpeg")
    above = s3.convert("masked/above.tif", 3, *jpeg, file=file)
    year = Dates("1990-01-01T00:00:00Z", "1990-12-31T23:59:59Z")
    below = s3.convert("masked/below.tif", 3, *jpeg)
    return replace(above, dates=year), below
