"""A server that does not answer as S3 does, and objects that nobody should read whole.

The server behind the faults is real; what it answers is changed on the way.
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
    "a web page that is XML": XHTML,
    "a web page with a DOCTYPE": b"<!DOCTYPE html>" + XHTML,
    "nothing": b"",
    "another answer of S3's": OTHER,
    "half an answer": b"<?xml version='1.0'?><ListBucketResult><Name>ma",
    "no UTF-8": b"<ListBucketResult>\xff\xfe</ListBucketResult>",
    "JSON": b'{"Contents": []}',
    "a bomb": BOMB,
    "deep nesting": DEEP,
}


def upload_some(bucket: Bucket, place: Path, size: int) -> None:
    file = place / "file"
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
    "download": lambda bucket, place: bucket.download("object", place / "got", ALL),
    "write": lambda bucket, _: bucket.write("new", b"content"),
    "write_if_absent": lambda bucket, _: bucket.write_if_absent("new", b"content"),
    "upload": lambda bucket, place: upload_some(bucket, place, 10),
    "upload in parts": lambda bucket, place: upload_some(bucket, place, 33 * 2**20),
    "copy": lambda bucket, _: bucket.copy("object", "new", NO_ETAG),
    "start_multipart_upload": lambda bucket, _: bucket.start_multipart_upload(
        "new", "image/tiff"
    ),
    "parts": lambda bucket, _: bucket.list_parts("new", "upload"),
    "complete_multipart_upload": lambda bucket, _: bucket.complete_multipart_upload(
        "new", "upload", "a"
    ),
    "list_multipart_uploads": lambda bucket, _: bucket.list_multipart_uploads("new"),
    "remove": lambda bucket, _: bucket.remove("object"),
    "abort_multipart_upload": lambda bucket, _: bucket.abort_multipart_upload(
        "object", "upload"
    ),
}
# S3 itself answers these with nothing.
ANSWERED_BY_NOTHING = ("remove", "abort_multipart_upload")


@pytest.fixture
def bucket(store: S3Endpoint) -> Bucket:
    """A bucket with a few objects, on a server that answers as S3 does."""
    made = Bucket(store, f"odd-{uuid.uuid4().hex[:8]}")
    made.create()
    for number in range(5):
        made.write(f"scenes/{number}.tif", b"x" * number)
    made.write("object", b"content")
    return made


@pytest.fixture
def odd(bucket: Bucket, store: S3Endpoint, faulty_s3_server: FaultyS3) -> Bucket:
    """The same, by way of a proxy that changes answers."""
    return reached_by(faulty_s3_server, bucket, store)


def reached_by(proxy: FaultyS3, bucket: Bucket, store: S3Endpoint) -> Bucket:
    return Bucket(replace(store, endpoint=proxy.endpoint), bucket.name)


@pytest.fixture(scope="module")
def weed(
    store: S3Endpoint, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[S3Endpoint]:
    with seaweedfs.running(tmp_path_factory.mktemp("seaweed"), store) as started:
        yield started


@pytest.fixture(params=["rclone", "SeaweedFS"])
def real(request: pytest.FixtureRequest) -> Bucket:
    """A new bucket on each of the two servers."""
    name = "store" if request.param == "rclone" else "weed"
    made = Bucket(request.getfixturevalue(name), f"real-{uuid.uuid4().hex[:8]}")
    made.create()
    return made


@pytest.mark.parametrize("call", CALLS)
def test_success_with_an_odd_body_is_a_bad_answer(
    odd: Bucket, faulty_s3_server: FaultyS3, tmp_path: Path, call: str
):
    odd.check()
    for name, body in ODD_BODIES.items():
        if name == "nothing" and call in ANSWERED_BY_NOTHING:
            continue
        fault = Fault(status=200, body=body)
        with faulty_s3_server.suffering(fault), pytest.raises(BadAnswer) as caught:
            CALLS[call](odd, tmp_path)
        assert "does not speak S3" in str(caught.value), name
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1000
        assert not (tmp_path / "got").exists()


@pytest.mark.parametrize("call", CALLS)
def test_an_odd_answer_to_the_first_question_is_a_bad_answer(
    bucket: Bucket,
    store: S3Endpoint,
    faulty_s3_server: FaultyS3,
    tmp_path: Path,
    call: str,
):
    for body in (HTML, b"", BOMB, b"<html>a&#10;b</html>"):
        # It asks for the bucket's region, once.
        odd = reached_by(faulty_s3_server, bucket, store)
        fault = Fault(status=200, body=body)
        with faulty_s3_server.suffering(fault), pytest.raises(BadAnswer):
            CALLS[call](odd, tmp_path)


@pytest.mark.parametrize("status", [201, 202, 204, 206, 301, 302, 303, 307, 308, 404])
def test_another_status_is_an_error_with_a_name(
    odd: Bucket, faulty_s3_server: FaultyS3, tmp_path: Path, status: int
):
    odd.check()
    elsewhere = {"Location": f"https://{faulty_s3_server.endpoint}/elsewhere/x"}
    for call, do in CALLS.items():
        if call in ANSWERED_BY_NOTHING or (call, status) == ("exists", 404):
            continue
        if (call, status) == ("copy", 404):
            continue
        for body in (HTML, b""):
            fault = Fault(status=status, body=body, headers=elsewhere)
            with faulty_s3_server.suffering(fault), pytest.raises(BucketError):
                do(odd, tmp_path)
    assert faulty_s3_server.count(".*", "elsewhere") == 0


def rewriting(pattern: str, by: str) -> Fault:
    """In the answer to a listing, other words."""
    changed = re.compile(pattern.encode(), re.DOTALL)
    return Fault(
        "GET", "list-type", rewritten=lambda body: changed.sub(by.encode(), body, 1)
    )


@pytest.mark.parametrize(
    ("pattern", "by"),
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
def test_a_listing_that_lacks_what_s3_tells_is_a_bad_answer(
    odd: Bucket, faulty_s3_server: FaultyS3, pattern: str, by: str
):
    fault = rewriting(pattern, by)
    with faulty_s3_server.suffering(fault), pytest.raises(BadAnswer):
        list(odd.list("scenes/"))


@pytest.mark.parametrize("empty", ["<ETag></ETag>", "<ETag/>", '<ETag>""</ETag>'])
def test_an_object_that_is_being_written_may_have_an_empty_etag(
    odd: Bucket, bucket: Bucket, faulty_s3_server: FaultyS3, empty: str
):
    """Rclone's listings have that."""
    with faulty_s3_server.suffering(rewriting("<ETag>.*?</ETag>", empty)):
        first, second, *_ = odd.list("scenes/")
    assert (first.etag, second.etag) == ("", bucket.stat(second.key).etag)
    assert not odd.copy(first.key, "target", first.etag)


