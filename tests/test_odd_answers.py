"""A server whose answers are not those of S3, and objects too large to read.

The server is real; a proxy changes its answers.
"""

import gzip
import itertools
import re
import socket
import threading
import time
import tracemalloc
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import bucket as buckets
from bucket import (
    BadAnswer,
    Bucket,
    BucketError,
    ObjectMissing,
    ObjectTooLarge,
    ObjectUnreadable,
    PermanentS3Error,
    S3Endpoint,
    StoredObject,
)
from s3 import client
from tests.support import seaweedfs
from tests.support.archive import ALL, Archive
from tests.support.faulty_s3 import Fault, FaultyS3

pytestmark = pytest.mark.timeout(300)

NO_ETAG = "0" * 32
HTML = b"<html><body><h1>Welcome</h1><p>Please log in.<br></body></html>"
XHTML = b"<html><head><title>Welcome</title></head><body/></html>"
OTHER = (
    b'<ListAllMyBucketsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<Buckets/></ListAllMyBucketsResult>"
)
BOMB = (
    b'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(b'<!ENTITY %c "%s">' % (c, b"&%c;" % (c - 1) * 10) for c in b"bcdefghi")
    + b"]><ListBucketResult><Name>&i;</Name></ListBucketResult>"
)
DEEP = b"<a>" * 500_000 + b"</a>" * 500_000
ODD_BODIES = {
    "a web page": HTML,
    "a web page in XHTML": XHTML,
    "a web page with a DOCTYPE": b"<!DOCTYPE html>" + XHTML,
    "an empty body": b"",
    "another answer of S3": OTHER,
    "an incomplete answer": b"<?xml version='1.0'?><ListBucketResult><Name>ma",
    "not UTF-8": b"<ListBucketResult>\xff\xfe</ListBucketResult>",
    "JSON": b'{"Contents": []}',
    "an entity bomb": BOMB,
    "deep nesting": DEEP,
}


def upload_file(bucket: Bucket, directory: Path, size: int) -> None:
    file = directory / "file"
    with file.open("wb") as sparse:
        sparse.truncate(size)
    bucket.upload("new", file)


CALLS: dict[str, Callable[[Bucket, Path], object]] = {
    "check": lambda bucket, _: bucket.check(),
    "list": lambda bucket, _: list(bucket.list()),
    "stat": lambda bucket, _: bucket.stat("object"),
    "exists": lambda bucket, _: bucket.exists("object"),
    "metadata": lambda bucket, _: bucket.metadata("object"),
    "read": lambda bucket, _: bucket.read("object", ALL),
    "download": lambda bucket, directory: bucket.download(
        "object", directory / "downloaded", ALL
    ),
    "write": lambda bucket, _: bucket.write("new", b"content"),
    "write_if_absent": lambda bucket, _: bucket.write_if_absent("new", b"content"),
    "write_if_unchanged": lambda bucket, _: bucket.write_if_unchanged(
        "new", b"content", NO_ETAG
    ),
    "upload": lambda bucket, directory: upload_file(bucket, directory, 10),
    "multipart upload": lambda bucket, directory: upload_file(
        bucket, directory, 33 * 2**20
    ),
    "copy": lambda bucket, _: bucket.copy("object", "new", NO_ETAG),
    "start_multipart_upload": lambda bucket, _: bucket.start_multipart_upload(
        "new", "image/tiff"
    ),
    "list_parts": lambda bucket, _: bucket.list_parts("new", "upload"),
    "complete_multipart_upload": lambda bucket, _: bucket.complete_multipart_upload(
        "new", "upload", "a"
    ),
    "list_multipart_uploads": lambda bucket, _: bucket.list_multipart_uploads("new"),
    "multipart_uploads": lambda bucket, _: list(bucket.multipart_uploads("new")),
    "remove": lambda bucket, _: bucket.remove("object"),
    "abort_multipart_upload": lambda bucket, _: bucket.abort_multipart_upload(
        "object", "upload"
    ),
}
# S3 itself answers these with an empty body.
EMPTY_ANSWERS = ("remove", "abort_multipart_upload")


@pytest.fixture
def bucket(store: S3Endpoint) -> Bucket:
    """Return a bucket with a few objects, on a server that answers as S3 does."""
    bucket = Bucket(store, f"odd-{uuid.uuid4().hex[:8]}")
    bucket.create()
    for number in range(5):
        bucket.write(f"scenes/{number}.tif", b"x" * number)
    bucket.write("object", b"content")
    return bucket


@pytest.fixture
def proxied(bucket: Bucket, store: S3Endpoint, faulty_s3_server: FaultyS3) -> Bucket:
    """Return the same bucket behind a proxy that changes answers."""
    return via_proxy(faulty_s3_server, bucket, store)


def via_proxy(proxy: FaultyS3, bucket: Bucket, store: S3Endpoint) -> Bucket:
    return Bucket(replace(store, endpoint=proxy.endpoint), bucket.name)


