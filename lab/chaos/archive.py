"""An archive whose people upload manifests of all kinds, and what must come of them."""

import csv
import io
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy
import rasterio
from rio_cogeo.cogeo import cog_validate

from bucket import Bucket, BucketError
from tests.support import rasters

# More than any object here has, in bytes.
_MOST = 2**30

Answer = TypeVar("Answer")
# A reason that a row may have for failing though its image is sound.
EXCUSES = (
    "removed from the queue",
    "held until it was given up",
    "left no result",
    "ended before this row was converted",
    "killed",
    "signal",
)


# What a hostile uploader puts in place of a manifest.
HOSTILE_MANIFESTS = (
    b"\0binary",
    b"image,bands,co\na.tif,1," + b"?" * 200_000 + b"\n",
    b"x\n" * 20_000,
    b'"' + b"a.tif,1\n" * 1000,
    b"[" * 100_000,
)


@dataclass(frozen=True)
class Upload:
    """A manifest as it was uploaded.

    Attributes:
        stem: what its key and those of its CSVs begin with.
        rows: key and number of bands.
        must_fail: what the reasons of rows say that cannot be converted, by key.
    """

    stem: str
    rows: tuple[tuple[str, str], ...]
    must_fail: dict[str, str]


@dataclass
class People:
    """Those who upload.

    Attributes:
        uploads: every manifest ever uploaded; the same stem may be there twice.
        originals: what every image was when it was uploaded, by key.
        planted: keys of what a hostile uploader wrote and nobody is to touch.
    """

    maps: Bucket
    cogs: Bucket
    directory: Path
    uploads: list[Upload] = field(default_factory=list)
    originals: dict[str, bytes] = field(default_factory=dict)
    planted: set[str] = field(default_factory=set)

    def upload_something(self) -> None:
        again = self.uploads and random.random() < 0.15
        upload = random.choice(self.uploads) if again else self._new_upload()
        self.uploads.append(upload)
        text = io.StringIO()
        csv.writer(text).writerows(upload.rows)
        key = f"{upload.stem}raw.csv"
        # Unless the last upload of this name still waits: it would be replaced.
        while _answered(lambda: self.maps.exists(key)):
            time.sleep(1)
        _answered(lambda: self.maps.write(key, text.getvalue().encode()))

    def plant_something(self) -> None:
        """Upload what is meant to keep others waiting, or to cost much."""
        name = f"bx{uuid.uuid4().hex[:8]}-"
        match random.choice(("manifest", "claim", "processing")):
            case "manifest":
                content = random.choice(HOSTILE_MANIFESTS)
                _answered(lambda: self.maps.write(f"{name}raw.csv", content))
                return
            case "claim":
                # Of a manifest that is to come.
                key = f"b{len(self.uploads) + 1:03}-raw.csv.claim"
                content = random.choice((b"{}", b"[" * 2000, b'{"user": "a"}'))
            case _:
                key = f"{name}processing-20200101T000000Z.csv"
                content = "".join(f"{each},1\n" for each in self.originals).encode()
        self.planted.add(key)
        _answered(lambda: self.maps.write(key, content))

    def _new_upload(self) -> Upload:
        stem = f"b{len(self.uploads):03}-"
        rows: list[tuple[str, str]] = []
        must_fail: dict[str, str] = {}
        for number in range(random.randint(1, 6)):
            key = f"scenes/{stem}{number}.tif"
            kind = random.choices(
                ("good", "old", "bad", "bands", "gone"), (6, 1, 1, 1, 1)
            )
            match kind:
                case ["old"] if self.originals:
                    # One that stands in another manifest as well.
                    key = random.choice(list(self.originals))
                    if key in dict(rows) or self._is_bad(key):
                        continue
                    rows.append((key, "1"))
                case ["bad"]:
                    self._put(key, b"no raster at all")
                    rows.append((key, "1"))
                    must_fail[key] = "cannot read it as a GeoTIFF"
                case ["bands"]:
                    self._put(key, self._raster())
                    rows.append((key, "3"))
                    must_fail[key] = "says 3 bands"
                case ["gone"]:
                    rows.append((key, "1"))
                    must_fail[key] = "not in the bucket"
                case _:
                    self._put(key, self._raster())
                    rows.append((key, "1"))
        if not rows:
            return self._new_upload()
        return Upload(stem, tuple(rows), must_fail)

    def _is_bad(self, key: str) -> bool:
        return any(key in upload.must_fail for upload in self.uploads)

    def _raster(self) -> bytes:
        path = self.directory / f"source-{uuid.uuid4().hex}.tif"
        side = random.choice((100, 600))
        rasters.write(path, 1, width=side, height=side)
        content = path.read_bytes()
        path.unlink()
        return content

    def _put(self, key: str, content: bytes) -> None:
        _answered(lambda: self.maps.write(key, content, "image/tiff"))
        self.originals[key] = content

    def waiting(self) -> list[str]:
        """The manifests that were not replaced by CSVs yet."""
        return [
            found.key
            for found in self.maps.list("b")
            if "raw.csv" in found.key or "processing-" in found.key
            if found.key not in self.planted
        ]