def test_a_key_that_is_not_utf_8_is_left_out(odd: Bucket, faulty_s3_server: FaultyS3):
    with faulty_s3_server.suffering(rewriting("0.tif", "%FF%FE.tif")):
        keys = [found.key for found in odd.list("scenes/")]
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
        ("upload", {"ETag": None}),
    ],
)
def test_headers_that_lack_what_s3_tells_are_a_bad_answer(
    odd: Bucket,
    faulty_s3_server: FaultyS3,
    tmp_path: Path,
    call: str,
    headers: dict[str, str | None],
):
    odd.check()
    fault = Fault("HEAD|GET|PUT", headers=headers)
    with faulty_s3_server.suffering(fault), pytest.raises(BadAnswer):
        CALLS[call](odd, tmp_path)
    assert not (tmp_path / "got").exists()


@pytest.mark.parametrize("pattern", ["<PartNumber>.*?<", "<Size>.*?<", "<ETag>.*?<"])
def test_parts_that_lack_what_s3_tells_are_a_bad_answer(
    odd: Bucket, faulty_s3_server: FaultyS3, pattern: str
):
    upload = odd.start_multipart_upload("parts", "image/tiff")
    url = odd.url_to_write_part("parts", upload, 1, 60)
    assert odd._http.request("PUT", url, body=b"part").status == 200
    (part,) = odd.list_parts("parts", upload)
    assert part.size == 4
    # Of the elements that a part has, one is empty.
    emptied = re.compile(pattern.encode())
    fault = Fault(
        "GET",
        rewritten=lambda body: emptied.sub(
            lambda found: found[0].partition(b">")[0] + b"><", body
        ),
    )
    with faulty_s3_server.suffering(fault), pytest.raises(BadAnswer):
        odd.list_parts("parts", upload)


