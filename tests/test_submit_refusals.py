"""HTCondor refuses jobs: at launch, before a DAG, and while it runs."""

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from condor import dagman
from condor.errors import SchedulerError, translate_errors, translate_refusals
from condor.queue import try_dag
from pool.ordinary_user import command_prefix
from pool.personal import PersonalPool
from tests.support.archive import A_JOB_A_ROW, Archive, wait_for

NEEDS_PROJECT = """
SUBMIT_REQUIREMENT_NAMES = Project
SUBMIT_REQUIREMENT_Project = ProjectName =!= undefined
SUBMIT_REQUIREMENT_Project_REASON = "each job needs +ProjectName"
"""
SMALL_JOBS = """
SUBMIT_REQUIREMENT_NAMES = Small
SUBMIT_REQUIREMENT_Small = RequestDisk =!= error && !(RequestDisk > 1100 * 1024)
SUBMIT_REQUIREMENT_Small_REASON = "no job may ask for so much disk"
"""


@contextmanager
def configured(pool: PersonalPool, lines: str) -> Iterator[None]:
    """Add lines to the configuration of the schedd during a ``with`` block."""
    file = pool.condor.config
    before = file.read_text()
    try:
        _configure(pool, before + lines)
        yield
    finally:
        _configure(pool, before)


def _configure(pool: PersonalPool, text: str) -> None:
    generation = str(hash(text))
    pool.condor.config.write_text(f"{text}\nTEST_GENERATION = {generation}\n")
    reconfigure = [*command_prefix(), "condor_reconfig"]
    subprocess.run(reconfigure, check=True, capture_output=True)
    ask = ["condor_config_val", "-schedd", "TEST_GENERATION"]
    wait_for(
        lambda: generation in subprocess.run(ask, capture_output=True, text=True).stdout
    )


def queue(*attributes: str) -> list[str]:
    """Return attributes of each job in the queue, and the files that tell its archive.

    The jobs of the test before may still be leaving.
    """
    ask = ["condor_q", "-af", *attributes, "Iwd", "UserLog"]
    listing = subprocess.run(ask, capture_output=True, text=True, check=True)
    return listing.stdout.splitlines()


def _remove_other_jobs(archive: Archive) -> None:
    """Leave the job of this archive only, as a limit counts what tests left behind."""

    def is_alone() -> bool:
        listed = queue("ClusterId")
        for line in set(listed) - set(jobs_of(archive, "ClusterId")):
            for force in ((), ("-forcex",)):
                remove = ["condor_rm", *force, line.split()[0]]
                subprocess.run(remove, capture_output=True)
        return len(listed) == 1

    wait_for(is_alone)


def jobs_of(archive: Archive, *attributes: str) -> list[str]:
    """Return attributes of the jobs in the queue that have to do with an archive."""
    return [line for line in queue(*attributes) if archive.directory.name in line]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("request_memory = 4096 +", "Parse error in expression: RequestMemory"),
        ("request_memory = lots", "RequestMemory is undefined: lots"),
        ("requirements = no_such_function(3)", "Requirements is error"),
        ('periodic_remove = "never" > 3', "PeriodicRemove is error"),
        ("notification = sometimes", "Notification must be"),
        ("accounting_group = my maps", "Invalid accounting_group"),
        ("+ProjectName = my maps", "Parse error in expression: ProjectName"),
    ],
)
def test_a_launch_refuses_a_line_that_htcondor_refuses(
    archive: Archive, line: str, said: str
):
    option = "--submit-option" if line.startswith("+") else "--node-submit-option"
    done = archive.run(option, line)

    assert done.returncode == 1, done.stderr
    stderr = " ".join(done.stderr.split())
    assert said in stderr
    assert "--submit-option" in stderr
    assert "bindings" not in stderr
    assert jobs_of(archive) == []
    assert not list(archive.directory.glob("launch-*/launch.json"))
    assert not list(archive.directory.glob("launch-*/trial-*"))


