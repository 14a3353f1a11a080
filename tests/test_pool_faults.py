"""A run survives when HTCondor's daemons are killed and started again."""

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bucket import S3Endpoint
from pool import personal
from pool.ordinary_user import command_prefix
from pool.personal import PersonalPool
from state.project import PROJECT
from tests.support.archive import A_JOB_A_ROW, Archive, archive_for, wait_for
from tests.support.processes import descendants, kill, kill_all

# With this program, nodes wait until the test creates the file "go".
NODE = """\
#!/bin/sh
case $1 in
wait*) while [ ! -e "{directory}/go" ]; do sleep 0.2; done ;;
esac
exec {script} "$@"
"""


@pytest.fixture
def mortal(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PersonalPool]:
    """Yield a pool that a test may kill."""
    with personal.running_pool(
        workplace / f"mortal-{uuid.uuid4().hex[:8]}", print
    ) as pool:
        for name, value in pool.condor.environment.items():
            monkeypatch.setenv(name, value)
        yield pool


@pytest.fixture
def archive(
    mortal: PersonalPool, workplace: Path, request: pytest.FixtureRequest
) -> Iterator[Archive]:
    s3 = mortal.s3
    store = S3Endpoint(s3.endpoint, s3.access_key, s3.secret_key, ca_certs=s3.ca_certs)
    yield from archive_for(store, workplace, request.node.name)


# HTCondor gives up a machine that vanished after this time.
SHORT_LEASE = ("--submit-option", "job_lease_duration = 20")


def begin(archive: Archive, *options: str) -> None:
    """Start a run, and wait until one row is done and the nodes of two others run."""
    node = archive.directory / "node.sh"
    script = PROJECT / "bin" / "generate_cogs.sh"
    node.write_text(NODE.format(directory=archive.directory, script=script))
    names = ("done", "wait-1", "wait-2")
    for name in names:
        archive.upload_raster(f"{name}.tif", 1)
    archive.upload_manifest("batch-raw.csv", [(f"{name}.tif", 1) for name in names])
    node_option = ("--submit-option", f"executable = {node}")
    archive.launch(*A_JOB_A_ROW, *node_option, *options)
    (run,) = archive.directory.glob("workflow-run-*")
    wait_for(lambda: archive.cogs.exists("done.jpg"))
    log = run / "convert.dag.nodes.log"
    wait_for(lambda: log.read_text().count("executing") == len(names))


def end(archive: Archive) -> None:
    """Let the nodes continue, and check that all rows are processed."""
    (archive.directory / "go").touch()
    processed, failed = archive.outcome("batch-")
    assert failed == []
    assert [row[0] for row in processed] == ["done.tif", "wait-1.tif", "wait-2.tif"]


def test_a_run_outlives_its_access_point(archive: Archive, mortal: PersonalPool):
    begin(archive)
    kill(mortal, "condor_schedd")
    end(archive)


def test_a_run_outlives_its_execution_point(archive: Archive, mortal: PersonalPool):
    begin(archive, *SHORT_LEASE)
    kill(mortal, "condor_startd")
    end(archive)


def test_a_run_outlives_the_whole_pool(archive: Archive, mortal: PersonalPool):
    begin(archive, *SHORT_LEASE)
    master = int(mortal.condor.pidfile.read_text())
    # The master is first, since it would start the others again. Some end with it.
    kill_all([master, *descendants(master)])

    personal.start(mortal.condor.directory.parent, print)

    end(archive)


def test_a_run_outlives_its_dagman(archive: Archive, mortal: PersonalPool):
    begin(archive)
    # Its name in the table of processes depends on HTCondor's version.
    kill(mortal, "condor_scheduniv_exec", "condor_dagman")
    end(archive)


def test_a_schedd_that_is_away_fails_no_row(archive: Archive, mortal: PersonalPool):
    archive.upload_raster("image.tif", 1)
    archive.launch_to_poll_by_hand()
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])

    def order(command: str) -> None:
        ordered = [*command_prefix(), command, "-daemon", "schedd"]
        subprocess.run(ordered, check=True, capture_output=True)

    order("condor_off")
    wait_for(lambda: "can't find address" in _queue().stderr.lower())
    polled = archive.poll()
    assert polled.returncode == 1
    assert "does 'condor_q' answer" in polled.stderr
    assert "the next poll tries again" in polled.stderr
    order("condor_on")
    wait_for(lambda: _queue().returncode == 0)
    assert archive.poll().returncode == 0

    processed, failed = archive.outcome("batch-")
    assert failed == []
    assert processed == [["image.tif", "1"]]


def _queue() -> subprocess.CompletedProcess:
    return subprocess.run(["condor_q"], capture_output=True, text=True)
