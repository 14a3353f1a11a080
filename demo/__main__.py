"""Run the main job on this machine, and show each step of it."""

import csv
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps
from rich.console import Console
from rich.table import Table

from bucket import Bucket, S3Endpoint
from demo import scenes
from pool import personal
from pool.errors import PoolError
from pool.personal import PersonalPool
from state.project import PROJECT

# No object here is larger, in bytes.
_MAX_BYTES = 2**30

OUTPUT = PROJECT / "demo-output"
MANIFEST = "demo-raw.csv"
# Rows that fail on purpose: the first is no raster, the second is not there.
POSTCARD = "postcards/alps.tif"
NOT_RASTERS = (POSTCARD, "scenes/atlantis.tif")
# A run of ten small images takes much less time, unless something is wrong.
PATIENCE_SECONDS = 180
THUMBNAIL = (280, 200)

console = Console(highlight=False)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    if OUTPUT.exists():
        shutil.rmtree(OUTPUT)
    OUTPUT.mkdir()
    # After the pool has stopped, nobody needs its logs.
    with (
        tempfile.TemporaryDirectory(dir=OUTPUT, prefix=".pool-") as directory,
        _running_pool(Path(directory)) as pool,
    ):
        _print_step("A personal HTCondor pool and an S3 server run on this machine.")
        _run(pool)


@contextmanager
def _running_pool(directory: Path) -> Iterator[PersonalPool]:
    with console.status("starting") as status:
        pool = personal.start(directory, status.update)
    try:
        yield pool
    finally:
        with console.status("stopping the pool"):
            personal.stop(pool)


def _run(pool: PersonalPool) -> None:
    os.environ.update(pool.condor.environment)
    s3 = pool.s3
    store = S3Endpoint(s3.endpoint, s3.access_key, s3.secret_key, ca_certs=s3.ca_certs)
    maps, cogs = Bucket(store, "maps"), Bucket(store, "cogs")
    maps.create()
    cogs.create()
    _upload_images(maps)
    _print_step(f"Uploaded {len(scenes.SCENES)} scenes to bucket maps.")

    _print_step("The store and the buckets are written down once:")
    _command(
        *("init", "-a", str(s3.access_key), "-s", str(s3.secret_key)),
        *("-e", s3.endpoint, "--ca-certs", str(s3.ca_certs)),
        *("--input-bucket", maps.name, "--output-bucket", cogs.name),
        *("--input-prefix", "", "--output-prefix", "", "--force"),
    )
    _print_step("A manifest of the scenes, with the number of bands of each:")
    _command("manifest", "scenes/", "-o", "scenes.csv")
    text = (OUTPUT / "scenes.csv").read_text()
    text += "".join(f"{maps.name}/{key},3\n" for key in NOT_RASTERS)
    maps.write(MANIFEST, text.encode())
    _print_step(f"Uploaded it as {MANIFEST}, with two more rows, which will fail:")
    console.print(text, style="dim")

    _print_step("Launching, as on an access point:")
    _command("launch", "--every", "1")
    _command("status", "--watch")
    _show_csvs(maps)
    _command("failures")
    _command("validate")
    _fetch_outputs(cogs)
    _list_files()


def _upload_images(maps: Bucket) -> None:
    with console.status("cutting scenes out of Blue Marble and a shaded relief"):
        for scene in scenes.SCENES:
            path = OUTPUT / "scene.tif"
            scenes.write(scene, path)
            maps.upload(f"scenes/{scene.name}.tif", path)
            path.unlink()
        maps.write(POSTCARD, b"Greetings from a file that is no raster.")


def _command(*words: str) -> None:
    """Show a command of cog_pipeline, and run it in OUTPUT.

    Raises:
        subprocess.SubprocessError: it failed, or took too long.
    """
    shown = shlex.join(["python3", "cog_pipeline.py", *words])
    pool = str(Path(os.environ["CONDOR_CONFIG"]).parent.parent)
    console.print(f"$ {shown.replace(pool, '…')}", style="dim", soft_wrap=True)
    # Without a terminal as its input, init does not ask.
    subprocess.run(
        [sys.executable, str(PROJECT / "cog_pipeline.py"), *words],
        cwd=OUTPUT,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE_SECONDS,
        check=True,
    )


def _show_csvs(maps: Bucket) -> None:
    """Fetch both CSVs and print them as tables."""
    for stored in list(maps.list("demo-")):
        state = stored.key.split("-")[1]
        content = maps.read(stored.key, _MAX_BYTES).decode()
        (OUTPUT / f"{state}.csv").write_text(content)
        table = Table("image", "bands", title=stored.key, title_justify="left")
        if state == "failed":
            table.add_column("reason")
        for row in csv.reader(io.StringIO(content)):
            table.add_row(*row)
        console.print(table)


def _fetch_outputs(cogs: Bucket) -> None:
    """Fetch COGs and JPEGs, and put the JPEGs on one sheet."""
    target = OUTPUT / "cogs"
    target.mkdir()
    for stored in list(cogs.list()):
        (target / Path(stored.key).name).write_bytes(cogs.read(stored.key, _MAX_BYTES))
    _draw_contact_sheet(sorted(target.glob("*.jpg")), OUTPUT / "contact-sheet.jpg")


def _draw_contact_sheet(images: list[Path], sheet: Path) -> None:
    columns = 4
    width, height = THUMBNAIL
    label, gap = 22, 8
    rows = -(-len(images) // columns)
    canvas = Image.new(
        "RGB",
        (columns * (width + gap) + gap, rows * (height + label + gap) + gap),
        "white",
    )
    draw = ImageDraw.Draw(canvas)
    for place, path in enumerate(images):
        row, column = divmod(place, columns)
        left = gap + column * (width + gap)
        top = gap + row * (height + label + gap)
        with Image.open(path) as image:
            thumbnail = ImageOps.pad(image.convert("RGB"), THUMBNAIL, color="#eee")
        canvas.paste(thumbnail, (left, top))
        draw.text((left, top + height + 3), path.stem, fill="black", font_size=14)
    canvas.save(sheet, quality=90)


def _list_files() -> None:
    files = {
        "contact-sheet.jpg": "all JPEGs on one sheet; open this first",
        "cogs/": "the COGs and JPEGs of the output bucket",
        "processed.csv, failed.csv": "the outcome of each row",
        "workflow-run-…/": "the run: its DAG, results.jsonl, logs of failed nodes",
    }
    table = Table.grid(padding=(0, 2))
    for name, description in files.items():
        table.add_row(f"{os.path.relpath(OUTPUT)}/{name}", description, style=None)
    _print_step("Files:")
    console.print(table)


def _print_step(sentence: str) -> None:
    console.print(sentence, style="bold")


def _interrupt(number: int, frame: object) -> None:
    # make passes Ctrl-C on as well. This second signal must not stop the cleaning up.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        console.print("Interrupted. The pool is stopped.")
        sys.exit(130)
    except subprocess.SubprocessError as error:
        console.print(str(error), style="red", soft_wrap=True)
        console.print("The logs are in demo-output/launch-* and workflow-run-*.")
        sys.exit(1)
    except PoolError as error:
        console.print(str(error), style="red", soft_wrap=True)
        sys.exit(1)