def _answered(ask: Callable[[], Answer]) -> Answer:
    """Ask the server until it answers: a fault may have stopped it for a moment."""
    deadline = time.monotonic() + 120
    while True:
        try:
            return ask()
        except BucketError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


@dataclass(frozen=True)
class Verdict:
    """How the promise was kept.

    Attributes:
        broken: a sentence for each breach.
        excused: the reasons of sound rows that failed for a fault.
    """

    rows: int
    processed: int
    failed: int
    excused: tuple[str, ...]
    broken: tuple[str, ...]


def judge(people: People) -> Verdict:
    """Check the promise for every row of every manifest ever uploaded."""
    broken: list[str] = []
    excused: list[str] = []
    rows = processed_count = failed_count = 0
    for stem in dict.fromkeys(upload.stem for upload in people.uploads):
        uploads = [upload for upload in people.uploads if upload.stem == stem]
        upload = uploads[0]
        expected = sorted(row for each in uploads for row in each.rows)
        rows += len(expected)
        processed = _rows(people.maps, f"{stem}processed-")
        failed = _rows(people.maps, f"{stem}failed-")
        processed_count += len(processed)
        failed_count += len(failed)
        got = sorted((row[0], row[1]) for row in processed + failed)
        if got != expected:
            broken.append(f"{stem}: {len(expected)} rows went in, {len(got)} came out")
        for key, *_ in processed:
            if key in upload.must_fail:
                broken.append(f"{stem}: {key} cannot have been processed")
            elif fault := _wrong_with_outputs(people, key):
                broken.append(f"{stem}: {key}: {fault}")
        for key, _, reason in failed:
            if wanted := upload.must_fail.get(key):
                if wanted not in reason and not _is_excuse(reason):
                    broken.append(f"{stem}: {key}: said {reason!r}, not {wanted!r}")
            elif _is_excuse(reason):
                excused.append(reason)
            else:
                broken.append(f"{stem}: {key}: failed for no good reason: {reason}")
    for key, content in people.originals.items():
        if people.maps.read(key, _MOST) != content:
            broken.append(f"the original {key} was changed")
    return Verdict(rows, processed_count, failed_count, tuple(excused), tuple(broken))


def _is_excuse(reason: str) -> bool:
    return any(excuse in reason for excuse in EXCUSES)


def _rows(bucket: Bucket, prefix: str) -> list[list[str]]:
    return [
        row
        for found in bucket.list(prefix)
        for row in csv.reader(io.StringIO(bucket.read(found.key, _MOST).decode()))
    ]


def _wrong_with_outputs(people: People, key: str) -> str | None:
    if not people.cogs.exists(key.replace(".tif", ".jpg")):
        return "there is no JPEG"
    if not people.cogs.exists(key):
        return "there is no COG"
    cog = people.directory / "cog.tif"
    cog.write_bytes(people.cogs.read(key, _MOST))
    source = people.directory / "source.tif"
    source.write_bytes(people.originals[key])
    valid, errors, _ = cog_validate(cog, quiet=True)
    if not valid:
        return f"no valid COG: {errors}"
    with rasterio.open(cog) as made, rasterio.open(source) as given:
        if not numpy.array_equal(made.read(), given.read()):
            return "the COG has other pixels"
    return None
