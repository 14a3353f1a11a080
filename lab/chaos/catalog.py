"""Check the catalog that two launches have made together."""

import gzip
import hashlib
import json
import posixpath
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote

import duckdb
import pyogrio

from bucket import Bucket
from post.reconcile import load_outcome
from state.keys import CATALOG_FOLDER
from state.rows import load_rows
from state.run import Run, settings_of

PRODUCTS = "checksums,geoparquet,mosaicjson,stac,tileindex"
_MAX_BYTES = 2**30
_SUM = re.compile(r"([0-9a-f]{64}) [ *](?:\.\./)+(.*)")


def check_catalog(cogs: Bucket, runs: Iterable[Run]) -> list[str]:
    """Return a sentence for each breach of what the catalog promises.

    Each product names the COG of each row that was processed, and no other.
    """
    expected = {key for run in runs for key in _processed(run)}
    readers: Mapping[str, Callable[[Bucket], set[str]]] = {
        "checksums": _in_checksums,
        "geoparquet": _in_parquet,
        "mosaicjson": _in_mosaics,
        "stac": _in_stac,
        "tileindex": _in_tile_index,
    }
    breaches = []
    for name, read in readers.items():
        found = read(cogs)
        if missing := sorted(expected - found):
            breaches.append(f"{name} lacks {len(missing)} COGs, such as {missing[0]}")
        if others := sorted(found - expected):
            breaches.append(f"{name} has {len(others)} others, such as {others[0]}")
    return [*breaches, *_wrong_checksums(cogs)]


def _processed(run: Run) -> Iterable[str]:
    launch, failed = settings_of(run), {*load_outcome(run).failed_rows}
    for row in load_rows(run):
        if row.line not in failed and row.reason is None:
            yield launch.cog_key(row.key)


def _contents(cogs: Bucket, prefix: str, suffix: str) -> Iterable[tuple[str, bytes]]:
    for stored in cogs.list(prefix):
        if stored.key.endswith(suffix):
            yield stored.key, cogs.read(stored.key, _MAX_BYTES)


def _sums(cogs: Bucket) -> Iterable[tuple[str, str]]:
    for _, content in _contents(cogs, CATALOG_FOLDER, "/SHA256SUMS"):
        for line in content.decode().splitlines():
            match = _SUM.fullmatch(line)
            assert match, line  # noqa: S101
            if match[2].endswith(".tif"):
                yield match[2], match[1]


def _in_checksums(cogs: Bucket) -> set[str]:
    return {key for key, _ in _sums(cogs)}


def _wrong_checksums(cogs: Bucket) -> Iterable[str]:
    for key, expected in _sums(cogs):
        if hashlib.sha256(cogs.read(key, _MAX_BYTES)).hexdigest() != expected:
            yield f"the catalog has another checksum than {key}"


def _in_stac(cogs: Bucket) -> set[str]:
    found = set()
    for key, content in _contents(cogs, CATALOG_FOLDER, ".json"):
        if "/items/" in key:
            href = unquote(json.loads(content)["assets"]["cog"]["href"])
            found.add(posixpath.normpath(posixpath.join(posixpath.dirname(key), href)))
    return found


def _in_mosaics(cogs: Bucket) -> set[str]:
    found = set()
    for _, content in _contents(cogs, "mosaics/", ".json.gz"):
        tiles = json.loads(gzip.decompress(content))["tiles"]
        found |= {_key(cogs, url) for urls in tiles.values() for url in urls}
    return found


def _in_parquet(cogs: Bucket) -> set[str]:
    query = "SELECT assets.cog.href FROM read_parquet(?)"
    return {
        _key(cogs, href)
        for file in _files(cogs, "/items.parquet")
        for (href,) in duckdb.execute(query, [str(file)]).fetchall()
    }


def _in_tile_index(cogs: Bucket) -> set[str]:
    return {
        location.removeprefix(f"/vsis3/{cogs.name}/")
        for file in _files(cogs, ".gti.gpkg")
        for location in pyogrio.raw.read(file, columns=["location"])[3][0]
    }


def _files(cogs: Bucket, suffix: str) -> Iterable[Path]:
    for key, content in _contents(cogs, CATALOG_FOLDER, suffix):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / posixpath.basename(key)
            file.write_bytes(content)
            yield file


def _key(cogs: Bucket, url: str) -> str:
    return url.removeprefix(f"s3://{cogs.name}/")
