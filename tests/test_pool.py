"""The personal pool starts, stops and keeps its secrets, as a user sees it."""

import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pool import condor, personal
from pool.condor import configure, start
from pool.distribution import program_of_environment
from pool.errors import PoolError
from pool.personal import PersonalPool, shell_lines
from state.project import PROJECT
from tests.support.archive import wait_for

PIPELINE = [sys.executable, str(PROJECT / "cog_pipeline.py")]


def run_pool(command: str, directory: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*PIPELINE, "pool", command, "--directory", str(directory)],
        capture_output=True,
        text=True,
    )


@pytest.mark.pool
def test_a_pool_starts_answers_and_stops(workplace: Path):
    directory = workplace / "another pool"
    assert "pool start" in run_pool("status", directory).stderr
    try:
        start = run_pool("start", directory)
        assert start.returncode == 0, start.stderr
        assert "--ca-certs" in start.stdout
        assert run_pool("status", directory).returncode == 0
        shell = run_pool("env", directory).stdout
        status = subprocess.run(
            ["sh", "-c", f"{shell} condor_status -af Name"],
            env={"PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"]},
            capture_output=True,
            text=True,
        )
        assert "slot" in status.stdout, status.stderr
        rclone = program_of_environment("rclone")
        listing = subprocess.run(
            ["sh", "-c", f"{shell} {rclone} mkdir pool:maps; {rclone} lsf pool:"],
            capture_output=True,
            text=True,
        )
        assert listing.stdout == "maps/\n", listing.stderr
    finally:
        stop = run_pool("stop", directory)
    assert stop.returncode == 0, stop.stderr
    assert run_pool("status", directory).returncode == 1


@pytest.mark.pool
def test_a_start_does_not_rely_on_a_pid_file_that_is_being_written(workplace: Path):
    directory = workplace / "slow writer"
    pidfile = directory / "condor" / "condor_master.pid"
    emptied = threading.Event()

    def keep_empty() -> None:
        while not (pidfile.exists() and (pid := pidfile.read_text())):
            time.sleep(0.001)
        for _ in range(100):
            pidfile.write_text("")
            time.sleep(0.005)
        pidfile.write_text(pid)
        emptied.set()

    writer = threading.Thread(target=keep_empty)
    writer.start()
    running = personal.start(directory, print)
    try:
        writer.join()
        assert emptied.is_set()
        assert condor.running(running.condor)
    finally:
        personal.stop(running)


def test_the_client_of_aws_uploads_to_the_pool(pool: PersonalPool, workplace: Path):
    """It sends checksums after the content by default, which rclone does not read."""
    image = workplace / "image.tif"
    image.write_bytes(bytes(range(256)) * 1024)
    script = f"""
import boto3
store = boto3.client("s3", endpoint_url="https://{pool.s3.endpoint}")
store.create_bucket(Bucket="boto3")
store.upload_file({str(image)!r}, "boto3", "image.tif")
print(store.get_object(Bucket="boto3", Key="image.tif")["Body"].read().hex())
"""
    keys = {
        "AWS_ACCESS_KEY_ID": pool.s3.access_key.read_text().strip(),
        "AWS_SECRET_ACCESS_KEY": pool.s3.secret_key.read_text().strip(),
        "AWS_CA_BUNDLE": str(pool.s3.ca_certs),
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    copy = subprocess.run(
        ["sh", "-c", f'{shell_lines(pool)}exec "$0" -c "$1"', sys.executable, script],
        env={"PATH": "/usr/bin:/bin", "HOME": str(workplace)} | keys,
        capture_output=True,
        text=True,
    )

    assert bytes.fromhex(copy.stdout) == image.read_bytes(), copy.stderr


def test_a_user_id_without_a_name_is_refused_before_the_daemons_start(
    pool: PersonalPool, workplace: Path, monkeypatch: pytest.MonkeyPatch
):
    condor = replace(pool.condor, directory=workplace / "nameless")
    condor.directory.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_000)
    with pytest.raises(PoolError, match="useradd --uid 4000000000"):
        configure(condor)


