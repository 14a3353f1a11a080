# make demo      install everything, and run the main job on this machine
# make test      install everything, and run all tests in workers with a pool each,
#                since most tests mostly wait
# make test-fast run only the tests that need no pool
# make lint      check style, types, shell scripts and spelling
# make bench     compare the cost of a conversion with that of GDAL's programs (package
#                gdal-bin of Debian), and write docs/benchmarks.md; make bench RUNS=1
#                is faster
# make throughput compare whole runs with a script of GDAL's programs, and write
#                docs/benchmarks.md; make throughput RUNS=1
# make chaos     upload manifests to a pool of its own and inject faults for 20 minutes,
#                then check the promise for every row; make chaos MINUTES=3
# make scale     run manifests of increasing size without conversions, on an S3 server
#                with millions of objects, and write docs/scale.md; make scale
#                ROWS=1000000; SIGNING=presigned for pools where HTCondor cannot sign
# make overhead  measure what HTCondor adds to the cost of a conversion
# make sharing   measure how two runs share a pool
# make commands  write docs/commands.md from the help of the commands
# make transcripts type each command into a shell, and write docs/transcripts.md
# make listings  measure commands that read whole buckets, and write docs/scale.md
# make catalogs  measure the products of the catalog, and write docs/scale.md;
#                make catalogs IMAGES=1000000
# make pictures  make the pictures of docs/catalog/ with programs that show the catalog
#                (packages qgis, chromium, npm, xvfb and xauth of Debian); make pictures
#                NAMES="stac vrt"
# make locks     write the lock files after a change of pyproject.toml;
#                make locks UPGRADE=--upgrade updates to the newest versions allowed
# make setup     install everything that the demo and the tests need
# make clean     remove the files that these commands made in this folder

PYTHON ?= python3
export PYTHON

RUNS ?= 5
MINUTES ?= 20
IMAGES ?= 100000
ROWS ?= 100000
SIGNING ?= auto
NAMES ?=
UPGRADE ?=

.PHONY: bench catalogs chaos commands demo test test-fast lint listings locks overhead pictures scale sharing \
	throughput transcripts clean setup

demo: .venv/ready-demo
	@.venv/bin/python -m demo

test: .venv/ready-test
	@.venv/bin/python -m pytest -n 4 --no-loadscope-reorder

test-fast: .venv/ready-test
	@.venv/bin/python -m pytest -n 3 --no-loadscope-reorder -m "not pool"

lint: .venv/ready-test
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/shellcheck .ci/run bin/generate_cogs.sh lab/throughput/peer.sh pool/make_environment.sh
	@.venv/bin/codespell

bench: .venv/ready-bench
	@.venv/bin/python -m lab.bench --runs $(RUNS)

throughput: .venv/ready-bench .venv/ready-scale
	@.venv/bin/python -m lab.throughput --runs $(RUNS)

chaos: .venv/ready-test
	@.venv/bin/python -m lab.chaos --minutes $(MINUTES)

scale: .venv/ready-scale
	@.venv/bin/python -m lab.scale --rows $(ROWS) --signing $(SIGNING)

overhead: .venv/ready-scale
	@.venv/bin/python -m lab.scale.overhead

listings: .venv/ready-scale
	@.venv/bin/python -m lab.scale.listings

catalogs: .venv/ready-test .venv/ready-scale
	@.venv/bin/python -m lab.scale.catalogs --images $(IMAGES)

sharing: .venv/ready-scale
	@.venv/bin/python -m lab.scale.sharing

pictures: .venv/ready-test
	@.venv/bin/python -m lab.pictures $(NAMES)

commands: .venv/ready-test
	@.venv/bin/python -m lab.commands

transcripts: .venv/ready-demo .venv/ready-test
	@.venv/bin/python -m lab.transcripts

setup: .venv/ready-demo .venv/ready-test

.venv/ready-%: locks/%.txt
	@sh pool/make_environment.sh $*

# Only wheels are used, since pip downloads the tools to build a package without
# checking their hashes. With "fewest", all Pythons get the same version if possible, so
# that it is the one that the tests use.
LOCK = .venv/bin/uv pip compile --quiet --no-config --universal --python-version 3.11 \
	--generate-hashes --only-binary :all: --emit-build-options --no-emit-index-url \
	--fork-strategy fewest --custom-compile-command 'make locks' $(UPGRADE) pyproject.toml

locks: .venv/ready-lock
	@for group in bench catalog conda demo lock scale test; do \
	    $(LOCK) --group $$group --output-file locks/$$group.txt || exit 1; \
	done
	@# An image is built from its folder, and the build cannot read other files.
	@$(LOCK) --group node --output-file container/requirements.txt

clean:
	rm -rf .venv demo-output .test-runs .mypy_cache .pytest_cache .ruff_cache
