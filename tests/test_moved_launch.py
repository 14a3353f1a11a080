"""The directory of a launch is moved, or copied."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from state.errors import PipelineError
from state.moved import moved_from
from tests.support.archive import Archive, wait_for


def moved(archive: Archive) -> Archive:
    place = archive.directory.with_name(archive.directory.name + "-moved")
    archive.directory.rename(place)
    return replace(archive, directory=place)


def remove_job(archive: Archive, cluster: int) -> None:
    subprocess.run(["condor_rm", str(cluster)], check=True, capture_output=True)
    ask = ["condor_q", str(cluster), "-af", "ClusterId"]
    wait_for(lambda: not subprocess.run(ask, capture_output=True).stdout)


def hold_job(cluster: int) -> None:
    subprocess.run(["condor_hold", str(cluster)], check=True, capture_output=True)
    ask = ["condor_q", str(cluster), "-af", "JobStatus"]
    held = b"5"
    wait_for(lambda: subprocess.run(ask, capture_output=True).stdout.strip() == held)


def crondor_cluster() -> int:
    ask = ["condor_q", "-constraint", "CogPipeline =!= undefined", "-af", "ClusterId"]
    listing = subprocess.run(ask, capture_output=True, text=True, check=True)
    return int(listing.stdout.split()[-1])


def test_what_has_not_begun_is_carried_on_from_where_it_is(archive: Archive):
    keys = archive.directory / "keys"
    keys.mkdir(mode=0o700)
    for name in ("access_key", "secret_key"):
        shutil.copy2(getattr(archive.store, name), keys / name)
    given = ("-a", str(keys / "access_key"), "-s", str(keys / "secret_key"))
    archive.upload_raster("image.tif", 1)
    archive.launch_to_poll_by_hand(*given)
    former_crondor = crondor_cluster()

    there = moved(archive)
    said = there.health().stdout
    assert str(archive.directory) in said
    assert f"condor_rm {former_crondor}" in said
    assert "days" not in said
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    polled = there.poll()
    assert polled.returncode == 0, polled.stderr
    assert there.outcome("batch-") == ([["image.tif", "1"]], [])
    assert not archive.directory.exists()

    keys = there.directory / "keys"
    given = ("-a", str(keys / "access_key"), "-s", str(keys / "secret_key"))
    assert f"condor_rm {former_crondor}" in there.run(*given).stderr
    remove_job(there, former_crondor)
    there.launch(*given)
    assert "OK" in there.health().stdout


def test_a_run_whose_jobs_know_the_former_place_waits_for_their_end(archive: Archive):
    archive.upload_raster("image.tif", 1)
    archive.launch_to_poll_by_hand("--node-submit-option", "hold = true")
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    assert archive.poll().returncode == 0
    (run,) = archive.directory.glob("workflow-run-*")
    cluster = json.loads((run / "submitted.json").read_text())["cluster"]
    # Otherwise, DAGMan sooner or later misses its files, and leaves the queue.
    hold_job(cluster)

    there = moved(archive)
    polled = there.poll()
    assert polled.returncode == 1
    assert f"condor_rm {cluster}" in " ".join(polled.stderr.split())
    assert not list(there.directory.glob("workflow-run-*/outcome.json"))
    remove_job(there, cluster)
    wait_for(lambda: there.poll().returncode == 0)

    _, ((key, *_),) = there.outcome("batch-")
    assert key == "image.tif"
    (run,) = there.directory.glob("workflow-run-*")
    assert Path(json.loads((run / "run.json").read_text())["directory"]) == run
    # HTCondor 25 makes the former folders again for its log of the removed jobs.
    assert {file.suffix for file in archive.directory.glob("*/*")} <= {".log"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may search all directories")
def test_a_former_place_that_cannot_be_seen_is_named(tmp_path: Path):
    former, now = tmp_path / "home" / "launch-x", tmp_path / "launch-x"
    for folder in (former, now):
        folder.mkdir(parents=True)
        (folder / "launch.json").write_text("{}")
    former.parent.chmod(0)
    with pytest.raises(PipelineError, match="ask its owner to remove it"):
        moved_from(now / "launch.json", former)
    former.parent.chmod(0o700)


def test_a_copy_is_refused(archive: Archive):
    archive.launch_to_poll_by_hand()
    copy = archive.directory.with_name(archive.directory.name + "-copy")
    shutil.copytree(archive.directory, copy)

    polled = replace(archive, directory=copy).poll()

    assert polled.returncode == 1
    said = " ".join(polled.stderr.split())
    assert "is a copy of" in said
    assert str(archive.directory) in said
    link = archive.directory.with_name(archive.directory.name + "-link")
    link.symlink_to(archive.directory)
    assert replace(archive, directory=link).poll().returncode == 0