@pytest.fixture(scope="module")
def seaweed(
    store: S3Endpoint, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[S3Endpoint]:
    with seaweedfs.running(tmp_path_factory.mktemp("seaweed"), store) as endpoint:
        yield endpoint


@pytest.fixture(params=["rclone", "SeaweedFS"])
def new_bucket(request: pytest.FixtureRequest) -> Bucket:
    """Return a new bucket; the test runs once on each of two servers."""
    name = "store" if request.param == "rclone" else "seaweed"
    bucket = Bucket(request.getfixturevalue(name), f"real-{uuid.uuid4().hex[:8]}")
    bucket.create()
    return bucket


@pytest.mark.parametrize("call", CALLS)
def test_a_body_that_is_not_the_expected_answer_is_a_bad_answer(
    proxied: Bucket, faulty_s3_server: FaultyS3, tmp_path: Path, call: str
):
    proxied.check()
    for name, body in ODD_BODIES.items():
        if name == "an empty body" and call in EMPTY_ANSWERS:
            continue
        fault = Fault(status=200, body=body)
        with faulty_s3_server.suffering(fault), pytest.raises(BadAnswer) as caught:
            CALLS[call](proxied, tmp_path)
        assert "does not speak S3" in str(caught.value), name
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1000
        assert not (tmp_path / "downloaded").exists()


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_answer_to_the_request_for_the_region_is_a_bad_answer(
    bucket: Bucket,
    store: S3Endpoint,
    faulty_s3_server: FaultyS3,
    tmp_path: Path,
    call: str,
):
    for body in (HTML, b"", BOMB, b"<html>a&#10;b</html>"):
        # A new client first requests the region of the bucket.
        proxied = via_proxy(faulty_s3_server, bucket, store)
        fault = Fault(status=200, body=body)
        with faulty_s3_server.suffering(fault), pytest.raises(BadAnswer):
            CALLS[call](proxied, tmp_path)


@pytest.mark.parametrize("status", [201, 202, 204, 206, 301, 302, 303, 307, 308, 404])
def test_an_unexpected_status_is_a_bucket_error(
    proxied: Bucket, faulty_s3_server: FaultyS3, tmp_path: Path, status: int
):
    proxied.check()
    elsewhere = {"Location": f"https://{faulty_s3_server.endpoint}/elsewhere/x"}
    for name, call in CALLS.items():
        if name in EMPTY_ANSWERS or (name, status) == ("exists", 404):
            continue
        if (name, status) == ("copy", 404):
            continue
        for body in (HTML, b""):
            fault = Fault(status=status, body=body, headers=elsewhere)
            with faulty_s3_server.suffering(fault), pytest.raises(BucketError):
                call(proxied, tmp_path)
    assert faulty_s3_server.count(".*", "elsewhere") == 0


def test_an_object_that_is_gone_is_removed_whatever_the_store_says(
    proxied: Bucket, faulty_s3_server: FaultyS3
):
    with faulty_s3_server.suffering(Fault(method="DELETE", status=404)):
        proxied.remove("gone")
    assert faulty_s3_server.count("DELETE", "gone") == 1


def change_listing(pattern: str, replacement: str) -> Fault:
    """Return a fault that replaces the first match of a pattern in each listing."""
    old, new = re.compile(pattern.encode(), re.DOTALL), replacement.encode()
    return Fault("GET", "list-type", rewritten=lambda body: old.sub(new, body, 1))


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        ("<ETag>.*?</ETag>", ""),
        ("<Key>.*?</Key>", ""),
        ("<Key>.*?</Key>", "<Key></Key>"),
        ("<Key>.*?</Key>", "<Key>secrets/0.tif</Key>"),
        ("<Size>.*?</Size>", ""),
        ("<Size>.*?</Size>", "<Size>-1</Size>"),
        ("<Size>.*?</Size>", "<Size>many</Size>"),
        ("<Size>.*?</Size>", "<Size>٣</Size>"),
        ("<Size>.*?</Size>", "<Size>1_000</Size>"),
        ("<Size>.*?</Size>", "<Size>" + "9" * 5000 + "</Size>"),
        ("<LastModified>.*?</LastModified>", ""),
        ("<LastModified>.*?</LastModified>", "<LastModified>now</LastModified>"),
        ("<IsTruncated>.*?</IsTruncated>", ""),
        ("<IsTruncated>.*?</IsTruncated>", "<IsTruncated>true</IsTruncated>"),
    ],
)
def test_a_listing_without_a_required_field_is_a_bad_answer(
    proxied: Bucket, faulty_s3_server: FaultyS3, pattern: str, replacement: str
):
    fault = change_listing(pattern, replacement)
    with faulty_s3_server.suffering(fault), pytest.raises(BadAnswer):
        list(proxied.list("scenes/"))


