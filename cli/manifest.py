"""``manifest``: make a manifest from the images of a bucket, a list or a folder."""

import csv
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TextIO

import click
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from bucket import Bucket, S3Endpoint
from cli import options as shared, sources
from cli.common import fail, json_option, note, progress, warn
from ingest import manifest as making
from ingest.manifest import Row
from ingest.selection import Selection, originals, pending, rasters
from state.exits import Exit
from state.files import writing
from state.keys import OutputNames
from state.text import counted

# A file would replace what these contain.
_DEVICES = (Path("/dev"), Path("/dev/fd"))


@click.command(context_settings={"show_default": True})
@click.argument("prefix", default="", metavar="[PREFIX]")
@shared.store_options
@click.option(
    "--input-bucket", required=True, metavar="NAME", help="Bucket with the images."
)
@click.option(
    "--from",
    "from_list",
    type=click.File("r", encoding="utf-8-sig"),
    metavar="FILE",
    help="Take the keys of this file, one per line, instead of listing the bucket. "
    "'-' reads standard input.",
)
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Take the rasters of a folder that you upload under PREFIX.",
)
@sources.selection_options
@click.option(
    "--pending",
    "only_pending",
    is_flag=True,
    help="Leave out images whose COG is there and is newer. Needs --output-bucket.",
)
@click.option("--output-bucket", metavar="NAME", help="Bucket with the COGs.")
@shared.input_prefix_option
@shared.output_name_options
@sources.sample_option
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the manifest to a file instead of the terminal.",
)
@click.option(
    "--upload",
    metavar="KEY",
    help="Write the manifest into the input bucket at the end. A launch whose "
    "pattern matches KEY then converts the images.",
)
@json_option
def manifest(
    prefix: str,
    store: S3Endpoint,
    input_bucket: str,
    output_bucket: str | None,
    input_prefix: str,
    output_prefix: str,
    strip_prefixes: tuple[str, ...],
    output_suffix: str,
    from_list: TextIO | None,
    folder: Path | None,
    selection: Selection,
    only_pending: bool,
    sample: int | None,
    output: Path | None,
    upload: str | None,
    as_json: bool,
) -> None:
    """Make a manifest with one row per image and its number of bands.

    \b
      python3 cog_pipeline.py manifest scans/1923/ -a access.key -s secret.key \\
          -e s3.example.org --input-bucket maps --upload atlas-raw.csv

    The number of bands is read from the header of each TIFF. An image whose header
    cannot be read is reported and is not in the manifest. Then the exit code is 1.
    Without PREFIX, the images are those under --input-prefix, if there is one.
    """
    prefix = prefix or input_prefix
    images = Bucket(store, input_bucket)
    if from_list and folder:
        raise click.UsageError("give one of --from and --folder, not both.")
    if (from_list or folder) and only_pending:
        raise click.UsageError("--pending works only on a listing of the bucket.")
    if upload and as_json:
        raise click.UsageError("--upload writes a CSV: leave out --json.")
    if output:
        _check_output(output)
    if upload:
        _check_manifest_key(upload, images)
    keys: Iterable[str]
    if from_list:
        keys = filter(selection.takes_key, _keys_of_list(from_list))
    elif folder:
        keys = making.keys_of_folder(folder, prefix, selection)
    else:
        found = rasters(images, prefix, selection)
        if only_pending:
            _check_outputs(input_bucket, output_bucket, output_prefix)
            outputs = Bucket(store, str(output_bucket))
            if output_bucket == input_bucket:
                found = originals(found, output_prefix)
            names = OutputNames(
                output_prefix, strip_prefixes, output_suffix, input_prefix
            )
            found = pending(found, outputs, names, prefix, warn)
        keys = (raster.key for raster in found)
    if sample:
        keys = making.sample(keys, sample)
    if folder:
        bucket = images if upload else None
        rows = making.rows_of_folder(keys, folder, prefix, bucket)
    else:
        rows = making.rows_of_bucket(keys, images)
    with ExitStack() as stack:
        if upload and not output:
            temporary = stack.enter_context(tempfile.TemporaryDirectory())
            output = Path(temporary) / "manifest.csv"
        written, unreadable = write(rows, images.name, output, as_json=as_json)
        if upload and output and written:
            images.upload(upload, output, content_type="text/csv")
            note(f"Uploaded to {images.name}/{upload}.")
    if not (written or unreadable):
        fail(Exit.REFUSED, "there is no such image: 'list' shows what is there")
    if unreadable:
        fail(Exit.REFUSED, lacks(unreadable))


def lacks(unreadable: int) -> str:
    """Return a sentence about images that are not in a manifest."""
    them = counted(unreadable, "image")
    return f"the manifest lacks {them} that cannot be read, as the warnings say"


def _keys_of_list(file: TextIO) -> Iterator[str]:
    try:
        for line in file:
            yield line.strip()
    except UnicodeDecodeError as error:
        raise click.UsageError(
            f"--from {file.name}: not UTF-8 text: save it as UTF-8."
        ) from error


def _check_output(output: Path) -> None:
    is_special = output.exists() and not output.is_file()
    if output == Path("-") or output.parent in _DEVICES or is_special:
        raise click.UsageError(
            f"--output {output}: not the name of a file: leave out --output to print "
            "the manifest."
        )
    folder = output.parent
    if not (os.access(folder, os.W_OK | os.X_OK) and folder.is_dir()):
        raise click.UsageError(
            f"--output {output}: no file can be written into {folder}: make this "
            "folder, or choose another."
        )


def _check_manifest_key(key: str, images: Bucket) -> None:
    if not key.endswith(".csv"):
        raise click.UsageError(f"--upload {key}: the key of a manifest ends in .csv.")
    if images.exists(key):
        fail(
            Exit.REFUSED,
            f"{images.name}/{key} is there already: choose another name for --upload, "
            "or remove it",
        )


def _check_outputs(
    input_bucket: str, output_bucket: str | None, output_prefix: str
) -> None:
    if not output_bucket:
        raise click.UsageError("--pending needs --output-bucket, where the COGs are.")
    if output_bucket == input_bucket and not output_prefix:
        raise click.UsageError(
            "--pending cannot tell COGs from the originals that they replaced."
        )


def write(
    rows: Iterator[Row], bucket: str, output: Path | None, *, as_json: bool = False
) -> tuple[int, int]:
    """Write a manifest; return how many images it has, and how many it lacks."""
    written = unreadable = 0
    with (
        _progress() as advance,
        writing(output) if output else nullcontext(sys.stdout) as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        for row in rows:
            advance()
            if row.bands is None:
                unreadable += 1
                warn(f"{row.key}: {row.reason}")
                continue
            written += 1
            if as_json:
                file.write(json.dumps({"key": row.key, "bands": row.bands}) + "\n")
            else:
                writer.writerow((f"{bucket}/{row.key}", row.bands))
    note(f"{counted(written, 'image')} in the manifest.")
    return written, unreadable


@contextmanager
def _progress() -> Iterator[Callable[[], None]]:
    """Show how many headers were read, and how fast, in a terminal."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed:,.0f} headers read"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    with progress(*columns) as display:
        task = display.add_task("", total=None, rate="")

        def advance() -> None:
            display.advance(task)
            speed = display.tasks[0].speed
            display.update(task, rate=f"{speed:,.0f}/s" if speed else "")

        yield advance
