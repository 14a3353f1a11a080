"""Lines that the operator adds to the submit description of every node.

An execution point that is not trusted, or an image that takes a decoder over, gets no
more of the access point than the description says. So options that would open it are
refused by name.
"""

from collections.abc import Iterable
from pathlib import Path

_READS_FILES = (
    "it lets jobs read and write files of the access point through HTCondor's shadow"
)
_WHERE_FILES_ARRIVE = (
    "it decides where files of jobs arrive on the access point, which must be where "
    "nothing is read or run"
)
_RUNS_HERE = "jobs must run on execution points, in a sandbox of their own"
_TELLS = "it sends what your environment holds, keys perhaps, to execution points"
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
    **dict.fromkeys(("getenv", "get_env"), _TELLS),
}


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
    if reason:
        raise ValueError(f"{name.strip()} is refused: {reason}")


def executable(lines: Iterable[str]) -> Path | None:
    """Return the program that lines set in place of bin/generate_cogs.sh, if any."""
    found = None
    for line in lines:
        name, _, value = line.partition("=")
        if _bare_name(name) in ("executable", "cmd"):
            found = Path(value.strip().strip('"'))
    return found


def _bare_name(name: str) -> str:
    """Return a submit command's or an attribute's name as HTCondor compares it."""
    return name.strip().lower().removeprefix("+").removeprefix("my.").strip()
