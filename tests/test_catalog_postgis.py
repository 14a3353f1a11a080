"""Images are rows of a table in PostGIS, as a stranger sees them with SQL."""

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bucket import Bucket, S3Endpoint
from catalog import postgis
from catalog.collections import Collection
from catalog.dates import of_text
from catalog.record import Dates, Record
from catalog.target import Target
from lab.support.postgres import ARCHIVE, GUARDED, READER, RIGHT_PASSWORD, Postgres
from node.result import Band, Cog
from state.errors import PipelineError
from tests.support import catalog
from tests.support.catalog import collected

Rows = list[tuple[Any, ...]]
# An image of one metre near Bern.
record = partial(
    catalog.record,
    width=2000,
    height=1000,
    bands=1,
    crs="EPSG:2056",
    gsd=1.0,
    bbox=(7.0, 46.0, 7.2, 46.1),
    bands_info=(Band(data_type="uint8", color_interpretation="gray"),),
    cog=Cog(bytes=123456, md5="0" * 32, sha256="0" * 64),
    collection="1937",
    manifest="manifests/batch-raw.csv",
    run="0123456789abcdef",
    dates=Dates("1937-01-01T00:00:00Z", "1937-12-31T23:59:59Z"),
)
BOTH_SIDES = {
    "type": "MultiPolygon",
    "coordinates": [
        [[[179.0, -17.0], [180.0, -17.0], [180.0, -16.0], [179.0, -16.0], [179, -17]]],
        [[[-180, -17.0], [-179, -17.0], [-179, -16.0], [-180, -16.0], [-180, -17.0]]],
    ],
}
CROSSES_ITSELF = {
    "type": "Polygon",
    "coordinates": [[[0.0, 0.0], [2.0, 2.0], [2.0, 0.0], [0.0, 2.0], [0.0, 0.0]]],
}
HAS_NO_AREA = {"type": "Polygon", "coordinates": [[[1.0, 1.0]] * 4]}
PASSWORD = "never-to-be-seen"  # noqa: S105
IS_AT = "ST_Intersects(footprint, ST_SetSRID(ST_Point(%s, %s), 4326))"


@dataclass(frozen=True)
class Database:
    """A database of a test, to which the variables of the process lead."""

    server: Postgres
    name: str

    def connect(self, user: str) -> psycopg.Connection:
        return self.server.connect(self.name, user)

    def sql(self, statement: str, *values: Any, user: str = ARCHIVE) -> Rows:
        with self.connect(user) as connection:
            found = connection.execute(statement, values or None)
            return found.fetchall() if found.description else []

    def images(self) -> list[str]:
        return [
            key for (key,) in self.sql("SELECT key FROM cog_pipeline_images ORDER BY 1")
        ]


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("PG"):
            monkeypatch.delenv(name)
    # The files of the user's home are not read.
    monkeypatch.setenv("PGPASSFILE", "/nowhere/pgpass")
    monkeypatch.setenv("PGSERVICEFILE", "/nowhere/pg_service.conf")


def use(
    monkeypatch: pytest.MonkeyPatch, server: Postgres, database: str, user: str
) -> None:
    monkeypatch.setenv("PGHOST", str(server.socket))
    monkeypatch.setenv("PGDATABASE", database)
    monkeypatch.setenv("PGUSER", user)


@pytest.fixture
def database(
    postgres: Postgres, clean_environment: None, monkeypatch: pytest.MonkeyPatch
) -> Database:
    name = f"test_{secrets.token_hex(4)}"
    postgres.create_database(name)
    use(monkeypatch, postgres, name, ARCHIVE)
    return Database(postgres, name)


