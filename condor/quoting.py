"""Quote values for the languages of HTCondor's files.

A value of a manifest or a bucket may contain any character. Each function makes it safe
for one place in a file, or raises PipelineError if it cannot be written there.
"""

import shlex
from collections.abc import Iterable, Mapping

from state.errors import PipelineError

# DAGMan replaces this with the number of the try, from 0.
RETRY = "$(RETRY)"


def dag_vars(value: object) -> str:
    r"""Quote a value of a DAG file's VARS line.

    https://htcondor.readthedocs.io/en/latest/automated-workflows/dagman-vars.html

    >>> print(dag_vars('a "b" c'))
    "a \"b\" c"
    >>> print(dag_vars(f"row1.{RETRY}.json"))
    "row1.$(RETRY).json"

    Raises:
        PipelineError: the value contains a macro or a character that is not printable.
    """
    text = str(value)
    if "$(" in text.replace(RETRY, "") or not text.isprintable():
        raise PipelineError(f"HTCondor cannot use the value {text!r}")
    return classad_string(text)


def _word(text: str) -> str:
    return "'" + text.replace("'", "''").replace('"', '""') + "'"


def arguments(values: Iterable[object]) -> str:
    """Quote the value of ``arguments`` in HTCondor's new syntax.

    >>> print(arguments(["poll", "/home/a b/it's"]))
    "'poll' '/home/a b/it''s'"
    """
    return '"' + " ".join(_word(str(value)) for value in values) + '"'


def environment(values: Mapping[str, str]) -> str:
    """Quote the value of ``environment`` in HTCondor's new syntax.

    >>> print(environment({"HOME": "/home/a b", "LANG": "C"}))
    "HOME='/home/a b' LANG='C'"
    """
    words = (f"{name}={_word(value)}" for name, value in values.items())
    return '"' + " ".join(words) + '"'


def classad_string(value: object) -> str:
    r"""Quote a string of a ClassAd expression.

    >>> print(classad_string('a\\b "c"'))
    "a\\b \"c\""
    """
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def comment(value: object) -> str:
    r"""Return text for a comment, which must not end its line.

    >>> comment("a\nqueue 5")
    'a?queue 5'
    """
    return "".join(c if c.isprintable() else "?" for c in str(value))


def shell_words(values: Iterable[object]) -> str:
    """Quote words for a shell.

    >>> shell_words(["reconcile", "/home/a b"])
    "reconcile '/home/a b'"
    """
    return shlex.join(str(value) for value in values)
