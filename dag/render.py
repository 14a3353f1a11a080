"""Templates and rows in, what HTCondor reads out.

Every value that came from a manifest or a bucket passes a filter that escapes it
for the language it is written into. What the person who launches says, as paths
and submit options, is checked at launch and written as it is.
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
from node.errors import Unconvertible, UnfitMachine
from node.options import NEXT, RESULT, UPLOAD_LIMITS
from node.parts import Limits
from state.errors import PipelineError
from state.exits import Exit
from state.files import write_atomically
from state.launch import Launch
from state.project import PROGRAM, PROJECT
from state.rows import Row, jpeg_key, node_name, sandbox_name
from state.run import Run

# HTCondor then sends a file that all jobs of a DAG want but once to each machine that
# can share it, and as ever to others. It came by and by, from 25.2 on; this is the
# version in which it was seen to work.
_COMMON_FILES_SINCE = (25, 14, 1)
_MIB = 2**20
# HTCondor has 32 bits for a priority, and so a second for each until 2094.
_FIRST_OF_RUNS = datetime(2026, 1, 1, tzinfo=UTC)
# The environment that the crondor job and what it starts run in.
_KEPT_VARIABLES = ("HOME", "USER", "PATH", "CONDOR_CONFIG", "LANG", "TZ")
_UNSAFE_IN_PATH = re.compile(r"[,;\"'$\n\\=]")


@dataclass(frozen=True)
class RowTransfer:
    """What is to be done for one row.

    Attributes:
        limits: of what its node may send back.
        part_urls: where parts of its COG go, by the names of the files; none if it
            cannot be large.
        urls_expire: when the first of its presigned URLs expires, in seconds since
            1970; None if it has none.
    """

    row: Row
    urls: TransferUrls
    limits: Limits
    part_urls: Mapping[str, str]
    urls_expire: int | None = None


@dataclass(frozen=True)
class Node:
    """What the DAG says of one node.

    Attributes:
        arguments: those of bin/generate_cogs.sh, none of which needs quotes.
        memory: to request for its first try, in MiB.
        disk: likewise, in KiB.
        running_seconds: after which a job of it is taken to hang, transfers
            included.
        input_urls: of its images and of what is beside them.
        remaps: where the files go that it leaves.
        urls_expire: when the first of its presigned URLs expires, in seconds since
            1970; None if it has none.
    """

    name: str
    arguments: str
    memory: int
    disk: int
    running_seconds: int
    input_urls: str
    remaps: str
    urls_expire: int | None


def node(
    name: str, conversions: Iterable[RowTransfer], options: tuple[str, ...]
) -> Node:
    """Describe a node; its disk and its time follow from its images' sizes.

    Args:
        options: the launch's, which those of a row come after and so override.
    """
    conversions = tuple(conversions)
    arguments: list[str] = []
    # 10 kB/s are 105 s a MiB, each way; a COG may be larger than its image.
    running_seconds = 3600
    for conversion in conversions:
        words, time_limit = _arguments(conversion, options)
        if len(conversions) > 1:
            words += [RESULT, f"{node_name(conversion.row.line)}.json"]
        arguments += [NEXT, *words] if arguments else words
        running_seconds += time_limit + 250 * _mebibytes(conversion.row)
    return Node(
        name=name,
        arguments=" ".join(arguments),
        # Half of it is what the largest images were seen to take.
        memory=1024,
        disk=_disk(conversions),
        running_seconds=running_seconds,
        input_urls=", ".join(url for each in conversions for url in each.urls.inputs),
        remaps=";".join(
            f"{file}={url}"
            for each in conversions
            for file, url in _remaps(each, alone=len(conversions) == 1)
        ),
        urls_expire=min(
            (each.urls_expire for each in conversions if each.urls_expire is not None),
            default=None,
        ),
    )


def _arguments(
    conversion: RowTransfer, options: tuple[str, ...]
) -> tuple[list[str], int]:
    """What a node is told of a row; and the row's time limit, in seconds."""
    row = conversion.row
    words = [*_overridden(options, row.options)]
    if "--time-limit" not in words:
        # A slow machine takes a second for what is stored uncompressed, and some
        # images grow tenfold when they are read.
        words += ["--time-limit", str(1800 + 10 * _mebibytes(row))]
    # Of several, the last one counts.
    time_limit = int(words[len(words) - words[::-1].index("--time-limit")])
    words += [UPLOAD_LIMITS, str(conversion.limits)]
    return [sandbox_name(row.key), str(row.bands), *words], time_limit


