"""Tests of the DAG file of a run."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bucket import S3Endpoint
from dag import render
from dag.signing import TransferUrls
from node.multipart import UploadLimits
from node.options import parse
from state.launch import Launch, load_launch, save_launch
from state.rows import Row
from state.run import Run
from tests.support.runs import a_run


def launch(directory: Path, *submit_options: str) -> Launch:
    key = directory / "key"
    store = S3Endpoint("127.0.0.1:9443", key, key)
    return Launch(directory, store, "maps", "cogs", submit_options=submit_options)


def write_dag(run: Run, launch: Launch, nodes: list[render.Node]) -> str:
    render.write_dag(run, launch, nodes, (23, 9, 6), run.directory)
    return run.dag_file.read_text()


def test_a_failed_write_leaves_the_former_dag(tmp_path: Path):
    run = replace(a_run(), directory=tmp_path)
    before = write_dag(run, launch(tmp_path), [])

    def nodes() -> Iterator[render.Node]:
        yield render.Node("row1", "a.tif 1", 1024, 1024, 60, "s3://a", "a=s3://b", None)
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        render.write_dag(run, launch(tmp_path), nodes(), (23, 9, 6), tmp_path)
    assert run.dag_file.read_text() == before
    assert not list(tmp_path.glob(".convert.dag*"))


def test_submit_options_may_use_the_former_names_of_macros(tmp_path: Path):
    run = replace(a_run(), directory=tmp_path)
    dag = write_dag(run, launch(tmp_path, "most_holds = 0"), [])
    assert "max_holds = 0" in dag
    assert "most_holds" not in dag


LAUNCH_OPTIONS = {"profile": ("aerial-rgb",), "co": ("JPEG_QUALITY=90",)}


@pytest.mark.parametrize(
    ("row_options", "profile", "co"),
    [
        ({}, "aerial-rgb", {"JPEG_QUALITY": "90"}),
        ({"co": ("BLOCKSIZE=256",)}, "aerial-rgb", {"BLOCKSIZE": "256"}),
        ({"profile": ("zstd",)}, "zstd", {}),
    ],
)
def test_options_of_a_row_override_those_of_the_launch(row_options, profile, co):
    row = Row(1, ("a.tif", "3"), "a.tif", 3, options=row_options)
    urls = TransferUrls(("s3://in",), "s3://cog", "s3://jpeg")
    transfer = render.RowTransfer(row, urls, UploadLimits(2**32), {})
    node = render.node("row1", [transfer], LAUNCH_OPTIONS)
    ((_, _, options),) = parse(node.arguments.split())
    assert options.profile == profile
    assert co.items() <= dict(options.co).items()
    assert ("JPEG_QUALITY" in dict(options.co)) == (profile == "aerial-rgb")


def test_node_options_of_an_earlier_version_are_read(tmp_path: Path):
    saved = replace(launch(tmp_path), node_options=LAUNCH_OPTIONS)
    file = tmp_path / "launch-maps" / "launch.json"
    file.parent.mkdir(mode=0o700)
    save_launch(saved, file)
    assert load_launch(file).node_options == LAUNCH_OPTIONS
    record = json.loads(file.read_text())
    record["node_options"] = ["--profile", "aerial-rgb", "--co", "JPEG_QUALITY=90"]
    file.write_text(json.dumps(record))
    assert load_launch(file).node_options == LAUNCH_OPTIONS
