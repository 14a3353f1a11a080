"""The packed node is one file that needs only the kernel of its machine."""

import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import rasterio
from rio_cogeo.cogeo import cog_validate

from condor import queue
from pack import packed
from pack.errors import PackError
from state.project import PROJECT
from tests.support import rasters
from tests.support.archive import Archive, wait_for
from tests.support.command_line import BUCKETS, assert_wrong, invoke
from tests.support.node import SCRIPT, files

EMPTY = ["unshare", "--user", "--map-root-user", "--wd=/"]


@pytest.fixture(scope="session")
def node() -> Path:
    return packed.find_or_make(print)


@pytest.fixture
def sandbox(tmp_path: Path, node: Path) -> Path:
    """Return a directory like the one that HTCondor makes for a job."""
    directory = tmp_path / "sandbox"
    directory.mkdir()
    rasters.write(directory / "image.tif", 3)
    for file in (SCRIPT, node):
        shutil.copy(file, directory)
    return directory


def run_in(sandbox: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run the node as HTCondor does, with a PATH without Python."""
    return subprocess.run(
        ["./generate_cogs.sh", "image.tif", "3", *arguments],
        cwd=sandbox,
        env={"PATH": programs_without_python(sandbox)},
        capture_output=True,
        text=True,
    )


def programs_without_python(directory: Path, **others: str) -> str:
    """Return a folder with the programs that ``generate_cogs.sh`` needs.

    Args:
        others: shell scripts that replace some of the programs.
    """
    folder = directory.parent / "bin"
    folder.mkdir(exist_ok=True)
    for name in ("chmod", "cp", "date", "dirname", "mkdir", "rm", "uname"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(shutil.which(name) or name)
    for name, script in others.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def result(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "result.json").read_text())


def test_the_packed_node_converts_in_an_empty_chroot(tmp_path: Path, node: Path):
    if subprocess.run([*EMPTY, "true"], capture_output=True).returncode:
        pytest.skip("this user can make no namespace or not change its root directory")
    with rasterio.open(rasters.write(tmp_path / "image.tif", 3)) as source:
        pixels = source.read()
    shutil.copy(node, tmp_path / "node-packed")

    done = subprocess.run(
        [*EMPTY, f"--root={tmp_path}", "/node-packed", "image.tif", "3"],
        env={},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert result(tmp_path)["ok"]
    # The folder into which it unpacked itself is gone.
    assert files(tmp_path) == {"image.tif", "image.jpg", "result.json", "node-packed"}
    assert cog_validate(tmp_path / "image.tif", strict=True, quiet=True)[0]
    with rasterio.open(tmp_path / "image.tif") as cog:
        assert cog.crs.to_epsg() == 32616
        assert (cog.read() == pixels).all()


def test_the_script_uses_the_packed_node_where_there_is_no_python(
    sandbox: Path, node: Path
):
    before = files(sandbox)

    done = run_in(sandbox)

    assert done.returncode == 0, done.stderr
    assert files(sandbox) == before | {"image.jpg", "result.json"}


def test_a_reprojection_that_needs_the_data_of_proj_works(sandbox: Path):
    done = run_in(sandbox, "--reproject", "EPSG:3857", "--profile", "deflate")
    assert done.returncode == 0, done.stderr
    assert result(sandbox)["crs"] == "EPSG:3857"


def test_a_shared_packed_node_is_not_changed(sandbox: Path, node: Path):
    (sandbox / node.name).chmod(0o444)
    before = files(sandbox)

    done = run_in(sandbox)

    assert done.returncode == 0, done.stderr
    assert files(sandbox) == before | {"image.jpg", "result.json"}
    assert (sandbox / node.name).stat().st_mode & 0o777 == 0o444


def test_a_packed_node_gives_a_reason_like_every_node(sandbox: Path):
    (sandbox / "image.tif").write_text("no image")
    before = files(sandbox)

    done = run_in(sandbox)

    assert done.returncode == 65
    assert result(sandbox)["code"] == "not-a-raster"
    assert files(sandbox) == before | {"result.json"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGALRM, signal.SIGTERM])
def test_a_killed_packed_node_leaves_nothing(sandbox: Path, number: int):
    before = files(sandbox)
    # This sparse image has so many pixels that the conversion takes long.
    profile = {"driver": "GTiff", "dtype": "uint8", "tiled": True, "sparse_ok": "TRUE"}
    side = {"width": 60_000, "height": 60_000}
    with rasterio.open(sandbox / "image.tif", "w", count=1, **profile, **side):
        pass
    node = subprocess.Popen(
        ["./generate_cogs.sh", "image.tif", "1", "--allow-no-crs"],
        cwd=sandbox,
        env={"PATH": programs_without_python(sandbox)},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: bool(pythons_of(sandbox)))

    for pid in pythons_of(sandbox):
        os.kill(pid, number)
    node.communicate(timeout=30)

    expected = {signal.SIGALRM: ("time-limit", 75)}.get(
        number, ("killed", 128 + number)
    )
    assert (result(sandbox)["code"], node.returncode) == expected
    assert files(sandbox) == before | {"result.json"}


def pythons_of(sandbox: Path) -> list[int]:
    """Return the PIDs of unpacked Pythons in a sandbox that have imported GDAL."""
    pids = []
    for process in Path("/proc").iterdir():
        try:
            maps = (process / "maps").read_text() if process.name.isdigit() else ""
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if f"{sandbox}/" in maps and "libgdal" in maps:
            pids.append(int(process.name))
    return pids


def test_a_machine_of_another_processor_type_is_named(sandbox: Path):
    path = programs_without_python(sandbox, uname="echo sparc64")
    done = subprocess.run(
        ["./generate_cogs.sh", "image.tif", "3"],
        cwd=sandbox,
        env={"PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 69
    assert result(sandbox)["code"] == "wrong-machine"
    assert "sparc64" in result(sandbox)["reason"]
    assert platform.machine() in result(sandbox)["reason"]


def test_a_kernel_that_is_too_old_is_named(sandbox: Path, node: Path):
    # On such a kernel, the loader fails in this way.
    loader = "#!/bin/sh\necho 'FATAL: kernel too old' >&2\nexit 127\n"
    (sandbox / node.name).write_text(loader)
    done = run_in(sandbox)
    assert done.returncode == 69
    assert result(sandbox)["code"] == "wrong-machine"
    assert platform.release() in result(sandbox)["reason"]


@pytest.mark.parametrize(("begin", "end"), [(5, 0), (5, 16), (20, 16)])
def test_an_incomplete_packed_node_is_reported(
    sandbox: Path, node: Path, begin: int, end: int
):
    """Keep only the first ``begin`` MiB and the last ``end`` bytes of the file."""
    content = (sandbox / node.name).read_bytes()
    parts = content[: begin * 2**20] + content[len(content) - end :]
    (sandbox / node.name).write_bytes(parts)
    before = files(sandbox)

    done = run_in(sandbox)

    assert done.returncode == 69
    assert result(sandbox)["code"] == "not-unpacked"
    assert "incomplete" in done.stderr
    assert files(sandbox) == before | {"result.json"}


def test_a_packed_node_that_was_damaged_in_transfer_is_not_run(
    sandbox: Path, node: Path
):
    with (sandbox / node.name).open("r+b") as file:
        file.seek(-1_000_000, os.SEEK_END)
        file.write(b"\0" * 1000)

    done = run_in(sandbox)

    assert done.returncode == 69
    assert result(sandbox)["code"] == "not-unpacked"


def test_a_disk_without_room_for_the_packed_node_is_reported(
    tmp_path: Path, node: Path
):
    disk = tmp_path / "disk"
    disk.mkdir()
    image = rasters.write(tmp_path / "image.tif", 1)
    script = (
        f'mount -t tmpfs -o size=100m small "{disk}" && cd "{disk}" && '
        f"cp {SCRIPT} {node} {image} . && ./generate_cogs.sh image.tif 1; "
        "echo status $?; ls -A; cat result.json"
    )
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*unshare, f"mount -t tmpfs small {disk}"]).returncode:
        pytest.skip("this user cannot mount a small disk")

    done = subprocess.run([*unshare, script], capture_output=True, text=True)

    assert "status 74" in done.stdout, done.stdout + done.stderr
    assert '"code": "out-of-disk"' in done.stdout
    assert ".cog" not in done.stdout


def test_a_launch_sends_the_packed_node_to_machines_without_python(archive: Archive):
    archive.upload_raster("scenes/a.tif", 3)
    archive.upload_raster("scenes/b.tif", 1)
    rows = [("scenes/a.tif", 3), ("scenes/b.tif", 1), ("scenes/c.tif", 1)]
    archive.upload_manifest("batch-raw.csv", rows)
    # This is the usual script, but with a PATH that has no Python.
    path = programs_without_python(archive.directory / "sandbox")
    first, *rest = SCRIPT.read_text().splitlines(keepends=True)
    executable = archive.directory / "without-python.sh"
    executable.write_text(f"{first}PATH={path}\n{''.join(rest)}")

    archive.launch(
        *("--node-environment", "packed"),
        *("--submit-option", f"executable = {executable}"),
    )

    processed, failed = archive.outcome("batch-")
    assert processed == [["scenes/a.tif", "3"], ["scenes/b.tif", "1"]], failed
    assert [row[0] for row in failed] == ["scenes/c.tif"]
    copy = json.loads(archive.launch_file().read_text())["packed_node"]
    assert Path(copy).is_relative_to(archive.directory)
    (dag,) = archive.directory.glob("workflow-run-*/convert.dag")
    sends_inputs_once = queue.version() >= (25, 14, 1)
    assert ("CommonInputFiles" in dag.read_text()) == sends_inputs_once
    cog = archive.fetch(archive.cogs, "scenes/a.tif")
    assert cog_validate(cog, strict=True, quiet=True)[0]


@pytest.mark.parametrize("text", ["", "conda", "container:", "packed:x", "container"])
def test_an_unknown_node_environment_is_refused(text: str):
    refused = invoke(*BUCKETS, "--node-environment", text)
    assert_wrong(refused, "is not 'host', 'packed', or 'container:' and an image")


def test_only_packages_that_the_node_imports_are_packed():
    project = (PROJECT / "pyproject.toml").read_text()
    from pack.gather import packages

    names = set(packages())
    assert {"rasterio", "numpy", "pillow", "zstandard", "isal"} <= names
    assert "rio-cogeo" in project
    assert not {"rio-cogeo", "morecantile", "pyproj", "htcondor", "minio"} & names


def test_without_a_compiler_packing_says_where_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The PATH has a compiler without a static libc, or no compiler."""
    if importlib.util.find_spec("ziglang"):
        pytest.skip("ziglang is installed, so there is always a compiler")
    from pack import archive

    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'ld: cannot find -lc' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PackError, match=r"pip install ziglang.*\(.*cannot find -lc\)"):
        archive.write(tmp_path / "node", [], tmp_path)
    compiler.unlink()
    with pytest.raises(PackError, match="pip install ziglang"):
        archive.write(tmp_path / "node", [], tmp_path)


def test_a_cache_that_cannot_be_made_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/no-folder")
    with pytest.raises(PackError, match="set XDG_CACHE_HOME"):
        packed.find_or_make(print)
