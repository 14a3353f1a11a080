"""Find the images of a manifest's rows in the bucket."""

import itertools
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from dataclasses import replace

from bucket import (
    Bucket,
    ObjectMissing,
    ObjectUnreadable,
    PermanentS3Error,
    StoredObject,
)
from dag import names
from node import sidecars
from state.keys import (
    MAX_NAME,
    TIFF_SUFFIXES_IN_ANY_CASE,
    key_stem,
    sandbox_name,
)
from state.rows import Manifest, Refusal, Row

# Requests for the tiers of images. They are made one after the other.
_MAX_TIERS = 1000
# Sidecar files describe the image beside them. Some of GDAL's names follow the whole
# name of the image; names of world files follow its stem.
_AFTER_NAME = (".aux.xml", ".msk", ".ovr")
_AFTER_STEM = (".tfw", ".TFW", ".tifw", ".wld")


def candidate_keys(row: Row, bucket: str, endpoint: str = "") -> tuple[str, ...]:
    """Return the keys that a row's image can have, the more likely one first."""
    return names.candidate_keys(row.key, bucket, endpoint)


def sidecar_keys(key: str) -> tuple[str, ...]:
    """Return the keys that the sidecar files of an image can have.

    >>> sidecar_keys("a.tif")[:4]
    ('a.tif.aux.xml', 'a.tif.msk', 'a.tif.ovr', 'a.tfw')
    """
    return (
        *(key + suffix for suffix in _AFTER_NAME),
        *(key_stem(key) + suffix for suffix in _AFTER_STEM),
    )


class ImageIndex:
    """The images of a manifest's rows, and their sidecar files, with their sizes.

    Only objects that a row can name are kept, so that a bucket may be of any size.
    """

    def __init__(self, manifest: Manifest, bucket: str, endpoint: str = "") -> None:
        self._manifest = manifest
        self._bucket = bucket
        self._endpoint = endpoint
        # In one Unicode form, so that objects in all forms are kept.
        self._wanted = {
            names.composed(key)
            for row in manifest.convertible
            for key in self._candidates(row)
        }
        self._sizes: dict[str, int] = {}
        # Images and sidecar files that must be restored, and from where.
        self._archives: dict[str, str] = {}
        # Images of which the listing does not tell that.
        self._tiered: set[str] = set()
        # The keys that are not in that form, by their form.
        self._variants: dict[str, set[str]] = {}
        # By the key of the image: the sizes of its sidecar files, by key.
        self._sidecars: dict[str, dict[str, int]] = {}
        # The keys that the store's keys may not look for.
        self._out_of_reach: set[str] = set()

    def find(self, inputs: Bucket, listed_prefix: str) -> Iterator[StoredObject]:
        """Add the images and their sidecar files; yield them among other objects.

        ``Bucket.find_objects`` lists the prefix that the keys share, and stops as soon
        as asking for each key needs fewer requests. The keys that a name can mean share
        no prefix, so the likely ones are looked for first. The next ones are looked for
        where a row's image is not found yet. So for most manifests, the requests are
        bounded by the pages of the listing, and by nine for each row, whichever is
        less: this is what docs/scale.md measures.

        Args:
            listed_prefix: everything under this prefix is listed and yielded as well.
        """
        yield from self._added(inputs.list(listed_prefix))
        rows = self._manifest.convertible
        for rank in itertools.count():
            rows = tuple(row for row in rows if self._needs(row, rank))
            if not rows:
                return
            keys = {self._asked(row)[rank] for row in rows}
            others = {
                key for key in keys if not key_stem(key).startswith(listed_prefix)
            }
            found = inputs.find_objects(others, sidecar_keys, self._out_of_reach.add)
            yield from self._added(found)

    def _candidates(self, row: Row) -> tuple[str, ...]:
        return candidate_keys(row, self._bucket, self._endpoint)

    def _asked(self, row: Row) -> tuple[str, ...]:
        """Return the keys to look for, for one row, in their order."""
        candidates = self._candidates(row)
        return tuple(dict.fromkeys((*candidates, *names.other_forms(candidates))))

    def _needs(self, row: Row, rank: int) -> bool:
        """Return whether none of the first keys was found, and there is another one."""
        keys = self._asked(row)
        return rank < len(keys) and self._sizes.keys().isdisjoint(keys[:rank])

    def _added(self, objects: Iterable[StoredObject]) -> Iterator[StoredObject]:
        for stored in objects:
            self.add(stored)
            yield stored

    def add(self, stored: StoredObject) -> None:
        """Add an object of the bucket. The order of objects does not matter."""
        form = names.composed(stored.key)
        if form in self._wanted:
            self._sizes[stored.key] = stored.size
            if stored.is_tiered:
                self._tiered.add(stored.key)
            if form != stored.key:
                self._variants.setdefault(form, set()).add(stored.key)
            self._note_archive(stored)
        for image in _images_of_sidecar(stored.key):
            if names.composed(image) in self._wanted:
                self._sidecars.setdefault(image, {})[stored.key] = stored.size
                self._note_archive(stored)

    def _note_archive(self, stored: StoredObject) -> None:
        if stored.archive:
            self._archives[stored.key] = stored.archive

    def look_into_tiers(self, inputs: Bucket) -> None:
        """Ask for the tier of images that may be in one for archives.

        That takes a request for each, so only the first ones are asked for.
        """
        for key in sorted(self._tiered)[:_MAX_TIERS]:
            try:
                self._note_archive(inputs.stat(key))
            except ObjectMissing:
                # It was removed since it was listed.
                del self._sizes[key]
            except (PermanentS3Error, ObjectUnreadable):
                # Its job finds out whether it can be read.
                continue

    def resolve(
        self, cog_key: Callable[[str], str] = str, *, keep_images: bool = False
    ) -> Manifest:
        """Return the manifest with the key, size and sidecar files of each image.

        Args:
            cog_key: returns the key of an image's COG.
            keep_images: whether COGs are in the bucket of the images, and must not
                replace them.

        A row is refused if its image was not added, or if its COG or JPEG would have
        the name of an earlier row's, or of an image.
        """
        rows = [
            self._find(row) if row.reason is None else row
            for row in self._manifest.rows
        ]
        kept: set[str] = set()
        if keep_images:
            kept.update(row.key for row in rows if row.reason is None)
        owners: dict[str, Row] = {}
        for position, row in enumerate(rows):
            if row.reason is None:
                rows[position] = _reserve_outputs(row, cog_key(row.key), owners, kept)
        return replace(self._manifest, rows=tuple(rows))

    def _find(self, row: Row) -> Row:
        candidates = self._candidates(row)
        for key in candidates:
            if key in self._sizes:
                return self._found(row, key)
        for key in candidates:
            # The objects whose keys look like this one.
            form = names.composed(key)
            keys = {form} & self._sizes.keys() | self._variants.get(form, set())
            if len(keys) > 1:
                return row.failed(
                    Refusal.AMBIGUOUS,
                    f"{len(keys)} objects in the bucket {self._bucket} have this name, "
                    "in different Unicode forms (NFC, NFD): rename or remove all but "
                    "one",
                )
            if keys:
                return self._found(row, keys.pop())
        if elsewhere := names.elsewhere(row.key, self._bucket, self._endpoint):
            return row.failed(
                Refusal.NOT_FOUND,
                f"{elsewhere}, not the bucket {self._bucket}: upload it there, or "
                "correct its name",
            )
        if candidates and self._out_of_reach.issuperset(candidates[:1]):
            return row.failed(
                Refusal.NOT_FOUND,
                f"not in the bucket {self._bucket}, or the launch's keys may not read "
                "it: allow s3:ListBucket and s3:GetObject for it",
            )
        return row.failed(
            Refusal.NOT_FOUND,
            f"not in the bucket {self._bucket}: upload it, or correct its name",
        )

    def _found(self, row: Row, key: str) -> Row:
        sizes = self._sidecars.get(key, {})
        used = _usable_sidecars(key, sizes)
        for sidecar in used:
            name = sidecar.rpartition("/")[2]
            if fault := sidecars.fault(name, sizes[sidecar]):
                return row.failed(Refusal.BAD_SIDECAR, fault)
        for file in (key, *used):
            if archive := self._archives.get(file):
                return row.failed(
                    Refusal.IN_COLD_STORAGE,
                    f"{file} is in cold storage ({archive}), from where no job can "
                    "read it: restore it, wait until that is done, and upload this "
                    "row again",
                )
        size = self._sizes[key] + sum(sizes[sidecar] for sidecar in used)
        return replace(row, key=key, size=size, sidecars=used)


