"""Writes that must not replace what another client has written."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bucket import Bucket, BucketMissing, S3Endpoint
from tests.support.archive import ALL


@pytest.fixture
def bucket(bucket_without_pool: Bucket) -> Bucket:
    return bucket_without_pool


@pytest.fixture
def honours_conditions(bucket: Bucket) -> bool:
    bucket.write("object", b"first")
    return not bucket.write_if_absent("object", b"first")


def content_of(bucket: Bucket, file: Path) -> tuple[bytes, str]:
    etag = bucket.download("a b/#1.json", file, ALL)
    return file.read_bytes(), etag


def test_an_object_that_is_as_expected_is_replaced(bucket: Bucket, tmp_path: Path):
    bucket.write("a b/#1.json", b"first")
    _, etag = content_of(bucket, tmp_path / "file")

    assert bucket.write_if_unchanged("a b/#1.json", b"second", etag, "text/plain")
    assert content_of(bucket, tmp_path / "file")[0] == b"second"
    answer = bucket._ask("HEAD", "a b/#1.json")
    assert answer.headers["Content-Type"] == "text/plain"


def test_an_object_that_was_replaced_stays_where_the_server_knows_the_condition(
    bucket: Bucket, tmp_path: Path, honours_conditions: bool
):
    bucket.write("a b/#1.json", b"first")
    _, etag = content_of(bucket, tmp_path / "file")
    bucket.write("a b/#1.json", b"by others")

    written = bucket.write_if_unchanged("a b/#1.json", b"second", etag)

    assert written != honours_conditions
    expected = b"by others" if honours_conditions else b"second"
    assert content_of(bucket, tmp_path / "file")[0] == expected


def test_an_object_that_is_gone_is_not_written_where_the_server_knows_the_condition(
    bucket: Bucket, tmp_path: Path, honours_conditions: bool
):
    bucket.write("a b/#1.json", b"first")
    _, etag = content_of(bucket, tmp_path / "file")
    bucket.remove("a b/#1.json")

    written = bucket.write_if_unchanged("a b/#1.json", b"second", etag)

    assert written != honours_conditions
    assert bucket.exists("a b/#1.json") == written


def test_one_of_many_writers_at_once_replaces_an_object(
    bucket: Bucket, tmp_path: Path, honours_conditions: bool
):
    bucket.write("a b/#1.json", b"first")
    _, etag = content_of(bucket, tmp_path / "file")

    def write(number: int) -> bool:
        return bucket.write_if_unchanged("a b/#1.json", b"%d" % number, etag)

    with ThreadPoolExecutor(8) as threads:
        written = list(threads.map(write, range(8)))

    if honours_conditions:
        assert content_of(bucket, tmp_path / "file")[0] == b"%d" % written.index(True)
        assert sum(written) == 1
    else:
        assert all(written)


def test_a_bucket_that_is_not_there_is_an_error(store_without_pool: S3Endpoint):
    bucket = Bucket(store_without_pool, "not-there")
    with pytest.raises(BucketMissing):
        bucket.write_if_unchanged("key", b"content", "0" * 32)