def test_a_trial_writes_no_log(archive: Archive):
    """HTCondor would write it late, into a directory that is already removed."""
    dag_file = archive.directory / "convert.dag"
    dag_file.write_text("JOB row1 row1.sub\n")
    try_dag(dag_file, {})
    assert not list(archive.directory.glob("*.log"))


def test_a_launch_says_what_the_access_point_demands(
    pool: PersonalPool, archive: Archive
):
    with configured(pool, NEEDS_PROJECT):
        done = archive.run()
        assert done.returncode == 1
        assert "each job needs +ProjectName" in done.stderr
        only_nodes = archive.run("--node-submit-option", '+ProjectName = "maps"')
        assert only_nodes.returncode == 1, "DAGMan has no project"
        assert "each job needs +ProjectName" in only_nodes.stderr
        assert jobs_of(archive) == []


def test_a_submit_option_reaches_all_three_kinds_of_jobs(
    pool: PersonalPool, archive: Archive
):
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    with configured(pool, NEEDS_PROJECT):
        archive.launch(
            *("--submit-option", '+ProjectName = "maps"'),
            *("--submit-option", "accounting_group = group_maps"),
            *("--submit-option", "request_memory = 999"),
            *("--node-submit-option", '+Site = "here"'),
            *("--node-submit-option", "hold = true"),
        )
        attributes = [
            "JobUniverse",
            "ProjectName",
            "AcctGroup",
            "Site",
            "RequestMemory",
        ]

        def listed() -> dict[int, list[str]]:
            rows = [line.split() for line in jobs_of(archive, *attributes)]
            return {int(universe): values[:4] for universe, *values in rows}

        wait_for(lambda: {5, 7, 12} <= listed().keys())
        jobs = listed()
    assert {jobs[kind][0] for kind in (5, 7, 12)} == {"maps"}
    assert {jobs[kind][1] for kind in (5, 7, 12)} == {"group_maps"}
    assert jobs[5][2:] == ["here", "999"]
    assert jobs[7][2] == jobs[12][2] == "undefined"
    assert "999" not in (jobs[7][3], jobs[12][3])


def test_rows_get_what_htcondor_said_of_all_jobs(pool: PersonalPool, archive: Archive):
    rows = [(f"{name}.tif", 1) for name in "abc"]
    for key, _ in rows:
        archive.upload_raster(key, 1)
    archive.launch_to_poll_by_hand()
    archive.upload_manifest("batch-raw.csv", rows)
    with configured(pool, NEEDS_PROJECT):
        polled = archive.poll()

    assert polled.returncode == 0, polled.stderr
    processed, failed = archive.outcome("batch-", seconds=5)
    assert processed == []
    assert [row[0] for row in failed] == [key for key, _ in rows]
    assert all("each job needs +ProjectName" in reason for *_, reason in failed)


@pytest.mark.parametrize("rows_per_job", ["1", "2"])
def test_rows_get_what_htcondor_said_of_their_jobs(
    pool: PersonalPool, archive: Archive, rows_per_job: str
):
    archive.upload_raster("small.tif", 1)
    archive.maps.write("large.tif", b"x" * 30_000_000)
    archive.launch_to_poll_by_hand("--rows-per-job", rows_per_job)
    archive.upload_manifest("batch-raw.csv", [("small.tif", 1), ("large.tif", 1)])
    with configured(pool, f"{SMALL_JOBS}DAGMAN_MAX_SUBMIT_ATTEMPTS = 2\n"):
        assert archive.poll().returncode == 0
        (run,) = archive.directory.glob("workflow-run-*")
        # If both share a job, a later poll tries each alone.
        wait_for(lambda: not archive.poll().returncode and (run / "done.json").exists())
        processed, failed = archive.outcome("batch-")

    assert processed == [["small.tif", "1"]]
    ((key, _, reason),) = failed
    assert key == "large.tif"
    assert "no job may ask for so much disk" in reason
    (log,) = archive.directory.glob("workflow-run-*/log.jsonl")
    assert '"code": "job-refused"' in log.read_text()


