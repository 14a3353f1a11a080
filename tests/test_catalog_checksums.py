"""Checksums of a collection are right for those who check them with other tools."""

import hashlib
import logging
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import bagit
import pytest

from catalog import checksums
from catalog.collections import Provider
from catalog.record import Record
from node.result import Cog, Jpeg
from tests.support.archive import ALL
from tests.support.mosaics import Served, record_of, records_of, served
from tests.support.seaweedfs import SeaweedFS

FOLDER = "catalog/1937/"
KEYS = ("1937/a.tif", "1937/Zürich (1) & 50%.tif", "1937/sub/b.tif")
# SeaweedFS stores them under other names.
ODD_KEYS = ("1937/line\nend%0A.tif", "1937/back\\slash.tif")


@pytest.fixture
def s3(tmp_path: Path, weed: SeaweedFS) -> Iterator[Served]:
    with served(tmp_path, weed.store) as running:
        yield running


def upload(s3: Served, key: str) -> Record:
    """Upload two objects, and return the record of an image that has them."""
    record = record_of(key)
    cog, jpeg = f"COG {key}".encode(), f"JPEG {key}".encode()
    for name, content in ((record.key, cog), (record.jpeg_key, jpeg)):
        s3.bucket.write(name, content)
    result = replace(record.result, cog=part(Cog, cog), jpeg=part(Jpeg, jpeg))
    return replace(record, result=result)


def part(kind: type, content: bytes):
    sha256 = hashlib.sha256(content).hexdigest()
    return kind(bytes=len(content), md5="0" * 32, sha256=sha256)


def write(s3: Served, directory: Path, *records: Record, public_url: str = "") -> None:
    target = s3.target(directory / "scratch", public_url)
    checksums.write(records_of(records, directory), target)


def download(s3: Served, directory: Path) -> Path:
    """Download the whole bucket, as a person would."""
    for found in s3.bucket.list():
        file = directory / "all" / found.key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(s3.bucket.read(found.key, ALL))
    return directory / "all"


def check(folder: Path) -> subprocess.CompletedProcess:
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    return subprocess.run(command, cwd=folder / FOLDER, capture_output=True, text=True)


def test_sha256sum_finds_each_file_of_a_bucket_that_was_downloaded(
    s3: Served, tmp_path: Path
):
    write(s3, tmp_path, *(upload(s3, key) for key in KEYS))
    everything = download(s3, tmp_path)
    done = check(everything)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(": OK") == 2 * len(KEYS)
    (everything / "1937/a.tif").write_bytes(b"damaged")
    done = check(everything)
    assert done.returncode == 1
    assert "../../1937/a.tif: FAILED" in done.stdout


def test_a_name_with_a_line_break_is_escaped_as_coreutils_does(
    s3: Served, tmp_path: Path
):
    records = [record_of(key) for key in (*KEYS, *ODD_KEYS)]
    content = b"content"
    for record in records:
        for key in (record.key, record.jpeg_key):
            file = tmp_path / "all" / key
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    same = {"cog": part(Cog, content), "jpeg": part(Jpeg, content)}
    write(
        s3, tmp_path, *(replace(r, result=replace(r.result, **same)) for r in records)
    )
    sums = tmp_path / "all" / FOLDER / "SHA256SUMS"
    sums.parent.mkdir(parents=True)
    sums.write_bytes(s3.bucket.read(f"{FOLDER}SHA256SUMS", ALL))
    done = check(tmp_path / "all")
    assert (done.returncode, done.stderr) == (0, "")
    names = [f"../../{key}" for r in records for key in (r.key, r.jpeg_key)]
    written = subprocess.run(
        ["sha256sum", *names], cwd=sums.parent, capture_output=True, check=True
    )
    assert sorted(written.stdout.splitlines()) == sorted(sums.read_bytes().splitlines())


@pytest.mark.parametrize("public_url", ["", "https://maps.example.org/archive"])
def test_the_bag_is_valid_after_its_payload_was_fetched(
    s3: Served, tmp_path: Path, public_url: str
):
    write(s3, tmp_path, *(upload(s3, key) for key in KEYS), public_url=public_url)
    bag = fetched_bag(s3, tmp_path, public_url)
    assert bag.is_valid()
    bag.validate()
    assert bag.info["Payload-Oxum"].endswith(f".{2 * len(KEYS)}")
    # The bagit package leaves "%25" as it is, in its fetches and in its manifests.
    assert sorted(bag.payload_files()) == sorted(
        f"data/{key}".replace("%", "%25")
        for record in map(record_of, KEYS)
        for key in (record.key, record.jpeg_key)
    )
    (tmp_path / "bag/data/1937/a.tif").write_bytes(b"COG 1937/b.tif")
    assert not bag.is_valid()


