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
            *("stream_input", "stream_output", "stream_error"),
            *("streamin", "streamout", "streamerr"),
        ),
        _READS_FILES,
    ),
    **dict.fromkeys(
        (
            *("initialdir", "initial_dir", "job_iwd", "iwd"),
            *("output", "error", "log", "out", "err", "userlog", "dagman_log"),
            *("stdout", "stderr", "dagmannodeslog", "ulogfile"),
            *("transfer_output_remaps", "transferoutputremaps"),
            *("transfer_output_files", "transferoutput", "transferoutputfiles"),
            *("output_destination", "outputdestination", "preserve_relative_paths"),
            "preserverelativepaths",
        ),
        _WHERE_FILES_ARRIVE,
    ),
    **dict.fromkeys(
        (
            *("universe", "jobuniverse", "remote_universe"),
            *("should_transfer_files", "shouldtransferfiles"),
            *("when_to_transfer_output", "whentotransferoutput"),
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
    if reason := _REFUSED.get(bare):
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
