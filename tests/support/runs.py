"""A run without a directory."""

from pathlib import Path

from state.run import Run


def a_run() -> Run:
    named = dict.fromkeys(Run.__dataclass_fields__, "")
    return Run(**named | {"directory": Path("/nowhere"), "manifest_key": "x"})