@pytest.mark.parametrize("empty", ["<ETag></ETag>", "<ETag/>", '<ETag>""</ETag>'])
def test_an_object_that_is_being_written_may_have_an_empty_etag(
    proxied: Bucket, bucket: Bucket, faulty_s3_server: FaultyS3, empty: str
):
    """The listings of rclone have such objects."""
    with faulty_s3_server.suffering(change_listing("<ETag>.*?</ETag>", empty)):
        first, second, *_ = proxied.list("scenes/")
    assert (first.etag, second.etag) == ("", bucket.stat(second.key).etag)
    assert not proxied.copy(first.key, "target", first.etag)


def test_a_key_that_is_not_utf_8_is_left_out(
    proxied: Bucket, faulty_s3_server: FaultyS3
):
    with faulty_s3_server.suffering(change_listing("0.tif", "%FF%FE.tif")):
        keys = [item.key for item in proxied.list("scenes/")]
    assert keys == [f"scenes/{number}.tif" for number in range(1, 5)]


@pytest.mark.parametrize(
    ("call", "headers"),
    [
        ("stat", {"ETag": None}),
        ("stat", {"ETag": ""}),
        ("stat", {"Content-Length": None}),
        ("stat", {"Content-Length": "-3"}),
        ("stat", {"Last-Modified": None}),
        ("stat", {"Last-Modified": "Thu, 30 Feb 2026 25:00:00 GMT"}),
        ("metadata", {"ETag": None}),
        ("read", {"ETag": None}),
        ("read", {"Content-Length": None}),
        ("download", {"ETag": None}),
        ("download", {"ETag": '""'}),
        ("download", {"Content-Length": None}),
        ("write", {"ETag": None}),
        ("write_if_absent", {"ETag": None}),
        ("write_if_unchanged", {"ETag": None}),
        ("upload", {"ETag": None}),
    ],
)
def test_an_answer_without_a_required_header_is_a_bad_answer(
    proxied: Bucket,
    faulty_s3_server: FaultyS3,
    tmp_path: Path,
    call: str,
    headers: dict[str, str | None],
):
    proxied.check()
    fault = Fault("HEAD|GET|PUT", headers=headers)
    with faulty_s3_server.suffering(fault), pytest.raises(BadAnswer):
        CALLS[call](proxied, tmp_path)
    assert not (tmp_path / "downloaded").exists()


@pytest.mark.parametrize("pattern", ["<PartNumber>.*?<", "<Size>.*?<", "<ETag>.*?<"])
def test_a_part_without_a_required_field_is_a_bad_answer(
    proxied: Bucket, faulty_s3_server: FaultyS3, pattern: str
):
    upload = proxied.start_multipart_upload("parts", "image/tiff")
    url = proxied.url_to_write_part("parts", upload, 1, 60)
    assert proxied._http.request("PUT", url, body=b"part").status == 200
    (part,) = proxied.list_parts("parts", upload)
    assert part.size == 4
    # Remove the text of one element.
    element = re.compile(pattern.encode())
    fault = Fault(
        "GET",
        rewritten=lambda body: element.sub(
            lambda match: match[0].partition(b">")[0] + b"><", body
        ),
    )
    with faulty_s3_server.suffering(fault), pytest.raises(BadAnswer):
        proxied.list_parts("parts", upload)


def test_an_upload_without_an_id_is_a_bad_answer(
    proxied: Bucket, faulty_s3_server: FaultyS3
):
    proxied.check()
    fault = Fault("POST", rewritten=lambda body: body.replace(b"UploadId", b"Other"))
    with faulty_s3_server.suffering(fault), pytest.raises(BadAnswer, match="UploadId"):
        proxied.start_multipart_upload("parts", "image/tiff")


def test_an_error_in_an_answer_with_status_200_keeps_its_code(
    proxied: Bucket, faulty_s3_server: FaultyS3, tmp_path: Path
):
    proxied.check()
    body = b"<Error><Code>InternalError</Code><Message>Try again</Message></Error>"
    for call in (
        "list",
        "list_parts",
        "complete_multipart_upload",
        "start_multipart_upload",
    ):
        fault = Fault(status=200, body=body)
        with faulty_s3_server.suffering(fault), pytest.raises(BucketError) as caught:
            CALLS[call](proxied, tmp_path)
        assert caught.value.code == "InternalError"


@pytest.mark.parametrize("key_by_key", [False, True])
def test_several_slashes_in_a_requested_key_do_no_harm(
    new_bucket: Bucket, key_by_key: bool, monkeypatch: pytest.MonkeyPatch
):
    for number in range(5):
        new_bucket.write(f"x/{number}.tif", b"x")
    if key_by_key:
        # With so few objects a page, find_objects requests each key.
        monkeypatch.setattr(buckets, "_PAGE_SIZE", 1)
    for keys in (["x//7.tif", "x//8.tif"], ["x/0.tif", "x//7.tif"]):
        yielded = {item.key for item in new_bucket.find_objects(keys, lambda key: ())}
        assert not {"x//7.tif", "x//8.tif"} & yielded
        assert ("x/0.tif" in yielded) == ("x/0.tif" in keys)


