"""The examples in docstrings work."""

import doctest
import importlib

import pytest

from state.project import PROJECT

ROOMS = ("catalog", "cli", "condor", "dag", "ingest", "lab", "node", "ops")
ROOMS += ("pack", "pool", "post", "s3", "state")
MODULES = sorted(
    ".".join(file.relative_to(PROJECT).with_suffix("").parts)
    for room in ROOMS
    for file in (PROJECT / room).rglob("*.py")
    if "    >>> " in file.read_text()
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_work(name: str):
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert failed == 0
    assert tried > 0, f"{name} has no examples"


def test_modules_with_examples_are_found():
    assert {"catalog.dates", "state.keys"} <= {*MODULES}