def test_an_upload_without_an_id_is_a_bad_answer(
    odd: Bucket, faulty_s3_server: FaultyS3
):
    odd.check()
    fault = Fault("POST", rewritten=lambda body: body.replace(b"UploadId", b"Other"))
    with faulty_s3_server.suffering(fault), pytest.raises(BadAnswer, match="UploadId"):
        odd.start_multipart_upload("parts", "image/tiff")


def test_a_failure_that_says_success_keeps_its_code(
    odd: Bucket, faulty_s3_server: FaultyS3, tmp_path: Path
):
    odd.check()
    body = b"<Error><Code>InternalError</Code><Message>Try again</Message></Error>"
    for call in (
        "list",
        "parts",
        "complete_multipart_upload",
        "start_multipart_upload",
    ):
        fault = Fault(status=200, body=body)
        with faulty_s3_server.suffering(fault), pytest.raises(BucketError) as caught:
            CALLS[call](odd, tmp_path)
        assert caught.value.code == "InternalError"


@pytest.mark.parametrize("few", [False, True])
def test_several_slashes_in_a_key_that_somebody_names_do_no_harm(
    real: Bucket, few: bool, monkeypatch: pytest.MonkeyPatch
):
    for number in range(5):
        real.write(f"x/{number}.tif", b"x")
    if few:
        # As in a bucket of so many objects that each key is asked for.
        monkeypatch.setattr(buckets, "_PAGE_SIZE", 1)
    for keys in (["x//7.tif", "x//8.tif"], ["x/0.tif", "x//7.tif"]):
        found = {each.key for each in real.find_objects(keys, lambda key: ())}
        assert not {"x//7.tif", "x//8.tif"} & found
        assert ("x/0.tif" in found) == ("x/0.tif" in keys)


def pages(tokens: Iterable[str], empty: bool) -> Fault:
    """A listing of which each page is the same, but for the token of the next."""
    following = iter(tokens)
    first: list[bytes] = []

    def rewritten(body: bytes) -> bytes:
        first.append(body)
        body = first[0]
        token = f"<NextContinuationToken>{next(following)}</NextContinuationToken>"
        body = re.sub(b"<IsTruncated>.*?</IsTruncated>", b"", body)
        body = re.sub(b"<Contents>.*</Contents>", b"", body, flags=re.S * empty)
        more = f"<IsTruncated>true</IsTruncated>{token}</ListBucketResult>"
        return body.replace(b"</ListBucketResult>", more.encode())

    return Fault("GET", "list-type", rewritten=rewritten)


@pytest.mark.parametrize("empty", [True, False])
@pytest.mark.parametrize(
    "tokens", ["one", "two", "new ones"], ids=lambda tokens: f"tokens: {tokens}"
)
def test_a_listing_without_end_ends(
    odd: Bucket,
    faulty_s3_server: FaultyS3,
    monkeypatch: pytest.MonkeyPatch,
    tokens: str,
    empty: bool,
):
    monkeypatch.setattr(buckets, "_MAX_EMPTY_PAGES", 20)
    odd.check()
    faulty_s3_server.requests.clear()
    names = {
        "one": itertools.repeat("same"),
        "two": itertools.cycle(["this", "that"]),
        "new ones": map("{:04}".format, itertools.count()),
    }
    fault = pages(names[tokens], empty)
    with (
        faulty_s3_server.suffering(fault),
        pytest.raises(BadAnswer, match="that never ends"),
    ):
        list(odd.list())
    assert faulty_s3_server.count("GET", "list-type") <= 21


