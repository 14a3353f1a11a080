"""The examples in docstrings work."""

import doctest
import importlib

import pytest

MODULES = (
    "condor.quoting",
    "dag.images",
    "dag.key_arguments",
    "dag.render",
    "dag.submit_options",
    "node.options",
    "state.keys",
    "state.launch",
    "state.run",
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_work(name: str):
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert failed == 0
    assert tried > 0, f"{name} has no examples"
