"""Options that several commands take, or that click alone cannot check."""

import math
import re
import tempfile
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from bucket import S3Endpoint
from dag import render, submit_options as checks
from node import options
from s3 import aws, credentials
from s3.credentials import Keys
from state.files import write_bytes_atomically
from state.launch import URL_HOURS

DEFAULT_KEYS = Path.home() / ".chtc_s3"
DEFAULT_ENDPOINT = "s3dev.chtc.wisc.edu"
_REGION = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?", re.IGNORECASE | re.ASCII)
_BORROWED = f"{__name__}.borrowed"
Command = Callable[..., None]
_ROWS_PER_JOB = click.IntRange(1, 1000)
_file = click.Path(path_type=Path)


def check_region(region: str | None) -> str | None:
    """Return the name of a region; raise BadParameter if it is none."""
    if region is None or _REGION.fullmatch(region):
        return region
    raise click.BadParameter(
        f"{region!r} is not the name of a region, such as eu-west-1"
    )


def store_arguments(command: Command) -> Command:
    """Add the options that name the S3 server, with their values as they are."""

    @click.option(
        "-a",
        "--access-key",
        type=_file,
        metavar="FILE",
        help="File with the access key.",
    )
    @click.option(
        "-s",
        "--secret-key",
        type=_file,
        metavar="FILE",
        help="File with the secret key.",
    )
    @click.option(
        "--aws-profile",
        metavar="NAME",
        help="Take the keys of this profile in ~/.aws/credentials instead of -a and "
        "-s.",
    )
    @click.option(
        "-e",
        "--s3-endpoint",
        metavar="HOST[:PORT]",
        help="The S3 server. Without -a and -s, the keys are those that AWS's tools "
        "use. Without all three, they are access.key and secret.key in "
        f"~/{DEFAULT_KEYS.name}, and the server is {DEFAULT_ENDPOINT}.",
    )
    @click.option(
        "--ca-certs",
        type=_file,
        metavar="FILE",
        help="Trust these certificate authorities in addition to the usual ones.",
    )
    @click.option(
        "--region",
        metavar="NAME",
        callback=lambda context, parameter, region: check_region(region),
        help="Region of the buckets, if the endpoint does not name it and the keys may "
        "not ask for it.",
    )
    @click.option(
        "--session-token",
        type=_file,
        metavar="FILE",
        help="File with the session token, for temporary keys.",
    )
    @click.option(
        "--insecure-http", is_flag=True, help="Use plain http, for test endpoints."
    )
    @wraps(command)
    def with_arguments(**values: Any) -> None:
        command(**values)

    return with_arguments


def store_options(command: Command) -> Command:
    """Add the options that name the S3 server.

    The command takes their values as ``store``, an S3Endpoint.
    """

    return lazy_store_options(_with_store(command))


def _with_store(command: Command) -> Command:
    @wraps(command)
    def with_store(store: Callable[[], S3Endpoint], **others: Any) -> None:
        command(store=store(), **others)

    return with_store


def lazy_store_options(command: Command) -> Command:
    """Add the options that name the S3 server, for a command that may not need it.

    The command takes their values as ``store``, a function that checks them and returns
    an S3Endpoint.
    """

    @store_arguments
    @wraps(command)
    def with_store(
        access_key: Path | None,
        secret_key: Path | None,
        aws_profile: str | None,
        s3_endpoint: str | None,
        ca_certs: Path | None,
        insecure_http: bool,
        region: str | None,
        session_token: Path | None,
        **others: Any,
    ) -> None:
        def store() -> S3Endpoint:
            files = access_key, secret_key
            if keys := keys_of_aws(*files, aws_profile, s3_endpoint):
                if session_token:
                    raise click.UsageError(
                        "--session-token needs -a and -s, for the other two files."
                    )
                files = _borrowed(keys)
            needed = _all_or_none(*files, s3_endpoint)
            return store_of(*needed, ca_certs, insecure_http, region, session_token)

        command(store=store, **others)

    return with_store


def keys_of_aws(
    access_key: Path | None,
    secret_key: Path | None,
    aws_profile: str | None,
    s3_endpoint: str | None,
) -> Keys | None:
    """Return the keys that AWS's tools use, if no key files count; None if they do.

    Raises:
        click.UsageError: both a profile and key files were given.
        BucketError: the keys cannot be used; see ``s3.credentials``.
    """
    if aws_profile and (access_key or secret_key):
        by_files = max(_rank("access_key"), _rank("secret_key"))
        if (by_profile := _rank("aws_profile")) == by_files:
            raise click.UsageError("give -a and -s, or --aws-profile, not both.")
        if by_profile < by_files:
            return None
    if aws_profile:
        return credentials.of_profile(aws_profile)
    if access_key or secret_key or not s3_endpoint:
        return None
    return credentials.of_environment()