def fetched_bag(s3: Served, directory: Path, public_url: str) -> bagit.Bag:
    """Download a bag, and what its fetch.txt names."""
    place = directory / "bag"
    place.mkdir()
    for found in s3.bucket.list(f"{FOLDER}bag/"):
        name = found.key.rpartition("/")[2]
        (place / name).write_bytes(s3.bucket.read(found.key, ALL))
    bag = bagit.Bag(str(place))
    root = f"{public_url}/" if public_url else f"s3://{s3.bucket.name}/"
    for url, size, path in bag.fetch_entries():
        assert url.startswith(root)
        assert urlsplit(url).scheme
        content = s3.bucket.read(unquote(url.removeprefix(root)), ALL)
        assert len(content) == int(size)
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(content)
    return bagit.Bag(str(place))


def test_the_bag_says_whose_it_is(s3: Served, tmp_path: Path):
    target = s3.target(tmp_path / "scratch")
    collection = replace(
        target.collection,
        description="Maps\nPayload-Oxum: 0.0",
        providers=(Provider("Office of Maps", ("producer",)),),
    )
    target = replace(target, collection=collection)
    checksums.write(records_of([upload(s3, "a.tif")], tmp_path), target)
    bag = fetched_bag(s3, tmp_path, "")
    bag.validate()
    assert bag.info["Source-Organization"] == "Office of Maps"
    assert bag.info["External-Description"] == "Maps Payload-Oxum: 0.0"
    assert bag.info["External-Identifier"] == "1937"


def test_files_without_sha256_are_counted(
    s3: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    old = record_of("old.tif")
    parts = {
        "cog": replace(old.result.cog, sha256=None),
        "jpeg": replace(old.result.jpeg, sha256=None),
    }
    old = replace(old, result=replace(old.result, **parts))
    with caplog.at_level(logging.WARNING):
        write(s3, tmp_path, old, upload(s3, "new.tif"))
    assert "2 files of the collection 1937 are not in the lists" in caplog.text
    bag = fetched_bag(s3, tmp_path, "")
    bag.validate()
    assert bag.info["Internal-Sender-Description"].startswith("2 files have no SHA-256")
    assert check(download(s3, tmp_path)).returncode == 0


def test_a_key_that_leaves_the_folder_is_in_no_list(s3: Served, tmp_path: Path):
    away = [record_of(f"{key}.tif") for key in ("../up", "a/../../up", "a//b")]
    write(s3, tmp_path, *away, upload(s3, "a.tif"))
    bag = fetched_bag(s3, tmp_path, "")
    bag.validate()
    assert sorted(bag.payload_files()) == ["data/a.jpg", "data/a.tif"]
    assert s3.bucket.read(f"{FOLDER}SHA256SUMS", ALL).count(b"\n") == 2


def test_a_line_break_in_a_key_is_percent_encoded_in_the_bag(
    s3: Served, tmp_path: Path
):
    write(s3, tmp_path, record_of(ODD_KEYS[0]))
    manifest = s3.bucket.read(f"{FOLDER}bag/manifest-sha256.txt", ALL).decode()
    assert manifest.splitlines()[0] == f"{'0' * 64}  data/1937/line%0Aend%250A.tif"
    fetch = s3.bucket.read(f"{FOLDER}bag/fetch.txt", ALL).decode()
    name = "1937/line%0Aend%250A.tif"
    expected = f"s3://{s3.bucket.name}/{name} 1000 data/{name}"
    assert fetch.splitlines()[0] == expected


def test_a_collection_of_nothing_has_an_empty_bag(s3: Served, tmp_path: Path):
    write(s3, tmp_path)
    assert s3.bucket.read(f"{FOLDER}SHA256SUMS", ALL) == b""
    bag = fetched_bag(s3, tmp_path, "")
    assert bag.info["Payload-Oxum"] == "0.0"
