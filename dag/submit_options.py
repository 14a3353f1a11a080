"""Lines that the operator adds to the submit descriptions of jobs.

A launch has three kinds of jobs: the crondor job, the DAGMan job of each run, and the
jobs of nodes. Attributes and accounting groups are for all three, because an access
point may demand them of each job. Other lines are for nodes.

An execution point that nobody trusts, or an image that takes over its decoder, can
reach no more of the access point than the submit description allows. So options that
would allow more are refused by name.
"""

import re
from collections.abc import Iterable
from pathlib import Path

_READS_FILES = (
    "it lets jobs read and write files of the access point through HTCondor's shadow"
)
_WHERE_FILES_ARRIVE = (
    "it decides where files of jobs arrive on the access point, which must be a folder "
    "in which nothing is read or run"
)
_RUNS_HERE = "jobs must run on execution points, each in its own sandbox"
_SENDS_ENVIRONMENT = (
    "it sends your environment, which may contain keys, to execution points"
)
_REFUSED = {
    **dict.fromkeys(
        (
            *("wantioproxy", "want_io_proxy", "wantremoteio", "want_remote_io"),
            *("wantremotesyscalls", "wantremoteupdates", "limitdirectoryaccess"),
            *("wantdelayedupdates", "delayedupdateprefix"),
            *("stream_input", "stream_output", "stream_error"),
            *("streamin", "streamout", "streamerr"),
            *("file_remaps", "fileremaps", "fetch_files", "fetchfiles"),
            *("append_files", "appendfiles", "local_files", "localfiles"),
            *("public_input_files", "publicinputfiles"),
        ),
        _READS_FILES,
    ),
    **dict.fromkeys(
        (
            *("initialdir", "initial_dir", "job_iwd", "iwd"),
            *("input", "output", "error", "in", "out", "err"),
            *("stdin", "stdout", "stderr", "transfer_output", "transfer_error"),
            *("log", "log_xml", "userlog", "ulogfile", "dagman_log", "dagmannodeslog"),
            *("transfer_output_remaps", "transferoutputremaps"),
            *("transfer_output_files", "transferoutput", "transferoutputfiles"),
            *("spooledoutputfiles", "output_directory", "outputdirectory"),
            *("output_destination", "outputdestination", "failurefiles"),
            *("preserve_relative_paths", "preserverelativepaths"),
            *("transfer_checkpoint_files", "transfercheckpoint"),
            *("checkpoint_destination", "checkpointdestination"),
            *("manifest", "manifest_dir", "copy_to_spool"),
            *("stageinstart", "stageinfinish", "starter_log", "starterlog"),
            *("tool_daemon_input", "tool_daemon_output", "tool_daemon_error"),
            *("tooldaemoninput", "tooldaemonoutput", "tooldaemonerror"),
        ),
        _WHERE_FILES_ARRIVE,
    ),
    **dict.fromkeys(
        (
            *("universe", "jobuniverse", "grid_resource", "gridresource"),
            *("should_transfer_files", "shouldtransferfiles"),
            *("when_to_transfer_output", "whentotransferoutput"),
            *("transfer_executable", "transferexecutable"),
            *("run_as_owner", "runasowner", "owner", "user"),
            *("parallel_script_shadow", "parallelscriptshadow"),
        ),
        _RUNS_HERE,
    ),
    **dict.fromkeys(("getenv", "get_env"), _SENDS_ENVIRONMENT),
}

# The commands that all jobs get, and not only those of nodes.
_OF_ALL_JOBS = ("accounting_group", "accounting_group_user")
# Attributes that tell HTCondor how to run a node's job. They do not suit other jobs.
_OF_NODES = re.compile(
    r"request|periodic|onexit|cron|deferral|transfer|want|container|docker|singularity|"
    r"(?:requirements|rank|args|arguments|env|environment|cmd|jobprio|niceuser|"
    r"jobbatchname|leavejobinqueue|jobleaseduration|concurrencylimits|maxretries|"
    r"jobmaxretries|jobsuccessexitcode|successexitcode|isnoopjob|nextjobstartdelay|"
    r"keepclaimidle|killsig|removekillsig|holdkillsig|killsigtimeout|"
    r"jobmaxvacatetime|maxjobretirementtime|allowedjobduration|"
    r"allowedexecuteduration|jobstatus|holdreason|holdreasoncode)$"
)
_MARK = re.compile(r"^\+?(?:my\.)?", re.IGNORECASE)
# The attributes by which the pipeline finds its jobs begin with this.
_OWN = "cogpipeline"
# The macros of templates/convert.dag had these names before version 0.1. Operators use
# them in their own lines, and launches of that time have them in their settings.
_FORMER_MACROS = {
    "most_holds": "max_holds",
    "most_idle_seconds": "max_idle_seconds",
    "most_running_seconds": "max_running_seconds",
    "most_starts": "max_starts",
    "most_unfit": "max_unfit",
    "times_as_much": "retry_factor",
}
_FORMER_MACRO = re.compile(rf"\b({'|'.join(_FORMER_MACROS)})\b", re.IGNORECASE)


def check(line: str) -> None:
    """Raise ValueError unless a line may be added to a node's submit description."""
    name, equals, _ = line.partition("=")
    bare = _bare_name(name)
    if not equals or not bare.replace("_", "").isalnum() or not line.isprintable():
        raise ValueError(f"{line!r} is not NAME = VALUE")
    if line.rstrip().endswith("\\"):
        raise ValueError(
            f"{line!r} ends in a backslash, which would join the next line"
        )
    reason = _WHERE_FILES_ARRIVE if bare.startswith("remote_") else _REFUSED.get(bare)
    if bare.startswith(_OWN):
        reason = "the pipeline finds its jobs by this attribute"
    if reason:
        raise ValueError(f"{name.strip()} is refused: {reason}")


def of_all_jobs(lines: Iterable[str]) -> dict[str, str]:
    """Return the submit commands among some lines that are for jobs of all kinds.

    A line with a macro is for nodes, because only they have the macros.

    >>> of_all_jobs(["+ProjectName = 'maps'", "request_memory = 4096"])
    {'My.ProjectName': "'maps'"}
    """
    commands: dict[str, str] = {}
    for line in lines:
        name, _, value = (part.strip() for part in line.partition("="))
        bare = _bare_name(name)
        if "$(" in value:
            continue
        if name.lower() in _OF_ALL_JOBS:
            commands[bare] = value
        elif _is_attribute(name) and not _OF_NODES.match(bare):
            commands[f"My.{_attribute(name)}"] = value
    return commands


def executable(lines: Iterable[str]) -> Path | None:
    """Return the program that lines set instead of bin/generate_cogs.sh, if any."""
    program = None
    for line in lines:
        name, _, value = line.partition("=")
        if _bare_name(name) in ("executable", "cmd"):
            program = Path(value.strip().strip('"'))
    return program


def with_current_names(line: str) -> str:
    """Return a line with the present names of macros that had others before.

    >>> with_current_names("most_holds = 3")
    'max_holds = 3'
    >>> with_current_names("request_disk = 20000 * $(times_as_much)")
    'request_disk = 20000 * $(retry_factor)'
    """
    return _FORMER_MACRO.sub(lambda found: _FORMER_MACROS[found[0].lower()], line)


def _bare_name(name: str) -> str:
    """Return the name of a submit command or an attribute as HTCondor compares it."""
    return _attribute(name).lower()


def _is_attribute(name: str) -> bool:
    return name.strip().lower().startswith(("+", "my."))


def _attribute(name: str) -> str:
    """Return a name without the mark of an attribute."""
    return _MARK.sub("", name.strip(), count=1).strip()