@pytest.mark.timeout(900)
def test_a_limit_on_the_number_of_jobs_fails_no_row(
    pool: PersonalPool, archive: Archive
):
    names = ("a", "b")
    for name in names:
        archive.upload_raster(f"{name}.tif", 1)
    archive.launch_to_poll_by_hand(*A_JOB_A_ROW)
    archive.upload_manifest("batch-raw.csv", [(f"{name}.tif", 1) for name in names])
    _remove_other_jobs(archive)
    limit = "DAGMAN_MAX_SUBMIT_ATTEMPTS = 2\nMAX_JOBS_PER_OWNER ="

    def polled() -> subprocess.CompletedProcess:
        # The schedd counts the jobs of an owner every five minutes, and when it is told
        # to reschedule. Until then, it also counts the job of a trial, which has left.
        subprocess.run(["condor_reschedule"], check=True, capture_output=True)
        time.sleep(1)
        return archive.poll()

    # The lowest limit that lets DAGMan in leaves no room for nodes. It may be above
    # two, as the schedd may count jobs that have left.
    for jobs in range(2, 9):
        with configured(pool, f"{limit} {jobs}"):
            if polled().returncode:
                continue
            (run,) = archive.directory.glob("workflow-run-*")
            wait_for((run / "refused.json").exists)
            assert not (run / "outcome.json").exists()
            break
    with configured(pool, f"{limit} 1"):
        wait_for(lambda: "MAX_JOBS_PER_OWNER" in polled().stderr)
        assert not (run / "outcome.json").exists()
    wait_for(lambda: polled().returncode == 0)

    processed, failed = archive.outcome("batch-")

    assert failed == []
    assert sorted(row[0] for row in processed) == [f"{name}.tif" for name in names]
    assert (run / "convert-2.dag").exists()


def test_dagmans_words_are_found_and_not_those_of_others(tmp_path: Path):
    log = tmp_path / "convert.dag.dagman.out"
    now = "11/26/26 02:41:48"
    log.write_text(
        f"{now} Submitting HTCondor Node row1 job(s)...\n"
        f"{now} Failed to submit job row1: SCHEDD:2:too large\n"
        f"{now} Job submit failed after 6 tries.\n"
        f"{now} Shortcutting node row1 retries because of submit failure(s)\n"
        f"{now} Submitting HTCondor Node row2 job(s)...\n"
        f"{now} ERROR: on Line 0 of submit file: expected next ProcId to be 0, "
        "but Schedd says -3\n"
        f"{now} Shortcutting node row2 retries because of submit failure(s)\n"
        f"{now} Submitting HTCondor Node row3 job(s)...\n"
        f"{now} Shortcutting node row3 retries because of submit failure(s)\n"
        f"{now} Submitting HTCondor Node row3 job(s)...\n"
        f"{now} Node row4 was held: {now} Shortcutting node row5 retries because of "
        "submit failure(s)\n"
        f"{now} Submitting HTCondor Node row6 job(s)...\n"
        f"{now} Shortcutting node row6 retries because of submit failure(s)\n"
    )
    refused = dagman.refusals(log)

    assert refused.keys() == {"row1", "row2", "row6"}
    assert refused["row1"] == dagman.Refusal("too large", for_good=True)
    assert not refused["row2"].for_good
    assert refused["row6"] == dagman.Refusal("", for_good=False)


def test_only_a_connection_that_failed_has_to_do_with_bindings():
    with (
        pytest.raises(SchedulerError, match="bindings of its own version"),
        translate_errors("HTCondor"),
    ):
        raise RuntimeError("Failed to connect to schedd.")
    with (
        pytest.raises(SchedulerError) as limit,
        translate_refusals("the job"),
    ):
        raise RuntimeError("Failed to create new proc ID.")
    assert "MAX_JOBS_PER_OWNER" in str(limit.value)
    assert not re.search("bindings", str(limit.value))
