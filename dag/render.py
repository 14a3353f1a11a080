"""Render the files that HTCondor reads, from templates and rows.

A filter escapes each value that came from a manifest or a bucket, for the language of
the file. Paths and submit options of the operator are checked at launch, and written
unchanged.
"""

import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import jinja2

from condor import queue, quoting
from dag import submit_options
from dag.signing import TransferUrls
from node import options
from node.errors import Unconvertible, UnfitMachine
from node.multipart import UploadLimits
from s3 import proxies
from state.errors import PipelineError
from state.exits import Exit
from state.files import write_atomically, writing
from state.keys import jpeg_key, sandbox_name
from state.launch import Launch
from state.project import PROGRAM, PROJECT
from state.rows import Row, result_name
from state.run import Run

# From this version on, HTCondor sends a shared input file only once to each machine
# that supports it. The feature was introduced gradually from 25.2 on. It was tested
# with this version.
_COMMON_FILES_SINCE = (25, 14, 1)
_MIB = 2**20
# The largest images were measured to take half of this.
_MEMORY = 1024  # MiB
# The node's own files.
_BASE_DISK = 1024 * 1024  # KiB
# The image, its COG (a third larger, for the overviews), overviews that wait
# uncompressed, and the JPEG. Compressed images grow.
_DISK_PER_MIB = 6 * 1024  # KiB
# A slow machine takes one second for a MiB that is stored uncompressed, and some images
# grow tenfold when they are read.
_BASE_TIME_LIMIT, _TIME_LIMIT_PER_MIB = 1800, 10  # seconds
# At 10 kB/s, a MiB takes 105 s in each direction. A COG may be larger than its image.
_BASE_TRANSFER_TIME, _TRANSFER_TIME_PER_MIB = 3600, 250  # seconds
# HTCondor's priorities have 32 bits, enough for one priority per second until 2094.
_PRIORITY_ZERO = datetime(2026, 1, 1, tzinfo=UTC)
# The environment variables that the crondor job keeps, for itself and for its children.
_KEPT_VARIABLES = (
    *("HOME", "USER", "PATH", "CONDOR_CONFIG", "LANG", "TZ"),
    *proxies.VARIABLES,
    # Those of libpq that hold no password, for the catalog in a database.
    *("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE"),
    *("PGSERVICEFILE", "PGPASSFILE", "PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT"),
    *("PGSSLKEY", "PGCONNECT_TIMEOUT", "PGOPTIONS", "PGGSSENCMODE", "KRB5CCNAME"),
)
NodeOptions = Mapping[str, tuple[str, ...]]
_UNSAFE_IN_PATH = re.compile(r"[,;\"'$\n\\=]")


@dataclass(frozen=True)
class RowTransfer:
    """The conversion of one row and its transfers.

    Attributes:
        urls: the sources and destinations of its transfers.
        limits: the sizes that its node may upload.
        part_urls: the URLs for parts of its COG, by file name; empty if the COG cannot
            be too large for one PUT.
        urls_expire: when the first of its presigned URLs expires, in seconds since
            1970; None if it has none.
        region: the region that HTCondor signs its URLs for; None if it signs none.
    """

    row: Row
    urls: TransferUrls
    limits: UploadLimits
    part_urls: Mapping[str, str]
    urls_expire: int | None = None
    region: str | None = None


@dataclass(frozen=True)
class Node:
    """One node of the DAG.

    Attributes:
        arguments: the arguments of bin/generate_cogs.sh, none of which needs quotes.
        memory: the memory that its first try requests, in MiB.
        disk: the disk that its first try requests, in KiB.
        running_seconds: the time after which its job is assumed to hang, transfers
            included.
        input_urls: the URLs of its images and of their sidecar files.
        remaps: the destinations of its output files.
        urls_expire: when the first of its presigned URLs expires, in seconds since
            1970; None if it has none.
        region: the region that HTCondor signs its URLs for; None if it signs none.
    """

    name: str
    arguments: str
    memory: int
    disk: int
    running_seconds: int
    input_urls: str
    remaps: str
    urls_expire: int | None
    region: str | None = None


