"""Quote values for HTCondor's languages."""

import shlex
from collections.abc import Iterable

from state.errors import PipelineError

# DAGMan replaces this by the number of a try, counted from 0.
RETRY = "$(RETRY)"


def dag_vars(value: object) -> str:
    """A value of a DAG file's VARS line.

    https://htcondor.readthedocs.io/en/latest/automated-workflows/dagman-vars.html
    """
    text = str(value)
    if "$(" in text.replace(RETRY, "") or not text.isprintable():
        raise PipelineError(f"HTCondor cannot take the value {text!r}")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _word(text: str) -> str:
    return "'" + text.replace("'", "''").replace('"', '""') + "'"


def arguments(values: Iterable[object]) -> str:
    """``arguments`` in HTCondor's new syntax: each quoted, all quoted."""
    return '"' + " ".join(_word(str(value)) for value in values) + '"'


def environment(values: dict[str, str]) -> str:
    """``environment`` in HTCondor's new syntax."""
    words = (f"{name}={_word(value)}" for name, value in values.items())
    return '"' + " ".join(words) + '"'


def classad_string(value: object) -> str:
    """A ClassAd string."""
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def comment(value: object) -> str:
    """Text for a comment, which must not end its line."""
    return "".join(c if c.isprintable() else "?" for c in str(value))


def shell_words(values: Iterable[object]) -> str:
    return shlex.join(str(value) for value in values)