def _images_of_sidecar(key: str) -> Iterator[str]:
    """Yield the keys of the images that an object can be a sidecar file of."""
    if not key.endswith(_AFTER_NAME + _AFTER_STEM):
        return
    for suffix in _AFTER_NAME:
        if key.endswith(suffix):
            yield key.removesuffix(suffix)
    for suffix in _AFTER_STEM:
        if key.endswith(suffix):
            stem = key.removesuffix(suffix)
            yield from (stem + ending for ending in TIFF_SUFFIXES_IN_ANY_CASE)


def _usable_sidecars(key: str, stored: Collection[str]) -> tuple[str, ...]:
    if not stored:
        return ()
    return tuple(
        sidecar
        for sidecar in sidecar_keys(key)
        if sidecar in stored and len(sandbox_name(sidecar)) <= MAX_NAME
    )


def _reserve_outputs(
    row: Row, cog: str, owners: dict[str, Row], kept: Container[str]
) -> Row:
    """Refuse a row whose outputs would replace an image or those of an earlier row."""
    if cog in kept:
        return row.failed(
            Refusal.OUTPUT_COLLISION,
            f"its COG would replace the image {cog}: launch with another "
            "--output-prefix",
        )
    earlier = owners.setdefault(key_stem(cog), row)
    if earlier is row:
        return row
    if earlier.key == row.key:
        return row.failed(
            Refusal.DUPLICATE,
            f"line {earlier.line} already names this image: remove one",
        )
    if key_stem(earlier.key) != key_stem(row.key):
        return row.failed(
            Refusal.OUTPUT_COLLISION,
            f"its outputs would have the names of those of line {earlier.line}, "
            f"{earlier.key}: rename one image, or launch with another --strip-prefix",
        )
    return row.failed(
        Refusal.OUTPUT_COLLISION,
        f"its JPEG would replace that of line {earlier.line}: rename one image",
    )
