"""Upload manifests of all kinds to an archive, and check what became of them."""

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

# No object here is larger, in bytes.
_MAX_BYTES = 2**30

Answer = TypeVar("Answer")
# Parts of the reasons for which a row may fail although its image is valid.
EXCUSES = (
    "removed from the queue",
    "given up while it was held",
    "left no result",
    "ended before this row was converted",
    "killed",
    "signal",
)


# Contents that a hostile uploader writes in place of a manifest.
HOSTILE_MANIFESTS = (
    b"\0binary",
    b"image,bands,co\na.tif,1," + b"?" * 200_000 + b"\n",
    b"x\n" * 20_000,
    b'"' + b"a.tif,1\n" * 1000,
    b"[" * 100_000,
)


@dataclass(frozen=True)
class Upload:
    """An uploaded manifest.

    Attributes:
        stem: beginning of its key and of the keys of its CSVs.
        rows: key and number of bands of each row.
        expected_reasons: part of the reason of each row that must fail, by key.
    """

    stem: str
    rows: tuple[tuple[str, str], ...]
    expected_reasons: dict[str, str]


@dataclass
class Uploaders:
    """The users who upload to the archive.

    Attributes:
        uploads: every manifest ever uploaded; a stem may be there twice.
        originals: content of every image when it was uploaded, by key.
        hostile_keys: keys of objects that a hostile user wrote and that the pipeline
            must leave as they are.
    """

    maps: Bucket
    cogs: Bucket
    directory: Path
    uploads: list[Upload] = field(default_factory=list)
    originals: dict[str, bytes] = field(default_factory=dict)
    hostile_keys: set[str] = field(default_factory=set)

    def upload_manifest(self) -> None:
        """Upload a new manifest and its images, or a former manifest again."""
        is_again = self.uploads and random.random() < 0.15
        upload = random.choice(self.uploads) if is_again else self._new_upload()
        self.uploads.append(upload)
        text = io.StringIO()
        csv.writer(text).writerows(upload.rows)
        key = f"{upload.stem}raw.csv"
        # A manifest of this name that still waits would be replaced.
        while _retry(lambda: self.maps.exists(key)):
            time.sleep(1)
        _retry(lambda: self.maps.write(key, text.getvalue().encode()))

    def upload_hostile_object(self) -> None:
        """Upload an object that should delay others or cost much."""
        name = f"bx{uuid.uuid4().hex[:8]}-"
        match random.choice(("manifest", "claim", "processing")):
            case "manifest":
                content = random.choice(HOSTILE_MANIFESTS)
                _retry(lambda: self.maps.write(f"{name}raw.csv", content))
                return
            case "claim":
                # The claim of a manifest that will be uploaded later.
                key = f"b{len(self.uploads) + 1:03}-raw.csv.claim"
                content = random.choice((b"{}", b"[" * 2000, b'{"user": "a"}'))
            case _:
                key = f"{name}processing-20200101T000000Z.csv"
                content = "".join(f"{image},1\n" for image in self.originals).encode()
        self.hostile_keys.add(key)
        _retry(lambda: self.maps.write(key, content))

    def _new_upload(self) -> Upload:
        stem = f"b{len(self.uploads):03}-"
        rows: list[tuple[str, str]] = []
        expected_reasons: dict[str, str] = {}
        for number in range(random.randint(1, 6)):
            key = f"scenes/{stem}{number}.tif"
            kind = random.choices(
                ("good", "old", "bad", "bands", "gone"), (6, 1, 1, 1, 1)
            )
            match kind:
                case ["old"] if self.originals:
                    # An image that is in another manifest too.
                    key = random.choice(list(self.originals))
                    if key in dict(rows) or self._is_bad(key):
                        continue
                    rows.append((key, "1"))
                case ["bad"]:
                    self._put(key, b"no raster at all")
                    rows.append((key, "1"))
                    expected_reasons[key] = "cannot read it as a GeoTIFF"
                case ["bands"]:
                    self._put(key, self._raster())
                    rows.append((key, "3"))
                    expected_reasons[key] = "says 3 bands"
                case ["gone"]:
                    rows.append((key, "1"))
                    expected_reasons[key] = "not in the bucket"
                case _:
                    self._put(key, self._raster())
                    rows.append((key, "1"))
        if not rows:
            return self._new_upload()
        return Upload(stem, tuple(rows), expected_reasons)

    def _is_bad(self, key: str) -> bool:
        return any(key in upload.expected_reasons for upload in self.uploads)

    def _raster(self) -> bytes:
        path = self.directory / f"source-{uuid.uuid4().hex}.tif"
        side = random.choice((100, 600))
        rasters.write(path, 1, width=side, height=side)
        content = path.read_bytes()
        path.unlink()
        return content

    def _put(self, key: str, content: bytes) -> None:
        _retry(lambda: self.maps.write(key, content, "image/tiff"))
        self.originals[key] = content

    def open_manifests(self) -> list[str]:
        """Return the keys of manifests that CSVs have not replaced yet."""
        return [
            stored.key
            for stored in self.maps.list("b")
            if "raw.csv" in stored.key or "processing-" in stored.key
            if stored.key not in self.hostile_keys
        ]


