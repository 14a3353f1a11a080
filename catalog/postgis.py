"""The tile index of a collection as rows of a table in PostgreSQL with PostGIS.

One table has the images of all buckets and collections. The connection is libpq's
own: PGSERVICE, PGHOST and the like, ~/.pg_service.conf, ~/.pgpass. The pipeline stores
nothing about it, and no message has a password. docs/catalog/postgis.md is for users.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import orjson
import psycopg
import shapely
from psycopg import errors, sql
from shapely.errors import GEOSException

from catalog.record import Record
from catalog.records import Records
from catalog.target import Target
from state.errors import PipelineError
from state.text import one_line

TABLE = "cog_pipeline_images"
# Types and comments of the columns, in the order of ``_row``.
_COLUMNS: Mapping[str, tuple[str, str]] = {
    "bucket": ("text", "Output bucket"),
    "key": ("text", "Key of the COG in the bucket"),
    "location": ("text", "Where the COG is, as GDAL and MapServer name it"),
    "url": ("text", "Where the COG is, for S3 clients and browsers"),
    "src_srs": ("text", "CRS of the COG: a code such as EPSG:2056, or WKT2"),
    "name": ("text", "File name of the COG"),
    "catalog": ("text", "Prefix of the catalog in the bucket"),
    "collection": ("text", "Id of the collection in the catalog"),
    "bytes": ("bigint", "Size of the COG in bytes"),
    "start_date": ("timestamptz", "First moment at which the image can be taken"),
    "end_date": ("timestamptz", "Last moment at which the image can be taken"),
    "bands": ("bigint", "Number of bands"),
    "data_type": ("text", "Type of the pixels, as rasterio names it"),
    "gsd": ("double precision", "Ground sample distance in metres"),
    "width": ("bigint", "Width in pixels"),
    "height": ("bigint", "Height in pixels"),
    "manifest": ("text", "Key of the manifest that named the image"),
    "run": ("text", "Id of the run that converted the image"),
    "converted": ("timestamptz", "When that run began"),
    "footprint": ("geometry(MultiPolygon, 4326)", "Outline of the valid pixels"),
}
_COMMENT = "Cloud Optimized GeoTIFFs of cog_pipeline; a tile index for MapServer"
_MAX_BIGINT = 2**63 - 1
_BATCH = 1000  # records
# How long to wait for others: a writer of a million rows needs minutes.
_PATIENCE = "10min"
# How long the server may be silent.
_TIMEOUT = 30  # seconds
# Number of the advisory lock of the one who writes. Others take other numbers.
_LOCK = int.from_bytes(b"cog_pipe")
# People also put a whole connection string where the name of a database belongs.
_SECRET = re.compile(r"(?<=://)[^/\s@]*(?=@)|(?<=password=)\S+")

_Connection = psycopg.Connection[tuple[Any, ...]]
_PARTS = {
    "table": sql.Identifier(TABLE),
    "staged": sql.Identifier("pg_temp", "cog_pipeline_staged"),
    "of_collection": sql.SQL("bucket = %s AND catalog = %s AND collection = %s"),
    "names": sql.SQL(", ").join(map(sql.Identifier, _COLUMNS)),
    "columns": sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind))
        for name, (kind, _) in _COLUMNS.items()
    ),
    "old": sql.SQL(", ").join(sql.Identifier(TABLE, name) for name in _COLUMNS),
    "new": sql.SQL(", ").join(sql.Identifier("excluded", name) for name in _COLUMNS),
}
_CREATE = """
    CREATE TABLE IF NOT EXISTS {table}
    (bucket text, key text, PRIMARY KEY (bucket, key))
"""
_INDICES = """
    CREATE INDEX IF NOT EXISTS cog_pipeline_images_footprint
        ON {table} USING gist (footprint);
    CREATE INDEX IF NOT EXISTS cog_pipeline_images_collection ON {table} (collection);
    CREATE INDEX IF NOT EXISTS cog_pipeline_images_run ON {table} (run);
"""
_STAGE = """
    CREATE TEMPORARY TABLE IF NOT EXISTS {staged} ({columns}) ON COMMIT DROP;
    TRUNCATE {staged};
"""
# Rows that are the same already are left alone: a row that is written again leaves a
# dead one behind.
_UPSERT = """
    INSERT INTO {table} ({names}) SELECT {names} FROM {staged}
    ON CONFLICT (bucket, key) DO UPDATE SET ({names}) = ROW({new})
    WHERE ROW({old}) IS DISTINCT FROM ROW({new})
