"""The options of the catalog."""

import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from catalog import products
from state.launch import CatalogSettings

Command = Callable[..., None]
_MAX_URL = 500
_MOSAICID = re.compile(r"[0-9a-f]{56}", re.IGNORECASE)


def catalog_options(flag: str, help_text: str) -> Callable[[Command], Command]:
    """Return the options of the catalog, which a command takes as ``catalog``.

    Args:
        flag: the option that names the products.
        help_text: its help.
    """

    def decorate(command: Command) -> Command:
        @click.option(
            flag,
            "products",
            default="",
            show_default=False,
            callback=_products,
            metavar="NAME[,NAME]…",
            help=help_text,
        )
        @click.option(
            "--collection-from",
            default="",
            show_default=False,
            callback=_pattern_of("collection"),
            metavar="REGEX",
            help="Take the collection of an image from its key: the group named "
            "collection, as in '^(?P<collection>[^/]+)/'. Otherwise it is the folder.",
        )
        @click.option(
            "--datetime-from",
            default="",
            show_default=False,
            callback=_pattern_of("year", "date"),
            metavar="REGEX",
            help="Take the date of an image from its key: the groups year, month and "
            r"so on, or date, as in '_(?P<year>\d{4})_'.",
        )
        @click.option(
            "--collections",
            "collections_file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            callback=_collections,
            metavar="FILE",
            help="TOML file with titles, licences and providers of collections.",
        )
        @click.option(
            "--public-url",
            default="",
            show_default=False,
            callback=_public_url,
            metavar="URL",
            help="Where people reach the objects of the output bucket on the web, as "
            "in https://maps.example.org/cogs.",
        )
        @click.option(
            "--mosaicid",
            default="",
            show_default=False,
            callback=_mosaicid,
            metavar="ID",
            help="Append the images to this mosaic instead of their collection's: 56 "
            "hexadecimal digits.",
        )
        @wraps(command)
        def with_catalog(
            products: tuple[str, ...],
            collection_from: str,
            datetime_from: str,
            collections_file: Path | None,
            public_url: str,
            mosaicid: str,
            **others: Any,
        ) -> None:
            catalog = CatalogSettings(
                products,
                collection_from,
                datetime_from,
                collections_file,
                public_url,
                mosaicid,
            )
            command(catalog=catalog, **others)

        return with_catalog

    return decorate


def _products(
    context: click.Context, parameter: click.Parameter, text: str
) -> tuple[str, ...]:
    try:
        return products.names(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _pattern_of(*groups: str) -> Callable[[Any, Any, str], str]:
    def check(context: click.Context, parameter: click.Parameter, text: str) -> str:
        try:
            known = re.compile(text).groupindex
        except re.error as error:
            raise click.BadParameter(
                f"{text!r} is not a regular expression: {error}"
            ) from error
        if text and not known.keys() & set(groups):
            names = " or ".join(groups)
            raise click.BadParameter(f"{text!r} has no group (?P<…>…) named {names}")
        return text

    return check


def _collections(
    context: click.Context, parameter: click.Parameter, file: Path | None
) -> Path | None:
    if file is None:
        return None
    from catalog.collections import read_file

    read_file(file)
    return file.resolve()


def _public_url(context: click.Context, parameter: click.Parameter, url: str) -> str:
    plain = url.isascii() and url.isprintable() and " " not in url
    if url and not (plain and re.match(r"https?://[^/]", url) and len(url) < _MAX_URL):
        raise click.BadParameter(
            f"{url!r} is not a URL such as https://maps.example.org/cogs"
        )
    return url.rstrip("/")


def _mosaicid(context: click.Context, parameter: click.Parameter, text: str) -> str:
    if text and not _MOSAICID.fullmatch(text):
        raise click.BadParameter(f"{text!r} is not 56 hexadecimal digits")
    return text.lower()