def node(name: str, transfers: Iterable[RowTransfer], launched: NodeOptions) -> Node:
    """Return the node of some rows; the sizes of its images give its disk and time.

    Args:
        launched: the launch's options. A row's own options follow and override them.
    """
    transfers = tuple(transfers)
    shared = len(transfers) > 1
    arguments: list[str] = []
    running_seconds = _BASE_TRANSFER_TIME
    for transfer in transfers:
        words, time_limit = _arguments(transfer, launched)
        if shared:
            words += [options.RESULT, result_name(transfer.row.line)]
        arguments += [options.NEXT, *words] if arguments else words
        running_seconds += time_limit
        running_seconds += _TRANSFER_TIME_PER_MIB * _mebibytes(transfer.row)
    remaps = (
        f"{file}={url}"
        for transfer in transfers
        for file, url in _remaps(transfer, shared=shared)
    )
    expiries = (
        transfer.urls_expire
        for transfer in transfers
        if transfer.urls_expire is not None
    )
    return Node(
        name=name,
        arguments=" ".join(arguments),
        memory=_MEMORY,
        disk=_disk(transfers),
        running_seconds=running_seconds,
        input_urls=", ".join(url for each in transfers for url in each.urls.inputs),
        remaps=";".join(remaps),
        urls_expire=min(expiries, default=None),
        region=next((each.region for each in transfers if each.region), None),
    )


def _arguments(transfer: RowTransfer, launched: NodeOptions) -> tuple[list[str], int]:
    """Return a node's arguments for a row, and the row's time limit in seconds."""
    row = transfer.row
    if "profile" in row.options:
        # The launch's creation options change its own profile, and no other one.
        launched = {name: launched[name] for name in launched if name != "co"}
    words = [*options.arguments(launched), *options.arguments(row.options)]
    # The last one counts.
    limits = [*launched.get("time_limit", ()), *row.options.get("time_limit", ())]
    if limits:
        time_limit = int(limits[-1])
    else:
        time_limit = _BASE_TIME_LIMIT + _TIME_LIMIT_PER_MIB * _mebibytes(row)
        words += options.arguments({"time_limit": (str(time_limit),)})
    words += [options.UPLOAD_LIMITS, str(transfer.limits)]
    return [sandbox_name(row.key), str(row.bands), *words], time_limit


def disk_for(rows: Iterable[Row]) -> int:
    """Return the disk that a node of rows requests, without that for parts, in KiB."""
    return _BASE_DISK + sum(_DISK_PER_MIB * _mebibytes(row) for row in rows)