def test_a_token_may_be_the_key_that_comes_next(
    odd: Bucket, faulty_s3_server: FaultyS3
):
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
        assert [found.key for found in odd.list("scenes/")] == keys


def test_a_listing_of_many_pages_is_whole(
    real: Bucket, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(buckets, "_PAGE_SIZE", 7)
    keys = {f"scenes/ä {number}+%20&<#?.tif" for number in range(30)}
    keys |= {"scenes/\x01\n.tif", "scenes/\ufffd.tif"}
    for key in (*keys, "scene", "scenez"):
        real.write(key, b"")
    listed = [found.key for found in real.list("scenes/")]
    assert set(listed) == keys
    assert len(listed) == len(keys)


def test_an_answer_that_is_cut_off_is_asked_for_again(
    odd: Bucket, faulty_s3_server: FaultyS3
):
    odd.check()
    cut = Fault("GET", "list-type", cut_after=100, times=3)
    with faulty_s3_server.suffering(cut):
        assert len(list(odd.list())) == 6
    forever = replace(cut, times=None)
    with faulty_s3_server.suffering(forever), pytest.raises(BucketError):
        list(odd.list())
    # Nobody knows whether what is not to be done twice was done.
    faulty_s3_server.requests.clear()
    cut = Fault("POST", cut_after=20)
    with faulty_s3_server.suffering(cut), pytest.raises(BucketError):
        odd.start_multipart_upload("new", "image/tiff")
    assert faulty_s3_server.count("POST") == 1


@contextmanager
def little_memory(most: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def without_end() -> Iterator[bytes]:
    yield b"<ListBucketResult>"
    yield from itertools.repeat(b" " * 2**16)


@pytest.mark.parametrize("status", [200, 403, 503])
def test_an_answer_without_end_ends(
    odd: Bucket, faulty_s3_server: FaultyS3, tmp_path: Path, status: int
):
    odd.check()
    fault = Fault(status=status, body=without_end)
    for call in ("list", "write", "complete_multipart_upload", "remove"):
        with (
            faulty_s3_server.suffering(fault),
            little_memory(8 * client.MAX_ANSWER),
            pytest.raises(BadAnswer, match="more than 8 MiB"),
        ):
            CALLS[call](odd, tmp_path)


def test_an_answer_of_tiny_elements_takes_little_memory(
    odd: Bucket, faulty_s3_server: FaultyS3
):
    odd.check()
    many = (client.MAX_ANSWER - 100) // 4
    body = b"<ListBucketResult>" + b"<a/>" * many + b"</ListBucketResult>"
    fault = Fault(status=200, body=body)
    with (
        faulty_s3_server.suffering(fault),
        little_memory(512 * 2**20),
        pytest.raises(BadAnswer),
    ):
        list(odd.list())


def test_an_answer_that_trickles_ends(
    odd: Bucket,
    faulty_s3_server: FaultyS3,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    odd.check()
    monkeypatch.setattr(client, "_MAX_ANSWER_SECONDS", 1)

    def drops() -> Iterator[bytes]:
        while True:
            yield b" "
            time.sleep(0.05)

    for call in ("list", "write", "complete_multipart_upload"):
        fault = Fault(status=200, body=drops)
        with (
            faulty_s3_server.suffering(fault),
            pytest.raises(BadAnswer, match="within 1 s"),
        ):
            CALLS[call](odd, tmp_path)
    # The connections that are left serve.
    monkeypatch.undo()
    assert odd.exists("object")


@contextmanager
def answering(
    answer: Callable[[], Iterable[bytes]], like: S3Endpoint
) -> Iterator[S3Endpoint]:
    """A server that says the same to everyone, byte by byte as it is given."""

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


def test_headers_that_trickle_end(store: S3Endpoint, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client, "_MAX_ANSWER_SECONDS", 1)

    def headers() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nX-Long: "
        while True:
            yield b"x"
            time.sleep(0.05)

    with (
        answering(headers, store) as trickling,
        pytest.raises(BadAnswer, match="within 1 s"),
    ):
        Bucket(trickling, "maps").check()


def test_what_is_no_http_is_an_error_with_a_name(store: S3Endpoint):
    with (
        answering(lambda: [b"220 mail.example.org ESMTP\r\n"], store) as other,
        pytest.raises(BucketError),
    ):
        Bucket(other, "maps").check()


def test_a_server_that_asks_for_patience_is_not_waited_for_long(
    bucket: Bucket,
    store: S3Endpoint,
    faulty_s3_server: FaultyS3,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(buckets, "_MAX_WAIT", 1)
    odd = reached_by(faulty_s3_server, bucket, store)
    fault = Fault(status=503, headers={"Retry-After": "1000000"}, times=1)
    with faulty_s3_server.suffering(fault):
        assert odd.exists("object")


@pytest.mark.parametrize(
    "date",
    [None, "", "now", "Thu, 99 Foo 2026 10:00:00", "Mon, 01 Jan 99999 1:1:1 GMT"],
)
def test_a_refusal_stays_one_where_the_servers_date_tells_nothing(
    odd: Bucket, faulty_s3_server: FaultyS3, date: str | None
):
    odd.check()
    refused = Fault("GET", "list-type", status=403, headers={"Date": date})
    dated = Fault("HEAD", headers={"Date": date})
    with faulty_s3_server.suffering(refused, dated), pytest.raises(PermanentS3Error):
        list(odd.list())


def test_a_date_without_a_zone_is_utc(odd: Bucket, faulty_s3_server: FaultyS3):
    odd.check()
    refused = Fault("GET", "list-type", status=403)
    for year, kind in ((0, PermanentS3Error), (1, BucketError)):
        now = datetime.now(UTC)
        date = now.replace(year=now.year + year, day=min(now.day, 28))
        text = date.strftime("%a, %d %b %Y %H:%M:%S -0000")
        dated = Fault("HEAD", headers={"Date": text})
        with faulty_s3_server.suffering(refused, dated), pytest.raises(kind) as caught:
            list(odd.list())
        assert ("this machine's clock" in str(caught.value)) == bool(year)


def test_an_object_is_read_up_to_what_is_allowed(real: Bucket, tmp_path: Path):
    content = b"x" * 5000
    real.write("object", content)
    file = tmp_path / "got"
    assert real.read("object", 5000) == content
    assert real.download("object", file, 5000) == real.stat("object").etag
    assert file.read_bytes() == content
    with pytest.raises(ObjectTooLarge, match="4999 bytes"):
        real.read("object", 4999)
    with pytest.raises(ObjectTooLarge, match="4999 bytes"):
        real.download("object", file, 4999)
    assert not file.exists()
    real.write("empty", b"")
    assert real.read("empty", 0) == b""
    with pytest.raises(ObjectMissing):
        real.read("none", 4096)
    with pytest.raises(ObjectMissing):
        real.metadata("none")


def put(bucket: Bucket, key: str, content: bytes, headers: dict[str, str]) -> None:
    """Upload as anybody may, with any headers."""
    bucket._client._execute("PUT", bucket.name, key, body=content, headers={**headers})


def test_compressed_content_is_bounded_by_what_it_becomes(real: Bucket, tmp_path: Path):
    compressed = gzip.compress(b"\0" * 100 * 2**20)
    put(real, "bomb", compressed, {"Content-Encoding": "gzip"})
    file = tmp_path / "got"
    with little_memory(16 * 2**20):
        for most in (4096, len(compressed), 50 * 2**20):
            with pytest.raises(ObjectTooLarge):
                real.download("bomb", file, most)
            assert not file.exists()
        with pytest.raises(ObjectTooLarge):
            real.read("bomb", 4096)
    put(real, "good", gzip.compress(b"a.tif,3\n"), {"Content-Encoding": "gzip"})
    assert real.read("good", 8) == b"a.tif,3\n"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "gzip, gzip", "gzip," * 20])
def test_content_that_is_not_encoded_as_it_says_is_unreadable(
    real: Bucket, tmp_path: Path, encoding: str
):
    put(real, "plain", b"a.tif,3\n", {"Content-Encoding": encoding})
    with pytest.raises(ObjectUnreadable, match="Content-Encoding"):
        real.read("plain", 4096)
    with pytest.raises(ObjectUnreadable, match="Content-Encoding"):
        real.download("plain", tmp_path / "got", 4096)
    assert not (tmp_path / "got").exists()


def test_content_without_end_ends(
    odd: Bucket, faulty_s3_server: FaultyS3, tmp_path: Path
):
    odd.check()

    def chunks() -> Iterator[bytes]:
        yield from itertools.repeat(b"10000\r\n" + b"x" * 2**16 + b"\r\n")

    headers = {"ETag": '"etag"', "Transfer-Encoding": "chunked"}
    fault = Fault("GET", status=200, headers=headers, body=chunks)
    with faulty_s3_server.suffering(fault), little_memory(16 * 2**20):
        with pytest.raises(ObjectTooLarge):
            odd.read("object", 4096)
        with pytest.raises(ObjectTooLarge):
            odd.download("object", tmp_path / "got", 10**7)
    assert not (tmp_path / "got").exists()


def test_content_that_is_shorter_than_it_says_is_an_error(
    odd: Bucket, faulty_s3_server: FaultyS3, tmp_path: Path
):
    odd.check()
    fault = Fault("GET", headers={"Content-Length": "100"})
    for call in ("read", "download"):
        with faulty_s3_server.suffering(fault), pytest.raises(BucketError):
            CALLS[call](odd, tmp_path)
    assert not (tmp_path / "got").exists()


def test_metadata_beyond_all_bounds_makes_an_object_unreadable(
    weed: S3Endpoint, monkeypatch: pytest.MonkeyPatch
):
    """SeaweedFS takes as much of it as anybody likes to send."""
    bucket = Bucket(weed, f"real-{uuid.uuid4().hex[:8]}")
    bucket.create()
    many = {f"x-amz-meta-{number}": "1" for number in range(150)}
    put(bucket, "object", b"content", many)
    for look in (bucket.stat, bucket.metadata, lambda key: bucket.read(key, ALL)):
        with pytest.raises(ObjectTooLarge, match="metadata"):
            look("object")
    assert bucket.exists("object")
    # It is found nevertheless, among however many others.
    bucket.write("object-of-another", b"")
    monkeypatch.setattr(buckets, "_PAGE_SIZE", 1)
    sought = ("object", "object-of-another", "other", "other-one")
    found = {each.key: each.size for each in bucket.find_objects(sought, lambda _: ())}
    assert found == {"object": 7, "object-of-another": 0}


@pytest.mark.parametrize("size", [10, 33 * 2**20])
def test_metadata_goes_up_with_an_object(real: Bucket, tmp_path: Path, size: int):
    file = tmp_path / "file"
    with file.open("wb") as sparse:
        sparse.truncate(size)
    real.upload("object", file, "text/csv", {"token": "a b=c", "run-of": "1"})
    assert real.metadata("object") == {"token": "a b=c", "run-of": "1"}
    real.upload("object", file, "text/csv")
    assert real.metadata("object") == {}


@pytest.mark.parametrize(
    ("name", "value"), [("To ken", "x"), ("a", "ü"), ("a", "b\r\nc: d"), ("a", "")]
)
def test_metadata_that_no_header_can_hold_is_refused(
    bucket: Bucket, tmp_path: Path, name: str, value: str
):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be an object's metadata"):
        bucket.upload("object", tmp_path / "file", metadata={name: value})


SOURCE = "a b+c/ü%20&'\"#?;=.csv"


def test_an_object_is_copied_as_long_as_it_is_the_one_that_was_meant(real: Bucket):
    real.write(SOURCE, b"content")
    etag = real.stat(SOURCE).etag
    assert real.copy(SOURCE, f"to/{SOURCE}", etag)
    assert real.read(f"to/{SOURCE}", 100) == b"content"
    real.write(SOURCE, b"another")
    assert not real.copy(SOURCE, "target", etag)
    assert not real.copy("none", "target", etag)
    assert {found.key for found in real.list()} == {SOURCE, f"to/{SOURCE}"}


def test_a_copy_has_the_metadata_that_is_given_and_no_other(real: Bucket):
    theirs = {
        "x-amz-meta-token": "forged",
        "x-amz-meta-more": "theirs",
        "Content-Type": "text/csv",
        "Content-Encoding": "gzip",
    }
    put(real, "source", gzip.compress(b"content"), theirs)
    etag = real.stat("source").etag
    assert real.copy("source", "same", etag)
    assert real.metadata("same")["more"] == "theirs"
    for target in ("target", "same"):
        assert real.copy("source", target, etag, {"token": "ours"})
        assert real.metadata(target) == {"token": "ours"}
        # What is needed to read it is kept.
        assert real.read(target, 100) == b"content"
    assert real.metadata("source")["more"] == "theirs"


def test_headers_that_cannot_be_signed_keep_nothing_from_being_copied(
    odd: Bucket, faulty_s3_server: FaultyS3
):
    etag = odd.stat("object").etag
    theirs = {"Content-Disposition": "ü", "X-Amz-Meta-A": "ü", "Expires": "a \tb"}
    with faulty_s3_server.suffering(Fault("HEAD", "object", headers=theirs)):
        assert odd.copy("object", "target", etag)
        assert odd.copy("object", "target", etag, {"token": "ours"})
    assert odd.metadata("target") == {"token": "ours"}


@pytest.mark.parametrize("metadata", [None, {"token": "ours"}])
def test_an_object_that_is_too_large_for_one_copy_is_copied_in_parts(
    weed: S3Endpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    metadata: dict[str, str] | None,
):
    bucket = Bucket(weed, f"real-{uuid.uuid4().hex[:8]}")
    bucket.create()
    content = bytes(range(256)) * 2**16
    (tmp_path / "file").write_bytes(content)
    bucket.upload("source", tmp_path / "file", "text/csv", {"token": "theirs"})
    monkeypatch.setattr(buckets, "_MAX_COPY", 6 * 2**20)
    etag = bucket.stat("source").etag
    assert bucket.copy("source", "target", etag, metadata)
    assert bucket.read("target", len(content)) == content
    assert bucket.metadata("target") == (metadata or {"token": "theirs"})
    assert not bucket.copy("source", "target", NO_ETAG, metadata)


def test_a_copy_in_parts_that_fails_leaves_no_parts(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
):
    """Rclone does not know it, and answers with nothing."""
    monkeypatch.setattr(buckets, "_MAX_COPY", 2)
    with pytest.raises(BadAnswer):
        bucket.copy("object", "target", bucket.stat("object").etag)
    assert bucket.list_multipart_uploads("target") == ()
    assert not bucket.exists("target")


def test_what_is_replaced_while_it_is_copied_is_no_copy(
    odd: Bucket, bucket: Bucket, faulty_s3_server: FaultyS3
):
    etag = odd.stat("object").etag

    def replaced(answer: bytes) -> bytes:
        bucket.write("object", b"another")
        return answer

    with faulty_s3_server.suffering(Fault("PUT", "target", rewritten=replaced)):
        assert not odd.copy("object", "target", etag)
    assert not bucket.exists("target")


def mutated(body: bytes, changes: list[tuple[str, int, int, bytes]]) -> bytes:
    """A listing with some of it removed, doubled, moved or replaced."""
    for how, at, length, new in changes:
        begin = at % (len(body) + 1)
        piece = body[begin : begin + length]
        rest = body[begin + length :]
        middle = {"cut": b"", "double": piece * 2, "replace": new, "end": None}[how]
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
def test_a_listing_that_is_changed_anyhow_gives_objects_or_an_error_with_a_name(
    odd: Bucket, faulty_s3_server: FaultyS3, changes: list
):
    fault = Fault("GET", "list-type", rewritten=lambda body: mutated(body, changes))
    with faulty_s3_server.suffering(fault):
        try:
            listed = list(odd.list("scenes/"))
        except BucketError as error:
            assert error.__cause__ is not None
            return
    for found in listed:
        assert isinstance(found, StoredObject)
        assert found.key.startswith("scenes/")
        assert found.size >= 0
        assert isinstance(found.etag, str)
        assert found.modified.tzinfo is not None


ODD_POLLS = {
    "a web page for everything": Fault(status=200, body=HTML),
    "a web page for each listing": Fault("GET", "list-type", status=200, body=HTML),
    "a listing without ETags": Fault(
        "GET",
        "list-type",
        rewritten=lambda body: re.sub(b"<ETag>.*?</ETag>", b"", body),
    ),
    "a listing without end": pages(itertools.repeat("same"), empty=False),
    "empty pages without end": pages(itertools.repeat("same"), empty=True),
    "an answer without end": Fault("GET", "list-type", status=200, body=without_end),
    "a web page for a manifest": Fault("GET", r"raw\.csv", status=200, body=HTML),
    "no ETag with a manifest": Fault("GET", r"raw\.csv$", headers={"ETag": None}),
    "a web page for what is written": Fault("PUT", status=200, body=HTML),
    "a web page for what is looked at": Fault("HEAD", status=200, body=HTML),
    "a web page for what is removed": Fault("DELETE", status=200, body=HTML),
}


@pytest.mark.timeout(600)
def test_a_poll_ends_with_a_sentence_whatever_the_server_answers(
    faulty_archive: Archive, faulty_s3_server: FaultyS3
):
    faulty_archive.launch_to_poll_by_hand()
    faulty_archive.upload_manifest("batch-raw.csv", [("missing.tif", 3)])
    for name, fault in ODD_POLLS.items():
        with faulty_s3_server.suffering(fault):
            done = faulty_archive.poll()
        said = done.stdout + done.stderr
        assert done.returncode == 1, (name, said)
        assert "internal error" not in said, name
        assert "Traceback" not in said, name
        assert "does not speak S3" in said, name

    # Nothing was lost meanwhile.
    assert faulty_archive.poll().returncode == 0
    processed, failed = faulty_archive.outcome("batch-")
    assert processed == []
    assert [row[:2] for row in failed] == [["missing.tif", "3"]]


def test_what_cannot_be_read_keeps_no_other_manifest_waiting(archive: Archive):
    archive.launch_to_poll_by_hand()
    archive.upload_manifest("batch-raw.csv", [("missing.tif", 3)])
    wrong = {"Content-Encoding": "gzip"}
    bomb = gzip.compress(b"a.tif,3\n" * 2**25)
    put(archive.maps, "plain-raw.csv", b"a.tif,3\n", wrong)
    put(archive.maps, "bomb-raw.csv", bomb, wrong)
    put(archive.maps, "forged-processing-20250101T000000Z.csv", bomb, wrong)
    done = archive.poll()
    assert done.returncode == 0, done.stdout + done.stderr
    for stem in ("plain-", "bomb-"):
        ((_, _, reason),) = archive.outcome(stem)[1]
        (kept,) = archive.maps.list(f"{stem}unreadable-")
        assert kept.key in reason
    processed, failed = archive.outcome("batch-")
    assert (processed, len(failed)) == ([], 1)
