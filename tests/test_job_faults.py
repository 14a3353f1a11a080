"""Jobs that fail are tried again; then their row fails with the reason."""

import json
import re
import subprocess
import sys

from rio_cogeo.cogeo import cog_validate

from condor import eventlog
from pool.personal import PersonalPool
from state.project import PROJECT
from tests.support.archive import (
    A_JOB_A_ROW,
    Archive,
    tries,
    wait_for,
    wait_for_dagman,
)
from tests.support.faulty_s3 import Fault, FaultyS3
from tests.support.processes import kill_machines

# This script runs in place of bin/generate_cogs.sh, and continues with it unless the
# job must end before.
NODE = """\
#!/bin/sh
given=$(sed -n 's/^Memory = //p' .machine.ad)
case $1 in
memory*) ulimit -v $((given * 160)) ;;  # in KiB; too little of 1 GiB, enough of 2
killed*) printf '#!/bin/sh\\nkill -9 $$\\n' >python; export PYTHON=./python ;;
hang*) printf '#!/bin/sh\\nexec sleep 600\\n' >python; export PYTHON=./python ;;
slow*) printf '#!/bin/sh\\nexec {python} -c "import signal, time
signal.alarm(1); time.sleep(600)"\\n' >python; export PYTHON=./python ;;
full*) exit 74 ;;
wait*) sleep 600 ;;
deadly*) kill -9 $PPID; sleep 600 ;;  # kills its starter, as if the machine died
esac
[ -f python ] && chmod +x python
exec {script} "$@"
"""


def misbehaving(archive: Archive) -> tuple[str, str]:
    node = archive.directory / "node.sh"
    node.write_text(
        NODE.replace("{script}", str(PROJECT / "bin" / "generate_cogs.sh")).replace(
            "{python}", sys.executable
        )
    )
    return "--submit-option", f"executable = {node}"


def upload(archive: Archive, *names: str) -> None:
    for name in names:
        archive.upload_raster(f"{name}.tif", 1)
    archive.upload_manifest("batch-raw.csv", [(f"{name}.tif", 1) for name in names])


def test_every_failure_is_tried_again_and_then_is_the_reason_of_its_row(
    archive: Archive,
):
    upload(archive, "memory", "killed", "hang", "slow", "full", "deadly", "nobodys")
    archive.launch(
        *misbehaving(archive),
        *A_JOB_A_ROW,
        *("--submit-option", 'hangs = regexp("hang", Args)'),
        *("--submit-option", "max_running_seconds = ifThenElse($(hangs), 2, 3600)"),
        *("--submit-option", 'nobodys = regexp("nobodys", MY.Args)'),
        *("--submit-option", "requirements = !$(nobodys)"),
        *("--submit-option", "max_idle_seconds = ifThenElse($(nobodys), 1, 3600)"),
        *("--submit-option", "max_starts = 2"),
    )

    processed, failed = archive.outcome("batch-")

    assert processed == [["memory.tif", "1"]], failed
    reasons = {name: reason for name, _, reason in failed}
    assert "too little memory" in reasons["killed.tif"]
    assert "max_running_seconds" in reasons["hang.tif"]
    assert "its time limit" in reasons["slow.tif"]
    assert "disk of its machine was full" in reasons["full.tif"]
    assert re.search(r"after \d starts \(max_starts", reasons["deadly.tif"])
    assert "no machine took it (max_idle_seconds)" in reasons["nobodys.tif"]
    attempts = tries(archive)
    assert attempts.pop("row1") == 2, "the second attempt had twice the memory"
    assert set(attempts.values()) == {4}, attempts


def test_finished_rows_stay_processed_when_the_run_is_removed(archive: Archive):
    upload(archive, "done", "wait-1", "wait-2")
    archive.launch(*misbehaving(archive), *A_JOB_A_ROW, "-m", "1")
    (run,) = archive.directory.glob("workflow-run-*")
    wait_for(lambda: archive.cogs.exists("done.jpg"))
    wait_for_dagman(run)
    wait_for(
        lambda: (run / "convert.dag.nodes.log").read_text().count("executing") == 2
    )
    cluster = json.loads((run / "submitted.json").read_text())["cluster"]
    subprocess.run(["condor_rm", str(cluster)], capture_output=True, check=True)

    processed, failed = archive.outcome("batch-")

    assert processed == [["done.tif", "1"]]
    assert [row[0] for row in failed] == ["wait-1.tif", "wait-2.tif"]
    assert "its job was removed from the queue: via condor_rm (by user" in failed[0][2]
    assert "before this row's turn: via condor_rm (by user" in failed[1][2]


def test_half_an_upload_of_a_lost_machine_is_not_an_output(
    pool: PersonalPool, faulty_s3_server: FaultyS3, faulty_archive: Archive
):
    upload(faulty_archive, "image")
    slow = Fault(method="PUT", path=r"/cogs-.*\.tif", bytes_per_second=10_000)
    with faulty_s3_server.suffering(slow):
        faulty_archive.launch("--submit-option", "job_lease_duration = 20")
        wait_for(lambda: faulty_s3_server.count("PUT", r"/cogs-.*\.tif"))
        kill_machines(pool)
        (run,) = faulty_archive.directory.glob("workflow-run-*")
        assert not (run / "done.json").exists()
        assert not faulty_archive.cogs.exists("image.tif")

    assert faulty_archive.outcome("batch-") == ([["image.tif", "1"]], [])
    assert faulty_s3_server.count("PUT", r"/cogs-.*\.tif") == 2
    cog = faulty_archive.fetch(faulty_archive.cogs, "image.tif")
    assert cog_validate(cog, strict=True, quiet=True)[0]


def test_a_hold_reason_from_a_node_is_printable_and_cut_to_the_length_shown():
    for text in ("x" * 10**6, "\x1b[2J"):
        reason = eventlog._fact("HoldReason", text)
        assert len(reason) <= 500
        assert reason.isprintable()
