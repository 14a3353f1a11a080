"""The DAG file of a run."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bucket import S3Endpoint
from dag import render
from state.launch import Launch
from state.run import Run
from tests.support.runs import a_run


def launch(directory: Path, *submit_options: str) -> Launch:
    key = directory / "key"
    store = S3Endpoint("127.0.0.1:9443", key, key)
    return Launch(directory, store, "maps", "cogs", submit_options=submit_options)


def write_dag(run: Run, launch: Launch, nodes: list[render.Node]) -> str:
    render.write_dag(run, launch, nodes, (23, 9, 6), run.directory)
    return run.dag_file.read_text()


def test_a_dag_that_cannot_be_finished_leaves_the_former_one(tmp_path: Path):
    run = replace(a_run(), directory=tmp_path)
    before = write_dag(run, launch(tmp_path), [])

    def nodes() -> Iterator[render.Node]:
        yield render.Node("row1", "a.tif 1", 1024, 1024, 60, "s3://a", "a=s3://b", None)
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        render.write_dag(run, launch(tmp_path), nodes(), (23, 9, 6), tmp_path)
    assert run.dag_file.read_text() == before
    assert not list(tmp_path.glob(".convert.dag*"))


def test_submit_options_may_have_the_former_names_of_macros(tmp_path: Path):
    run = replace(a_run(), directory=tmp_path)
    dag = write_dag(run, launch(tmp_path, "most_holds = 0"), [])
    assert "max_holds = 0" in dag
    assert "most_holds" not in dag