"""
# The planner knows nothing of rows that were written just now, and would compare each
# row with each.
_NO_NESTED_LOOPS = "SET LOCAL enable_nestloop = off"
# The catalog of another prefix in the bucket may have a collection of the same id. Rows
# of an earlier version have no prefix.
_REMOVE_OTHERS = """
    DELETE FROM {table} AS old
    WHERE bucket = %s AND (catalog = %s OR catalog IS NULL) AND collection = %s
    AND NOT EXISTS
    (SELECT FROM {staged} AS new WHERE new.bucket = old.bucket AND new.key = old.key)
"""
# An image that has moved to another collection has its row there.
_REMOVE = "DELETE FROM {table} WHERE {of_collection} AND key = %s"
_COUNT = "SELECT count(*) FROM {table} WHERE {of_collection}"


def write(records: Records, target: Target) -> None:
    """Bring the rows of a collection up to date, in one transaction.

    Other sessions see the old rows until all new ones are written.

    Raises:
        PipelineError: the database cannot be reached or refuses the rows.
    """
    collection = tuple(
        map(_clean, (target.bucket.name, target.root, target.collection.id))
    )
    with _connected() as connection:
        with _transaction(connection):
            was_ready = _make_ready(connection)
        with _transaction(connection):
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            whole = records.changed is None or not was_ready
            if not whole:
                _upsert(connection, records.changed_records, target)
                _remove(connection, records, collection)
                # Others may have emptied the table, or it is in another database now.
                ((rows,),) = connection.execute(_sql(_COUNT), collection)
                whole = rows < len(records)
            if whole:
                _upsert(connection, records, target)
                connection.execute(_NO_NESTED_LOOPS)
                connection.execute(_sql(_REMOVE_OTHERS), collection)


def check() -> None:
    """Raise PipelineError unless the table is in the database or can be made there."""
    with _connected() as connection, _transaction(connection, keep=False):
        _make_ready(connection)


@contextmanager
def _connected() -> Iterator[_Connection]:
    try:
        connection = psycopg.connect(
            "",
            autocommit=True,
            # Keys are Unicode, whatever PGCLIENTENCODING says.
            client_encoding="UTF8",
            fallback_application_name="cog_pipeline",
            # A server that does not answer must not keep a poll.
            connect_timeout=int(os.environ.get("PGCONNECT_TIMEOUT", _TIMEOUT)),
            tcp_user_timeout=_TIMEOUT * 1000,
        )
    except psycopg.Error as error:
        raise PipelineError(
            f"no connection to PostgreSQL: {_words(error)}; set PGSERVICE, or PGHOST, "
            "PGDATABASE and PGUSER, with the password in ~/.pgpass, so that "
            "'psql -c \"SELECT 1\"' works (docs/catalog/postgis.md)"
        ) from error
    with connection:
        database, role = connection.info.dbname, connection.info.user
        try:
            yield connection
        except psycopg.Error as error:
            raise PipelineError(_explain(error, database, role)) from error


@contextmanager
def _transaction(connection: _Connection, *, keep: bool = True) -> Iterator[None]:
    """Begin a transaction in which the names of PostGIS are known."""
    with connection.transaction(force_rollback=not keep):
        connection.execute("SELECT set_config('lock_timeout', %s, true)", [_PATIENCE])
        schema = connection.execute(
            "SELECT quote_ident(nspname) FROM pg_extension "
            "JOIN pg_namespace ON pg_namespace.oid = extnamespace "
            "WHERE extname = 'postgis'"
        ).fetchone()
        if schema is None:
            raise PipelineError(
                f"the database {connection.info.dbname} has no PostGIS: ask the owner "
                "of the database for CREATE EXTENSION postgis"
            )
        # At the end of the path, it does not change where a table is made.
        connection.execute(
            "SELECT set_config('search_path', concat_ws(', ', "
            "nullif(current_setting('search_path'), ''), %s::text), true)",
            schema,
        )
        yield


def _make_ready(connection: _Connection) -> bool:
    """Make the table, or the columns that an earlier version did not have.

    Returns:
        Whether everything was there already.
    """
    found = connection.execute(
        "SELECT attname FROM pg_attribute "
        "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
        [TABLE],
    )
    names = {name for (name,) in found}
    missing = [name for name in _COLUMNS if name not in names]
    if not missing:
        return True
    connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    if not names:
        connection.execute(_sql(_CREATE))
        connection.execute(
            _sql("COMMENT ON TABLE {table} IS {}", sql.Literal(_COMMENT))
        )
    for name in missing:
        kind, comment = _COLUMNS[name]
        connection.execute(
            _sql(
                "ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {} {}",
                sql.Identifier(name),
                sql.SQL(kind),
            )
        )
        connection.execute(
            _sql(
                "COMMENT ON COLUMN {table}.{} IS {}",
                sql.Identifier(name),
                sql.Literal(comment),
            )
        )
    connection.execute(_sql(_INDICES))
    return False


def _upsert(connection: _Connection, records: Iterable[Record], target: Target) -> None:
    """Write the rows of some records, in place of the rows with their keys."""
    connection.execute(_sql(_STAGE))
    cursor = connection.cursor()
    with cursor.copy(_sql("COPY {staged} ({names}) FROM STDIN")) as copy:
        remaining = iter(records)
        while batch := [*islice(remaining, _BATCH)]:
            for record, geometry in zip(batch, _geometries(batch), strict=True):
                copy.write_row(_row(record, geometry, target))
    cursor.execute(_sql(_UPSERT))


def _remove(
    connection: _Connection, records: Records, collection: tuple[str, ...]
) -> None:
    """Remove the rows of the records that are gone."""
    changed = records.changed or frozenset()
    connection.cursor().executemany(
        _sql(_REMOVE),
        (
            (*collection, _clean(record.key))
            for record in records.removed
            if record.key not in changed
        ),
    )


def _row(record: Record, geometry: str | None, target: Target) -> list[Any]:
    result = record.result
    start, end = record.dates or (None, None)
    values = (
        target.bucket.name,
        record.key,
        target.gdal_path(record.key),
        target.url(record.key),
        result.crs,
        record.key.rpartition("/")[2],
        target.root,
        target.collection.id,
        _bigint(result.cog.bytes if result.cog else None),
        start,
        end,
        _bigint(result.bands),
        result.data_type,
        result.gsd,
        _bigint(result.width),
        _bigint(result.height),
        record.manifest,
        record.run,
        record.converted or None,
        geometry,
    )
    return [_clean(value) if isinstance(value, str) else value for value in values]


def _clean(text: str) -> str:
    """Return text without NUL, which PostgreSQL cannot store."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _bigint(value: int | None) -> int | None:
    return value if value is None or value <= _MAX_BIGINT else None


