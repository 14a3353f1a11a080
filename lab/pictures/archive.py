"""Make a collection of images in a bucket, convert it and make its catalog."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bucket import Bucket, S3Endpoint
from lab.pictures import sheets
from lab.support import postgres
from lab.support.postgres import ARCHIVE
from pool import personal
from pool.personal import PersonalPool
from state.project import PROJECT

MAPS, COGS = "maps", "cogs"
DATABASE = "maps"
_COLLECTIONS = """\
[default]
license = "CC0-1.0"
providers = [{ name = "The county's archive", roles = ["producer", "host"] }]

["maps/1954"]
title = "Topographic maps, 1954"
description = "All sheets of the county but one, which was lost."

["aerial/1937"]
title = "Aerial photographs, 1937"
description = "Two flight lines over the middle of the county, from west to east."
"""
# If these are set, GDAL 3.6 does not look at GDAL_CURL_CA_BUNDLE.
_AUTHORITIES = ("SSL_CERT_FILE", "CURL_CA_BUNDLE")
# A run of some thirty small images takes much less time, unless something is wrong.
_PATIENCE_SECONDS = 500


@dataclass(frozen=True)
class Archive:
    """The buckets of a collection and its catalog.

    Attributes:
        folder: for local files.
        environment: the variables by which rclone, GDAL and psql reach the archive.
    """

    pool: PersonalPool
    folder: Path
    environment: dict[str, str]


@contextmanager
def running_archive(folder: Path) -> Iterator[Archive]:
    """Make an archive whose S3 server and database run during a ``with`` block."""
    with (
        postgres.running() as database,
        personal.running_pool(folder / "pool", print) as pool,
    ):
        database.create_database(DATABASE)
        path = pool.condor.environment["PATH"]
        environment = {
            **pool.condor.environment,
            **pool.s3.client_environment,
            **_gdal_environment(pool),
            "PGHOST": str(database.socket),
            "PGDATABASE": DATABASE,
            "PGUSER": ARCHIVE,
            # Programs of this environment, and psql.
            "PATH": os.pathsep.join(
                [str(Path(sys.executable).parent), str(database.programs), path]
            ),
            "RCLONE_LOG_LEVEL": "ERROR",
        }
        inherited = {k: v for k, v in os.environ.items() if k not in _AUTHORITIES}
        archive = Archive(pool, folder, inherited | environment)
        _fill(archive)
        yield archive


def _gdal_environment(pool: PersonalPool) -> dict[str, str]:
    """Return the variables that docs/catalog/tileindex.md names."""
    keys = pool.s3
    return {
        "AWS_S3_ENDPOINT": keys.endpoint,
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_ACCESS_KEY_ID": keys.access_key.read_text().strip(),
        "AWS_SECRET_ACCESS_KEY": keys.secret_key.read_text().strip(),
        "GDAL_CURL_CA_BUNDLE": str(keys.ca_certs),
        "GDAL_HTTP_MULTIRANGE": "SERIAL",
    }


def _fill(archive: Archive) -> None:
    keys = archive.pool.s3
    store = S3Endpoint(
        keys.endpoint, keys.access_key, keys.secret_key, ca_certs=keys.ca_certs
    )
    maps = Bucket(store, MAPS)
    maps.create()
    Bucket(store, COGS).create()
    print("drawing the images")
    rows = []
    for image in sheets.images():
        path = archive.folder / "image.tif"
        sheets.write(image, path)
        maps.upload(image.key, path)
        path.unlink()
        rows.append(f"{MAPS}/{image.key},{sheets.bands(image)}\n")
    maps.write("county-raw.csv", "".join(rows).encode())
    collections = archive.folder / "collections.toml"
    collections.write_text(_COLLECTIONS)
    print("converting them, and making the catalog")
    _pipeline(
        archive,
        *("launch", "--every", "1", "-e", keys.endpoint),
        *("-a", str(keys.access_key), "-s", str(keys.secret_key)),
        *("--ca-certs", str(keys.ca_certs)),
        *("--input-bucket", MAPS, "--output-bucket", COGS),
        *("--catalog", "all", "--collections", str(collections)),
        *("--datetime-from", r"/(?P<year>\d{4})/"),
        # STAC Browser draws COGs, but cannot decompress Zstandard.
        *("--profile", "deflate"),
    )
    _pipeline(archive, "status", "--watch")
    # It makes the products that the poll has not made, and fails if one cannot be made.
    _pipeline(archive, "catalog")
    _pipeline(archive, "stop", "--launch")


def _pipeline(archive: Archive, *words: str) -> None:
    subprocess.run(
        [sys.executable, str(PROJECT / "cog_pipeline.py"), *words],
        cwd=archive.folder,
        env=archive.environment,
        stdin=subprocess.DEVNULL,
        timeout=_PATIENCE_SECONDS,
        check=True,
    )
