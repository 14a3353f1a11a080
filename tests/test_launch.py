"""A launch checks everything first, and reports a fault in one sentence."""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import classad2
import pytest
from hypothesis import example, given, strategies

from bucket import S3Endpoint
from condor import queue
from dag.key_arguments import pattern_fault
from dag.launch import exposed_keys
from pool import s3
from state.launch import Launch, load_launch, save_launch
from state.project import PROJECT
from state.run import Run
from tests.support.archive import Archive, wait_for
from tests.support.command_line import BUCKETS, assert_wrong, invoke


def assert_refused(done: subprocess.CompletedProcess, *words: str) -> None:
    assert done.returncode != 0
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr


def crondor_jobs(archive: Archive) -> list[str]:
    listing = subprocess.run(
        ["condor_q", "-af", "CogPipeline"], capture_output=True, text=True, check=True
    )
    return [line for line in listing.stdout.splitlines() if archive.maps.name in line]


def test_a_second_launch_submits_nothing(archive: Archive):
    job = re.search(r"job (\d+)", archive.launch())[1]

    second = archive.run()

    assert_refused(second, "already running", f"job {job}", f"condor_rm {job}")
    assert len(crondor_jobs(archive)) == 1
    archive.launch("-p", "*other.csv")
    assert len(crondor_jobs(archive)) == 2, "another pattern is another launch"


def test_endpoint_and_keys_must_be_given_together():
    assert_wrong(invoke("-a", "x", *BUCKETS), "missing: -s, -e")