def _retry(request: Callable[[], Answer]) -> Answer:
    """Repeat a request for 2 minutes: a fault may have stopped the server for a while.

    Raises:
        BucketError: it failed until then.
    """
    deadline = time.monotonic() + 120
    while True:
        try:
            return request()
        except BucketError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


@dataclass(frozen=True)
class Verdict:
    """The result of the check.

    Attributes:
        rows: number of rows of all manifests.
        processed: number of rows in the CSVs of processed rows.
        failed: number of rows in the CSVs of failed rows.
        excused_reasons: reasons of rows with valid images that failed because of a
            fault.
        breaches: a sentence for each breach of the promise.
    """

    rows: int
    processed: int
    failed: int
    excused_reasons: tuple[str, ...]
    breaches: tuple[str, ...]


def check_promise(uploaders: Uploaders) -> Verdict:
    """Check the promise for every row of every manifest ever uploaded."""
    breaches: list[str] = []
    excused_reasons: list[str] = []
    rows = processed_count = failed_count = 0
    for stem in dict.fromkeys(upload.stem for upload in uploaders.uploads):
        uploads = [upload for upload in uploaders.uploads if upload.stem == stem]
        expected_reasons = uploads[0].expected_reasons
        expected = sorted(row for upload in uploads for row in upload.rows)
        rows += len(expected)
        processed = _rows(uploaders.maps, f"{stem}processed-")
        failed = _rows(uploaders.maps, f"{stem}failed-")
        processed_count += len(processed)
        failed_count += len(failed)
        actual = sorted((row[0], row[1]) for row in processed + failed)
        if actual != expected:
            breaches.append(
                f"{stem}: the manifest has {len(expected)} rows, its CSVs {len(actual)}"
            )
        for key, *_ in processed:
            if key in expected_reasons:
                breaches.append(f"{stem}: {key} cannot have been processed")
            elif fault := _fault_of_outputs(uploaders, key):
                breaches.append(f"{stem}: {key}: {fault}")
        for key, _, reason in failed:
            if expected_reason := expected_reasons.get(key):
                if expected_reason not in reason and not _is_excuse(reason):
                    breaches.append(
                        f"{stem}: {key}: {reason!r} instead of {expected_reason!r}"
                    )
            elif _is_excuse(reason):
                excused_reasons.append(reason)
            else:
                breaches.append(f"{stem}: {key}: failed for no good reason: {reason}")
    for key, content in uploaders.originals.items():
        if uploaders.maps.read(key, _MAX_BYTES) != content:
            breaches.append(f"the original {key} was changed")
    return Verdict(
        rows, processed_count, failed_count, tuple(excused_reasons), tuple(breaches)
    )


def _is_excuse(reason: str) -> bool:
    return any(excuse in reason for excuse in EXCUSES)


def _rows(bucket: Bucket, prefix: str) -> list[list[str]]:
    return [
        row
        for stored in bucket.list(prefix)
        for row in csv.reader(io.StringIO(bucket.read(stored.key, _MAX_BYTES).decode()))
    ]


def _fault_of_outputs(uploaders: Uploaders, key: str) -> str | None:
    """Return why the COG or the JPEG of an image is wrong, if it is."""
    if not uploaders.cogs.exists(key.replace(".tif", ".jpg")):
        return "there is no JPEG"
    if not uploaders.cogs.exists(key):
        return "there is no COG"
    cog = uploaders.directory / "cog.tif"
    cog.write_bytes(uploaders.cogs.read(key, _MAX_BYTES))
    source = uploaders.directory / "source.tif"
    source.write_bytes(uploaders.originals[key])
    is_valid, errors, _ = cog_validate(cog, quiet=True)
    if not is_valid:
        return f"the COG is invalid: {errors}"
    with rasterio.open(cog) as cog_dataset, rasterio.open(source) as source_dataset:
        if not numpy.array_equal(cog_dataset.read(), source_dataset.read()):
            return "the pixels of the COG differ from those of the image"
    return None