@pytest.fixture
def bare_database(database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    bare = replace(database, name=f"{database.name}_bare")
    bare.server.create_database(bare.name, with_postgis=False)
    monkeypatch.setenv("PGDATABASE", bare.name)
    return bare


@pytest.fixture
def target(keys: tuple[Path, Path], tmp_path: Path) -> Target:
    return Target(bucket("cogs", keys), "catalog/", Collection("1937"), tmp_path)


def bucket(name: str, keys: tuple[Path, Path]) -> Bucket:
    # Nothing of this product is in a bucket, so no server is needed.
    return Bucket(S3Endpoint("127.0.0.1:1", *keys, secure=False), name)


Write = Callable[..., None]


@pytest.fixture
def write(target: Target, tmp_path: Path) -> Write:
    """Return a function that makes the product of records."""

    def write(
        now: list[Record], before: list[Record] = (), target: Target = target
    ) -> None:
        file = tmp_path / f"records-{secrets.token_hex(4)}.jsonl"
        postgis.write(collected(file, now, before), target)

    return write


def in_collection(target: Target, name: str) -> Target:
    return replace(target, collection=Collection(name))


def message_of(write: Write) -> str:
    with pytest.raises(PipelineError) as raised:
        write([record("a.tif")])
    message = str(raised.value)
    assert PASSWORD not in message
    assert "\n" not in message
    return message


def test_a_stranger_finds_an_image_by_a_point(database: Database, write: Write):
    write([record("1937/sheet.tif"), record("nowhere.tif", footprint=None, bbox=None)])
    database.sql("GRANT SELECT ON cog_pipeline_images TO reader")
    at = f"SELECT location, src_srs FROM cog_pipeline_images WHERE {IS_AT}"  # noqa: S608
    found = database.sql(at, 7.1, 46.05, user=READER)
    assert found == [("/vsis3/cogs/1937/sheet.tif", "EPSG:2056")]
    assert database.sql(at, 7.3, 46.05, user=READER) == []


def test_a_row_says_what_people_ask_first(database: Database, write: Write):
    write([record("1937/sheet.tif")])
    rows = database.sql(
        "SELECT bucket, key, url, name, collection, bytes, "
        "start_date AT TIME ZONE 'UTC', end_date::text, bands, data_type, gsd, "
        "width, height, manifest, run, converted::text, ST_AsText(footprint) "
        "FROM cog_pipeline_images"
    )
    (row,) = rows
    assert row[:6] == (
        *("cogs", "1937/sheet.tif", "s3://cogs/1937/sheet.tif", "sheet.tif"),
        *("1937", 123456),
    )
    assert str(row[6]) == "1937-01-01 00:00:00"
    assert row[7:] == (
        *("1937-12-31 23:59:59+00", 1, "uint8", 1.0, 2000, 1000),
        *("manifests/batch-raw.csv", "0123456789abcdef", "2026-11-26 13:00:00+00"),
        "MULTIPOLYGON(((7 46,7.2 46,7.2 46.1,7 46.1,7 46)))",
    )


def test_the_table_and_its_columns_say_what_they_are(database: Database, write: Write):
    write([record("a.tif")])
    (comments,) = database.sql(
        "SELECT count(*), count(col_description(attrelid, attnum)), "
        "min(obj_description(attrelid)) FROM pg_attribute "
        "WHERE attrelid = 'cog_pipeline_images'::regclass AND attnum > 0"
    )
    assert comments[0] == comments[1] == 20
    assert "MapServer" in comments[2]
    kinds = database.sql("SELECT srid, type FROM geometry_columns")
    assert kinds == [(4326, "MULTIPOLYGON")]
    with database.connect(ARCHIVE) as connection:
        connection.execute("SET enable_seqscan = off")
        plan = connection.execute(
            "EXPLAIN SELECT FROM cog_pipeline_images "
            "WHERE footprint && ST_MakeEnvelope(7, 46, 8, 47, 4326)"
        )
        assert "cog_pipeline_images_footprint" in str(plan.fetchall())


def test_a_public_url_is_where_gdal_and_people_read(
    database: Database, write: Write, target: Target
):
    public = replace(target, public_url="https://maps.example.org")
    write([record("1937/sheet 7.tif")], target=public)
    rows = database.sql("SELECT location, url FROM cog_pipeline_images")
    url = "https://maps.example.org/1937/sheet%207.tif"
    assert rows == [(f"/vsicurl/{url}", url)]


def test_an_image_across_the_antimeridian_is_on_both_sides(
    database: Database, write: Write
):
    bbox = (179.0, -17.0, -179.0, -16.0)
    write([record("fiji.tif", footprint=BOTH_SIDES, bbox=bbox)])
    for longitude, count in ((179.5, 1), (-179.5, 1), (0, 0)):
        found = database.sql(
            f"SELECT count(*) FROM cog_pipeline_images WHERE {IS_AT}",  # noqa: S608
            longitude,
            -16.5,
        )
        assert found == [(count,)], longitude
    (shape,) = database.sql(
        "SELECT ST_IsValid(footprint), ST_NumGeometries(footprint) "
        "FROM cog_pipeline_images"
    )
    assert shape == (True, 2)


def test_images_of_which_little_is_known_are_listed(database: Database, write: Write):
    unknown = dict.fromkeys(
        ("footprint", "bbox", "crs", "gsd", "dates", "data_type", "cog")
    )
    wkt = 'PROJCRS["of a surveyor, \\"1937\\"",…]'
    write(
        [
            record("scan.tif", **unknown, converted=""),
            record("local.tif", crs=wkt, nodata=float("nan")),
            record("long ago.tif", dates=of_text("0001")),
        ]
    )
    rows = database.sql(
        "SELECT key, src_srs, footprint IS NULL, extract(year from start_date)::int "
        "FROM cog_pipeline_images ORDER BY key"
    )
    assert rows == [
        ("local.tif", wkt, False, 1937),
        ("long ago.tif", "EPSG:2056", False, 1),
        ("scan.tif", None, True, None),
    ]


def test_what_a_hostile_node_writes_of_an_image_breaks_no_query(
    database: Database, write: Write
):
    write(
        [
            record("bow.tif", footprint=CROSSES_ITSELF),
            record("dot.tif", footprint=HAS_NO_AREA),
            record("huge.tif", width=2**64 - 1, height=2**63 - 1, crs="a\0b"),
        ]
    )
    rows = database.sql(
        "SELECT key, ST_IsValid(footprint), ST_Area(footprint)::int, width, src_srs "
        "FROM cog_pipeline_images WHERE key <> 'huge.tif' ORDER BY key"
    )
    assert rows == [
        ("bow.tif", True, 2, 2000, "EPSG:2056"),
        ("dot.tif", None, None, 2000, "EPSG:2056"),
    ]
    huge = (
        "SELECT width, height, src_srs FROM cog_pipeline_images WHERE key = 'huge.tif'"
    )
    assert database.sql(huge) == [(None, 2**63 - 1, "a\N{REPLACEMENT CHARACTER}b")]


HOSTILE_KEYS = [
    *("a'; DROP TABLE cog_pipeline_images; --.tif", '"quoted".tif', "back\\slash.tif"),
    *("\\N.tif", "\\.tif", "tab\there.tif", "two\nlines\r.tif", "%s %(key)s {}.tif"),
    *(
        "Zürich/地図/🗺.tif",
        "e\u0301.tif",
        "é.tif",
        " .tif",
        "\u202egnp.tif",
        "NULL.tif",
    ),
    *("\x01\x7f\ufffe.tif", "k" * 1020 + ".tif"),
]


def test_any_key_is_kept_as_it_is(database: Database, write: Write):
    images = [
        record(key, manifest=f"{key}-raw.csv", jpeg_key="j") for key in HOSTILE_KEYS
    ]
    write(images)
    rows = database.sql("SELECT key, manifest, location FROM cog_pipeline_images")
    assert sorted(rows) == sorted(
        (key, f"{key}-raw.csv", f"/vsis3/cogs/{key}") for key in HOSTILE_KEYS
    )
    write(images[:1], before=images)
    assert database.images() == HOSTILE_KEYS[:1]


def test_a_key_that_postgresql_cannot_store_stops_no_other(
    database: Database, write: Write
):
    images = [record("a.tif"), record("zero\0.tif", jpeg_key="j")]
    write(images)
    assert database.images() == ["a.tif", "zero\N{REPLACEMENT CHARACTER}.tif"]
    write(images[:1], before=images)
    assert database.images() == ["a.tif"]


def versions(database: Database) -> dict[str, str]:
    """Return what changes with each change of a row."""
    return dict(database.sql("SELECT key, ctid::text FROM cog_pipeline_images"))


def test_only_what_has_changed_is_written_again(database: Database, write: Write):
    old, changed, gone, new = (record(f"{name}.tif") for name in ("o", "c", "g", "n"))
    write([old, changed, gone])
    before = versions(database)
    better = replace(changed, run="fedcba9876543210")
    write([old, better, new], before=[old, changed, gone])
    now = versions(database)
    assert now.keys() == {"o.tif", "c.tif", "n.tif"}
    assert now["o.tif"] == before["o.tif"]
    runs = database.sql(
        "SELECT key, run FROM cog_pipeline_images WHERE run LIKE 'fedcba%'"
    )
    assert runs == [("c.tif", "fedcba9876543210")]

    # From nothing: the rows are the same already.
    write([old, better, new])
    assert versions(database) == now


def test_all_is_made_again_without_what_is_gone(database: Database, write: Write):
    write([record("a.tif"), record("b.tif")])
    write([record("b.tif"), record("c.tif")])
    assert database.images() == ["b.tif", "c.tif"]
    write([])
    assert database.images() == []


def test_other_collections_and_buckets_are_left_alone(
    database: Database, write: Write, target: Target, keys: tuple[Path, Path]
):
    elsewhere = replace(target, bucket=bucket("other", keys))
    write([record("a.tif")])
    write([record("b.tif")], target=in_collection(target, "1952"))
    write([record("a.tif")], target=elsewhere)
    write([record("c.tif")])
    rows = database.sql("SELECT bucket, collection, key FROM cog_pipeline_images")
    assert sorted(rows) == [
        ("cogs", "1937", "c.tif"),
        ("cogs", "1952", "b.tif"),
        ("other", "1937", "a.tif"),
    ]


def test_catalogs_of_other_prefixes_in_the_bucket_are_left_alone(
    database: Database, write: Write, target: Target
):
    other = replace(target, root="web/catalog/")
    old = [record("a.tif"), record("b.tif")]
    write(old)
    write([record("web/a.tif")], target=other)
    assert database.images() == ["a.tif", "b.tif", "web/a.tif"]
    # Rows of the other one do not hide that some are lost.
    database.sql("DELETE FROM cog_pipeline_images WHERE key = 'a.tif'")
    write([*old, record("c.tif")], before=old)
    assert database.images() == ["a.tif", "b.tif", "c.tif", "web/a.tif"]
    # Before, there was no such column.
    database.sql("ALTER TABLE cog_pipeline_images DROP COLUMN catalog")
    write([record("b.tif")])
    write([record("web/a.tif")], target=other)
    assert database.images() == ["b.tif", "web/a.tif"]


def test_an_image_moves_to_another_collection(
    database: Database, write: Write, target: Target
):
    stays, moves = record("stays.tif"), record("moves.tif")
    write([stays, moves])
    write([moves], target=in_collection(target, "1952"))
    # The former collection hears of it later.
    write([stays], before=[stays, moves])
    rows = database.sql("SELECT key, collection FROM cog_pipeline_images ORDER BY key")
    assert rows == [("moves.tif", "1952"), ("stays.tif", "1937")]


def test_rows_that_others_have_lost_come_back(database: Database, write: Write):
    old = [record("a.tif"), record("b.tif")]
    write(old)
    database.sql("DELETE FROM cog_pipeline_images WHERE key = 'a.tif'")
    write([*old, record("c.tif")], before=old)
    assert database.images() == ["a.tif", "b.tif", "c.tif"]
    database.sql("DROP TABLE cog_pipeline_images")
    write([*old, record("c.tif")], before=old)
    assert database.images() == ["a.tif", "b.tif", "c.tif"]


def test_a_table_of_an_earlier_version_gets_its_new_columns(
    database: Database, write: Write
):
    old = [record("a.tif"), record("b.tif")]
    write(old)
    database.sql(
        "ALTER TABLE cog_pipeline_images DROP COLUMN footprint, DROP COLUMN gsd, "
        # Of the operator's own.
        "ADD COLUMN note text"
    )
    database.sql("UPDATE cog_pipeline_images SET note = 'torn' WHERE key = 'a.tif'")
    write([*old, record("c.tif")], before=old)
    rows = database.sql(
        "SELECT key, gsd, ST_Area(footprint) > 0, note FROM cog_pipeline_images "
        "ORDER BY key"
    )
    assert rows == [
        ("a.tif", 1.0, True, "torn"),
        ("b.tif", 1.0, True, None),
        ("c.tif", 1.0, True, None),
    ]


def test_a_failure_leaves_the_rows_of_before_and_the_next_try_succeeds(
    database: Database, write: Write
):
    old = [record("a.tif"), record("b.tif")]
    new = [replace(old[0], run="another"), record("bad.tif")]
    write(old)
    before = database.sql("SELECT * FROM cog_pipeline_images ORDER BY key")
    database.sql(
        "ALTER TABLE cog_pipeline_images ADD CONSTRAINT no_bad CHECK (key <> 'bad.tif')"
    )
    for former in (old, []):
        with pytest.raises(PipelineError, match='"no_bad"'):
            write(new, before=former)
        rows = database.sql("SELECT * FROM cog_pipeline_images ORDER BY key")
        assert rows == before
    database.sql("ALTER TABLE cog_pipeline_images DROP CONSTRAINT no_bad")
    write(new, before=old)
    assert database.images() == ["a.tif", "bad.tif"]


def test_readers_see_all_rows_of_before_or_all_of_now(database: Database, write: Write):
    old = [record(f"old-{number}.tif") for number in range(50)]
    new = [record(f"new-{number}.tif") for number in range(70)]
    write(old)
    database.sql(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_sleep(0.005); RETURN NEW; END'"
    )
    database.sql(
        "CREATE TRIGGER slow BEFORE INSERT ON cog_pipeline_images "
        "FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    seen = []
    with in_background(lambda: write(new)) as writer, database.connect(ARCHIVE) as one:
        while writer.is_alive():
            found = one.execute(
                "SELECT count(*) FILTER (WHERE key LIKE 'old%'), "
                "count(*) FILTER (WHERE key LIKE 'new%') FROM cog_pipeline_images"
            )
            seen.append(found.fetchone())
    assert {*seen} <= {(50, 0), (0, 70)}
    assert seen.count((50, 0)) > 10
    assert database.images() == sorted(each.key for each in new)


@contextmanager
def in_background(*tasks: Callable[[], None]) -> Iterator[threading.Thread]:
    """Run tasks in threads, and raise what they raised; yield the first thread."""
    failures: list[BaseException] = []

    def run(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=[task]) for task in tasks]
    for thread in threads:
        thread.start()
    try:
        yield threads[0]
    finally:
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def test_several_access_points_write_at_once(
    database: Database, write: Write, target: Target
):
    """Nobody waits forever, even if images move back and forth between collections."""
    images = [record(f"{number}.tif") for number in range(40)]

    def keep_writing(name: str, own: list[Record]) -> None:
        for _ in range(8):
            write(own, target=in_collection(target, name))
            write(own[1:], before=own, target=in_collection(target, name))

    with in_background(
        # All of them find no table at first.
        lambda: keep_writing("1937", images),
        lambda: keep_writing("1952", images[::-1]),
        lambda: keep_writing("1974", [record("alone.tif"), record("other.tif")]),
    ):
        pass
    assert set(database.images()) >= {each.key for each in images[1:-1]}
    assert "other.tif" in database.images()


def test_the_schema_is_that_of_the_search_path(
    database: Database, write: Write, monkeypatch: pytest.MonkeyPatch
):
    database.sql("CREATE SCHEMA maps")
    monkeypatch.setenv("PGOPTIONS", "-c search_path=maps")
    write([record("a.tif")])
    write([record("a.tif"), record("b.tif")], before=[record("a.tif")])
    tables = database.sql(
        "SELECT schemaname FROM pg_tables WHERE tablename = 'cog_pipeline_images'"
    )
    assert tables == [("maps",)]
    assert database.sql("SELECT count(*) FROM maps.cog_pipeline_images") == [(2,)]


def test_postgis_may_be_in_a_schema_of_its_own(bare_database: Database, write: Write):
    with bare_database.connect("postgres") as owner:
        owner.execute('CREATE SCHEMA "Extensions"')
        owner.execute('CREATE EXTENSION postgis SCHEMA "Extensions"')
        owner.execute('GRANT USAGE ON SCHEMA "Extensions" TO PUBLIC')
    old = [record("a.tif")]
    write(old)
    write([replace(old[0], run="another")], before=old)
    rows = bare_database.sql("SELECT run, tableoid::regclass FROM cog_pipeline_images")
    assert rows == [("another", "cog_pipeline_images")]


def test_a_launch_learns_what_is_wrong_and_leaves_nothing(
    database: Database, write: Write, monkeypatch: pytest.MonkeyPatch
):
    postgis.check()
    assert database.sql("SELECT to_regclass('cog_pipeline_images')") == [(None,)]
    write([record("a.tif")])
    postgis.check()
    monkeypatch.setenv("PGDATABASE", "nowhere")
    with pytest.raises(PipelineError, match="no connection to PostgreSQL"):
        postgis.check()


def test_a_service_and_a_password_file_are_enough(
    database: Database, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("PGHOST", "PGDATABASE", "PGUSER"):
        monkeypatch.delenv(name)
    passwords, services = tmp_path / "pgpass", tmp_path / "pg_service.conf"
    passwords.touch(mode=0o600)
    passwords.write_text(f"*:*:*:{GUARDED}:{RIGHT_PASSWORD}\n")
    services.write_text(
        f"[images]\nhost={database.server.socket}\ndbname={database.name}\n"
        f"user={GUARDED}\n"
    )
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    monkeypatch.setenv("PGSERVICE", "images")
    write([record("a.tif")])
    owners = "SELECT tableowner FROM pg_tables WHERE tablename = 'cog_pipeline_images'"
    assert database.sql(owners) == [(GUARDED,)]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"PGHOST": "/nowhere"}, "connection to server on socket"),
        ({"PGHOST": "nowhere.invalid"}, "resolve host"),
        ({"PGHOST": "127.0.0.1", "PGPORT": "1"}, "refused"),
        ({"PGUSER": GUARDED}, "password authentication failed"),
        ({"PGSERVICE": "unknown"}, "not found"),
        ({"PGPORT": "many"}, "invalid"),
        ({"PGDATABASE": "gone"}, '"gone" does not exist'),
        ({"PGDATABASE": f"postgresql://me:{PASSWORD}@host/maps"}, "does not exist"),
        ({"PGDATABASE": f"host=db password={PASSWORD}"}, "does not exist"),
    ],
)
def test_a_server_that_is_not_reached_is_named_without_the_password(
    database: Database,
    write: Write,
    variables: dict[str, str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    message = message_of(write)
    assert words in message
    assert "PGSERVICE" in message


def test_a_missing_extension_is_named(bare_database: Database, write: Write):
    assert "ask the owner of the database for CREATE EXTENSION postgis" in message_of(
        write
    )


def test_a_missing_permission_is_named(
    database: Database, write: Write, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PGUSER", READER)
    assert "permission denied for schema public; the role reader" in message_of(write)
    monkeypatch.setenv("PGUSER", ARCHIVE)
    write([record("a.tif")])
    monkeypatch.setenv("PGUSER", READER)
    assert "ask the owner of the database to GRANT" in message_of(write)
    # These are enough.
    database.sql(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON cog_pipeline_images TO reader"
    )
    write([record("b.tif")])
    assert database.images() == ["b.tif"]


def test_a_table_that_is_locked_is_named(
    database: Database, write: Write, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(postgis, "_PATIENCE", "100ms")
    write([record("a.tif")])
    with database.connect(ARCHIVE) as other, other.transaction():
        other.execute("LOCK TABLE cog_pipeline_images")
        assert "another session" in message_of(write)


def test_a_connection_that_breaks_leaves_the_rows_of_before(
    database: Database, write: Write
):
    write([record("a.tif")])

    def kill() -> None:
        while not database.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'cog_pipeline' AND query LIKE '%%advisory%%' "
            "AND datname = %s",
            database.name,
        ):
            time.sleep(0.02)

    with database.connect(ARCHIVE) as other, other.transaction():
        other.execute("SELECT pg_advisory_xact_lock(%s)", [postgis._LOCK])
        with in_background(kill), pytest.raises(PipelineError) as raised:
            write([record("b.tif")])
    assert "try again" in str(raised.value)
    assert database.images() == ["a.tif"]
    write([record("b.tif")])
    assert database.images() == ["b.tif"]
