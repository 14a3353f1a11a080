"""The personal pool, as someone who wants to try things uses it."""

import os
import re
import subprocess
import sys
from pathlib import Path

from pool.distribution import program_of_environment
from pool.personal import PersonalPool
from state.project import PROJECT
from tests.support.archive import wait_for

PIPELINE = [sys.executable, str(PROJECT / "cog_pipeline.py")]


def run_pool(command: str, directory: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*PIPELINE, "pool", command, "--directory", str(directory)],
        capture_output=True,
        text=True,
    )


def test_it_starts_answers_and_stops(workplace: Path):
    directory = workplace / "another pool"
    assert "pool start" in run_pool("status", directory).stderr
    try:
        started = run_pool("start", directory)
        assert started.returncode == 0, started.stderr
        assert "--ca-certs" in started.stdout
        assert run_pool("status", directory).returncode == 0
        shell = run_pool("env", directory).stdout
        seen = subprocess.run(
            ["sh", "-c", f"{shell} condor_status -af Name"],
            env={"PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"]},
            capture_output=True,
            text=True,
        )
        assert "slot" in seen.stdout, seen.stderr
        rclone = program_of_environment("rclone")
        listed = subprocess.run(
            ["sh", "-c", f"{shell} {rclone} mkdir pool:maps; {rclone} lsf pool:"],
            capture_output=True,
            text=True,
        )
        assert listed.stdout == "maps/\n", listed.stderr
    finally:
        stopped = run_pool("stop", directory)
    assert stopped.returncode == 0, stopped.stderr
    assert run_pool("status", directory).returncode == 1


def test_stopped_with_a_job_running_nothing_of_it_is_left(workplace: Path):
    directory = workplace / "busy pool"
    try:
        assert run_pool("start", directory).returncode == 0
        shell = run_pool("env", directory).stdout
        job = directory / "sleep.sub"
        # It ignores what it is asked kindly, and has a child of its own.
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
        wait_for(lambda: _processes_that_name("sleep 987654") != [])
        ports = {(directory / "s3-port").read_text()}
        for file in (directory / "condor" / "log").glob(".*_address"):
            ports.add(re.search(r":(\d+)", file.read_text())[1])
        assert all(_listening(int(port)) for port in ports)
    finally:
        stopped = run_pool("stop", directory)
    assert stopped.returncode == 0, stopped.stderr
    assert not any(_listening(int(port)) for port in ports)
    assert _processes_that_name(str(directory)) == []
    assert _processes_that_name("sleep 987654") == []


def _processes_that_name(words: str) -> list[str]:
    """Command lines, and working directories, in which these words stand."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            said = f"{command}in {(process / 'cwd').readlink()}"
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if words in said and int(process.name) != os.getpid():
            found.append(said)
    return found


def test_it_listens_on_loopback_alone(pool: PersonalPool):
    addresses = [
        file.read_text().split()[0]
        for file in (pool.condor.directory / "log").glob(".*_address")
    ]
    assert len(addresses) >= 4
    assert all(address.startswith("<127.0.0.1:") for address in addresses)
    assert _listening(pool.s3.port) == {"0100007F"}


def _listening(port: int) -> set[str]:
    """The addresses, as the kernel writes them, where someone takes this port."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, local_port = local.split(":")
            if state == "0A" and int(local_port, 16) == port:
                found.add(address)
    return found


def test_keys_and_tokens_are_private(pool: PersonalPool):
    condor = pool.condor.directory
    private = [
        *(condor / "tokens.d").iterdir(),
        *(condor / "passwords.d").iterdir(),
        pool.s3.access_key,
        pool.s3.secret_key,
        pool.s3.directory / "server.key",
    ]
    assert len(private) == 6
    for path in private:
        assert path.stat().st_mode & 0o077 == 0, path


def test_the_s3_keys_stand_in_no_command_line(pool: PersonalPool):
    pid = pool.s3.pidfile.read_text()
    secret = pool.s3.secret_key.read_bytes().strip()
    assert secret not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_scitokens_workaround_runs(pool: PersonalPool, workplace: Path):
    done = subprocess.run(
        ["condor_submit", str(PROJECT / "scitokens_workaround.sub")],
        cwd=workplace,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    waited = subprocess.run(
        ["condor_wait", "-wait", "60", "scitokens_workaround.log"], cwd=workplace
    )
    assert waited.returncode == 0
    assert "return value 0" in (workplace / "scitokens_workaround.log").read_text()
