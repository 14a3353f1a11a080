"""Draw terminals in which people use the catalog: DuckDB, psql, sha256sum, bagit."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from lab.pictures import terminal
from lab.pictures.archive import Archive

_FIND = """\
import duckdb

# All images of a place, of all collections.
duckdb.sql(\"\"\"
    SELECT title, year(start_datetime) AS year, round(gsd, 1) AS gsd, assets.cog.href
    FROM 'catalog/*/items.parquet'
    WHERE bbox.xmin <= -89.38 AND bbox.xmax >= -89.38
      AND bbox.ymin <= 43.1 AND bbox.ymax >= 43.1
    ORDER BY year
\"\"\").show()
"""
_AT_A_PLACE = """\
psql -c "
  SELECT name, start_date::date AS since, round(gsd::numeric, 1) AS gsd,
    round(ST_Area(footprint::geography) / 1e6) AS km2, location
  FROM cog_pipeline_images
  WHERE ST_Intersects(footprint, ST_SetSRID(ST_Point(-89.38, 43.1), 4326))
  ORDER BY start_date\""""
_OF_COLLECTIONS = """\
psql -c "
  SELECT collection, count(*) AS images, pg_size_pretty(sum(bytes)) AS size,
    round(ST_Area(ST_Union(footprint)::geography) / 1e6) AS km2
  FROM cog_pipeline_images
  GROUP BY collection\""""
_CHECKS = (
    "rclone copy pool:cogs archive",
    "cd archive/catalog/aerial--1937",
    "sha256sum --check SHA256SUMS | head -n 5",
    "# Damage one byte of an image, as a disk may do, and check again.",
    "echo -n X | dd of=../../aerial/1937/line-1-photo-3.tif bs=1 seek=9999 "
    "conv=notrunc status=none",
    "sha256sum --check --quiet SHA256SUMS",
    "cd ../../..",
    "rclone copy pool:cogs/catalog/aerial--1937/bag bag",
    "rclone copy pool:cogs/aerial/1937 bag/data/aerial/1937",
    "bagit.py --validate bag 2>&1 | tail -n 1",
)


def geoparquet(archive: Archive, target: Path) -> Iterable[Path]:
    """Draw a query in DuckDB."""
    folder = archive.folder / "geoparquet"
    folder.mkdir()
    (folder / "find.py").write_text(_FIND)
    catalog = "rclone copy pool:cogs/catalog catalog --include items.parquet"
    commands = (catalog, "cat find.py", "python3 find.py")
    yield _draw(archive, commands, folder, target / "geoparquet.svg")


def postgis(archive: Archive, target: Path) -> Iterable[Path]:
    """Draw questions to the table of the images."""
    commands = (_AT_A_PLACE, _OF_COLLECTIONS)
    yield _draw(archive, commands, archive.folder, target / "postgis.svg")


def checksums(archive: Archive, target: Path) -> Iterable[Path]:
    """Draw how a damaged image is found, and how a bag is validated."""
    folder = archive.folder / "checksums"
    folder.mkdir()
    yield _draw(archive, _CHECKS, folder, target / "checksums.svg")


def _draw(
    archive: Archive, commands: Sequence[str], folder: Path, picture: Path
) -> Path:
    shown = terminal.session(commands, folder, archive.environment)
    picture.write_text(terminal.to_svg(shown, picture.stem))
    return picture