def _rank(name: str) -> int:
    """Return how much an option's source counts: the file least."""
    source = click.get_current_context().get_parameter_source(name)
    sources = (
        *(ParameterSource.DEFAULT_MAP, ParameterSource.ENVIRONMENT),
        ParameterSource.COMMANDLINE,
    )
    return sources.index(source) + 1 if source in sources else 0


def _borrowed(keys: Keys) -> tuple[Path, Path]:
    """Return files with keys, which are there while the command runs."""
    context = click.get_current_context()
    folder = Path(context.with_resource(tempfile.TemporaryDirectory()))
    context.meta[_BORROWED] = True
    return write_keys(keys, folder / "access.key", folder / "secret.key")


def keys_are_borrowed() -> bool:
    """Return whether the files of the keys end with this command."""
    return click.get_current_context().meta.get(_BORROWED, False)


def write_keys(keys: Keys, access_key: Path, secret_key: Path) -> tuple[Path, Path]:
    """Write keys into files that only the operator can read; return the files."""
    write_bytes_atomically(access_key, f"{keys.access_key}\n".encode())
    write_bytes_atomically(secret_key, f"{keys.secret_key}\n".encode())
    return access_key, secret_key


def _all_or_none(
    access_key: Path | None, secret_key: Path | None, endpoint: str | None
) -> tuple[Path, Path, str]:
    if not (access_key or secret_key or endpoint):
        access_key = DEFAULT_KEYS / "access.key"
        secret_key = DEFAULT_KEYS / "secret.key"
        endpoint = DEFAULT_ENDPOINT
    if not (access_key and secret_key and endpoint):
        values = {"-a": access_key, "-s": secret_key, "-e": endpoint}
        missing = [option for option, value in values.items() if not value]
        raise click.UsageError(
            f"missing: {', '.join(missing)}; give all of -a, -s and -e, or -e and "
            f"--aws-profile, or none for {DEFAULT_ENDPOINT}."
        )
    return access_key, secret_key, endpoint


def store_of(
    access_key: Path,
    secret_key: Path,
    endpoint: str,
    ca_certs: Path | None = None,
    insecure_http: bool = False,
    region: str | None = None,
    session_token: Path | None = None,
) -> S3Endpoint:
    """Return the server that these options name.

    Raises:
        click.UsageError: the endpoint is another URL than that of a server.
    """
    scheme, separator, host = endpoint.rpartition("://")
    if separator and scheme.lower() != ("http" if insecure_http else "https"):
        raise click.UsageError(
            f"the endpoint {endpoint!r} does not begin with https://; plain http is "
            "for test endpoints, with --insecure-http."
        )
    host, _, path = host.strip().rstrip("/").lower().partition("/")
    if path or not host:
        raise click.UsageError(
            f"the endpoint {endpoint!r} must be a server without a path, as in "
            "s3.example.org: the bucket has an option of its own."
        )
    return S3Endpoint(
        # One spelling, so that two launches on the same server are recognized.
        endpoint=aws.current_name(host.removesuffix(":443")),
        access_key=access_key.expanduser().resolve(),
        secret_key=secret_key.expanduser().resolve(),
        secure=not insecure_http,
        ca_certs=_absolute(ca_certs),
        region=region,
        session_token=_absolute(session_token),
    )


def _absolute(file: Path | None) -> Path | None:
    return file.expanduser().resolve() if file else None


def node_options(command: Command) -> Command:
    """Add the options that a launch passes on to its nodes.

    The command takes them as ``node_options``, the values of each option by name.
    """

    @wraps(command)
    def with_node_options(**values: Any) -> None:
        for_nodes = {name: values.pop(name) for name in options.OPTION_NAMES}
        command(node_options=_checked(for_nodes), **values)

    for option in reversed(options.NODE_OPTIONS):
        click.option(
            option.flag,
            option.name,
            is_flag=option.metavar is None,
            metavar=option.metavar,
            multiple=option.multiple,
            hidden=option.hidden,
            help=f"{option.help[0].upper()}{option.help[1:]}.",
        )(with_node_options)
    return with_node_options


