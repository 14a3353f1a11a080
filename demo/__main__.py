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
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rio_cogeo.cogeo import cog_validate

from bucket import Bucket, S3Endpoint
from demo import scenes
from pool import personal
from pool.errors import PoolError
from pool.personal import PersonalPool
from state.project import PROJECT
from state.run import load_run

# No object here is larger, in bytes.
_MAX_BYTES = 2**30

OUTPUT = PROJECT / "demo-output"
MANIFEST = "demo-raw.csv"
# A run of ten small images takes much less time, unless something is wrong.
PATIENCE_SECONDS = 180
THUMBNAIL = (280, 200)

console = Console(highlight=False)


def main() -> int:
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
        return _run(pool)


@contextmanager
def _running_pool(directory: Path) -> Iterator[PersonalPool]:
    with console.status("starting") as status:
        pool = personal.start(directory, status.update)
    try:
        yield pool
    finally:
        with console.status("stopping the pool"):
            personal.stop(pool)


def _run(pool: PersonalPool) -> int:
    os.environ.update(pool.condor.environment)
    s3 = pool.s3
    store = S3Endpoint(s3.endpoint, s3.access_key, s3.secret_key, ca_certs=s3.ca_certs)
    maps, cogs = Bucket(store, "maps"), Bucket(store, "cogs")
    maps.create()
    cogs.create()
    rows = _upload_images(maps)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    maps.write(MANIFEST, text.getvalue().encode())
    _print_step(f"Uploaded {len(scenes.SCENES)} scenes and {MANIFEST} to bucket maps:")
    console.print(text.getvalue(), style="dim")

    _launch(pool)
    if not _watch():
        console.print(
            f"The run did not end within {PATIENCE_SECONDS} s: read "
            f"{os.path.relpath(OUTPUT)}/workflow-run-*/convert.dag.dagman.out",
            soft_wrap=True,
        )
        return 1
    _show_csvs(maps)
    all_are_valid = _show_outputs(cogs)
    _list_files()
    return 0 if all_are_valid else 1


def _upload_images(maps: Bucket) -> list[tuple[str, int]]:
    """Upload the scenes and a file that is no raster; return the manifest's rows."""
    rows = []
    with console.status("cutting scenes out of Blue Marble and a shaded relief"):
        for scene in scenes.SCENES:
            path = OUTPUT / "scene.tif"
            scenes.write(scene, path)
            key = f"scenes/{scene.name}.tif"
            maps.upload(key, path)
            path.unlink()
            rows.append((f"{maps.name}/{key}", scene.bands))
        maps.write("scenes/postcard.tif", b"Greetings from a file that is no raster.")
    rows.append((f"{maps.name}/scenes/atlantis.tif", 3))
    rows.append((f"{maps.name}/scenes/postcard.tif", 3))
    return rows


def _launch(pool: PersonalPool) -> None:
    s3 = pool.s3
    options = [
        *("-a", str(s3.access_key), "-s", str(s3.secret_key), "-e", s3.endpoint),
        *("--ca-certs", str(s3.ca_certs), "--every", "1"),
        *("--input-bucket", "maps", "--output-bucket", "cogs", "-p", "*raw.csv"),
    ]
    _print_step("Launching, as on an access point:")
    command = shlex.join(["python3", "cog_pipeline.py", *options])
    console.print(command.replace(str(s3.directory), "…"), style="dim", soft_wrap=True)
    subprocess.run(
        [sys.executable, str(PROJECT / "cog_pipeline.py"), *options],
        cwd=OUTPUT,
        check=True,
    )


def _watch() -> bool:
    """Show a bar until both CSVs are there; return False if they do not come."""
    # The import is here since HTCondor's bindings read CONDOR_CONFIG as they are
    # imported.
    from condor import queue

    deadline = time.monotonic() + PATIENCE_SECONDS
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as bars:
        bar = bars.add_task("converting", total=None)
        while time.monotonic() < deadline:
            run_file = next(OUTPUT.glob("workflow-run-*/run.json"), None)
            run = load_run(run_file.parent) if run_file else None
            if run and run.done:
                bars.update(bar, completed=bars.tasks[0].total or 1)
                return True
            if run and run.cluster and (progress := queue.progress(run.cluster)):
                completed = progress.done + progress.failed
                bars.update(bar, total=progress.total or None, completed=completed)
            time.sleep(0.5)
    return False


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


def _show_outputs(cogs: Bucket) -> bool:
    """Fetch COGs and JPEGs, validate the COGs, and put the JPEGs on one sheet.

    Returns:
        Whether all COGs are valid.
    """
    target = OUTPUT / "cogs"
    target.mkdir()
    thumbnails = []
    all_are_valid = True
    for stored in list(cogs.list()):
        file = target / Path(stored.key).name
        file.write_bytes(cogs.read(stored.key, _MAX_BYTES))
        if file.suffix == ".tif":
            is_valid, errors, _ = cog_validate(file, strict=True, quiet=True)
            if not is_valid:
                all_are_valid = False
                console.print(f"{file.name} is not a valid COG: {errors}", style="red")
        else:
            thumbnails.append(file)
    _draw_contact_sheet(thumbnails, OUTPUT / "contact-sheet.jpg")
    if all_are_valid:
        _print_step("rio-cogeo reports every COG as valid.")
    return all_are_valid


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
        sys.exit(main())
    except KeyboardInterrupt:
        console.print("Interrupted. The pool is stopped.")
        sys.exit(130)
    except PoolError as error:
        console.print(str(error), style="red", soft_wrap=True)
        sys.exit(1)
