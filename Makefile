# Everything from a bare machine with python3, make and git: `make repro` and `make test` do their own set-up.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Results are made by one-thread processes; figures are byte-stable only with a fixed date.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export SOURCE_DATE_EPOCH := 0

.PHONY: help setup demo small repro verify bench gpu test test-slurm slurm-packages lint lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready  ## make .venv with the exact packages of requirements.lock and this project

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lumix needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": set PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/[^\]$$/p' requirements.lock > $(VENV)/uv.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode requirements.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup  ## one table, one figure and the page, from nothing, in build/demo; about a minute
	rm -rf build/demo && mkdir -p build/demo
	tar -c --exclude=./{.git,.venv,.dvc/cache,.dvc/tmp,build,runs,results,measured} . | tar -x -C build/demo
	cd build/demo && export PYTHONPATH="$$PWD" && python -m experiments run lumix_table10_laws --seeds 3 \
	    && python paper_figures/execute.py lambda_laws \
	    && python -m report page
	@echo "The table above, build/demo/report/figures/lambda_laws.png and build/demo/report/index.html were made here"

small: setup  ## train the next blocks of scale small: photographs, hours, said before each; stops and goes on at any time
	python -m experiments run --scale small

repro: setup  ## train what is missing, redraw every table and figure, write the report
	@test -e .git || dvc config --local core.no_scm true
	@dvc repro --keep-going || { code=$$?; python -m report tables && python -m report page; \
	    echo "Not everything is finished, see above; $(CURDIR)/report/index.html holds what is"; exit $$code; }
	@python -m report readme
	@echo "The report is $(CURDIR)/report/index.html"

verify: setup  ## train what is missing, then say whether results/ is as committed: equal, within tolerance, or what differs
	@dvc repro --keep-going results && python -m experiments verify

bench: setup  ## speed beside the best peers and the floor of the machine; about 7 minutes
	python -m benchmarks
	python -m benchmarks page

gpu: setup  ## ten minutes on a GPU: its tests, rows of the bench, a run of scale lab stopped and resumed; build/gpu.json
	python -m benchmarks.gpu

test: setup  ## run the tests
	pytest

test-slurm: setup  ## the same experiments on a real one-node SLURM: faults, preemption, requeues; about 8 minutes
	pytest tests_slurm -n 0 -rs --durations=0

slurm-packages:  ## install Debian's SLURM for test-slurm, as root; a loud sentence where that cannot be done
	@.ci/slurm-packages

lint: setup  ## linter, formatter and type checker
	ruff check .
	ruff format --check .
	mypy

lock:  ## resolve pyproject.toml into requirements.lock anew
	$(BIN)/uv pip compile --quiet --generate-hashes --all-extras --universal --python-version 3.11 --no-header --no-annotate --upgrade pyproject.toml -o requirements.lock

clean:  ## remove what the pipeline made; trained runs stay in DVC's cache
	rm -rf runs report/*.html report/tables report/figures