def _checked(values: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    texts: dict[str, list[str]] = {}
    for name, value in values.items():
        if value is True:
            texts[name] = ["yes"]
        elif value:
            texts[name] = list(value) if isinstance(value, tuple) else [value]
    try:
        return options.checked(texts)
    except options.UsageError as error:
        raise click.UsageError(str(error)) from error


def check_submit_options(
    context: click.Context, parameter: click.Parameter, lines: tuple[str, ...]
) -> tuple[str, ...]:
    for line in lines:
        try:
            checks.check(line)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
    return lines


def price_option(help_text: str) -> Callable[[Command], Command]:
    """Return the option of a price, which the command takes as ``price``."""
    return click.option(
        "--price-per-core-hour",
        "price",
        type=click.FloatRange(min=0),
        metavar="PRICE",
        help=help_text,
    )


def input_prefix_option(command: Command) -> Command:
    """Add the option of the images' folder, as ``input_prefix``."""
    return click.option(
        "--input-prefix",
        default="",
        show_default=False,
        metavar="FOLDER",
        callback=lambda context, parameter, text: as_folder(text),
        help="Folder of the images. It is left out of the keys of outputs.",
    )(command)


def as_folder(text: str) -> str:
    """Return a folder as the keys of its objects begin.

    >>> as_folder("scans/1937"), as_folder("scans/"), as_folder("")
    ('scans/1937/', 'scans/', '')
    """
    return text if text.endswith("/") or not text else f"{text}/"


def output_name_options(command: Command) -> Command:
    """Add the options that name the outputs.

    The command takes them as ``output_prefix``, ``strip_prefixes`` and
    ``output_suffix``.
    """

    @click.option(
        "--output-prefix",
        default="",
        show_default=False,
        metavar="PREFIX",
        help="Prefix for every output key.",
    )
    @click.option(
        "--strip-prefix",
        "strip_prefixes",
        multiple=True,
        callback=_check_parts_of_name,
        metavar="TEXT",
        help="Remove this from the beginning of the names of outputs. You can repeat "
        "it: the first one with which the image's name begins is removed.",
    )
    @click.option(
        "--output-suffix",
        default="",
        show_default=False,
        callback=_check_part_of_name,
        metavar="TEXT",
        help="Put this before the .tif and .jpg of outputs, such as _cog.",
    )
    @wraps(command)
    def with_names(**values: Any) -> None:
        command(**values)

    return with_names


def _check_part_of_name(
    context: click.Context, parameter: click.Parameter, text: str
) -> str:
    if "/" in text or not text.isprintable() or text != text.strip():
        raise click.BadParameter(
            f"{text!r} cannot be part of a name: leave out '/', spaces around it and "
            "characters that are not printable"
        )
    return text


def _check_parts_of_name(
    context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[str, ...]:
    return tuple(_check_part_of_name(context, parameter, each) for each in texts)


def check_node_environment(
    context: click.Context, parameter: click.Parameter, text: str
) -> str:
    kind, _, image = text.partition(":")
    if kind == "container" and image and image.isprintable():
        # If it is a file here, jobs need its full path. If not, it is in a registry.
        return f"container:{Path(image).resolve()}" if Path(image).exists() else text
    if text in ("host", "packed"):
        return text
    raise click.BadParameter(
        f"{text!r} is not 'host', 'packed', or 'container:' and an image, such as "
        "container:docker://registry.example.org/cog_pipeline:1"
    )


def check_period(
    context: click.Context, parameter: click.Parameter, minutes: int
) -> int:
    try:
        render.cron_schedule(minutes)
    except ValueError as error:
        raise click.BadParameter(
            f"{error}: choose minutes that divide an hour (1, 2, 5, 10, 15, 20, 30, …) "
            "or hours that divide a day (60, 120, 180, …)"
        ) from error
    return minutes


def megabytes(context: click.Context, parameter: click.Parameter, number: int) -> int:
    """Return megabytes as bytes."""
    return number * 10**6


def url_seconds(hours: int | None, every: int) -> int:
    """Return how many seconds presigned URLs are valid.

    Args:
        hours: the value of ``--url-hours``, None if it was not given.
        every: minutes between two polls.
    """
    # A job starts with URLs that have at least half of their life left. Polls must
    # renew them before that half is over.
    min_hours = math.ceil(2 * every / 60)
    if hours is None:
        hours = max(URL_HOURS, min_hours)
    elif hours < min_hours:
        raise click.UsageError(
            f"--url-hours {hours} and --every {every} do not go together: jobs would "
            f"wait for new URLs. Use --url-hours {min_hours} or more, or poll more "
            "often."
        )
    return 3600 * hours


def check_rows_per_job(
    context: click.Context, parameter: click.Parameter, text: str
) -> int | None:
    """Return the number; None for ``auto``."""
    if text == "auto":
        return None
    try:
        number: int = _ROWS_PER_JOB(text, parameter, context)
    except click.BadParameter as error:
        raise click.BadParameter(f"{error.message} Or give 'auto'.") from error
    return number