def _disk(transfers: Iterable[RowTransfer]) -> int:
    """Return the disk that a node requests, in KiB."""
    # A part is a copy of a piece of the COG.
    parts = sum(-(-each.limits.part_size // 1024) for each in transfers)
    return disk_for(each.row for each in transfers) + parts


def _remaps(transfer: RowTransfer, *, shared: bool) -> Iterable[tuple[str, str]]:
    """Yield the names of a row's files in the sandbox, and their destinations."""
    key, line = transfer.row.key, transfer.row.line
    yield sandbox_name(key), transfer.urls.cog
    yield sandbox_name(jpeg_key(key)), transfer.urls.jpeg
    if shared:
        # Each try has a file of its own: this row may have succeeded in an earlier one.
        yield result_name(line), f"../results/{result_name(line, quoting.RETRY)}"
    else:
        yield "result.json", f"../results/{result_name(line)}"
    yield from transfer.part_urls.items()


def _mebibytes(row: Row) -> int:
    return -(-row.size // _MIB)


def check_paths(paths: Iterable[Path]) -> None:
    """Raise PipelineError for a path that cannot be in a submit description."""
    for path in paths:
        if unsafe := _UNSAFE_IN_PATH.search(str(path)):
            raise PipelineError(
                f"HTCondor cannot use the path {str(path)!r}, which contains "
                f"{unsafe[0]!r}: rename it"
            )


def crondor(launch: Launch) -> str:
    """Return the submit description of the crondor job."""
    minute, hour = cron_schedule(launch.every)
    return _job_of_launch("crondor.sub", launch, cron_minute=minute, cron_hour=hour)


def catalog_job(launch: Launch) -> str:
    """Return the submit description of the job that makes a launch's catalog."""
    return _job_of_launch("catalog.sub", launch)


def _job_of_launch(template: str, launch: Launch, **values: str) -> str:
    """Return the submit description of a job that runs this program."""
    return _render(
        template,
        launch=launch,
        python=sys.executable,
        script=PROGRAM,
        environment=_kept(_KEPT_VARIABLES),
        commands=submit_options.of_all_jobs(launch.submit_options),
        **values,
    )


def _kept(names: Iterable[str]) -> dict[str, str]:
    """Return those of some environment variables that are set."""
    return {name: os.environ[name] for name in names if name in os.environ}


def cron_schedule(every: int) -> tuple[str, str]:
    """Return the cron fields for minute and hour of a period in minutes.

    >>> cron_schedule(15)
    ('*/15', '*')
    >>> cron_schedule(120)
    ('0', '*/2')

    Raises:
        ValueError: cron has no such period: it is neither a divisor of an hour nor
            whole hours that divide a day.
    """
    if 1 <= every < 60 and 60 % every == 0:
        return f"*/{every}", "*"
    hours, rest = divmod(every, 60)
    if rest == 0 and 1 <= hours <= 24 and 24 % hours == 0:
        return "0", f"*/{hours}"
    raise ValueError(f"cron has no period of {every} minutes")


def write_dag(
    run: Run,
    launch: Launch,
    nodes: Iterable[Node],
    condor_version: tuple[int, int, int],
    node_code: Path,
) -> None:
    """Write a run's DAG file and the script of its FINAL node into the run directory.

    Args:
        node_code: the folder of the files that each job gets, see ``dag.node_code``.
    """
    wrapper = run.directory / "reconcile.sh"
    write_atomically(
        wrapper,
        _render(
            "reconcile.sh",
            python=sys.executable,
            script=PROGRAM,
            run=run,
            environment=_kept(proxies.VARIABLES),
        ),
    )
    wrapper.chmod(0o700)
    values = _job_values(run, launch, condor_version, node_code)
    template = _environment.get_template("convert.dag")
    stream = template.stream(
        values,
        nodes=nodes,
        unconvertible=Unconvertible.exit_status,
        try_again=int(Exit.TRY_AGAIN),
    )
    stream.enable_buffering(200)
    with writing(run.dag_file) as file:
        file.writelines(stream)


def node_description(
    run: Run,
    launch: Launch,
    condor_version: tuple[int, int, int],
    node_code: Path,
) -> str:
    """Return the submit description of a DAG's nodes, as if it were one job's.

    Args:
        node_code: as of ``write_dag``.
    """
    values = _job_values(run, launch, condor_version, node_code)
    template = _environment.get_template("convert.dag")
    return "".join(template.blocks["job"](template.new_context(values))) + "queue\n"


def macros(node: Node) -> dict[str, str]:
    """Return what DAGMan replaces in the submit description of a node's first try."""
    expire = {"urls_expire": str(node.urls_expire)} if node.urls_expire else {}
    region = {"region": node.region} if node.region else {}
    return {
        "JOB": node.name,
        "RETRY": "0",
        "node_arguments": node.arguments,
        "memory": str(node.memory),
        "disk": str(node.disk),
        "running_seconds": str(node.running_seconds),
        "input_urls": node.input_urls,
        "remaps": node.remaps,
        **expire,
        **region,
    }


def _job_values(
    run: Run,
    launch: Launch,
    condor_version: tuple[int, int, int],
    node_code: Path,
) -> dict[str, object]:
    """Return the values in the submit description of the nodes."""
    lines = _node_lines(launch)
    return {
        "run": run,
        "launch": launch,
        "node_code": node_code,
        "reachable_folders": _reachable_folders(run, launch, node_code),
        "unfit": UnfitMachine.exit_status,
        "share_packed_node": condor_version >= _COMMON_FILES_SINCE,
        "submit_options": list(map(submit_options.with_current_names, lines)),
        "node_attribute": queue.NODE_ATTRIBUTE,
        "urls_expire": queue.URLS_EXPIRE,
        "priority": _priority(run) if launch.run_order == "fifo" else 0,
    }


def _node_lines(launch: Launch) -> tuple[str, ...]:
    """Return the operator's lines for nodes; the last one with a name counts."""
    return launch.submit_options + launch.node_submit_options


def _reachable_folders(run: Run, launch: Launch, node_code: Path) -> list[Path]:
    """Return the folders of the files that jobs get, and of those that they return."""
    of_run = (run.sandbox_directory, run.results_directory, run.logs_directory)
    folders = [*of_run, node_code]
    if launch.packed_node:
        folders.append(launch.packed_node.parent)
    image = Path(launch.container_image or "")
    program = submit_options.executable(_node_lines(launch))
    folders += [file.parent for file in (image, program) if file and file.is_absolute()]
    return folders


def _priority(run: Run) -> int:
    """Return a priority that is higher for older runs.

    It is below 0, the priority of the user's other jobs, so that none of them waits.
    """
    return -int((run.began - _PRIORITY_ZERO).total_seconds())


def _render(name: str, **values: object) -> str:
    return _environment.get_template(name).render(**values)


_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(PROJECT / "templates"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_environment.filters.update(
    vars=quoting.dag_vars,
    condor_arguments=quoting.arguments,
    condor_environment=quoting.environment,
    classad=quoting.classad_string,
    comment=quoting.comment,
    shell=quoting.shell_words,
)
