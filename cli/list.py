"""``list``: the rasters of a bucket."""

import csv
import json
import sys

import click

from bucket import Bucket, S3Endpoint, StoredObject
from cli import options as shared, sources
from cli.common import json_option, say
from ingest.selection import Selection, rasters
from state.text import counted, csv_safe, printable


@click.command()
@click.argument("prefix", default="", metavar="[PREFIX]")
@shared.store_options
@click.option(
    "--input-bucket", required=True, metavar="NAME", help="Bucket with the images."
)
@shared.input_prefix_option
@sources.selection_options
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, without totals.")
@json_option
def list(  # noqa: A001, the name of the command
    prefix: str,
    store: S3Endpoint,
    input_bucket: str,
    input_prefix: str,
    selection: Selection,
    as_csv: bool,
    as_json: bool,
) -> None:
    """List the rasters under a prefix: size, date, key; totals last.

    \b
      python3 cog_pipeline.py list scans/1923/ -a access.key -s secret.key \\
          -e s3.example.org --input-bucket maps --larger-than 100MB

    Rasters are the objects whose keys end in .tif or .tiff. Without PREFIX, list
    those under --input-prefix, if there is one. With --json, each line is
    a JSON object, and the last one has the totals.
    """
    count = total = 0
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if as_csv:
        writer.writerow(("key", "bytes", "modified"))
    bucket = Bucket(store, input_bucket)
    for raster in rasters(bucket, prefix or input_prefix, selection):
        count += 1
        total += raster.size
        date = f"{raster.modified:%Y-%m-%dT%H:%M:%SZ}"
        if as_csv:
            writer.writerow((csv_safe(raster.key), raster.size, date))
        elif as_json:
            click.echo(json.dumps(_as_json(raster, date)))
        else:
            click.echo(
                f"{sources.size(raster.size):>9}  {raster.modified:%Y-%m-%d %H:%M}  "
                f"{printable(raster.key)}"
            )
    if as_json:
        click.echo(json.dumps({"rasters": count, "bytes": total}))
    elif not as_csv:
        say(f"{counted(count, 'raster')}, {sources.size(total)}")


def _as_json(raster: StoredObject, date: str) -> dict[str, str | int]:
    return {"key": raster.key, "bytes": raster.size, "modified": date}