def pages(tokens: Iterable[str], empty: bool) -> Fault:
    """Return a fault that repeats the first page of a listing with other tokens."""
    next_tokens = iter(tokens)
    first: list[bytes] = []

    def rewritten(body: bytes) -> bytes:
        first.append(body)
        body = first[0]
        token = f"<NextContinuationToken>{next(next_tokens)}</NextContinuationToken>"
        body = re.sub(b"<IsTruncated>.*?</IsTruncated>", b"", body)
        body = re.sub(b"<Contents>.*</Contents>", b"", body, flags=re.S * empty)
        more = f"<IsTruncated>true</IsTruncated>{token}</ListBucketResult>"
        return body.replace(b"</ListBucketResult>", more.encode())

    return Fault("GET", "list-type", rewritten=rewritten)


@pytest.mark.parametrize("empty", [True, False])
@pytest.mark.parametrize(
    "tokens", ["one", "two", "new ones"], ids=lambda tokens: f"tokens: {tokens}"
)
def test_an_endless_listing_is_a_bad_answer(
    proxied: Bucket,
    faulty_s3_server: FaultyS3,
    monkeypatch: pytest.MonkeyPatch,
    tokens: str,
    empty: bool,
):
    monkeypatch.setattr(buckets, "_MAX_EMPTY_PAGES", 20)
    proxied.check()
    faulty_s3_server.requests.clear()
    sequences = {
        "one": itertools.repeat("same"),
        "two": itertools.cycle(["this", "that"]),
        "new ones": map("{:04}".format, itertools.count()),
    }
    fault = pages(sequences[tokens], empty)
    with (
        faulty_s3_server.suffering(fault),
        pytest.raises(BadAnswer, match="that never ends"),
    ):
        list(proxied.list())
    assert faulty_s3_server.count("GET", "list-type") <= 21


def test_a_token_may_be_the_next_key(proxied: Bucket, faulty_s3_server: FaultyS3):
    keys = [f"scenes/{number}.tif" for number in range(3)]
    left = list(keys)

    def page() -> Iterator[bytes]:
        entry = (
            f"<Contents><Key>{left.pop(0)}</Key><Size>1</Size><ETag>etag</ETag>"
            "<LastModified>2026-11-25T18:00:00.000Z</LastModified></Contents>"
        )
        more = "<IsTruncated>false</IsTruncated>"
        if left:
            more = (
                "<IsTruncated>true</IsTruncated>"
                f"<NextContinuationToken>{left[0]}</NextContinuationToken>"
            )
        yield f"<ListBucketResult>{more}{entry}</ListBucketResult>".encode()

    fault = Fault("GET", "list-type", status=200, body=page)
    with faulty_s3_server.suffering(fault):
        assert [item.key for item in proxied.list("scenes/")] == keys