def _geometries(records: Iterable[Record]) -> list[str | None]:
    """Return the footprints of some records as EWKB of valid MultiPolygons.

    Those that have no area are None. A node can write a polygon that crosses itself,
    with which PostGIS would raise errors in the queries of others.
    """
    footprints = [record.result.footprint for record in records]
    texts = [each and orjson.dumps(each).decode() for each in footprints]
    # One call for many takes a tenth of the time.
    geometries = shapely.from_geojson(texts, on_invalid="ignore")
    for index in np.flatnonzero(~shapely.is_valid(geometries)):
        geometries[index] = _made_valid(geometries[index])
    polygons, indices = shapely.get_parts(geometries, return_index=True)
    several = np.full(geometries.shape, None)
    if len(polygons):
        shapely.multipolygons(polygons, indices=indices, out=several)
    several = shapely.set_srid(several, 4326)
    return list(shapely.to_wkb(several, hex=True, include_srid=True))


def _made_valid(geometry: Any) -> Any:
    try:
        valid = shapely.make_valid(geometry, method="structure", keep_collapsed=False)
    except GEOSException:
        return None
    return None if shapely.is_empty(valid) else valid


def _sql(text: str, *parts: sql.Composable) -> sql.Composed:
    return sql.SQL(text).format(*parts, **_PARTS)


def _explain(error: psycopg.Error, database: str, role: str) -> str:
    """Return what is wrong and what to do, as a sentence for people."""
    words = f"the database {database} refuses the rows of the images: {_words(error)}"
    if isinstance(error, errors.InsufficientPrivilege):
        return (
            f"{words}; the role {role} must own the table {TABLE}, or must be "
            f"allowed to SELECT, INSERT, UPDATE and DELETE its rows; it also needs "
            "TEMPORARY on the database, and CREATE on the schema to make the table: "
            "ask the owner of the database to GRANT these"
        )
    if isinstance(error, errors.LockNotAvailable):
        return f"{words}; another session has locked the table {TABLE}: end it"
    if isinstance(error, psycopg.OperationalError):
        return (
            f"{words}; nothing of it was changed: try again, or read the server's log"
        )
    return words


def _words(error: psycopg.Error) -> str:
    """Return PostgreSQL's message, without anything that may be a password."""
    return _SECRET.sub("…", one_line(error.diag.message_primary or str(error)))