def _disk(conversions: Iterable[RowTransfer]) -> int:
    """The disk that a node wants, in KiB."""
    # The image, its COG (a third more for the overviews), overviews that wait
    # uncompressed, the JPEG; compressed images grow. A part is cut off as a copy.
    return 1024 * 1024 + sum(
        6 * 1024 * _mebibytes(each.row) - (-each.limits.part // 1024)
        for each in conversions
    )


def _remaps(conversion: RowTransfer, *, alone: bool) -> Iterable[tuple[str, str]]:
    """What is new in a node's sandbox, by its name, and where it goes."""
    key = conversion.row.key
    yield sandbox_name(key), conversion.urls.cog
    yield sandbox_name(jpeg_key(key)), conversion.urls.jpeg
    name = node_name(conversion.row.line)
    if alone:
        yield "result.json", f"../results/{name}.json"
    else:
        # Another file for each try: this row may have succeeded in one before.
        yield f"{name}.json", f"../results/{name}.{quoting.RETRY}.json"
    yield from conversion.part_urls.items()


def _mebibytes(row: Row) -> int:
    return -(-row.size // _MIB)


def _overridden(launched: tuple[str, ...], own: tuple[str, ...]) -> Iterable[str]:
    """The launch's options and then a row's own.

    What the launch changes of its profile means nothing to another one.
    """
    dropped = set()
    if "--profile" in own:
        dropped = {n for n, word in enumerate(launched) if word == "--co"}
        dropped |= {n + 1 for n in dropped}
    kept = (word for n, word in enumerate(launched) if n not in dropped)
    return (*kept, *own)


def check_paths(paths: Iterable[Path]) -> None:
    """Raise PipelineError for a path that cannot stand in a submit description."""
    for path in paths:
        if found := _UNSAFE_IN_PATH.search(str(path)):
            raise PipelineError(
                f"HTCondor cannot take the path {str(path)!r}, which holds "
                f"{found[0]!r}: move it to one without"
            )


def crondor(launch: Launch) -> str:
    """The submit description of the crondor job."""
    minute, hour = cron_schedule(launch.every)
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return _render(
        "crondor.sub",
        launch=launch,
        python=sys.executable,
        script=PROGRAM,
        environment=kept,
        cron_minute=minute,
        cron_hour=hour,
    )


def cron_schedule(every: int) -> tuple[str, str]:
    """The cron fields, minute and hour, of a period in minutes.

    Raises:
        ValueError: cron cannot say it: neither a divisor of an hour nor whole
            hours that divide a day.
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
    """Write a run's DAG file and the files it names into the run directory.

    Args:
        node_code: the folder of what each job is sent, see ``dag.node_code``.
    """
    wrapper = run.directory / "reconcile.sh"
    write_atomically(
        wrapper,
        _render(
            "reconcile.sh",
            python=sys.executable,
            script=PROGRAM,
            run=run,
        ),
    )
    wrapper.chmod(0o700)
    scratch = run.dag_file.with_name(f".{run.dag_file.name}")
    template = _environment.get_template("convert.dag")
    stream = template.stream(
        run=run,
        launch=launch,
        nodes=nodes,
        node_code=node_code,
        reachable_folders=_reachable_folders(run, launch, node_code),
        unconvertible=Unconvertible.exit_status,
        unfit=UnfitMachine.exit_status,
        sent_once_a_machine=condor_version >= _COMMON_FILES_SINCE,
        try_again=int(Exit.TRY_AGAIN),
        node_attribute=queue.NODE_ATTRIBUTE,
        urls_expire=queue.URLS_EXPIRE,
        priority=_priority(run) if launch.run_order == "fifo" else 0,
    )
    stream.enable_buffering(200)
    with scratch.open("w", encoding="utf-8") as file:
        stream.dump(file)
    scratch.replace(run.dag_file)


def _reachable_folders(run: Run, launch: Launch, node_code: Path) -> list[Path]:
    """Return the folders that hold what jobs are sent, and what they send back."""
    of_run = (run.sandbox_directory, run.results_directory, run.logs_directory)
    folders = [*of_run, node_code]
    if launch.packed_node:
        folders.append(launch.packed_node.parent)
    image = Path(launch.container_image or "")
    program = submit_options.executable(launch.submit_options)
    folders += [sent.parent for sent in (image, program) if sent and sent.is_absolute()]
    return folders


def _priority(run: Run) -> int:
    """The older a run, the higher; of a user's other jobs, which have 0, none waits."""
    return -int((run.began - _FIRST_OF_RUNS).total_seconds())


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