def test_a_listing_of_many_pages_is_complete(
    new_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(buckets, "_PAGE_SIZE", 7)
    keys = {f"scenes/ä {number}+%20&<#?.tif" for number in range(30)}
    keys |= {"scenes/\x01\n.tif", "scenes/\ufffd.tif"}
    for key in (*keys, "scene", "scenez"):
        new_bucket.write(key, b"")
    listed = [item.key for item in new_bucket.list("scenes/")]
    assert set(listed) == keys
    assert len(listed) == len(keys)


def test_a_request_whose_answer_is_cut_off_is_repeated(
    proxied: Bucket, faulty_s3_server: FaultyS3
):
    proxied.check()
    cut = Fault("GET", "list-type", cut_after=100, times=3)
    with faulty_s3_server.suffering(cut):
        assert len(list(proxied.list())) == 6
    forever = replace(cut, times=None)
    with faulty_s3_server.suffering(forever), pytest.raises(BucketError):
        list(proxied.list())
    # A request that must not be done twice may have succeeded: it is not repeated.
    faulty_s3_server.requests.clear()
    cut = Fault("POST", cut_after=20)
    with faulty_s3_server.suffering(cut), pytest.raises(BucketError):
        proxied.start_multipart_upload("new", "image/tiff")
    assert faulty_s3_server.count("POST") == 1


@contextmanager
def memory_limit(limit: int) -> Iterator[None]:
    """Assert that a ``with`` block has less than ``limit`` bytes allocated."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def endless_body() -> Iterator[bytes]:
    yield b"<ListBucketResult>"
    yield from itertools.repeat(b" " * 2**16)


@pytest.mark.parametrize("status", [200, 403, 503])
def test_an_endless_answer_is_a_bad_answer(
    proxied: Bucket, faulty_s3_server: FaultyS3, tmp_path: Path, status: int
):
    proxied.check()
    fault = Fault(status=status, body=endless_body)
    for call in ("list", "write", "complete_multipart_upload", "remove"):
        with (
            faulty_s3_server.suffering(fault),
            memory_limit(8 * client.MAX_ANSWER),
            pytest.raises(BadAnswer, match="more than 8 MiB"),
        ):
            CALLS[call](proxied, tmp_path)


def test_an_answer_of_tiny_elements_takes_little_memory(
    proxied: Bucket, faulty_s3_server: FaultyS3
):
    proxied.check()
    count = (client.MAX_ANSWER - 100) // 4
    body = b"<ListBucketResult>" + b"<a/>" * count + b"</ListBucketResult>"
    fault = Fault(status=200, body=body)
    with (
        faulty_s3_server.suffering(fault),
        memory_limit(512 * 2**20),
        pytest.raises(BadAnswer),
    ):
        list(proxied.list())


def test_a_body_that_trickles_ends_with_an_error(
    proxied: Bucket,
    faulty_s3_server: FaultyS3,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    proxied.check()
    monkeypatch.setattr(client, "_MAX_ANSWER_SECONDS", 1)

    def slow_body() -> Iterator[bytes]:
        while True:
            yield b" "
            time.sleep(0.05)

    for call in ("list", "write", "complete_multipart_upload"):
        fault = Fault(status=200, body=slow_body)
        with (
            faulty_s3_server.suffering(fault),
            pytest.raises(BadAnswer, match="within 1 s"),
        ):
            CALLS[call](proxied, tmp_path)
    # Other requests still succeed.
    monkeypatch.undo()
    assert proxied.exists("object")


@contextmanager
def server_with_answer(
    answer: Callable[[], Iterable[bytes]], like: S3Endpoint
) -> Iterator[S3Endpoint]:
    """Run a server that gives each client the same bytes, and yield its endpoint."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(2**16)
                    for part in answer():
                        connection.sendall(part)
            except OSError:
                if listener.fileno() < 0:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        host, port = listener.getsockname()
        yield replace(like, endpoint=f"{host}:{port}", secure=False, ca_certs=None)


def test_headers_that_trickle_end_with_an_error(
    store: S3Endpoint, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(client, "_MAX_ANSWER_SECONDS", 1)

    def headers() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nX-Long: "
        while True:
            yield b"x"
            time.sleep(0.05)

    with (
        server_with_answer(headers, store) as endpoint,
        pytest.raises(BadAnswer, match="within 1 s"),
    ):
        Bucket(endpoint, "maps").check()


def test_an_answer_that_is_not_http_is_a_bucket_error(store: S3Endpoint):
    with (
        server_with_answer(
            lambda: [b"220 mail.example.org ESMTP\r\n"], store
        ) as endpoint,
        pytest.raises(BucketError),
    ):
        Bucket(endpoint, "maps").check()


def test_a_long_retry_after_is_not_obeyed(
    bucket: Bucket,
    store: S3Endpoint,
    faulty_s3_server: FaultyS3,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(buckets, "_MAX_WAIT", 1)
    proxied = via_proxy(faulty_s3_server, bucket, store)
    fault = Fault(status=503, headers={"Retry-After": "1000000"}, times=1)
    with faulty_s3_server.suffering(fault):
        assert proxied.exists("object")


@pytest.mark.parametrize(
    "date",
    [None, "", "now", "Thu, 99 Foo 2026 10:00:00", "Mon, 01 Jan 99999 1:1:1 GMT"],
)
def test_a_refusal_is_permanent_if_the_servers_date_is_missing_or_invalid(
    proxied: Bucket, faulty_s3_server: FaultyS3, date: str | None
):
    proxied.check()
    refused = Fault("GET", "list-type", status=403, headers={"Date": date})
    dated = Fault("HEAD", headers={"Date": date})
    with faulty_s3_server.suffering(refused, dated), pytest.raises(PermanentS3Error):
        list(proxied.list())


def test_a_date_without_a_zone_is_utc(proxied: Bucket, faulty_s3_server: FaultyS3):
    proxied.check()
    refused = Fault("GET", "list-type", status=403)
    for years, error in ((0, PermanentS3Error), (1, BucketError)):
        now = datetime.now(UTC)
        date = now.replace(year=now.year + years, day=min(now.day, 28))
        text = date.strftime("%a, %d %b %Y %H:%M:%S -0000")
        dated = Fault("HEAD", headers={"Date": text})
        with faulty_s3_server.suffering(refused, dated), pytest.raises(error) as caught:
            list(proxied.list())
        assert ("this machine's clock" in str(caught.value)) == bool(years)


def test_an_object_is_read_up_to_a_size_limit(new_bucket: Bucket, tmp_path: Path):
    content = b"x" * 5000
    new_bucket.write("object", content)
    file = tmp_path / "downloaded"
    assert new_bucket.read("object", 5000) == content
    assert new_bucket.download("object", file, 5000) == new_bucket.stat("object").etag
    assert file.read_bytes() == content
    with pytest.raises(ObjectTooLarge, match="4999 bytes"):
        new_bucket.read("object", 4999)
    with pytest.raises(ObjectTooLarge, match="4999 bytes"):
        new_bucket.download("object", file, 4999)
    assert not file.exists()
    new_bucket.write("empty", b"")
    assert new_bucket.read("empty", 0) == b""
    with pytest.raises(ObjectMissing):
        new_bucket.read("none", 4096)
    with pytest.raises(ObjectMissing):
        new_bucket.metadata("none")


def put(bucket: Bucket, key: str, content: bytes, headers: dict[str, str]) -> None:
    """Upload an object with any headers, as an uploader can."""
    bucket._client._execute("PUT", bucket.name, key, body=content, headers={**headers})


def test_the_size_limit_applies_to_decompressed_content(
    new_bucket: Bucket, tmp_path: Path
):
    compressed = gzip.compress(b"\0" * 100 * 2**20)
    put(new_bucket, "bomb", compressed, {"Content-Encoding": "gzip"})
    file = tmp_path / "downloaded"
    with memory_limit(16 * 2**20):
        for limit in (4096, len(compressed), 50 * 2**20):
            with pytest.raises(ObjectTooLarge):
                new_bucket.download("bomb", file, limit)
            assert not file.exists()
        with pytest.raises(ObjectTooLarge):
            new_bucket.read("bomb", 4096)
    put(new_bucket, "good", gzip.compress(b"a.tif,3\n"), {"Content-Encoding": "gzip"})
    assert new_bucket.read("good", 8) == b"a.tif,3\n"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "gzip, gzip", "gzip," * 20])
def test_content_with_a_wrong_content_encoding_is_unreadable(
    new_bucket: Bucket, tmp_path: Path, encoding: str
):
    put(new_bucket, "plain", b"a.tif,3\n", {"Content-Encoding": encoding})
    with pytest.raises(ObjectUnreadable, match="Content-Encoding"):
        new_bucket.read("plain", 4096)
    with pytest.raises(ObjectUnreadable, match="Content-Encoding"):
        new_bucket.download("plain", tmp_path / "downloaded", 4096)
    assert not (tmp_path / "downloaded").exists()


def test_endless_content_is_too_large(
    proxied: Bucket, faulty_s3_server: FaultyS3, tmp_path: Path
):
    proxied.check()

    def chunks() -> Iterator[bytes]:
        yield from itertools.repeat(b"10000\r\n" + b"x" * 2**16 + b"\r\n")

    headers = {"ETag": '"etag"', "Transfer-Encoding": "chunked"}
    fault = Fault("GET", status=200, headers=headers, body=chunks)
    with faulty_s3_server.suffering(fault), memory_limit(16 * 2**20):
        with pytest.raises(ObjectTooLarge):
            proxied.read("object", 4096)
        with pytest.raises(ObjectTooLarge):
            proxied.download("object", tmp_path / "downloaded", 10**7)
    assert not (tmp_path / "downloaded").exists()


def test_content_that_is_shorter_than_its_content_length_is_an_error(
    proxied: Bucket, faulty_s3_server: FaultyS3, tmp_path: Path
):
    proxied.check()
    fault = Fault("GET", headers={"Content-Length": "100"})
    for call in ("read", "download"):
        with faulty_s3_server.suffering(fault), pytest.raises(BucketError):
            CALLS[call](proxied, tmp_path)
    assert not (tmp_path / "downloaded").exists()


def test_an_object_with_too_much_metadata_cannot_be_read(
    seaweed: S3Endpoint, monkeypatch: pytest.MonkeyPatch
):
    """SeaweedFS does not limit the metadata of an object."""
    bucket = Bucket(seaweed, f"real-{uuid.uuid4().hex[:8]}")
    bucket.create()
    many = {f"x-amz-meta-{number}": "1" for number in range(150)}
    put(bucket, "object", b"content", many)
    for call in (bucket.stat, bucket.metadata, lambda key: bucket.read(key, ALL)):
        with pytest.raises(ObjectTooLarge, match="metadata"):
            call("object")
    assert bucket.exists("object")
    # find_objects still finds it, also with one object a page.
    bucket.write("object-of-another", b"")
    monkeypatch.setattr(buckets, "_PAGE_SIZE", 1)
    keys = ("object", "object-of-another", "other", "other-one")
    sizes = {item.key: item.size for item in bucket.find_objects(keys, lambda _: ())}
    assert sizes == {"object": 7, "object-of-another": 0}


@pytest.mark.parametrize("size", [10, 33 * 2**20])
def test_metadata_is_uploaded_with_an_object(
    new_bucket: Bucket, tmp_path: Path, size: int
):
    file = tmp_path / "file"
    with file.open("wb") as sparse:
        sparse.truncate(size)
    new_bucket.upload("object", file, "text/csv", {"token": "a b=c", "run-of": "1"})
    assert new_bucket.metadata("object") == {"token": "a b=c", "run-of": "1"}
    new_bucket.upload("object", file, "text/csv")
    assert new_bucket.metadata("object") == {}


@pytest.mark.parametrize(
    ("name", "value"), [("To ken", "x"), ("a", "ü"), ("a", "b\r\nc: d"), ("a", "")]
)
def test_metadata_that_no_header_can_contain_is_refused(
    bucket: Bucket, tmp_path: Path, name: str, value: str
):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be an object's metadata"):
        bucket.upload("object", tmp_path / "file", metadata={name: value})


SOURCE = "a b+c/ü%20&'\"#?;=.csv"


def test_an_object_is_copied_only_if_its_etag_matches(new_bucket: Bucket):
    new_bucket.write(SOURCE, b"content")
    etag = new_bucket.stat(SOURCE).etag
    assert new_bucket.copy(SOURCE, f"to/{SOURCE}", etag)
    assert new_bucket.read(f"to/{SOURCE}", 100) == b"content"
    new_bucket.write(SOURCE, b"another")
    assert not new_bucket.copy(SOURCE, "target", etag)
    assert not new_bucket.copy("none", "target", etag)
    assert {item.key for item in new_bucket.list()} == {SOURCE, f"to/{SOURCE}"}


def test_new_metadata_of_a_copy_replaces_all_metadata_of_the_source(new_bucket: Bucket):
    source_headers = {
        "x-amz-meta-token": "forged",
        "x-amz-meta-more": "of the source",
        "Content-Type": "text/csv",
        "Content-Encoding": "gzip",
    }
    put(new_bucket, "source", gzip.compress(b"content"), source_headers)
    etag = new_bucket.stat("source").etag
    assert new_bucket.copy("source", "same", etag)
    assert new_bucket.metadata("same")["more"] == "of the source"
    for target in ("target", "same"):
        assert new_bucket.copy("source", target, etag, {"token": "new"})
        assert new_bucket.metadata(target) == {"token": "new"}
        # The copy keeps the Content-Encoding, which is needed to read it.
        assert new_bucket.read(target, 100) == b"content"
    assert new_bucket.metadata("source")["more"] == "of the source"


def test_an_object_with_headers_that_cannot_be_signed_is_copied(
    proxied: Bucket, faulty_s3_server: FaultyS3
):
    etag = proxied.stat("object").etag
    headers = {"Content-Disposition": "ü", "X-Amz-Meta-A": "ü", "Expires": "a \tb"}
    with faulty_s3_server.suffering(Fault("HEAD", "object", headers=headers)):
        assert proxied.copy("object", "target", etag)
        assert proxied.copy("object", "target", etag, {"token": "new"})
    assert proxied.metadata("target") == {"token": "new"}


@pytest.mark.parametrize("metadata", [None, {"token": "new"}])
def test_an_object_that_is_too_large_for_one_copy_is_copied_in_parts(
    seaweed: S3Endpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    metadata: dict[str, str] | None,
):
    bucket = Bucket(seaweed, f"real-{uuid.uuid4().hex[:8]}")
    bucket.create()
    content = bytes(range(256)) * 2**16
    (tmp_path / "file").write_bytes(content)
    bucket.upload("source", tmp_path / "file", "text/csv", {"token": "old"})
    monkeypatch.setattr(buckets, "_MAX_COPY", 6 * 2**20)
    etag = bucket.stat("source").etag
    assert bucket.copy("source", "target", etag, metadata)
    assert bucket.read("target", len(content)) == content
    assert bucket.metadata("target") == (metadata or {"token": "old"})
    assert not bucket.copy("source", "target", NO_ETAG, metadata)


def test_a_copy_in_parts_that_fails_leaves_no_parts(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
):
    """Rclone cannot copy a part, and answers with an empty body."""
    monkeypatch.setattr(buckets, "_MAX_COPY", 2)
    with pytest.raises(BadAnswer):
        bucket.copy("object", "target", bucket.stat("object").etag)
    assert bucket.list_multipart_uploads("target") == ()
    assert not bucket.exists("target")


def test_a_copy_whose_source_is_replaced_meanwhile_is_removed(
    proxied: Bucket, bucket: Bucket, faulty_s3_server: FaultyS3
):
    etag = proxied.stat("object").etag

    def replaced(answer: bytes) -> bytes:
        bucket.write("object", b"another")
        return answer

    with faulty_s3_server.suffering(Fault("PUT", "target", rewritten=replaced)):
        assert not proxied.copy("object", "target", etag)
    assert not bucket.exists("target")


def mutate(body: bytes, changes: list[tuple[str, int, int, bytes]]) -> bytes:
    """Return a listing of which pieces are removed, doubled or replaced."""
    for change, position, length, new in changes:
        begin = position % (len(body) + 1)
        piece = body[begin : begin + length]
        rest = body[begin + length :]
        middle = {"cut": b"", "double": piece * 2, "replace": new, "end": None}[change]
        body = body[:begin] if middle is None else body[:begin] + middle + rest
    return body


WORDS = st.sampled_from(
    [
        *(b"<Contents>", b"</Contents>", b"<Key/>", b"<Size>", b"-1", b"true"),
        *(b"&amp;", b"&x;", b"%FF", b"<![CDATA[", b"]]>", b"<!--", b"\0", b"\xff"),
        *(b"<NextContinuationToken>t</NextContinuationToken>", b'xmlns="x"'),
        *(b"<IsTruncated>true</IsTruncated>", b"<EncodingType>", b"<a:b>"),
    ]
)
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["cut", "double", "replace", "replace", "end"]),
        st.integers(0, 5000),
        st.integers(0, 200),
        st.one_of(WORDS, st.binary(max_size=8)),
    ),
    min_size=1,
    max_size=6,
)


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(changes=CHANGES)
def test_a_mutated_listing_yields_objects_or_a_bucket_error(
    proxied: Bucket, faulty_s3_server: FaultyS3, changes: list
):
    fault = Fault("GET", "list-type", rewritten=lambda body: mutate(body, changes))
    with faulty_s3_server.suffering(fault):
        try:
            listed = list(proxied.list("scenes/"))
        except BucketError as error:
            assert error.__cause__ is not None
            return
    for item in listed:
        assert isinstance(item, StoredObject)
        assert item.key.startswith("scenes/")
        assert item.size >= 0
        assert isinstance(item.etag, str)
        assert item.modified.tzinfo is not None


