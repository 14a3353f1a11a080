"""Names that follow from an image's key: of its outputs, and of its file in a node."""

import itertools
from typing import NamedTuple
from urllib.parse import quote

# The limit of Linux file systems. An image's name in a node's sandbox is
# percent-encoded, as in its URL.
MAX_NAME = 255  # bytes
# An image's key ends so, in any case.
TIFF_SUFFIXES = (".tif", ".tiff")
TIFF_SUFFIXES_IN_ANY_CASE = tuple(
    "".join(letters)
    for suffix in TIFF_SUFFIXES
    for letters in itertools.product(*({c.lower(), c.upper()} for c in suffix))
)
# The folders of the catalog, under the output prefix.
CATALOG_FOLDER, MOSAICS_FOLDER = "catalog/", "mosaics/"


def key_stem(key: str) -> str:
    """Return an image's key without its suffix.

    >>> key_stem("maps/v1.2/sheet.tif")
    'maps/v1.2/sheet'
    """
    return key[: key.rindex(".")]


class OutputNames(NamedTuple):
    """How outputs are named after their images.

    Attributes:
        prefix: what their keys begin with.
        strip_prefixes: the first of these with which the name of an image begins is
            left out, unless nothing else is before .tif.
        suffix: what comes before .tif and .jpg.
        input_prefix: folder of the images, which is left out.
    """

    prefix: str = ""
    strip_prefixes: tuple[str, ...] = ()
    suffix: str = ""
    input_prefix: str = ""

    def cog_key(self, image: str) -> str:
        """Return the key of an image's COG.

        >>> OutputNames("2025/", ("public_",), "_cog").cog_key("maps/public_a.tif")
        '2025/maps/a_cog.tif'
        >>> OutputNames(strip_prefixes=("public_",)).cog_key("maps/public_.tif")
        'maps/public_.tif'
        >>> OutputNames("cogs/", input_prefix="raw/").cog_key("raw/maps/a.tif")
        'cogs/maps/a.tif'
        """
        image = image.removeprefix(self.input_prefix)
        folder, slash, name = image.rpartition("/")
        for strip in self.strip_prefixes:
            if name.startswith(strip):
                rest = name.removeprefix(strip)
                # A name that is cut inside its suffix has no dot.
                name = rest if rest.rpartition(".")[0] else name
                break
        if self.suffix:
            stem = key_stem(name)
            name = stem + self.suffix + name[len(stem) :]
        return self.prefix + folder + slash + name

    def cog_prefix(self, images: str) -> str:
        """Return what the keys of COGs begin with whose images' keys have a prefix.

        >>> OutputNames("cogs/", suffix="_cog").cog_prefix("maps/a")
        'cogs/maps/'
        >>> OutputNames("cogs/", input_prefix="raw/").cog_prefix("ra")
        'cogs/'
        """
        if self.input_prefix.startswith(images):
            return self.prefix
        images = images.removeprefix(self.input_prefix)
        # The rest of a prefix is the beginning of a name, which a COG may not have.
        if self.strip_prefixes or self.suffix:
            folder, slash, _ = images.rpartition("/")
            images = folder + slash
        return self.prefix + images


def jpeg_key(key: str) -> str:
    """Return the key of the JPEG beside an image."""
    return key_stem(key) + ".jpg"


def sandbox_name(key: str) -> str:
    """Return the name that HTCondor gives to an image in a node's sandbox.

    This is the last part of its URL, percent-encoded. So any key arrives as letters,
    digits and ``_.-~%``.

    >>> sandbox_name("maps/map of Bern.tif")
    'map%20of%20Bern.tif'
    """
    return quote(key.rsplit("/", 1)[-1], safe="")
