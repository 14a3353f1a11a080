# make demo   sets everything up and runs the main job on this machine
# make test   sets everything up and runs all tests, on two pools side by side:
#             most of their time is spent waiting
# make lint   checks the style
# make clean  removes what these made in this folder

PYTHON ?= python3
export PYTHON

.PHONY: demo test lint clean setup

demo: .venv/ready-demo
	@.venv/bin/python -m demo

test: .venv/ready-test
	@.venv/bin/python -m pytest -n 2

lint: .venv/ready-test
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

setup: .venv/ready-demo .venv/ready-test

.venv/ready-%: pyproject.toml
	@sh pool/make_environment.sh $*

clean:
	rm -rf .venv demo-output .test-runs .pytest_cache .ruff_cache