def test_without_endpoint_and_keys_the_usual_keys_are_used(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, str(PROJECT / "cog_pipeline.py"), *BUCKETS],
        env={"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert_refused(done, f"{tmp_path}/.chtc_s3/access.key")


def test_a_missing_key_file(archive: Archive):
    assert_refused(archive.run("-s", "absent.key"), "no key file", "absent.key", "-s")


@pytest.mark.parametrize("option", ["-a", "-s"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_file_that_others_can_use(archive: Archive, option: str, mode: int):
    store = archive.store
    key = archive.directory / "some.key"
    original = store.access_key if option == "-a" else store.secret_key
    key.write_text(original.read_text())
    key.chmod(mode)
    assert_refused(archive.run(option, str(key)), f"chmod 600 {shlex.quote(str(key))}")
    assert crondor_jobs(archive) == []
    key.chmod(0o600)
    archive.launch(option, str(key))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_file_of_another_user(archive: Archive):
    key = archive.directory / "secret.key"
    key.write_text(archive.store.secret_key.read_text())
    key.chmod(0o600)
    os.chown(key, 12345, 12345)
    assert_refused(archive.run("-s", str(key)), "another user", str(key))


def test_a_poll_with_a_key_that_others_can_use_only_warns(archive: Archive):
    key = archive.directory / "secret.key"
    key.write_text(archive.store.secret_key.read_text())
    key.chmod(0o600)
    archive.launch("-s", str(key))
    key.chmod(0o644)
    polled = archive.poll()
    assert polled.returncode == 0
    assert f"chmod 600 {key}" in polled.stderr


def test_a_wrong_key(archive: Archive):
    key = archive.directory / "secret.key"
    key.write_text("wrong\n")
    key.chmod(0o600)
    assert_refused(archive.run("-s", str(key)), "check the key files")
    assert crondor_jobs(archive) == []


def test_an_unreachable_endpoint(archive: Archive):
    endpoint = f"127.0.0.1:{s3.free_port()}"
    assert_refused(archive.run("-e", endpoint), endpoint, "refused")
    assert crondor_jobs(archive) == []


def test_a_ca_file_without_certificates(archive: Archive):
    empty = archive.directory / "empty.pem"
    empty.write_text("")
    assert_refused(archive.run("--ca-certs", str(empty)), "certificate")


def test_a_missing_bucket(archive: Archive):
    assert_refused(
        archive.run("--output-bucket", "nowhere"), "nowhere", "no such bucket"
    )


def test_an_htcondor_that_does_not_answer(archive: Archive):
    done = archive.run(CONDOR_CONFIG="/dev/null")
    assert_refused(done, "HTCondor", "condor_q")


def test_a_period_that_cron_cannot_express():
    assert_wrong(invoke(*BUCKETS, "--every", "7"), "7 minutes")


def test_a_submit_option_without_a_value():
    assert_wrong(invoke(*BUCKETS, "--submit-option", "queue 5"), "NAME = VALUE")


def test_plain_http_needs_an_option():
    store = ("-a", "x", "-s", "x", "-e", "http://127.0.0.1:1")
    assert_wrong(invoke(*BUCKETS, *store), "--insecure-http")


SAME_PREFIX = ("--input-prefix", "x/", "--output-prefix", "x/")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--output-bucket", "maps"), "--output-prefix"),
        (("--in-place",), "same bucket"),
        (("--output-bucket", "maps", *SAME_PREFIX), "would replace the originals"),
        (("--output-bucket", "maps", "--in-place", "--output-prefix", "x"), "no --out"),
        (("--output-bucket", "maps", "--in-place", "--rows-per-job", "2"), "originals"),
        (("--every", "120", "--url-hours", "3"), "--url-hours 4 or more"),
        (("--time-limit", "86401"), "--max-time-limit (86400 s)"),
        (("--profile", "mp3"), "mp3"),
        (("--co", "DISCARD_LSB=2"), "--profile lerc_zstd --co MAX_Z_ERROR=2"),
    ],
)
def test_options_that_do_not_go_together(options: tuple[str, ...], words: str):
    store = ("-a", "x", "-s", "x", "-e", "s3.example.org")
    assert_wrong(invoke(*BUCKETS, *store, *options), words)


@pytest.mark.parametrize(
    "pattern",
    [
        *(r"\*raw.csv", r".*raw\.csv", "^.*raw.csv", "*raw.csv$", "{a,b}*raw.csv"),
        *("~/maps/*raw.csv", "remote:maps/*raw.csv"),
    ],
)
def test_a_pattern_of_another_kind_matches_no_manifest(archive: Archive, pattern: str):
    pattern = pattern.replace("remote:maps", f"remote:{archive.maps.name}")
    fault = pattern_fault(pattern, archive.maps)
    assert fault is not None
    assert "the pattern '" in fault


def test_the_remedy_for_a_key_file_can_be_typed(tmp_path: Path):
    key = tmp_path / "my keys"
    key.write_text("secret")
    key.chmod(0o644)
    (fault, *_) = exposed_keys(S3Endpoint("s3.example.org", key, key))
    assert fault.endswith(f"chmod 600 '{key}'")


def test_a_launch_under_tmp_is_refused_where_dagman_would_fail(archive: Archive):
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        done = subprocess.run(
            archive.command(),
            cwd=directory,
            env=os.environ | {"_CONDOR_DAGMAN_USE_STRICT": "1"},
            capture_output=True,
            text=True,
        )
        assert_refused(done, "DAGMan", "under /tmp", directory, "home directory")
        assert not list(Path(directory).iterdir())
    assert crondor_jobs(archive) == []


def test_a_schedd_that_does_not_answer_after_the_submission_is_a_warning():
    # The job is in the queue, so the launch must not end with an error.
    code = (
        "from pathlib import Path\n"
        "from cli.launch import warn_if_urls_can_be_read\n"
        "from state.journal import Journal\n"
        "from state.launch import Launch\n"
        "launch = Launch(Path('/nowhere'), None, 'maps', 'cogs')\n"
        "warn_if_urls_can_be_read(launch, Journal(print))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        env=os.environ | {"CONDOR_CONFIG": "/dev/null"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "who signs the transfers is not known yet: HTCondor" in done.stderr
    assert done.stdout == ""


def test_a_directory_name_that_htcondor_cannot_handle(archive: Archive):
    directory = archive.directory / "a,b"
    directory.mkdir()
    done = subprocess.run(
        archive.command(), cwd=directory, capture_output=True, text=True
    )
    assert_refused(done, "a,b", "rename it")


def test_a_directory_name_may_contain_a_space(archive: Archive):
    spaced = archive.directory / "our maps"
    spaced.mkdir()
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])
    done = subprocess.run(archive.command(), cwd=spaced, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert archive.outcome("batch-") == ([["image.tif", "1"]], [])


def test_max_time_limit_permits_a_longer_time_limit(archive: Archive):
    archive.launch("--time-limit", "86401", "--max-time-limit", "86401")


def test_settings_of_a_launch_before_max_time_limit(tmp_path: Path):
    key = tmp_path / "key"
    saved = Launch(
        tmp_path, S3Endpoint("h", key, key), "maps", "cogs", max_time_limit=5
    )
    file = tmp_path / "launch.json"
    save_launch(saved, file)
    assert load_launch(file) == saved
    text = json.loads(file.read_text())
    del text["max_time_limit"]
    file.write_text(json.dumps(text))
    assert load_launch(file).max_time_limit == 86_400


@pytest.mark.parametrize("image", ["docker://registry.example.org/node:1", "node.sif"])
def test_nodes_run_in_the_requested_container(archive: Archive, image: str):
    (archive.directory / "node.sif").write_bytes(b"instead of an image")
    archive.upload_raster("image.tif", 1)
    archive.upload_manifest("batch-raw.csv", [("image.tif", 1)])

    # No machine of the pool can run containers, so the job waits.
    archive.launch("--node-environment", f"container:{image}")

    (run,) = archive.directory.glob("workflow-run-*")
    nodes_of_run = f"{queue.NODE_ATTRIBUTE} == {classad2.quote(str(run))}"
    names = ["WantContainer", "ContainerImage", "TransferInput", "TransferExecutable"]
    jobs = queue.htcondor2.Schedd()
    wait_for(lambda: bool(jobs.query(nodes_of_run, names)), 60)
    (job,) = jobs.query(nodes_of_run, names)
    assert job["WantContainer"]
    assert job["ContainerImage"].endswith(image)
    assert "/node.zip," in job["TransferInput"], "the code of the node is sent as usual"
    assert job.get("TransferExecutable", True), "Docker would look for it in the image"
    if image == "node.sif":
        assert str(archive.directory / image) in job["TransferInput"]


@given(strategies.from_regex(r"([raw.x/-]{0,3}|[*?])raw\.?[a-z*]{0,3}", fullmatch=True))
@example("batch-raw.csv")
@example("maps/r*")
@example("x.1raw*")
def test_the_csvs_of_a_manifest_are_listed_with_it(pattern: str):
    launch = Launch(Path("/nowhere"), None, "maps", "cogs", pattern=pattern)
    for filled in ("", "raw", "x-raw", ".raw"):
        manifest = pattern.replace("*", filled).replace("?", "r")
        fields = dict.fromkeys(Run.__dataclass_fields__, "")
        run = Run(**fields | {"manifest_key": manifest})
        for key in (run.manifest_key, run.processing_key, run.failed_key):
            assert key.startswith(launch.literal_prefix)
