"""Nodes that are killed, hang, or run out of memory or disk space."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio

from dag import render
from dag.signing import TransferUrls
from node import errors
from node.multipart import UploadLimits
from node.options import parse
from state.project import PROJECT
from state.rows import Row
from tests.support import rasters
from tests.support.node import SCRIPT, files, python_with, run_node, work_directory

# The pixels of this image cannot be compressed, so it needs much memory and disk.
LARGE = {"width": 4000, "height": 4000}


def result(directory: Path) -> dict:
    return json.loads((directory / "result.json").read_text())


def run_limited(directory: Path, limit: str, *arguments: str):
    """Run a node under a limit of ``ulimit``, for example ``-v 250000`` (KiB)."""
    return subprocess.run(
        ["sh", "-c", f'ulimit {limit} && exec "$@"', "-", str(SCRIPT), *arguments],
        cwd=directory,
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("code", ["time.sleep(600)", "signal.pause()"])
def test_a_node_that_hangs_ends_itself(tmp_path: Path, code: str):
    # It hangs even before the script has checked that Python can import the node.
    python = python_with(tmp_path, "zstandard", f"import signal, time; {code}")
    work = work_directory(tmp_path)
    original = (work / "image.tif").read_bytes()

    done = run_node(work, "image.tif", "1", "--time-limit", "2", PYTHON=python)

    assert done.returncode == 75
    assert result(work)["code"] == "time-limit"
    assert re.search(r"not done after [2-9] s", result(work)["reason"])
    assert files(work) == {"image.tif", "result.json"}, "no temporary file is left"
    assert (work / "image.tif").read_bytes() == original


def test_a_node_within_its_time_limit_succeeds(tmp_path: Path):
    work = work_directory(tmp_path)
    done = run_node(work, "image.tif", "1", "--time-limit", "100")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("signal", "word"), [(9, "memory"), (11, "signal 11")])
def test_a_node_that_is_killed_leaves_a_reason(tmp_path: Path, signal: int, word: str):
    kill = f"import os; os.kill(os.getpid(), {signal})"
    python = python_with(tmp_path, "zstandard", kill)
    work = work_directory(tmp_path)

    done = run_node(work, "image.tif", "1", PYTHON=python)

    assert done.returncode == 128 + signal
    assert result(work)["code"] == "killed"
    assert word in result(work)["reason"]
    assert files(work) == {"image.tif", "result.json"}, "no temporary file is left"


def test_a_node_that_dies_silently_leaves_a_reason(tmp_path: Path):
    python = python_with(tmp_path, "zstandard", "import os; os._exit(5)")
    work = work_directory(tmp_path)
    (work / "result.json").write_text('{"ok": true, "of": "another one"}')

    done = run_node(work, "image.tif", "1", PYTHON=python)

    assert done.returncode == 5
    assert result(work)["code"] == "internal-error"
    assert "status 5" in result(work)["reason"]


# At one limit GDAL reports the lack of memory; at the other, libtiff hides it.
@pytest.mark.parametrize("kibibytes", [240_000, 300_000])
def test_a_lack_of_memory_while_reading_is_not_reported_as_damage(
    tmp_path: Path, kibibytes: int
):
    # The image is one tile of 64 MiB, and the file is nearly as large.
    tile = {"tiled": True, "blockxsize": 8192, "blockysize": 8192}
    size = {"width": 8192, "height": 8192}
    rasters.write(tmp_path / "image.tif", 1, compress="deflate", **size, **tile)

    done = run_limited(tmp_path, f"-v {kibibytes}", "image.tif", "1")

    assert done.returncode == 71, done.stderr
    assert result(tmp_path)["code"] == "out-of-memory"
    assert re.search(r"had taken \d+ MiB", result(tmp_path)["reason"])
    assert files(tmp_path) == {"image.tif", "result.json"}


def test_a_lack_of_memory_elsewhere_is_reported_too(tmp_path: Path):
    python = python_with(tmp_path, "zstandard", "raise MemoryError")
    work = work_directory(tmp_path)
    done = run_node(work, "image.tif", "1", PYTHON=python)
    assert done.returncode == 71
    assert result(work)["code"] == "out-of-memory"


def on_a_small_disk(directory: Path, script: str) -> subprocess.CompletedProcess:
    """Run a shell script in ``directory``, which is a disk of 40 MiB."""
    # The user who runs the tests may mount as root of a new user namespace.
    mounted = f'mount -t tmpfs -o size=40m small "{directory}" && cd "{directory}"'
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*unshare, "sh", "-c", mounted], capture_output=True).returncode:
        pytest.skip("this user may not mount a small disk")
    return subprocess.run(
        [*unshare, "sh", "-c", f"{mounted} && {script}"],
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("free", [20, 0.2])
def test_a_full_disk_is_reported_with_the_free_and_needed_space(
    tmp_path: Path, free: float
):
    image = rasters.write(tmp_path / "large.tif", 1, **LARGE)
    disk = tmp_path / "disk"
    disk.mkdir()
    filled = round((40 - free) * 2**20) - image.stat().st_size

    done = on_a_small_disk(
        disk,
        f"cp {image} image.tif && head -c {filled} /dev/zero >fill; "
        f"{SCRIPT} image.tif 1; echo status $?; rm fill; ls -A; cat result.json; "
        f"cmp image.tif {image}",
    )

    assert "status 74" in done.stdout, done.stderr
    assert '"code": "out-of-disk"' in done.stdout
    assert re.search(r"\d MiB written, \d+ MiB free, up to 24 MiB needed", done.stdout)
    assert ".cog" not in done.stdout
    assert "differ" not in done.stdout + done.stderr


def test_a_lack_of_space_for_the_overviews_is_noticed_at_once(tmp_path: Path):
    # The image is so large that its overview goes to a file of 137 MiB, on a disk of
    # 40 MiB.
    side = {"width": 24_000, "height": 24_000}
    profile = {"driver": "GTiff", "dtype": "uint8", "crs": "EPSG:32616", **side}
    options = {"compress": "deflate", "sparse_ok": "TRUE", "tiled": True}
    with rasterio.open(tmp_path / "large.tif", "w", count=1, **profile, **options):
        pass
    disk = tmp_path / "disk"
    disk.mkdir()

    done = on_a_small_disk(
        disk,
        f"cp {tmp_path}/large.tif image.tif && {SCRIPT} image.tif 1 --allow-no-crs; "
        "echo status $?",
    )

    assert "status 74" in done.stdout, done.stderr
    # The node fails before the disk is full, so no SIGBUS can kill it.
    assert re.search(r"0 MiB written, 3\d MiB free", done.stderr)


@pytest.mark.parametrize("log", ["/dev/stderr", "log"])
def test_the_exit_status_says_that_there_was_no_space_for_the_result(
    tmp_path: Path, log: str
):
    rasters.write(tmp_path / "large.tif", 1, **LARGE)
    disk = tmp_path / "disk"
    disk.mkdir()

    done = on_a_small_disk(
        disk,
        f"cp {tmp_path}/large.tif image.tif; cat /dev/zero >fill; "
        f"{SCRIPT} image.tif 1 >>{log} 2>&1; echo status $?; wc -c result.json",
    )

    assert "status 74\n0 result.json" in done.stdout, done.stdout + done.stderr
    if log != "log":
        assert "disk of its machine is full" in done.stderr


def test_every_exit_is_documented():
    """Compare the table in the documentation with the codes and their statuses."""
    table = (PROJECT / "docs" / "conversion.md").read_text().partition("\n## Codes")[2]
    table = table.partition("\n## ")[0]
    documented = {
        code: int(status)
        for codes, status in re.findall(r"^\| (`.+?`) \| (\d+)", table, re.MULTILINE)
        for code in re.findall(r"`([\w-]+)`", codes)
    }
    fails = re.findall(r"fail (\d+|\$status) ([\w-]+)", SCRIPT.read_text())
    exits = {code: 128 if "$" in status else int(status) for status, code in fails}
    exits |= {
        error.code: error.exit_status
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.NodeError)
    }
    # The base class is never raised itself.
    exits.pop(errors.NodeError.code)
    # The start programs of a packed node run before they can import the node.
    for file in ("pack/start.py", "pack/launcher.c"):
        unfit, full = re.findall(r"\b(69|74)\b", (PROJECT / file).read_text())[-2:]
        assert {int(unfit), int(full)} == {exits["not-unpacked"], exits["out-of-disk"]}
    assert documented == exits
    assert documented["image-missing"] == errors.Unconvertible.exit_status
    explained = set(errors.EXIT_REASONS) - {128 + 9}
    assert explained == {documented[code] for code in WITHOUT_RESULT}


WITHOUT_RESULT = ("out-of-memory", "out-of-disk", "time-limit")


@pytest.mark.parametrize(
    ("mebibytes", "launch_options", "row_options", "limit", "running"),
    [
        (1, {}, {}, 1810, 5660),
        (1024, {}, {}, 12_040, 271_640),
        (1, {"time_limit": ("60",)}, {}, 60, 3910),
        (1, {"time_limit": ("60",)}, {"time_limit": ("90",)}, 90, 3940),
    ],
)
def test_the_time_limit_depends_on_the_size_of_the_image(
    mebibytes, launch_options, row_options, limit, running
):
    size = mebibytes * 2**20
    row = Row(1, ("a.tif", "1"), "a.tif", 1, size=size, options=row_options)
    urls = TransferUrls(("s3://in",), "s3://cog", "s3://jpeg")
    conversion = render.RowTransfer(row, urls, UploadLimits(2**32), {})
    node = render.node("row1", [conversion], launch_options)
    (parsed,) = parse(node.arguments.split())
    assert parsed[2].time_limit == limit
    assert node.running_seconds == running
