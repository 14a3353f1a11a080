# make demo   sets everything up and runs the main job on this machine
# make test   sets everything up and runs all tests, on three pools side by side:
#             most of their time is spent waiting
# make lint   checks the style
# make bench  measures what a conversion costs beside GDAL's programs (Debian's
#             gdal-bin) and writes docs/benchmarks.md; make bench RUNS=1 is quicker
# make chaos  uploads manifests and throws faults at a pool of its own for 20 minutes,
#             then checks what was promised of every row; make chaos MINUTES=3
# make scale  runs ever larger manifests, but for the nodes, against an S3 server with
#             millions of objects, and writes docs/scale.md; make scale ROWS=1000000,
#             and with SIGNING=presigned for where HTCondor cannot sign
# make overhead  measures what HTCondor takes of a node beyond its conversion
# make sharing   measures how two runs share a pool
# make locks     writes the lock files again, as a change of pyproject.toml needs it;
#                make locks UPGRADE=--upgrade takes the newest versions that it allows
# make clean  removes what these made in this folder

PYTHON ?= python3
export PYTHON

RUNS ?= 5
MINUTES ?= 20
ROWS ?= 100000
SIGNING ?= auto
UPGRADE ?=

.PHONY: bench chaos demo test lint locks overhead scale sharing clean setup

demo: .venv/ready-demo
	@.venv/bin/python -m demo

test: .venv/ready-test
	@.venv/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: .venv/ready-test
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

bench: .venv/ready-bench
	@.venv/bin/python -m bench --runs $(RUNS)

chaos: .venv/ready-test
	@.venv/bin/python -m chaos --minutes $(MINUTES)

scale: .venv/ready-scale
	@.venv/bin/python -m scale --rows $(ROWS) --signing $(SIGNING)

overhead: .venv/ready-scale
	@.venv/bin/python -m scale.overhead

sharing: .venv/ready-scale
	@.venv/bin/python -m scale.sharing

setup: .venv/ready-demo .venv/ready-test

.venv/ready-%: locks/%.txt
	@sh pool/make_environment.sh $*

# Wheels alone: to build a package, pip fetches what builds it without any hash.
# Few versions: all Pythons get the one that the tests have seen, where there is one.
LOCK = .venv/bin/uv pip compile --quiet --no-config --universal --python-version 3.11 \
	--generate-hashes --only-binary :all: --emit-build-options --no-emit-index-url \
	--fork-strategy fewest --custom-compile-command 'make locks' $(UPGRADE) pyproject.toml

locks: .venv/ready-lock
	@for group in bench conda demo lock scale test; do \
	    $(LOCK) --group $$group --output-file locks/$$group.txt || exit 1; \
	done
	@# The images are built from their folder, and see nothing outside it.
	@$(LOCK) --group node --output-file container/requirements.txt

clean:
	rm -rf .venv demo-output .test-runs .pytest_cache .ruff_cache