@pytest.mark.pool
def test_a_start_does_not_wait_for_daemons_that_ended_at_once(
    pool: PersonalPool, workplace: Path
):
    condor = replace(pool.condor, directory=workplace / "without configuration")
    (condor.directory / "log").mkdir(parents=True)
    start_time = time.monotonic()
    with pytest.raises(PoolError, match="condor_master ended immediately"):
        start(condor, pool.s3.certificates)
    assert time.monotonic() - start_time < 30


@pytest.mark.pool
def test_a_stop_ends_running_jobs_and_all_their_processes(workplace: Path):
    directory = workplace / "busy pool"
    try:
        assert run_pool("start", directory).returncode == 0
        shell = run_pool("env", directory).stdout
        job = directory / "sleep.sub"
        # The job ignores signals that ask it to end, and has a child process.
        job.write_text(
            "executable = /bin/sh\narguments = \"-c 'trap : TERM INT QUIT; "
            "while :; do sleep 987654 & wait; done'\"\n"
            "transfer_executable = false\nqueue\n"
        )
        subprocess.run(
            ["sh", "-c", f"{shell} condor_submit '{job}'"],
            cwd=workplace,
            capture_output=True,
            check=True,
        )
        wait_for(lambda: _processes_with("sleep 987654") != [])
        ports = {(directory / "s3-port").read_text()}
        for file in (directory / "condor" / "log").glob(".*_address"):
            ports.add(re.findall(r":(\d+)", file.read_text())[0])
        assert all(_listening_addresses(int(port)) for port in ports)
    finally:
        stop = run_pool("stop", directory)
    assert stop.returncode == 0, stop.stderr
    assert not any(_listening_addresses(int(port)) for port in ports)
    assert _processes_with(str(directory)) == []
    assert _processes_with("sleep 987654") == []


def _processes_with(words: str) -> list[str]:
    """Return processes with these words in command line or working directory."""
    descriptions = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            description = f"{command}in {(process / 'cwd').readlink()}"
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if words in description and int(process.name) != os.getpid():
            descriptions.append(description)
    return descriptions


def test_the_daemons_listen_only_on_loopback(pool: PersonalPool):
    addresses = [
        file.read_text().split()[0]
        for file in (pool.condor.directory / "log").glob(".*_address")
    ]
    assert len(addresses) >= 4
    assert all(address.startswith("<127.0.0.1:") for address in addresses)
    assert _listening_addresses(pool.s3.port) == {"0100007F"}


def _listening_addresses(port: int) -> set[str]:
    """Return the addresses that listen on a port, in the kernel's format."""
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, local_port = local.split(":")
            if state == "0A" and int(local_port, 16) == port:
                addresses.add(address)
    return addresses


def test_keys_and_tokens_are_private(pool: PersonalPool):
    condor = pool.condor.directory
    secrets = [
        *(condor / "tokens.d").iterdir(),
        *(condor / "passwords.d").iterdir(),
        pool.s3.access_key,
        pool.s3.secret_key,
        pool.s3.directory / "server.key",
    ]
    assert len(secrets) == 6
    for path in secrets:
        assert path.stat().st_mode & 0o077 == 0, path


def test_no_command_line_has_the_s3_keys(pool: PersonalPool):
    pid = pool.s3.pidfile.read_text()
    secret = pool.s3.secret_key.read_bytes().strip()
    assert secret not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_scitokens_workaround_runs(pool: PersonalPool, workplace: Path):
    submit = subprocess.run(
        ["condor_submit", str(PROJECT / "scitokens_workaround.sub")],
        cwd=workplace,
        capture_output=True,
        text=True,
    )
    assert submit.returncode == 0, submit.stderr
    wait = subprocess.run(
        ["condor_wait", "-wait", "60", "scitokens_workaround.log"], cwd=workplace
    )
    assert wait.returncode == 0
    assert "return value 0" in (workplace / "scitokens_workaround.log").read_text()
