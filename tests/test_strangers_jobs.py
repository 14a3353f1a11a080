"""Another user of the access point submits jobs that look like the pipeline's."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pool.ordinary_user import command_prefix
from pool.personal import PersonalPool
from tests.support.archive import Archive, wait_for

SUBMIT = """
import sys, htcondor2
description = htcondor2.Submit(open(sys.argv[1]).read())
print(htcondor2.Schedd().submit(description).cluster())
"""
Submit = Callable[..., None]


@pytest.fixture
def submit_as_stranger(pool: PersonalPool, tmp_path: Path) -> Submit:
    """Return a function that submits a held job as another user."""
    create_token = [
        str(pool.condor.distribution.bin / "condor_token_create"),
        *("-identity", "mallory@cog-pipeline.pool"),
    ]
    environment = os.environ | pool.condor.environment
    token = subprocess.run(
        [*command_prefix(), *create_token],
        env=environment,
        capture_output=True,
        check=True,
    )
    tokens = tmp_path / "tokens"
    tokens.mkdir(mode=0o700)
    (tokens / "mallory").touch(mode=0o600)
    (tokens / "mallory").write_bytes(token.stdout)
    for name in ("SEC_TOKEN_DIRECTORY", "SEC_TOKEN_SYSTEM_DIRECTORY"):
        environment[f"_CONDOR_{name}"] = str(tokens)

    def submit(**attributes: object) -> None:
        lines = [f'My.{name} = "{value}"' for name, value in attributes.items()]
        description = tmp_path / "job.sub"
        description.write_text(
            "\n".join(["executable = /bin/true", "hold = true", *lines, "queue", ""])
        )
        command = [sys.executable, "-c", SUBMIT, str(description)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        command = ["condor_q", done.stdout.strip(), "-af", "Owner"]
        owner = subprocess.run(command, capture_output=True, text=True, check=True)
        assert owner.stdout.split() == ["mallory"]

    return submit


def test_a_job_of_another_user_does_not_stop_a_run(
    archive: Archive, submit_as_stranger: Submit
):
    archive.upload_raster("image.tif", 1)
    archive.launch_to_poll_by_hand("--submit-option", "hold = true")
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    assert archive.poll().returncode == 0
    (run,) = archive.directory.glob("workflow-run-*")
    submit_as_stranger(CogPipelineRun=run, CogPipelineNodeOf=run)
    cluster = json.loads((run / "submitted.json").read_text())["cluster"]
    subprocess.run(["condor_rm", str(cluster)], check=True, capture_output=True)

    def ended() -> bool:
        assert archive.poll().returncode in (0, 1)
        return (run / "done.json").exists()

    wait_for(ended)
    _, ((key, _, reason),) = archive.outcome("batch-")
    assert key == "image.tif"
    assert "removed" in reason


def test_a_job_of_another_user_does_not_stop_a_launch(
    archive: Archive, submit_as_stranger: Submit
):
    archive.launch("--every", "1440")
    (home,) = archive.directory.glob("launch-*")
    subprocess.run(["condor_rm", "-all"], check=True, capture_output=True)
    submit_as_stranger(CogPipeline=home.name)
    wait_for(lambda: archive.run("--every", "1440").returncode == 0)