ODD_POLLS = {
    "a web page for each request": Fault(status=200, body=HTML),
    "a web page for each listing": Fault("GET", "list-type", status=200, body=HTML),
    "a listing without ETags": Fault(
        "GET",
        "list-type",
        rewritten=lambda body: re.sub(b"<ETag>.*?</ETag>", b"", body),
    ),
    "an endless listing": pages(itertools.repeat("same"), empty=False),
    "endless empty pages": pages(itertools.repeat("same"), empty=True),
    "an endless answer": Fault("GET", "list-type", status=200, body=endless_body),
    "a web page for a manifest": Fault("GET", r"raw\.csv", status=200, body=HTML),
    "a manifest without an ETag": Fault("GET", r"raw\.csv$", headers={"ETag": None}),
    "a web page for each PUT": Fault("PUT", status=200, body=HTML),
    "a web page for each HEAD": Fault("HEAD", status=200, body=HTML),
    "a web page for each DELETE": Fault("DELETE", status=200, body=HTML),
}


@pytest.mark.timeout(600)
def test_a_poll_reports_a_server_that_does_not_speak_s3(
    faulty_archive: Archive, faulty_s3_server: FaultyS3
):
    faulty_archive.launch_to_poll_by_hand()
    faulty_archive.upload_manifest("batch-raw.csv", [("missing.tif", 3)])
    for name, fault in ODD_POLLS.items():
        with faulty_s3_server.suffering(fault):
            done = faulty_archive.poll()
        output = done.stdout + done.stderr
        assert done.returncode == 1, (name, output)
        assert "internal error" not in output, name
        assert "Traceback" not in output, name
        assert "does not speak S3" in output, name

    # The next poll still processes the manifest.
    assert faulty_archive.poll().returncode == 0
    processed, failed = faulty_archive.outcome("batch-")
    assert processed == []
    assert [row[:2] for row in failed] == [["missing.tif", "3"]]


def test_unreadable_objects_do_not_delay_other_manifests(archive: Archive):
    archive.launch_to_poll_by_hand()
    archive.upload_manifest("batch-raw.csv", [("missing.tif", 3)])
    headers = {"Content-Encoding": "gzip"}
    bomb = gzip.compress(b"a.tif,3\n" * 2**25)
    put(archive.maps, "plain-raw.csv", b"a.tif,3\n", headers)
    put(archive.maps, "bomb-raw.csv", bomb, headers)
    put(archive.maps, "forged-processing-20250101T000000Z.csv", bomb, headers)
    done = archive.poll()
    assert done.returncode == 0, done.stdout + done.stderr
    for stem in ("plain-", "bomb-"):
        ((_, _, reason),) = archive.outcome(stem)[1]
        (kept,) = archive.maps.list(f"{stem}unreadable-")
        assert kept.key in reason
    processed, failed = archive.outcome("batch-")
    assert (processed, len(failed)) == ([], 1)
