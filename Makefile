# make demo   sets everything up and runs the main job on this machine
# make test   sets everything up and runs all tests
# make lint   checks the style
# make clean  removes what these made in this folder

PYTHON ?= python3
export PYTHON

.PHONY: demo test lint clean setup

demo: .venv/ready-demo
	@.venv/bin/python -m demo

test: .venv/ready-test
	@.venv/bin/python -m pytest

lint: .venv/ready-test
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

setup: .venv/ready-demo .venv/ready-test

.venv/ready-%: pyproject.toml
	@sh pool/make_environment.sh $*

clean:
	rm -rf .venv demo-output .test-runs .pytest_cache .ruff_cache
