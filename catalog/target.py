"""Where the products of a collection go."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from bucket import Bucket
from catalog.collections import Collection


@dataclass(frozen=True)
class Target:
    """Where the products of a collection go.

    Attributes:
        bucket: the output bucket.
        root: prefix of the whole catalog in it, as in ``cogs/catalog/``.
        collection: the collection.
        scratch: an empty local directory for files of the product that is being made.
        public_url: URL under which people reach the bucket's objects, without a slash
            at its end; empty if they have no other way than S3.
        warn: function that tells people what a product does not have, and why.
    """

    bucket: Bucket
    root: str
    collection: Collection
    scratch: Path
    public_url: str = ""
    warn: Callable[[str], None] = logging.getLogger(__name__).warning

    @property
    def prefix(self) -> str:
        """The prefix of everything of the collection."""
        return f"{self.root}{self.collection.id}/"

    def put(self, name: str, content: bytes | Path, content_type: str) -> None:
        """Write an object of the collection, which replaces one of the same name.

        Args:
            name: its key without ``prefix``.
            content: what it contains, or a file that does.
        """
        self.put_key(self.prefix + name, content, content_type)

    def put_key(self, key: str, content: bytes | Path, content_type: str) -> None:
        """Write an object with any key."""
        if isinstance(content, Path):
            self.bucket.upload(key, content, content_type)
        else:
            self.bucket.write(key, content, content_type)

    def remove(self, name: str) -> None:
        """Remove an object of the collection; no error if it is gone already."""
        self.bucket.remove(self.prefix + name)

    def url(self, key: str) -> str:
        """Return where an object is, for programs that know S3 or the web.

        It is below the public URL, or ``s3://BUCKET/KEY``.
        """
        if self.public_url:
            return f"{self.public_url}/{quote(key)}"
        return f"s3://{self.bucket.name}/{key}"

    def gdal_path(self, key: str) -> str:
        """Return where an object is, as GDAL and MapServer name it."""
        if self.public_url:
            return f"/vsicurl/{self.url(key)}"
        return f"/vsis3/{self.bucket.name}/{key}"


def relative(key: str, base: str) -> str:
    """Return the relative URL of an object in a document of the same bucket.

    Args:
        key: key of the object.
        base: key of the document.

    >>> relative("1937/sheet 7.tif", "catalog/1937/items/sheet.json")
    '../../../1937/sheet%207.tif'
    >>> relative("cogs//a.tif", "cogs/catalog/b.json")
    '..//a.tif'
    """
    folders, own = key.split("/"), base.split("/")
    while len(own) > 1 and len(folders) > 1 and own[0] == folders[0]:
        del own[0], folders[0]
    # Not normalized: S3 takes each "/" of a key as it is.
    path = "../" * (len(own) - 1) + "/".join(folders)
    return quote(path if path.startswith("../") else f"./{path}")
